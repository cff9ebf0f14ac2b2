"""Progress of long work: a bar on a terminal, lines on a simple one, and nothing elsewhere."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

import pytest

from governor import progress as module
from governor.progress import progress, with_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_results_come_as_they_are_and_a_terminal_shows_how_many(terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        assert list(with_progress(iter("abcd"), 4, "Spelling", still=True)) == list("abcd")
    assert "Spelling" in terminal.getvalue()
    assert "75%" in terminal.getvalue()


def test_work_of_unknown_length_is_shown_too(terminal: Terminal) -> None:
    with redirect_stderr(terminal), progress("Counting", None):
        pass
    assert "Counting" in terminal.getvalue()


def test_a_terminal_that_cannot_draw_gets_lines(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(module, "LINE_S", 0.0)
    with redirect_stderr(terminal), progress("Soaking", 60.0) as tell:
        tell(15.0)
    assert terminal.getvalue() == "Soaking ...\nSoaking: 25 %, 0:00:00 left\n"


def test_a_pipe_is_told_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(with_progress(range(3), 3, "Counting")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
