"""Which Jetson this is, and what is known of its kind. Standard library only.

A board is told by its module number in the device tree (``p3767-0005`` is an Orin Nano): the
model string differs by image, and ``/etc/nv_tegra_release`` names the chip wrongly on Xavier.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from governor.lease.kernel_files import exists, text_if_there

_FACTS = Path(__file__).with_name("jetson_boards.json")
_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: ([\d.]+)")
_DEVICE_TREES = ("proc/device-tree", "sys/firmware/devicetree/base")


class Board(NamedTuple):
    """What is known of one kind of board.

    Attributes:
        name: short, such as ``agx-orin``.
        title: for people.
        soc: such as ``tegra234``.
        emc: ways to set the memory clock, the preferred one first.
        emc_hz: memory clocks, for kernels that list none.
        rails: labels by I2C chip (``1-0040``) and channel.
        total: labels of the rails that together are the total; empty: not known.
        total_covers: what that total is the power of.
        feeds: what a rail feeds, by label.
        inside: the rail that already counts another one, by the other's label.
    """

    name: str
    title: str
    soc: str
    emc: tuple[str, ...] = ("bpmp", "bwmgr", "cap")
    emc_hz: tuple[float, ...] = ()
    rails: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    total: tuple[str, ...] = ()
    total_covers: str = ""
    feeds: Mapping[str, str] = MappingProxyType({})
    inside: Mapping[str, str] = MappingProxyType({})


@cache
def _known() -> dict[str, tuple[Board, tuple[str, ...]]]:
    """Every known board, and the module numbers that tell it, by name."""
    facts = cast(dict[str, Any], json.loads(_FACTS.read_text(encoding="utf-8")))
    return {name: (_board(name, each), tuple(each["modules"])) for name, each in
            cast(dict[str, dict[str, Any]], facts["boards"]).items()}  # fmt: skip


def _board(name: str, facts: dict[str, Any]) -> Board:
    return Board(
        name=name,
        title=facts["title"],
        soc=facts["soc"],
        emc=tuple(facts["emc"]),
        emc_hz=tuple(1e3 * khz for khz in facts["emc_khz"]),
        rails={chip: tuple(labels) for chip, labels in facts["rails"].items()},
        total=tuple(facts["total"]),
        total_covers=facts["total_covers"],
        feeds=facts["feeds"],
        inside=facts["inside"],
    )


def boards() -> tuple[Board, ...]:
    """Every board that is known."""
    return tuple(board for board, _ in _known().values())


def compatible(root: Path) -> tuple[str, ...]:
    """The device tree's ``compatible`` strings, most special first; empty without a tree."""
    found = (strings(root / tree / "compatible") for tree in _DEVICE_TREES)
    return next(filter(None, found), ())


def strings(path: Path) -> tuple[str, ...]:
    """The NUL-separated strings of a device tree property; none if it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return ()
    names = content.decode(errors="replace").split("\0")
    return tuple(name.strip() for name in names if name.strip())


def identify(root: Path = Path("/")) -> Board | None:
    """The board whose files are under ``root``; None: it is no Jetson.

    A Jetson that is not known has its chip's name and no declared total.
    """
    names = compatible(root)
    best = max(
        (
            (len(module), board)
            for board, modules in _known().values()
            for module in modules
            for part in _parts(names)
            if part.startswith(module)
        ),
        key=lambda match: match[0],
        default=None,
    )
    if best is not None:
        return best[1]
    for name in names:
        if name.startswith("nvidia,tegra"):
            soc = name.removeprefix("nvidia,")
            return Board(soc, f"Jetson of an unknown kind ({names[0]})", soc)
    return None


def _parts(names: tuple[str, ...]) -> Iterator[str]:
    """``nvidia,p3768-0000+p3767-0005-super`` holds the carrier's number and the module's."""
    for name in names:
        if name.startswith("nvidia,"):
            yield from name.removeprefix("nvidia,").split("+")


def why_no_jetson(root: Path = Path("/")) -> str:
    """Why :func:`identify` found nothing, in a clause."""
    names = compatible(root)
    tree = root / _DEVICE_TREES[0] / "compatible"
    if names:
        return f"this is no Jetson, {tree} names {names[0]}"
    if exists(root / "etc/nv_tegra_release") or exists(root / "sys/module/tegra_fuse"):
        return (
            f"this looks like a Jetson whose device tree is hidden, {tree} cannot be read; "
            "start the container with -v /proc/device-tree:/proc/device-tree:ro "
            "--security-opt systempaths=unconfined"
        )
    return f"this is no Jetson, {tree} cannot be read"


def model(root: Path = Path("/")) -> str:
    """The device tree's model string; empty if there is none."""
    return next(filter(None, (text_if_there(root / tree / "model") for tree in _DEVICE_TREES)), "")


def l4t(root: Path = Path("/")) -> str:
    """The release of Jetson Linux, such as ``36.4.3``; empty if it cannot be told."""
    match = _RELEASE.search(text_if_there(root / "etc/nv_tegra_release"))
    return f"{match[1]}.{match[2]}" if match is not None else _packaged_l4t(root)


def _packaged_l4t(root: Path) -> str:
    """The version of the package ``nvidia-l4t-core``, where the release file is missing."""
    try:
        status = (root / "var/lib/dpkg/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(
        r"^Package: nvidia-l4t-core\n(?:\S.*\n|\s.*\n)*?Version: ([\d.]+)", status, re.M
    )
    return found.group(1) if found else ""


def is_emulated(root: Path) -> bool:
    """Whether ``root`` holds anything but a kernel's own sysfs: then nothing in it is hardware."""
    if root == Path("/"):
        return False
    sysfs = os.path.realpath(root / "sys")
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    kinds = [line.split()[1:3] for line in mounts.splitlines() if len(line.split()) > 2]
    holding = [
        (len(point), kind)
        for point, kind in kinds
        if sysfs == point or sysfs.startswith(point.rstrip("/") + "/")
    ]
    return not holding or max(holding)[1] != "sysfs"
