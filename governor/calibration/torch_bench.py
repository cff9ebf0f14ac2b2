"""Kernels of a CUDA GPU by PyTorch: where pycuda is missing."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from governor.calibration.bench import STREAMS, Kernel, Ran
from governor.calibration.cpu_load import all_cores, load_cores
from governor.errors import DeviceError, MissingExtraError

_SIDE = 4096
_STREAM_BYTES = 512 * 1024 * 1024
_CHUNKS = 4
"""A stretch is so many batches of launches, each waited for: the first tells how many more."""


class TorchBench:
    """Matrix products by precision; a sum and a fill of a large tensor as streams.

    Its products run at what the vendor's library reaches, which is a few per cent under the
    peak; it has no kernels between stream and product, so no sweep of intensities.
    """

    clock = "gpu_hz"

    def __init__(self) -> None:
        """Raises MissingExtraError or DeviceError where there is no PyTorch or no CUDA in it."""
        try:
            torch: Any = import_module("torch")
        except ImportError as error:
            raise MissingExtraError("torch", "torch") from error
        if not torch.cuda.is_available():
            raise DeviceError("this PyTorch sees no CUDA GPU")
        self._torch = torch
        self.description = f"PyTorch {torch.__version__} on {torch.cuda.get_device_name()}"
        major, _ = torch.cuda.get_device_capability()
        precisions = ["fp32", "fp16"] + ["tf32", "bf16"] * (major >= 8)
        self.kernels = (
            *(
                Kernel(
                    purpose="compute",
                    precision=each,
                    unit="cuda" if each == "fp32" or major < 7 else "tensor",
                )
                for each in precisions
            ),
            *STREAMS,
            all_cores(),
        )
        self._array: Any = torch.ones(_STREAM_BYTES // 4, device="cuda")
        types = {"fp16": torch.float16, "bf16": torch.bfloat16}
        self._matrices = {
            each: torch.rand(_SIDE, _SIDE, device="cuda").to(types.get(each, torch.float32))
            for each in precisions
        }

    def run(self, kernel: Kernel, seconds: float) -> Ran:
        """Launch it in batches, timed by CUDA events, until about so long has passed."""
        if kernel.purpose == "cores":
            return load_cores(kernel.cores, seconds)
        call, flop, moved = self._call(kernel)
        spent_s, count, batch = 0.0, 0, 1
        before = self._torch.backends.cuda.matmul.allow_tf32
        self._torch.backends.cuda.matmul.allow_tf32 = kernel.precision == "tf32"
        try:
            while spent_s < seconds:
                spent_s += self._timed(call, batch)
                count += batch
                batch = max(1, int(count / spent_s * seconds / _CHUNKS))
        finally:
            self._torch.backends.cuda.matmul.allow_tf32 = before
        return Ran(count * flop, count * moved, spent_s)

    def _timed(self, call: Callable[[], object], batch: int) -> float:
        cuda = self._torch.cuda
        start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        start.record()
        for _ in range(batch):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e-3

    def _call(self, kernel: Kernel) -> tuple[Callable[[], object], float, float]:
        """What to launch, and its FLOP and bytes."""
        if kernel.purpose == "compute":
            matrix = self._matrices[kernel.precision]
            return (lambda: self._torch.mm(matrix, matrix)), 2.0 * _SIDE**3, 0.0
        if kernel.purpose == "read":
            return self._array.sum, _STREAM_BYTES / 4, float(_STREAM_BYTES)
        return (lambda: self._array.fill_(1.0)), 0.0, float(_STREAM_BYTES)

    def present_hz(self) -> float | None:
        """The SM clock by NVML, where PyTorch can ask for it."""
        try:
            return float(self._torch.cuda.clock_rate()) * 1e6
        except (ImportError, RuntimeError):
            return None

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._matrices.clear()
        self._array = None
        self._torch.cuda.empty_cache()
