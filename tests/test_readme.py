"""What the README promises about itself; its Python blocks run as doctests."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse

import pytest

from governor.cli.main import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SETUP = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_two_commands_of_one_line_set_everything_up() -> None:
    assert len(SETUP) == 2
    assert all(block.count("\n") == 1 for block in SETUP)


def test_the_first_command_runs_the_demo_and_the_second_the_tests() -> None:
    run_it, test_it = SETUP
    assert run_it.rstrip().endswith("governor demo")
    assert test_it.rstrip().endswith("pytest")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: one.name)
def test_every_local_link_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", document.read_text())
    local = [target for target in targets if not urlparse(target).scheme]
    assert [target for target in local if not (document.parent / target).exists()] == []


def test_every_document_is_linked_from_somewhere() -> None:
    text = "".join(document.read_text() for document in DOCUMENTS)
    assert [one.name for one in DOCUMENTS[1:] if f"{one.name})" not in text] == []


def shown_commands() -> dict[str, set[str]]:
    """Every command that a document shows, and the options that it is shown with."""
    shown: dict[str, set[str]] = {}
    for document in DOCUMENTS:
        text = document.read_text().replace("\\\n", " ")
        for line in re.findall(r"(?:^[$ ]*|`)governor ([a-z][^`\n]*)", text, re.MULTILINE):
            ours = re.split(r" -- | *[#|]", line)[0].split()
            options = {word for word in ours if re.fullmatch(r"--?[a-z][a-z-]*", word)}
            command = ours[0] if ours[0] != "bench" else " ".join(ours[:2])
            shown[command] = shown.get(command, set()) | options
    return shown


@pytest.mark.parametrize(("command", "options"), sorted(shown_commands().items()))
def test_every_command_that_is_shown_exists_with_its_options(
    command: str, options: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(SystemExit):
        main([*command.split(), "--help"])
    told = capsys.readouterr().out
    assert "Usage: " in told
    assert options <= set(re.findall(r"--?[a-z][a-z-]*", told))


def test_what_the_documents_import_is_there() -> None:
    blocks = [
        block
        for document in DOCUMENTS
        for block in re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)
    ]
    imports = {
        line.removeprefix(">>> ")
        for block in blocks
        for line in re.findall(r"^(?:>>> )?from governor.*", block, re.MULTILINE)
        if "governor_client" not in line
    }
    assert len(imports) > 5
    for line in imports:
        exec(line, {})
