"""NVIDIA GPUs: locked clocks and the power limit, through NVML. Standard library only.

The driver has no way to read which clocks are locked: what can be read is the clock that
the GPU runs at. So :meth:`Control.read` gives the level nearest to that clock, and
:meth:`Control.restore` unlocks the clock, whatever lock was there before; it is called only
for a clock that a lease wrote. Locks vanish by themselves when the driver is unloaded and at
every boot.
Functions and their numbers: NVIDIA's NVML API reference and its ``nvml.h``.
"""

from __future__ import annotations

import ctypes
import errno
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from governor.lease.control import Control, Hardware, Snapshot
from governor.lease.jetson_board import identify

LIBRARY = "libnvidia-ml.so.1"
MOST_CLOCKS = 32
"""GPUs list 100 and more clocks 15 MHz apart; more than this many tell nothing more."""
POWER_LIMITS = 8
SETTLE_S = 0.5
"""For so long after a lock the clock may still be on its way. Not measured: a cautious guess."""

_GRAPHICS_CLOCK, _MEMORY_CLOCK = 0, 2
_GPU_IDLE = 1
"""The clocks event reason of a GPU that has nothing to do."""
_VOLTA, _AMPERE = 5, 7
"""The first architectures whose GPU clocks, and whose memory clocks, can be locked."""
_ERRNO = {
    2: errno.EINVAL,
    3: errno.EOPNOTSUPP,
    4: errno.EPERM,
    6: errno.ENODEV,
    15: errno.ENODEV,  # the GPU fell off the bus
    19: errno.EBUSY,
}


