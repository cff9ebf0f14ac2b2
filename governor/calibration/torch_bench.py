"""Kernels of a CUDA GPU by PyTorch: where pycuda is missing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from governor.calibration.bench import STREAMS, Kernel, Ran
from governor.calibration.cpu_load import all_cores, load_cores
from governor.errors import DeviceError, MissingExtraError

_SIDE = 4096
_STREAM_BYTES = 512 * 1024 * 1024
_DEPTH, _WIDTHS = 512, (2, 8, 32, 128)
"""Of the matrices that the large one is multiplied by: about 1, 4, 15 and 51 FLOP a byte."""
_CHUNKS = 4
"""A stretch is so many batches of launches, each waited for: the first tells how many more."""

Call = tuple[Callable[[], object], float, float]
"""What to launch, and its FLOP and bytes."""


def wide_products(array: Any) -> dict[Kernel, Call]:
    """Products in fp32 of a large tensor, seen as a tall matrix, with ever wider matrices.

    The tall one is read and the result written, from and to memory; the wide one stays cached.
    """
    tall = array.view(-1, _DEPTH)
    calls: dict[Kernel, Call] = {}
    for width in _WIDTHS:
        wide, result = tall.new_ones(_DEPTH, width), tall.new_empty(len(tall), width)
        flop = 2.0 * tall.numel() * width
        moved = 4.0 * (tall.numel() + result.numel())
        call = partial(import_module("torch").mm, tall, wide, out=result)
        calls[Kernel(purpose="mix", intensity=flop / moved)] = (call, flop, moved)
    return calls


class TorchBench:
    """Matrix products by precision; a sum and a fill of a large tensor as streams.

    Its products run at what the vendor's library reaches, which is a few per cent under the
    peak. Between stream and product, a large matrix times ever wider ones.
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
        self._array: Any = torch.ones(_STREAM_BYTES // 4, device="cuda")
        self._mixes = wide_products(self._array)
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
            *self._mixes,
            all_cores(),
        )
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

    def _call(self, kernel: Kernel) -> Call:
        """What to launch, and its FLOP and bytes."""
        if kernel in self._mixes:
            return self._mixes[kernel]
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
        self._mixes.clear()
        self._array = None
        self._torch.cuda.empty_cache()
