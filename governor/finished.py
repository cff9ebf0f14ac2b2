"""Results of finished tasks kept in a file, so that a command that was killed goes on from there.

JSON lines: first the settings that all results are of, then ``[task, result]`` for each of them.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from governor.errors import InputError

T = TypeVar("T")
R = TypeVar("R")

FORMAT = "governor finished 1"
SYNC_S = 1.0
"""A killed process loses no line; a power cut loses those of the last second."""

_HEADER = TypeAdapter(tuple[str, dict[str, str]])


def resumed(
    file: FinishedFile[R],
    tasks: Sequence[T],
    work: Callable[[Sequence[T]], Iterable[R]],
    first: int = 0,
) -> Iterator[R]:
    """The result of each task, in order: from the file, or made by ``work`` and put there.

    Args:
        work: given the tasks that are left, answers in their order.
        first: the number of the first task.
    """
    numbered = dict(enumerate(tasks, first))
    fresh = iter(work([task for number, task in numbered.items() if number not in file.results]))
    for number in numbered:
        if number not in file.results:
            file.keep(number, next(fresh))
        yield file.results[number]


class FinishedFile(Generic[R]):
    """A file of results; one process at a time has it open.

    Attributes:
        results: by the number of their task.
    """

    def __init__(self, path: Path, settings: Mapping[str, str], kind: type[R]) -> None:
        """Opens the file, or makes it.

        Args:
            path: of the file.
            settings: all that a result depends on, by its name for people.
            kind: the dataclass of a result.

        Raises:
            InputError: this is no such file, it has results of other settings, or is in use.
        """
        self.results: dict[int, R] = {}
        self._path = path
        line: Any = tuple.__class_getitem__((int, kind))
        self._lines: TypeAdapter[tuple[int, R]] = TypeAdapter(
            line, config={"ser_json_inf_nan": "strings"}
        )
        self._synced_s = time.monotonic()
        self._file = _open(path)
        try:
            self._read(dict(settings))
        except BaseException:
            os.close(self._file)
            raise

    def keep(self, number: int, result: R) -> None:
        """Add the result of that task.

        Raises:
            OSError: it cannot be written.
        """
        self.results[number] = result
        self._append(self._lines.dump_json((number, result)))
        if time.monotonic() > self._synced_s + SYNC_S:
            self._sync()

    def close(self) -> None:
        """Bring everything to the disk."""
        self._sync()
        os.close(self._file)

    def __enter__(self) -> FinishedFile[R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, settings: dict[str, str]) -> None:
        with os.fdopen(os.dup(self._file), "rb") as file:
            lines = file.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):  # its writer was killed in the middle
            os.ftruncate(self._file, sum(map(len, lines[:-1])))
            lines.pop()
        if not lines:
            self._append(_HEADER.dump_json((FORMAT, settings)))
            return
        self._check(lines[0], settings)
        for number, line in enumerate(lines[1:], start=2):
            try:
                task, result = self._lines.validate_json(line)
            except ValidationError as error:
                raise InputError(
                    f"{self._path}, line {number}: is no result; delete that line"
                ) from error
            self.results[task] = result

    def _check(self, line: bytes, settings: dict[str, str]) -> None:
        try:
            form, found = _HEADER.validate_json(line)
        except ValidationError:
            form, found = "", {}
        if form != FORMAT:
            raise InputError(f"{self._path} is no file of finished runs; give another name")
        for name in settings.keys() | found.keys():
            was, wanted = found.get(name, "none"), settings.get(name, "none")
            if was != wanted:
                raise InputError(
                    f"{self._path} has runs of other settings ({name} {was}, not {wanted}); "
                    "give another file, or the settings it was begun with"
                )

    def _append(self, line: bytes) -> None:
        # One write a line: whoever is killed leaves whole lines, and one torn line at the most.
        line += b"\n"
        if os.write(self._file, line) < len(line):
            raise OSError(f"{self._path} cannot be written: the disk is full")

    def _sync(self) -> None:
        os.fsync(self._file)
        self._synced_s = time.monotonic()


def _open(path: Path) -> int:
    try:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror})") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise InputError(f"{path} is in use by another process; wait for it") from error
    return file
