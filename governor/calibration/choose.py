"""Which kernels can run here."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from governor.calibration.bench import Bench
from governor.errors import DeviceError, MissingExtraError, unknown_name

_BENCHES = {
    "pycuda": "PycudaBench",
    "torch": "TorchBench",
    "numpy": "NumpyBench",
}
KERNELS = ("auto", *_BENCHES)


def open_bench(name: str) -> tuple[Bench, dict[str, str]]:
    """The kernels called ``name``; ``auto``: the first that can run here, and why others cannot.

    Raises:
        InputError: no kernels have this name.
        MissingExtraError, DeviceError: the named ones cannot run here.
    """
    if name not in KERNELS:
        raise unknown_name("kernels", name, KERNELS)
    if name != "auto":
        return _open(name), {}
    refusals: dict[str, str] = {}
    found = next(filter(None, (_attempt(each, refusals) for each in _BENCHES)))
    return found, refusals


def _attempt(name: str, refusals: dict[str, str]) -> Bench | None:
    """The kernels, or None and why; numpy's run anywhere."""
    try:
        return _open(name)
    except (MissingExtraError, DeviceError) as error:
        refusals[name] = str(error)
    return None


def _open(name: str) -> Bench:
    module = import_module(f"governor.calibration.{name}_bench")
    return cast(Bench, getattr(module, _BENCHES[name])())
