"""What was asked of the device, and what the device, or someone else, has made of it."""

from __future__ import annotations

from typing import Literal

from governor.space import OperatingPoint, Space

Finding = Literal[
    "ours",  # as it was read back
    "uncapped",  # the board no longer caps what was asked for
    "capped",  # the board, throttling, holds a knob below what was asked for
    "foreign",  # somebody else's hand
]


class Setting:
    """The target, and what was read back of it.

    Attributes:
        target: what should be set now; None: nothing of ours.
        read: what was read back last, None: nothing yet.
        capped: the board holds a knob below it.
    """

    def __init__(self, space: Space) -> None:
        self.target: OperatingPoint | None = None
        self.capped = False
        self._space = space
        self.read: OperatingPoint | None = None

    def move(self, space: Space) -> None:
        """Other settings from now on."""
        self._space = space

    def ask_for(self, target: OperatingPoint | None) -> None:
        """This is to be set; nothing is known of it yet."""
        self.target = target
        self.capped = False
        self.read = None

    def read_back(self, actual: OperatingPoint | None) -> None:
        """It is in force; where the board rounded it up to a setting, that is the target."""
        self.read = actual
        self.capped = actual is not None and self._lowers(actual)
        if actual is None or self.target is None or self.capped:
            return
        rounded = OperatingPoint({**self.target, **actual})
        if rounded in self._space:
            self.target = rounded

    def find(self, seen: OperatingPoint | None, throttling: bool) -> Finding:
        """Whose hand ``seen`` shows; ``throttling``: the board does throttle now."""
        target, read = self.target, self.read
        if seen is None or target is None or read is None or seen == read:
            return "ours"
        if all(target[name] == value for name, value in seen.items()):
            self.read = seen
            self.capped = False
            return "uncapped"
        if throttling and self._lowers(seen):
            self.read = seen
            self.capped = True
            return "capped"
        return "foreign"

    def changed(self, seen: OperatingPoint) -> list[str]:
        """The knobs that are not as they were read back."""
        read = self.read or OperatingPoint({})
        return [name for name, value in read.items() if seen.get(name) != value]

    def _lowers(self, seen: OperatingPoint) -> bool:
        target = self.target
        if target is None:
            return False
        return any(value < target.get(name, value) for name, value in seen.items())
