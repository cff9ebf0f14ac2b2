"""What every knob held before the first write, kept where a crash does not reach it.

The journal is written and synced to a new file, which then takes the old one's name. So it
is there whole before any knob is written, and a write that was torn was of a file that
nobody reads. What it holds is void after a reboot: the kernel then starts with its own
clocks, and the boot's id in the journal tells.
"""

from __future__ import annotations

import binascii
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from governor.lease.control import Snapshot
from governor.lease.errors import JournalDamagedError, LeaseError

FORMAT = 1
RUN = Path("/run/energy-governor")


class Record(NamedTuple):
    """What is needed to put everything back.

    Attributes:
        boot_id: of the boot in which it was taken.
        root: of the files it speaks of.
        hardware: what the backends found there.
        holder: who changed the knobs, for people.
        snapshots: by knob.
        written: the knobs that may have been set since, the only ones to put back; None in the
            journal of an earlier version: all.
    """

    boot_id: str
    root: str
    hardware: list[str]
    holder: str
    snapshots: dict[str, Snapshot]
    written: list[str] | None = None

    @property
    def of_this_boot(self) -> bool:
        """Whether what it holds may still be set."""
        return self.boot_id == boot_id()


def boot_id() -> str:
    """The kernel's name for this boot; random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def default_folder(root: Path) -> Path:
    """Where journal and lock of the hardware under ``root`` lie by default.

    Those of the live machine, which only root can set, in ``/run/energy-governor``; any other
    root has a folder of its own, in there or, for a user, in their own runtime folder.
    """
    if root.resolve() == Path("/"):
        return RUN
    if os.geteuid() == 0:
        base = RUN
    elif os.path.isabs(os.environ.get("XDG_RUNTIME_DIR", "")):
        base = Path(os.environ["XDG_RUNTIME_DIR"]) / RUN.name
    else:
        base = Path.home() / ".cache" / RUN.name
    return base / f"root-{binascii.crc32(os.fsencode(root.resolve())):08x}"


def make_folder(folder: Path) -> None:
    """Make the journal's folder; all may read there, its owner alone may write.

    Raises:
        LeaseError: it cannot be made, or others may write in it.
    """
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        state = folder.stat()
    except OSError as error:
        raise LeaseError(f"no folder for the journal: {error}; name another one") from None
    if state.st_uid not in (0, os.geteuid()) or state.st_mode & 0o022:
        raise LeaseError(
            f"others may write in {folder}, which would let them set this machine's clocks: "
            f"chmod 755 {folder}, and own it"
        )


class Journal:
    """One record in one file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.json"
        self._new = folder / "journal.json.new"

    def write(self, record: Record) -> None:
        """Keep the record; when this returns it is there, whole.

        Raises:
            OSError: it could not be written; a record from before is still there.
        """
        body = json.dumps(record._asdict()).encode()
        head = json.dumps({"format": FORMAT, "crc32": binascii.crc32(body)}).encode()
        with open(self._new, "wb") as file:
            file.write(head + b"\n" + body + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(self._new, self.path)
        self._sync_folder()

    def read(self) -> Record | None:
        """The record; None when there is none.

        Raises:
            JournalDamagedError: there is something, and it is no record.
            OSError: the file cannot be read.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        head, _, body = content.partition(b"\n")
        try:
            facts = json.loads(head)
            if facts["format"] != FORMAT or facts["crc32"] != binascii.crc32(body.rstrip(b"\n")):
                raise ValueError("checksum or format")
            return _checked(Record(**json.loads(body)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise JournalDamagedError(
                f"the journal {self.path} is damaged, so what the knobs held is not known: "
                "restart the machine to have its own settings back, or delete that file if "
                "they are right"
            ) from None

    def clear(self) -> None:
        """Forget the record: everything is back."""
        with suppress(FileNotFoundError):  # someone may have removed the folder
            self.path.unlink()
            self._sync_folder()

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _checked(record: Record) -> Record:
    """The record, if it is shaped like one: another program's may have a right checksum, too.

    Raises:
        TypeError, AttributeError: it is not.
    """
    texts: list[object] = [record.boot_id, record.root, record.holder]
    texts += [*record.hardware, *(record.written or ())]
    for knob, saved in record.snapshots.items():
        texts += [knob, *saved.keys(), *saved.values()]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a journal holds text")
    return record
