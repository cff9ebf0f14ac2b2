"""TensorRT: each execution of an ``IExecutionContext`` is an inference.

The Python API of TensorRT 8 to 11. ``execute_v2`` and, up to 9, ``execute`` return when the work
is done. ``execute_async_v3`` (since 8.5), ``execute_async_v2`` (up to 9) and ``execute_async``
(8) put it on the CUDA stream whose handle they are given; its end is timed with CUDA events.
"""

from __future__ import annotations

import functools
import operator
from types import ModuleType
from typing import Any

from governor.instrument.cuda_driver import DriverEvents
from governor.instrument.framework import Framework, SeenInference
from governor.instrument.gpu import GpuTimer

BLOCKING = ("execute_v2", "execute")
ASYNCHRONOUS = {"execute_async_v3": 0, "execute_async_v2": 1, "execute_async": 2}
"""By method, where in its arguments after ``self`` the stream's handle stands."""


class TensorRT(Framework):
    """Execution contexts of TensorRT."""

    name = "tensorrt"
    module = "tensorrt"

    def open(self, module: ModuleType) -> None:
        """Replace those methods that this version has."""
        context = module.IExecutionContext
        self._timer = GpuTimer(DriverEvents())
        for name in BLOCKING:
            self.time_calls(context, name)
        for name, place in ASYNCHRONOUS.items():
            if hasattr(context, name):
                self.seam(context, name, self._enqueueing(getattr(context, name), place))

    def look(self) -> None:
        """Record what has ended meanwhile."""
        super().look()
        if self._is_open:
            self._timer.collect()

    def close(self) -> None:
        """Record what has ended by now."""
        self._timer.collect()

    def _enqueueing(self, original: Any, place: int) -> Any:
        """A method that puts work on a stream, timed to the end of that work."""

        @functools.wraps(original)
        def call(context: Any, *args: Any, **kwargs: Any) -> Any:
            recorders = self.recorders
            if not recorders:
                return original(context, *args, **kwargs)
            span = SeenInference(recorders[-1], None)
            span.__enter__()
            stream = _handle(kwargs.get("stream_handle", next(iter(args[place:]), None)))
            timed = stream is not None and span.counts and recorders[-1].in_real_time
            began = self._timer.begin(stream, stream) if timed else None
            done = False
            try:
                done = original(context, *args, **kwargs)
            finally:
                if began is None or not done:
                    span.end(completed=bool(done))
            if began is not None and done:
                self._timer.end(span, stream, stream, began)
            return done

        return call


def _handle(given: Any) -> int | None:
    """A stream's handle; None: TensorRT will refuse it itself."""
    try:
        return operator.index(given)
    except TypeError:
        return None
