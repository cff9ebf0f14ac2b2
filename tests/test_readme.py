"""What the README promises about itself; its Python blocks run as doctests."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlparse

import pytest

from governor.cli.main import command_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SETUP = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_two_commands_of_one_line_set_everything_up() -> None:
    assert len(SETUP) == 2
    assert all(block.count("\n") == 1 for block in SETUP)


def test_the_first_command_runs_the_demo_and_the_second_the_tests() -> None:
    run_it, test_it = SETUP
    assert run_it.rstrip().endswith("governor demo")
    assert test_it.rstrip().endswith("pytest")


@pytest.mark.parametrize(
    "document",
    [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda one: one.name,
)
def test_every_local_link_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", document.read_text())
    local = [target for target in targets if not urlparse(target).scheme]
    assert [target for target in local if not (document.parent / target).exists()] == []


def test_every_document_is_linked_from_somewhere() -> None:
    documents = sorted((ROOT / "docs").glob("*.md"))
    text = README + "".join(document.read_text() for document in documents)
    assert [one.name for one in documents if f"{one.name})" not in text] == []


def test_every_command_that_is_shown_exists() -> None:
    shown = set(re.findall(r"^\$ governor ([a-z]+)", README, re.MULTILINE))
    assert shown
    assert shown <= set(command_names())
