"""Kernels of a CUDA GPU, compiled at run time by pycuda from ``kernels.cu``.

Chains of multiply-adds in registers by precision, on CUDA cores and on tensor cores; streams
that read and write; and both together at several FLOP a byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from typing import Any

import numpy as np

from governor.calibration.bench import MIXES, STREAMS, Kernel, Ran
from governor.calibration.cpu_load import all_cores, load_cores
from governor.errors import DeviceError, MissingExtraError

_THREADS = 256
_BLOCKS_PER_SM = 16
_ROUNDS = 4096
_STREAM_BYTES = 256 * 1024 * 1024
_VECTOR_BYTES = 16
_CHUNKS = 4
"""A stretch is so many batches of launches, each waited for: the first tells how many more."""


@dataclass(frozen=True, slots=True)
class _Launch:
    """A function's arguments, and the FLOP and bytes of one launch."""

    function: Any
    arguments: tuple[Any, ...]
    flop: float
    bytes: float


class PycudaBench:
    """Runs ``kernels.cu`` in the GPU's primary context, which other libraries share."""

    clock = "gpu_hz"

    def __init__(self) -> None:
        """Raises MissingExtraError where pycuda is missing, DeviceError where there is no GPU or
        no compiler (``nvcc``, of the CUDA toolkit)."""
        try:
            self._driver: Any = import_module("pycuda.driver")
            compiler: Any = import_module("pycuda.compiler")
        except ImportError as error:
            raise MissingExtraError("pycuda", "calibrate") from error
        try:
            self._driver.init()
            device = self._driver.Device(0)
            self._context = device.retain_primary_context()
            self._context.push()
        except self._driver.Error as error:
            raise DeviceError(f"CUDA cannot be used: {error}") from error
        try:
            source = files(__package__ or "").joinpath("kernels.cu").read_text(encoding="utf-8")
            module = compiler.SourceModule(source, no_extern_c=True, options=["-O3"])
            self._function: Callable[[str], Any] = module.get_function
            self._array = self._driver.mem_alloc(_STREAM_BYTES)
            self._out = self._driver.mem_alloc(_VECTOR_BYTES)
        except Exception as error:  # no nvcc, a compiler's error, no memory: each its own class
            self._context.pop()
            raise DeviceError(f"pycuda cannot compile or load the kernels: {error}") from error
        attribute = self._driver.device_attribute.MULTIPROCESSOR_COUNT
        self._blocks = int(device.get_attribute(attribute)) * _BLOCKS_PER_SM
        capability = tuple(device.compute_capability())
        self.description = f"pycuda on {device.name()}"
        self.kernels = (
            Kernel(purpose="compute"),
            *[Kernel(purpose="compute", precision="fp16")] * (capability >= (5, 3)),
            *[Kernel(purpose="compute", precision="fp16", unit="tensor")] * (capability >= (7, 0)),
            *STREAMS,
            *MIXES,
            all_cores(),
        )

    def run(self, kernel: Kernel, seconds: float) -> Ran:
        """Launch it in batches, timed by CUDA events, until about so long has passed."""
        if kernel.purpose == "cores":
            return load_cores(kernel.cores, seconds)
        launch = self._launch(kernel)
        spent_s, count, batch = 0.0, 0, 1
        while spent_s < seconds:
            spent_s += self._timed(launch, batch)
            count += batch
            batch = max(1, int(count / spent_s * seconds / _CHUNKS))
        return Ran(count * launch.flop, count * launch.bytes, spent_s)

    def _timed(self, launch: _Launch, batch: int) -> float:
        start, end = self._driver.Event(), self._driver.Event()
        start.record()
        for _ in range(batch):
            launch.function(*launch.arguments, block=(_THREADS, 1, 1), grid=(self._blocks, 1))
        end.record()
        end.synchronize()
        return float(start.time_till(end)) * 1e-3

    def _launch(self, kernel: Kernel) -> _Launch:
        """FLOP and bytes are as the source says."""
        threads, rounds = self._blocks * _THREADS, np.int32(_ROUNDS)
        vectors = _STREAM_BYTES // _VECTOR_BYTES
        if kernel.purpose == "compute":
            name, flop = {
                ("cuda", "fp32"): ("fma_fp32", 16.0 * threads),
                ("cuda", "fp16"): ("fma_fp16", 32.0 * threads),
                ("tensor", "fp16"): ("tensor_fp16", 32768.0 * threads / 32),
            }[kernel.unit, kernel.precision]
            return _Launch(self._function(name), (self._out, rounds), flop * _ROUNDS, 0.0)
        if kernel.purpose == "write":
            arguments = (self._array, np.int64(vectors))
            return _Launch(self._function("write_all"), arguments, 0.0, float(_STREAM_BYTES))
        # 16 bytes a vector, 8 FLOP a round: two rounds for each FLOP a byte.
        rounds = np.int32(round(2 * kernel.intensity))
        arguments = (self._array, self._out, np.int64(vectors), rounds)
        flop = (8.0 * int(rounds) + 4.0) * vectors
        return _Launch(self._function("read_mix"), arguments, flop, float(_STREAM_BYTES))

    def present_hz(self) -> float | None:
        """The driver does not tell the clock of the moment."""
        return None

    def close(self) -> None:
        """Free the memory, and let the context go."""
        self._array.free()
        self._out.free()
        self._context.pop()
