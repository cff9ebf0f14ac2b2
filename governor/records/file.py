"""An append-only file of lines, written by a thread of its own: a slow disk keeps nobody."""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import threading
from contextlib import suppress
from pathlib import Path

MOST_WAITING = 10_000
"""So many lines wait for a disk that hangs; later ones are lost."""
PATIENCE_S = 5.0
"""So long the end waits for the disk."""

MARK = b'"record": "'
"""Is in every line; a file whose first has none is somebody else's, and is left as it is."""
LONGEST_LINE = 1_000_000

logger = logging.getLogger("governor")


class LineFile:
    """Appends whole lines; what cannot be written is counted, logged once, and never raised.

    Every line is handed to the kernel at once, so that it outlives this process, however that
    ends. One writer a file: a second one is refused.

    Attributes:
        errors: lines that could not be written.
    """

    def __init__(self, path: Path) -> None:
        """Opens ``path`` and begins to write."""
        self.errors = 0
        self._path = path
        self._lines: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._file = -1
        try:
            self._file = _open(path)
        except OSError as error:
            self._failed(error)
        self._thread = threading.Thread(target=self._run, name="governor record", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Let ``line`` be written soon; does not wait."""
        try:
            self._lines.put_nowait(line.encode() + b"\n")
        except queue.Full:
            self._failed(OSError("the disk hangs"))

    def close(self) -> None:
        """Wait until everything is written, but not for a disk that hangs."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        if self._thread is not threading.current_thread():
            self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            self._write(line)
        if self._file >= 0:
            os.close(self._file)

    def _write(self, line: bytes) -> None:
        if self._file < 0:
            self.errors += 1
            return
        try:
            written = os.write(self._file, line)
            if written < len(line):  # a disk that is nearly full: better none of it
                with suppress(OSError):
                    os.ftruncate(self._file, os.fstat(self._file).st_size - written)
                self._failed(OSError("the disk is full"))
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        self.errors += 1
        if self.errors == 1:
            problem = error.strerror or error
            logger.warning(
                "the run record %s cannot be written (%s); governing goes on without it",
                self._path, problem,
            )  # fmt: skip


def is_foreign(path: Path) -> bool:
    """Whether this is a file with something in it that is no run record.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline(LONGEST_LINE)
    return first != b"" and MARK not in first


def _open(path: Path) -> int:
    """For appending, locked, at the beginning of a line: a crash may have left half a one."""
    if is_foreign(path):
        raise OSError("it holds something else; give another file")
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError("another governor writes it; give each its own file") from None
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            os.write(file, b"\n")
    except OSError:
        os.close(file)
        raise
    return file
