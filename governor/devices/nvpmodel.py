"""The present power mode of a Jetson, read from ``nvpmodel``'s own files; nothing is run.

Its caps are not taken from here but from the limits that the kernel really holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from governor.lease.kernel_files import text_if_there

STATUS = "var/lib/nvpmodel/status"
CONFIGURATION = "etc/nvpmodel.conf"
_MODE = re.compile(r"pmode:\s*(\d+)")
_MODEL = re.compile(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", re.MULTILINE)


@dataclass(frozen=True)
class PowerMode:
    """A mode by its number and name; the name is empty where the configuration has none."""

    id: int
    name: str

    def __str__(self) -> str:
        return f"{self.id} ({self.name})" if self.name else str(self.id)


def present_mode(root: Path) -> PowerMode | None:
    """The mode that was set last, None if it cannot be told."""
    match = _MODE.search(text_if_there(root / STATUS))
    if match is None:
        return None
    number = int(match[1])
    names = {int(id): name for id, name in _MODEL.findall(text_if_there(root / CONFIGURATION))}
    return PowerMode(number, names.get(number, ""))