class Nvml:
    """The library, loaded and initialised; every failed call is an OSError that names it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.call("nvmlInit_v2")

    def call(self, function: str, *arguments: object) -> None:
        """Call one function by its name.

        Raises:
            OSError: it answered with an error, or this driver does not have it.
        """
        try:
            code = getattr(self._library, function)(*arguments)
        except AttributeError:
            raise OSError(errno.ENOSYS, f"this driver's NVML has no {function}") from None
        if code:
            raise OSError(_ERRNO.get(code, errno.EIO), f"{function}: {self._error_text(code)}")

    def number(self, function: str, *arguments: object) -> int:
        """What a function writes to its last argument, an ``unsigned int *``."""
        value = ctypes.c_uint()
        self.call(function, *arguments, ctypes.byref(value))
        return value.value

    def numbers(self, function: str, *arguments: object) -> list[int]:
        """What a function writes to an array, whose length and address come last, ascending.

        Raises:
            OSError: it failed, or wrote nothing.
        """
        count = ctypes.c_uint(1024)  # the longest list seen is some 200
        values = (ctypes.c_uint * count.value)()
        self.call(function, *arguments, ctypes.byref(count), values)
        if not count.value:
            raise OSError(errno.EOPNOTSUPP, f"{function} lists nothing")
        return sorted(set(values[: count.value]))

    def text(self, function: str, handle: ctypes.c_void_p) -> str:
        """What a function writes to a buffer, whose address and length come last."""
        buffer = ctypes.create_string_buffer(96)
        self.call(function, handle, buffer, ctypes.c_uint(len(buffer)))
        return buffer.value.decode(errors="replace")

    def handle(self, index: int) -> ctypes.c_void_p:
        """The GPU with that index, in the order of the PCI bus."""
        handle = ctypes.c_void_p()
        self.call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    def _error_text(self, code: int) -> str:
        describe = self._library.nvmlErrorString
        describe.restype = ctypes.c_char_p
        return describe(code).decode(errors="replace")


class Gpu(NamedTuple):
    """One GPU, and what can be set on it.

    Attributes:
        place: in the order of the PCI bus.
        uuid: ``GPU-`` and a number that stays with the card.
        name: such as ``NVIDIA H200``.
        controls: by the knob's name without the GPU: ``gpu_hz``, ``emc_hz``, ``power_limit_w``.
        refused: by the same names, why a knob is not there.
    """

    place: int
    uuid: str
    name: str
    controls: dict[str, Control]
    refused: dict[str, str]


def find(root: Path) -> Hardware | None:
    """The knobs of every GPU, ``gpu0_hz`` and so on; None where there is none to set.

    None on a Jetson, too: its NVML supports next to nothing, and loading it would cost the
    keeper memory.

    Args:
        root: the file system's root. Anywhere but at ``/`` the library is
            ``usr/lib/libnvidia-ml.so.1`` below it.
    """
    if identify(root) is not None:
        return None
    try:
        found = gpus(root)
    except OSError:
        return None
    controls = tuple(control for gpu in found for control in gpu.controls.values())
    name = "-".join(found[0].name.lower().split()) if found else ""
    return Hardware(name, controls) if controls else None


def gpus(root: Path) -> tuple[Gpu, ...]:
    """Every GPU that NVML knows, each knob probed. Changes nothing.

    One that fell off the bus is left out, and the others are there all the same.

    Raises:
        OSError: there is no library, it cannot be initialised, or no GPU answers.
    """
    nvml = Nvml(load(root))
    count = nvml.number("nvmlDeviceGetCount_v2")
    seen = [_gpu_or_error(nvml, index) for index in range(count)]
    found = tuple(each for each in seen if isinstance(each, Gpu))
    lost = next((each for each in seen if isinstance(each, OSError)), None)
    if lost is not None and not found:
        raise lost
    return found


def load(root: Path) -> ctypes.CDLL:
    """The driver's library.

    Raises:
        OSError: there is none.
    """
    return ctypes.CDLL(LIBRARY if root == Path("/") else str(root / "usr/lib" / LIBRARY))


def _gpu_or_error(nvml: Nvml, index: int) -> Gpu | OSError:
    try:
        return _gpu(nvml, index)
    except OSError as error:
        return error


def _gpu(nvml: Nvml, index: int) -> Gpu:
    handle = nvml.handle(index)
    uuid = nvml.text("nvmlDeviceGetUUID", handle)
    card = Card(nvml, handle, index, uuid)
    probes: dict[str, Callable[[], Control]] = {
        "emc_hz": partial(_memory_clock, card),
        "gpu_hz": partial(_graphics_clock, card),
        "power_limit_w": partial(PowerLimit, card),
    }
    results = {knob: _probe(probe) for knob, probe in probes.items()}
    return Gpu(
        index,
        uuid,
        nvml.text("nvmlDeviceGetName", handle),
        controls={knob: each for knob, each in results.items() if not isinstance(each, str)},
        refused={knob: each for knob, each in results.items() if isinstance(each, str)},
    )


def _probe(probe: Callable[[], Control]) -> Control | str:
    """The control, or why there is none."""
    try:
        return probe()
    except OSError as error:
        return str(error.strerror)


class Card(NamedTuple):
    """One GPU's handle. A snapshot goes by the UUID: an index may be another card's one day."""

    nvml: Nvml
    handle: ctypes.c_void_p
    place: int
    uuid: str

    def number(self, function: str, *arguments: object) -> int:
        """See :meth:`Nvml.number`."""
        return self.nvml.number(function, self.handle, *arguments)

    def numbers(self, function: str, *arguments: object) -> list[int]:
        """See :meth:`Nvml.numbers`."""
        return self.nvml.numbers(function, self.handle, *arguments)

    def call(self, function: str, *arguments: int) -> None:
        """See :meth:`Nvml.call`; every argument is an ``unsigned int``."""
        self.nvml.call(function, self.handle, *map(ctypes.c_uint, arguments))

    def need_architecture(self, first: int, what: str) -> None:
        """Whether a clock can be locked cannot be tried without locking it.

        Raises:
            OSError: this GPU is older than the first whose clock can be locked.
        """
        if self.number("nvmlDeviceGetArchitecture") < first:
            raise OSError(errno.EOPNOTSUPP, f"the {what} of this GPU cannot be locked, too old")

    def check(self, snapshot: Snapshot) -> None:
        """Refuse what was saved from another card.

        Raises:
            OSError: it was.
        """
        if snapshot.get("uuid") != self.uuid:
            found = f"GPU {self.place} is {self.uuid}, saved was {snapshot.get('uuid')}"
            raise OSError(errno.ENODEV, found)


class LockedClock:
    """A clock that NVML can lock: ``gpu0_hz`` or ``gpu0_emc_hz``.

    Attributes:
        name: with the GPU's index.
        levels: Hz.
    """

    def __init__(self, card: Card, kind: int, name: str, levels_mhz: Sequence[int]) -> None:
        """``kind``: NVML's number of the clock."""
        self.name = name
        self.levels = tuple(1e6 * mhz for mhz in levels_mhz)
        self._card = card
        self._kind = kind
        self._noun = "Memory" if kind == _MEMORY_CLOCK else "Gpu"
        self._locked: float | None = None
        self._settled_s = 0.0
        self.read()

    def read(self) -> float:
        """The level nearest to the clock that the GPU runs at, in Hz.

        While the clock is on its way, and while the GPU idles below its lock, the lock.
        """
        if self._locked is not None and (time.monotonic() < self._settled_s or self._idle()):
            return self._locked
        now_hz = 1e6 * self._card.number("nvmlDeviceGetClockInfo", ctypes.c_uint(self._kind))
        return min(self.levels, key=lambda level: abs(level - now_hz))

    def write(self, level: float) -> None:
        """Lock the clock to one value."""
        mhz = round(level / 1e6)
        self._card.call(f"nvmlDeviceSet{self._noun}LockedClocks", mhz, mhz)
        self._locked, self._settled_s = level, time.monotonic() + SETTLE_S

    def snapshot(self) -> Snapshot:
        """Only whose clock it is: a lock cannot be read."""
        return {"uuid": self._card.uuid}

    def restore(self, snapshot: Snapshot) -> None:
        """Unlock the clock."""
        self._card.check(snapshot)
        self._card.call(f"nvmlDeviceReset{self._noun}LockedClocks")
        self._locked = None

    def _idle(self) -> bool:
        reasons = ctypes.c_ulonglong()
        try:
            self._card.nvml.call(
                "nvmlDeviceGetCurrentClocksThrottleReasons",
                self._card.handle,
                ctypes.byref(reasons),
            )
        except OSError:
            return False
        return bool(reasons.value & _GPU_IDLE)


