"""Reads run records, those of runs that still go on or have crashed among them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from governor.errors import InputError
from governor.records.lines import FORMAT, DecisionLine, End, Header, Line, TrialLine, WindowLine

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError


@dataclass(slots=True)
class Run:
    """One run, as far as it was written.

    Attributes:
        end: None while it goes on, or where it crashed.
        torn: its last line is half a line, as a crash leaves it.
    """

    header: Header
    trials: list[TrialLine] = field(default_factory=list[TrialLine])
    decisions: list[DecisionLine] = field(default_factory=list[DecisionLine])
    windows: list[WindowLine] = field(default_factory=list[WindowLine])
    end: End | None = None
    torn: bool = False

    @property
    def slo_s(self) -> float | None:
        """The bound in seconds, None where a relative one was never resolved."""
        known = [line.slo_s for line in (*self.decisions, *self.windows[-1:]) if line.slo_s]
        return known[-1] if known else self.header.slo_s

    @property
    def baseline(self) -> TrialLine | None:
        """The latest trial under the system's own governors."""
        return next((each for each in reversed(self.trials) if each.role == "baseline"), None)

    @property
    def searched(self) -> list[TrialLine]:
        """The trials that a policy was told of, in order."""
        return [each for each in self.trials if each.role == "search"]

    def add(self, line: TrialLine | DecisionLine | WindowLine | End) -> None:
        """The next line."""
        match line:
            case TrialLine():
                self.trials.append(line)
            case DecisionLine():
                self.decisions.append(line)
            case WindowLine():
                self.windows.append(line)
            case End():
                self.end = line


class RunFile:
    """A run record that is read as it grows.

    Attributes:
        runs: those in the file so far, in order.
    """

    def __init__(self, path: Path) -> None:
        self.runs: list[Run] = []
        self._path = path
        self._offset = self._number = 0
        self._rest = b""
        self._broken: InputError | None = None

    def read(self) -> None:
        """Take note of what was appended since the last call.

        Raises:
            InputError: the file cannot be read, or a line is not one of a run record; names both.
        """
        try:
            with self._path.open("rb") as file:
                if self._path.stat().st_size < self._offset:  # emptied, as by logrotate
                    self.__init__(self._path)
                file.seek(self._offset)
                new = file.read()
        except OSError as error:
            raise InputError(
                f"{self._path}: cannot be read ({error.strerror or error}); "
                "give the path of a run record"
            ) from error
        self._offset += len(new)
        *whole, self._rest = (self._rest + new).split(b"\n")
        for line in whole:
            self._number += 1
            if line.strip():
                self._take(line)
        if self.runs:
            self.runs[-1].torn = self._broken is not None or bool(self._rest)

    def _take(self, text: bytes) -> None:
        """A line that is no JSON may end a crashed run, whose next line is another header."""
        line = self._parse(text)
        if isinstance(line, InputError):
            if self._broken is not None:
                raise self._broken
            self._broken = line
            return
        if self._broken is not None and not isinstance(line, Header):
            raise self._broken
        if isinstance(line, Header):
            if self.runs and self._broken is not None:
                self.runs[-1].torn = True
            self._broken = None
            self.runs.append(Run(line))
        elif not self.runs:
            raise self._error("comes before any header; give a run record from its beginning")
        else:
            self.runs[-1].add(line)

    def _parse(self, text: bytes) -> Line | InputError:
        """The line, or what is wrong with one that is no JSON at all."""
        from pydantic import ValidationError

        try:
            line = _lines().validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            if first["type"] == "json_invalid":
                return self._error("is not JSON; give a run record, such as --record writes")
            raise self._error(_problem(error)) from error
        if isinstance(line, Header) and line.format != FORMAT:
            raise self._error(
                f"has format {line.format}, and this version reads format {FORMAT}; "
                f"read it with energy-governor {line.version}"
            )
        return line

    def _error(self, problem: str) -> InputError:
        return InputError(f"{self._path}, line {self._number}: {problem}")


def read_run(path: Path) -> Run:
    """The latest run in a file.

    Raises:
        InputError: the file cannot be read, holds no run, or a line is not one of a run record.
    """
    file = RunFile(path)
    file.read()
    if not file.runs:
        raise InputError(f"{path}: holds no run; give a file that --record or record= wrote")
    return file.runs[-1]


@cache
def _lines() -> TypeAdapter[Line]:
    from typing import Annotated

    from pydantic import Field, TypeAdapter

    return TypeAdapter(Annotated[Line, Field(discriminator="record")])


def _problem(error: ValidationError) -> str:
    """The first thing that is wrong with a line, and where in it."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(each) for each in first["loc"][1:])
    said = first["msg"][0].lower() + first["msg"][1:]
    return f"{where + ': ' if where else ''}{said}; give a run record, such as --record writes"
