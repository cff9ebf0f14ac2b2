"""The CPU's own kernels, by numpy: where there is no GPU, so that it runs anywhere."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from governor.calibration.bench import STREAMS, Kernel, Ran

_SIDE = 768
"""Of the matrices whose product is the chain of multiply-adds: they stay in the cache."""
_STREAM_BYTES = 128 * 1024 * 1024
"""Several times any last-level cache that is likely here."""
_CHUNK = 8192
"""Values that stay in the first-level cache, and that BLAS leaves to one thread."""
_PASSES = (1, 2, 4, 8, 16, 32, 64)
"""Over each chunk, two FLOP a value each: the first one brings its four bytes in from memory."""


class NumpyBench:
    """Matrix products in fp32 by BLAS; a dot product and a fill of a large array as streams.

    Between them, dot products of chunks of the array with themselves, again and again: fed from
    the cache, they bend where one core's multiply-adds do, below the peak of products.
    """

    clock = "cpu_hz"

    def __init__(self) -> None:
        self.description = "numpy on this CPU"
        mixes = {Kernel(purpose="mix", intensity=passes / 2): passes for passes in _PASSES}
        self.kernels = (Kernel(purpose="compute"), *STREAMS, *mixes)
        random = np.random.default_rng(0)
        self._matrix = random.random((_SIDE, _SIDE), dtype=np.float32)
        self._product = np.empty_like(self._matrix)
        self._array = np.ones(_STREAM_BYTES // 4, dtype=np.float32)
        self._chunks = [self._array[at : at + _CHUNK] for at in range(0, len(self._array), _CHUNK)]
        # Per call: what to do, its FLOP and its bytes.
        self._calls: dict[Kernel, tuple[Callable[[], object], float, float]] = {
            Kernel(purpose="compute"): (
                lambda: np.matmul(self._matrix, self._matrix, out=self._product),
                2.0 * _SIDE**3,
                0.0,
            ),
            STREAMS[0]: (
                lambda: np.dot(self._array, self._array),
                2.0 * len(self._array),
                float(_STREAM_BYTES),
            ),
            STREAMS[1]: (lambda: self._array.fill(1.0), 0.0, float(_STREAM_BYTES)),
            **{
                kernel: (
                    partial(self._pass_over, passes),
                    2.0 * passes * len(self._array),
                    float(_STREAM_BYTES),
                )
                for kernel, passes in mixes.items()
            },
        }

    def _pass_over(self, passes: int) -> None:
        for chunk in self._chunks:
            for _ in range(passes):
                np.dot(chunk, chunk)

    def run(self, kernel: Kernel, seconds: float) -> Ran:
        """Call it until the time is over."""
        call, flop, moved = self._calls[kernel]
        began_s, count = time.perf_counter(), 0
        while True:
            call()
            count += 1
            spent_s = time.perf_counter() - began_s
            if spent_s >= seconds:
                return Ran(count * flop, count * moved, spent_s)

    def present_hz(self) -> float | None:
        """The highest clock that any core has just now, by the kernel's list of CPUs."""
        try:
            text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        except OSError:
            return None
        found = re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", text, re.MULTILINE)
        return max(map(float, found)) * 1e6 if found else None

    def close(self) -> None:
        """There is nothing that the garbage collector does not let go of."""
