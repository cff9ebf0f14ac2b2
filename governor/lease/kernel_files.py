"""Read and write files of the kernel (sysfs, debugfs, the device tree). Standard library only.

Such a file may end in a NUL or be empty, may answer EAGAIN while its block is powered off
(which a buffered text read would turn into a ``TypeError``), and may vanish (ENODEV).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

MOST_BYTES = 65536
"""More than any attribute holds: sysfs gives one page, debugfs tables a few."""

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_COUNT = re.compile(r"[0-9]{1,20}")


def read_text(path: Path) -> str:
    """The file's text without NULs and without white space at its ends.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return clean(os.read(descriptor, MOST_BYTES))
    finally:
        os.close(descriptor)


def text_if_there(path: Path) -> str:
    """As :func:`read_text`; empty if it cannot be read."""
    try:
        return read_text(path)
    except OSError:
        return ""


def clean(content: bytes) -> str:
    """The text in what a kernel file holds."""
    return content.decode(errors="replace").replace("\0", "").strip()


def number(text: str, path: Path) -> float:
    """The number that ``text``, read from ``path``, begins with; ``32760 ma`` is 32760.

    Raises:
        ValueError: it begins with none.
    """
    match = _NUMBER.match(text)
    if match is None:
        raise ValueError(f"{path} holds {text[:40]!r} and no number")
    return float(match.group())


def read_number(path: Path) -> float:
    """The number that the file begins with.

    Raises:
        OSError: it cannot be read.
        ValueError: it begins with no number.
    """
    return number(read_text(path), path)


def read_count(path: Path) -> int:
    """The whole number, at most one of 64 bits, that is all that the file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else.
    """
    text = read_text(path)
    if not _COUNT.fullmatch(text):
        raise ValueError(f"{path} holds {text[:40]!r} and no count")
    return int(text)


def read_numbers(path: Path) -> tuple[float, ...]:
    """All numbers in the file, ascending; none if it cannot be read."""
    words = text_if_there(path).split()
    return tuple(sorted({float(word) for word in words if _NUMBER.fullmatch(word)}))


def write_text(path: Path, text: str) -> None:
    """Write ``text`` into a file that exists.

    Raises:
        OSError: the kernel refused, or there is no such file.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def exists(path: Path) -> bool:
    """Whether the file is there, as far as this process may see."""
    return os.path.exists(path)  # Path.exists raises for a folder that may not be searched
