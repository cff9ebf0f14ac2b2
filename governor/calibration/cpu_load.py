"""Load on CPU cores, so that their voltage curve stands out from all else that is drawn."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

from governor.calibration.bench import Kernel, Ran

_ROUNDS = 5_000
"""Of a key derivation: some milliseconds in which the interpreter's lock is free."""


def all_cores() -> Kernel:
    """Load on every core that this process may use."""
    return Kernel(purpose="cores", cores=len(os.sched_getaffinity(0)))


def load_cores(cores: int, seconds: float) -> Ran:
    """Keep so many cores busy, without a GPU and hardly using memory."""
    began_s = time.perf_counter()

    def work() -> None:
        while time.perf_counter() < began_s + seconds:
            hashlib.pbkdf2_hmac("sha256", b"load", b"cores", _ROUNDS)

    with ThreadPoolExecutor(cores) as pool:
        for done in [pool.submit(work) for _ in range(cores)]:
            done.result()
    return Ran(0.0, 0.0, time.perf_counter() - began_s)