class PowerLimit:
    """``gpu0_power_limit_w``: from the least that the GPU allows to the limit found here."""

    def __init__(self, card: Card) -> None:
        self.name = f"gpu{card.place}_power_limit_w"
        self._card = card
        least, most = ctypes.c_uint(), ctypes.c_uint()
        card.nvml.call(
            "nvmlDeviceGetPowerManagementLimitConstraints",
            card.handle,
            ctypes.byref(least),
            ctypes.byref(most),
        )
        top_w = min(self._limit_mw(), most.value) // 1000
        bottom_w = min(-(-least.value // 1000), top_w)
        steps = range(POWER_LIMITS)
        levels = {round(bottom_w + (top_w - bottom_w) * k / (POWER_LIMITS - 1)) for k in steps}
        self.levels = tuple(map(float, sorted(levels)))

    def _limit_mw(self) -> int:
        return self._card.number("nvmlDeviceGetPowerManagementLimit")

    def read(self) -> float:
        """The limit in watts."""
        return self._limit_mw() / 1e3

    def write(self, level: float) -> None:
        """Set the limit."""
        self._card.call("nvmlDeviceSetPowerManagementLimit", round(1e3 * level))

    def snapshot(self) -> Snapshot:
        """The limit in milliwatts."""
        return {"uuid": self._card.uuid, "power_limit_mw": str(self._limit_mw())}

    def restore(self, snapshot: Snapshot) -> None:
        """Set the limit that was found."""
        self._card.check(snapshot)
        found_mw = int(snapshot["power_limit_mw"])
        if found_mw != self._limit_mw():
            self._card.call("nvmlDeviceSetPowerManagementLimit", found_mw)


def _graphics_clock(card: Card) -> Control:
    card.need_architecture(_VOLTA, "clock")
    fastest_memory = card.numbers("nvmlDeviceGetSupportedMemoryClocks")[-1]
    clocks = _graphics_clocks(card, fastest_memory)
    return LockedClock(card, _GRAPHICS_CLOCK, f"gpu{card.place}_hz", clocks)


def _memory_clock(card: Card) -> Control:
    """Only the memory clocks under which every graphics clock can be had: no idle states."""
    card.need_architecture(_AMPERE, "memory clock")
    listed = card.numbers("nvmlDeviceGetSupportedMemoryClocks")
    wanted = _graphics_clocks(card, listed[-1])
    clocks = [mhz for mhz in listed if _graphics_clocks(card, mhz) == wanted]
    if len(clocks) < 2:
        raise OSError(errno.EOPNOTSUPP, f"the memory has one clock for work, {clocks[0]} MHz")
    return LockedClock(card, _MEMORY_CLOCK, f"gpu{card.place}_emc_hz", clocks)


def _graphics_clocks(card: Card, memory_mhz: int) -> list[int]:
    listed = card.numbers("nvmlDeviceGetSupportedGraphicsClocks", ctypes.c_uint(memory_mhz))
    return thinned(listed, MOST_CLOCKS)


def thinned(values: Sequence[int], most: int) -> list[int]:
    """At most so many of some ascending values, evenly spread, both ends included.

    >>> thinned(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(values) <= most:
        return list(values)
    return [values[round(k * (len(values) - 1) / (most - 1))] for k in range(most)]
