"""What NVIDIA GPUs draw, how hot they are and why they slow down, read by nvidia-ml-py.

What can be set, and how, is :mod:`governor.lease.nvml_controls`'s.
Written and tested against a library that stands in for NVIDIA's; not yet run on a GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from governor.devices.source import Reading
from governor.errors import DeviceError, MissingExtraError
from governor.lease.nvml_controls import LIBRARY, Gpu, gpus, load

COUNTER_REFRESH_S = 0.1
"""Seconds between two changes of the energy counter; NVIDIA states none, 20 to 100 ms are
seen. It counts what the board's sensor sees, on A100 and H100 a quarter of the time
(arXiv:2312.02741), so bursts that keep step with the sensor are misjudged."""
POWER_REFRESH_S = 1.0
"""From Ampere on (but for GA100) the power reading is the mean of the last second (NVML API
reference, nvmlDeviceGetPowerUsage)."""

_CAUSES = {
    0x04: "power_cap",
    0x08: "hardware",
    0x20: "thermal",
    0x40: "hardware_thermal",
    0x80: "power_brake",
}
"""Bits of NVML's clocks event reasons that slow a GPU below what was asked of it. The others
(idle, a user's own lock, a display, sync boost) do not say that it was hindered."""


class Nvml:
    """nvidia-ml-py, which has no types; each failed call is an OSError."""

    def __init__(self) -> None:
        try:
            self._module: Any = import_module("pynvml")
        except ImportError:
            raise MissingExtraError("nvidia-ml-py", "nvml") from None
        self.call("nvmlInit")

    def call(self, function: str, *arguments: object) -> Any:
        """What a function of the module returns.

        Raises:
            OSError: NVML answered with an error.
        """
        try:
            return getattr(self._module, function)(*arguments)
        except self._module.NVMLError as error:
            raise OSError(f"{function}: {error}") from None


class Gpus:
    """The GPUs that this process may use, as one source of energy.

    Attributes:
        gpus: each with its controls.
        description: for people, such as ``2 x NVIDIA H200 by NVML's energy counter``.
        refresh_s: seconds between two fresh readings.
        unmeasured: why their energy is not known, None where it is.
    """

    def __init__(self, found: Sequence[Gpu]) -> None:
        """Probes what each GPU can tell.

        Raises:
            OSError: NVML cannot be initialised.
            MissingExtraError: nvidia-ml-py is not installed.
        """
        self.gpus = tuple(found)
        self._nvml = Nvml()
        self._handles = {
            f"gpu{gpu.place}": self._nvml.call("nvmlDeviceGetHandleByIndex", gpu.place)
            for gpu in found
        }
        self._throttled: Counter[str] = Counter()
        counting = [
            self._refusal(rail, "nvmlDeviceGetTotalEnergyConsumption") for rail in self.rails
        ]
        reading = [self._refusal(rail, "nvmlDeviceGetPowerUsage") for rail in self.rails]
        self._counts = not any(counting)
        refusals = [f"{c}, {r}" for c, r in zip(counting, reading, strict=True) if c and r]
        self.unmeasured = "; ".join(refusals) or None
        self.refresh_s = COUNTER_REFRESH_S if self._counts else POWER_REFRESH_S
        how = "energy counter" if self._counts else "power reading"
        self.description = f"{_names(found)} by NVML's {how}"

    @property
    def rails(self) -> tuple[str, ...]:
        """``gpu0`` and so on."""
        return tuple(self._handles)

    def read(self, now_s: float) -> Reading:
        """Watts of each GPU; joules since the driver was loaded where every GPU counts them."""
        watts: dict[str, float] = {}
        for rail, handle in self._handles.items():
            with suppress(OSError):
                watts[rail] = 1e-3 * self._nvml.call("nvmlDeviceGetPowerUsage", handle)
        joules = None
        if self._counts:
            joules = sum(map(self._energy_j, self._handles.values()))
        complete = len(watts) == len(self._handles)
        return Reading(watts, sum(watts.values()) if complete else None, joules)

    def temperatures(self) -> dict[str, float]:
        """Degrees Celsius by GPU; one that does not tell is absent."""
        degrees: dict[str, float] = {}
        for rail, handle in self._handles.items():
            with suppress(OSError):
                degrees[rail] = float(self._nvml.call("nvmlDeviceGetTemperature", handle, 0))
        return degrees

    def throttle_events(self) -> Mapping[str, int]:
        """How often, when this was called, a GPU was found held back, by cause.

        NVML says why a clock is low now, not how often it was: a cause that lasts counts
        every time, one that comes and goes between two calls is not seen.
        """
        for handle in self._handles.values():
            with suppress(OSError):
                reasons = self._reasons(handle)
                self._throttled.update(cause for bit, cause in _CAUSES.items() if reasons & bit)
        return {f"gpu_{cause}": count for cause, count in self._throttled.items()}

    def _reasons(self, handle: object) -> int:
        try:
            return self._nvml.call("nvmlDeviceGetCurrentClocksEventReasons", handle)
        except OSError:  # drivers before 535 have it under its old name
            return self._nvml.call("nvmlDeviceGetCurrentClocksThrottleReasons", handle)

    def _energy_j(self, handle: object) -> float:
        return 1e-3 * self._nvml.call("nvmlDeviceGetTotalEnergyConsumption", handle)

    def _refusal(self, rail: str, function: str) -> str:
        try:
            self._nvml.call(function, self._handles[rail])
        except OSError as error:
            return f"{rail}: {error}"
        return ""


def open_gpus(root: Path, environ: Mapping[str, str]) -> Gpus:
    """The GPUs that this process may use.

    Args:
        root: the file system's root.
        environ: where ``CUDA_VISIBLE_DEVICES`` says which.

    Raises:
        DeviceError: there is none, or none that can be set or measured; says why, knob by knob.
    """
    try:
        load(root)
    except OSError:
        raise DeviceError(f"no NVIDIA driver, {LIBRARY} cannot be loaded") from None
    try:
        seen = Gpus(visible(gpus(root), environ))
    except (OSError, MissingExtraError) as error:
        raise DeviceError(f"{LIBRARY} is here, but {error}") from None
    if seen.unmeasured and not any(gpu.controls for gpu in seen.gpus):
        raise DeviceError(f"NVML starts, but supports nothing here: {_refused(seen)}")
    return seen


def visible(found: Sequence[Gpu], environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Those of the GPUs that CUDA shows to this process.

    Raises:
        DeviceError: none, or it cannot be said which.
    """
    wanted = environ.get("CUDA_VISIBLE_DEVICES")
    if not found:
        raise DeviceError("NVML starts, but knows no GPU")
    if wanted is None:
        return tuple(found)
    chosen = tuple(_one(word.strip(), found, environ) for word in wanted.split(",") if word.strip())
    if not chosen:
        raise DeviceError("CUDA_VISIBLE_DEVICES hides every GPU from this process")
    return chosen


def _one(word: str, found: Sequence[Gpu], environ: Mapping[str, str]) -> Gpu:
    said = f"CUDA_VISIBLE_DEVICES names {word}"
    if word.startswith("MIG-"):
        raise DeviceError(f"{said}: a part of a GPU has no clock and no energy of its own")
    if word.startswith("GPU-"):
        matching = [gpu for gpu in found if gpu.uuid.startswith(word)]
    else:
        alike = len({gpu.name for gpu in found}) == 1
        if not alike and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            raise DeviceError(
                f"{said}, but CUDA orders unlike GPUs by speed and NVML by bus: set "
                "CUDA_DEVICE_ORDER=PCI_BUS_ID, or name the GPU by its UUID"
            )
        matching = [gpu for gpu in found if str(gpu.place) == word]
    if len(matching) != 1:
        there = ", ".join(f"{gpu.place} ({gpu.uuid})" for gpu in found)
        raise DeviceError(f"{said}, which is not one of the GPUs here: {there}")
    return matching[0]


def _names(found: Sequence[Gpu]) -> str:
    counts = Counter(gpu.name for gpu in found)
    return " + ".join(name if n == 1 else f"{n} x {name}" for name, n in counts.items())


def _refused(seen: Gpus) -> str:
    knobs = [
        f"GPU {gpu.place} ({gpu.name}) {knob}: {reason}"
        for gpu in seen.gpus
        for knob, reason in gpu.refused.items()
    ]
    return "; ".join([*knobs, f"energy: {seen.unmeasured}"])
