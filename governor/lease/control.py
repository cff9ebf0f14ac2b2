"""What the lease keeper can set: one control a knob. Standard library only.

A control knows its kernel files, the order in which they must be written and how to put
them back. Neither a path nor a file's content ever comes from a client: a client names a
knob and a level, and the keeper looks both up here.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

Snapshot = dict[str, str]
"""A control's files and what they held, as text; only the control that made it reads it."""
PINNED = "pinned"
"""The key in a snapshot of what :meth:`Watchful.heed` has noted. Without it, all is put back."""


class Control(Protocol):
    """One knob that can be set live, with all the files behind it."""

    @property
    def name(self) -> str:
        """The knob's name, such as ``gpu_hz``."""
        ...

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels that may be set now, ascending, in the unit that the name ends in."""
        ...

    def read(self) -> float:
        """The level in force, read from the kernel.

        Raises:
            OSError: it cannot be read.
            ValueError: the file holds no number.
        """
        ...

    def write(self, level: float) -> None:
        """Pin the knob to ``level``, writing its files in the right order.

        Raises:
            OSError: the kernel refused.
        """
        ...

    def snapshot(self) -> Snapshot:
        """What :meth:`restore` needs to put everything back as it is now.

        Raises:
            OSError: a file that would be written cannot be read.
        """
        ...

    def restore(self, snapshot: Snapshot) -> None:
        """Put every file back, in an order that the kernel takes whatever is set now.

        Raises:
            OSError: a file could not be put back; all the others were.
        """
        ...


@runtime_checkable
class Watchful(Protocol):
    """A control that tells what others have set since from what the lease has."""

    def heed(self, snapshot: Snapshot, level: float) -> Snapshot:
        """What to keep before ``level`` is written: what others have set takes the place of
        what was found, and the level is noted as ours.

        Raises:
            OSError: a file cannot be read.
            ValueError: others have set a limit below ``level``.
        """
        ...


class Sleeper(Protocol):
    """What keeps hardware asleep so deep that it cannot be found. No knob; put back as one."""

    @property
    def name(self) -> str:
        """Of it in the journal."""
        ...

    def asleep(self) -> bool:
        """Whether the hardware is missing."""
        ...

    def snapshot(self) -> Snapshot:
        """See :meth:`Control.snapshot`."""
        ...

    def wake(self) -> None:
        """Let the hardware appear.

        Raises:
            OSError: the kernel refused.
        """
        ...

    def restore(self, snapshot: Snapshot) -> None:
        """See :meth:`Control.restore`."""
        ...


class Hardware(NamedTuple):
    """What one backend found to set on this machine.

    Attributes:
        name: of the board or the machine, such as ``agx-orin``.
        controls: in the order in which they are to be written.
        claims: knobs that no other backend is to offer here, also where this one cannot for
            now: what one way of setting a clock has saved, another cannot put back.
    """

    name: str
    controls: tuple[Control, ...]
    claims: tuple[str, ...] = ()
