"""GPUs behind a library that stands in for NVIDIA's; the code under test loads it for real."""

from __future__ import annotations

import ctypes
import mmap
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from governor.lease.nvml_controls import LIBRARY

SOURCE = Path(__file__).with_name("nvml_stand_in.c")
AMPERE, TURING = 7, 6


class Gpu(ctypes.Structure):
    """Laid out as in the C file."""

    _fields_ = (
        ("name", ctypes.c_char * 64),
        ("uuid", ctypes.c_char * 64),
        *((name, ctypes.c_uint) for name in ("lost", "supports_clocks", "supports_power")),
        *((name, ctypes.c_uint) for name in ("supports_energy", "supports_limit", "may_write")),
        ("architecture", ctypes.c_uint),
        ("memory_mhz", ctypes.c_uint * 4),
        *((name, ctypes.c_uint) for name in ("lowest_mhz", "highest_mhz", "step_mhz")),
        *((name, ctypes.c_uint) for name in ("idle_memory_mhz", "idle_highest_mhz")),
        *((name, ctypes.c_uint) for name in ("locked_mhz", "locked_memory_mhz")),
        *((name, ctypes.c_uint) for name in ("gpu_resets", "memory_resets")),
        *((name, ctypes.c_uint) for name in ("limit_mw", "least_mw", "most_mw", "power_mw")),
        ("celsius", ctypes.c_uint),
        ("energy_mj", ctypes.c_ulonglong),
        ("reasons", ctypes.c_ulonglong),
        ("counts_since_ms", ctypes.c_ulonglong),
    )


class Machine(ctypes.Structure):
    """Laid out as in the C file."""

    _fields_ = (("count", ctypes.c_uint), ("gpus", Gpu * 4))


@contextmanager
def gpus_in(root: Path, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> Iterator[Machine]:
    """A driver under ``root`` with so many GPUs, shared with every process that loads it."""
    library = root / "usr/lib" / LIBRARY
    library.parent.mkdir(parents=True, exist_ok=True)
    library.symlink_to(compiled())
    state = root / "gpus"
    state.write_bytes(bytes(ctypes.sizeof(Machine)))
    monkeypatch.setenv("NVML_STAND_IN", str(state))
    with state.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), ctypes.sizeof(Machine))
        machine = Machine.from_buffer(memory)
        machine.count = count
        for index in range(count):
            fill(machine.gpus[index], index)
        yield machine


def fill(gpu: Gpu, index: int) -> None:
    """A data centre GPU of its own time: everything works; busy, at 200 W."""
    gpu.name, gpu.uuid = b"NVIDIA Stand-in", f"GPU-{index}000-aaaa".encode()
    gpu.supports_clocks = gpu.supports_power = gpu.supports_energy = gpu.supports_limit = 1
    gpu.may_write, gpu.architecture = 1, AMPERE
    gpu.memory_mhz[:3] = (2619, 1593, 405)
    gpu.lowest_mhz, gpu.highest_mhz, gpu.step_mhz = 210, 1980, 15
    gpu.idle_memory_mhz, gpu.idle_highest_mhz = 405, 420
    gpu.limit_mw, gpu.least_mw, gpu.most_mw = 600_000, 200_000, 700_000
    gpu.power_mw, gpu.celsius, gpu.energy_mj = 200_000, 55, 1_000_000


def nothing_supported(gpu: Gpu) -> None:
    """As on a Jetson: the library starts, and then every question is unsupported."""
    gpu.name = b"Orin (nvgpu)"
    gpu.supports_clocks = gpu.supports_power = gpu.supports_energy = gpu.supports_limit = 0


@cache
def compiled() -> Path:
    """The library, compiled once."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc to compile the library that stands in for NVML")
    library = Path(tempfile.mkdtemp(prefix="nvml-stand-in-")) / LIBRARY
    # The soname makes a later search for the library end at the one that is loaded.
    options = ["-Wall", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}"]
    subprocess.run([gcc, *options, "-o", str(library), str(SOURCE)], check=True)
    return library
