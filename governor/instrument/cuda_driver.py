"""CUDA events by the driver's own interface, through ctypes.

TensorRT is given a stream's handle, whoever made the stream: pycuda, cuda-python, CuPy, PyTorch.
pycuda's events can only be recorded on pycuda's own streams; the driver's take the handle.

Functions, numbers and what they mean: NVIDIA, CUDA Driver API, "Context Management" and "Event
Management". An event belongs to the context that was current when it was made, which is the one
that its thread runs TensorRT in; whoever asks about it makes that context current meanwhile.
"""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LIBRARY = "libcuda.so.1"
SUCCESS = 0
NOT_READY = 600


@dataclass(frozen=True, slots=True)
class DriverEvent:
    """Handles of an event and of its context."""

    event: ctypes.c_void_p
    context: ctypes.c_void_p


class DriverEvents:
    """Events of ``libcuda``. A stream is its handle, an integer; 0 is the default stream."""

    def __init__(self) -> None:
        """Loads nothing yet."""
        self._loaded: ctypes.CDLL | None = None

    def record(self, stream: Any, spare: Any | None) -> DriverEvent:
        """An event on the stream with this handle.

        Raises:
            OSError: there is no driver, or it refuses.
        """
        event = self._create() if spare is None else spare
        self._call("cuEventRecord", event.event, ctypes.c_void_p(stream))
        return event

    def done(self, event: Any) -> bool:
        """Whether the stream is past it."""
        with self._current(event.context):
            return self._call("cuEventQuery", event.event, also=NOT_READY) == SUCCESS

    def between_s(self, first: Any, second: Any) -> float:
        """The driver counts in milliseconds."""
        elapsed_ms = ctypes.c_float()
        with self._current(first.context):
            self._call("cuEventElapsedTime", ctypes.byref(elapsed_ms), first.event, second.event)
        return elapsed_ms.value / 1e3

    def _create(self) -> DriverEvent:
        event, context = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuCtxGetCurrent", ctypes.byref(context))
        self._call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))  # 0: one that times
        return DriverEvent(event, context)

    @contextmanager
    def _current(self, context: ctypes.c_void_p) -> Generator[None]:
        self._call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _call(self, function: str, *arguments: Any, also: int = SUCCESS) -> int:
        if self._loaded is None:
            self._loaded = ctypes.CDLL(LIBRARY)
        result = int(getattr(self._loaded, function)(*arguments))
        if result not in (SUCCESS, also):
            raise OSError(f"{function} returned CUDA error {result}")
        return result
