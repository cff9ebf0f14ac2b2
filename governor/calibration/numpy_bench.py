"""The CPU's own kernels, by numpy: where there is no GPU, so that it runs anywhere."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from governor.calibration.bench import STREAMS, Kernel, Ran

_SIDE = 768
"""Of the matrices whose product is the chain of multiply-adds: they stay in the cache."""
_STREAM_BYTES = 128 * 1024 * 1024
"""Several times any last-level cache that is likely here."""


class NumpyBench:
    """Matrix products in fp32 by BLAS; a dot product and a fill of a large array as streams."""

    clock = "cpu_hz"

    def __init__(self) -> None:
        self.description = "numpy on this CPU"
        self.kernels = (Kernel(purpose="compute"), *STREAMS)
        random = np.random.default_rng(0)
        self._matrix = random.random((_SIDE, _SIDE), dtype=np.float32)
        self._product = np.empty_like(self._matrix)
        self._array = np.ones(_STREAM_BYTES // 4, dtype=np.float32)
        # Per call: what to do, its FLOP and its bytes.
        self._calls: dict[str, tuple[Callable[[], object], float, float]] = {
            "compute": (
                lambda: np.matmul(self._matrix, self._matrix, out=self._product),
                2.0 * _SIDE**3,
                0.0,
            ),
            "read": (
                lambda: np.dot(self._array, self._array),
                2.0 * len(self._array),
                float(_STREAM_BYTES),
            ),
            "write": (lambda: self._array.fill(1.0), 0.0, float(_STREAM_BYTES)),
        }

    def run(self, kernel: Kernel, seconds: float) -> Ran:
        """Call it until the time is over."""
        call, flop, moved = self._calls[kernel.purpose]
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
