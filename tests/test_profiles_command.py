"""``governor profiles``: what was learnt can be seen, moved and dropped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_store import KEY, PROFILE

from governor.cli.main import main
from governor.profile import Entry, load
from governor.store import ProfileStore

BERT = replace(KEY, workload="bert")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "profiles.db"
    with ProfileStore(file) as store:
        store.save_all([Entry(KEY, PROFILE), Entry(BERT, PROFILE)])
    return file


def ids(file: Path) -> list[str]:
    with ProfileStore(file) as store:
        return [key.id for key, _ in store.entries()]


def run(file: Path, *words: str) -> int:
    return main(["profiles", *words, "--store", str(file)])


def test_a_list_names_every_profile(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(file, "list") == 0
    told = capsys.readouterr().out
    for key in (KEY, BERT):
        [line] = [line for line in told.splitlines() if key.id in line]
        assert key.workload in line


def test_an_empty_store_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "profiles.db", "list") == 0
    assert "No profiles" in capsys.readouterr().out


def test_a_profile_is_shown_by_how_its_id_begins(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(file, "show", KEY.id[:5]) == 0
    told = capsys.readouterr().out
    assert "yolov8n" in told
    assert "GPU 918 MHz" in told
    assert "bert" not in told


def test_what_is_exported_can_be_imported_elsewhere(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export, other = tmp_path / "export.json", tmp_path / "other.db"
    assert run(file, "export", "--output", str(export)) == 0
    assert run(other, "import", str(export)) == 0
    assert ids(other) == ids(file)
    assert run(file, "export", BERT.id) == 0
    assert [key for key, _ in load(capsys.readouterr().out.partition("\n")[2], "-")] == [BERT]


def test_only_what_is_named_is_forgotten(file: Path) -> None:
    assert run(file, "forget", BERT.id) == 0
    assert ids(file) == [KEY.id]
    assert run(file, "forget", "--all") == 0
    assert ids(file) == []


def test_a_wrong_import_changes_nothing(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    assert run(file, "export", "--output", str(good)) == 0
    assert run(file, "forget", "--all") == 0
    capsys.readouterr()
    document = json.loads(good.read_text())
    document["profiles"][1]["profile"]["trials"][0]["latency_s"] = -1
    bad.write_text(json.dumps(document))
    assert run(file, "import", str(good), str(bad)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "bad.json" in told
    assert "latency_s" in told
    assert ids(file) == []


@pytest.mark.parametrize(
    "words",
    [
        ["show"],
        ["show", "ffff"],
        ["forget"],
        ["forget", ""],
        ["import"],
        ["import", "missing"],
        ["x"],
    ],
)
def test_bad_usage_is_one_line_and_changes_nothing(
    file: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    before = ids(file)
    assert run(file, *words) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert ids(file) == before


def test_a_store_that_cannot_be_read_is_one_line(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(b"no database" * 1000)
    assert run(file, "list") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "give another path" in said
