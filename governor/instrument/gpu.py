"""When GPU work ended: pairs of events on its stream, looked at later.

The host's call returns before the work is done. An event is recorded on the stream before the
call and another one after it; whether they have come to pass is asked when spans are collected,
from the governor's thread. So nothing ever waits for the GPU.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

from governor.instrument.explicit import SpanRecorder
from governor.instrument.framework import SeenInference

MOST_PENDING = 10_000
"""Inferences whose end is awaited; beyond it the host's time counts."""
QUEUED_S = 200e-6
"""Work that begins so soon after what came before it on its stream was waiting for that."""
logger = logging.getLogger("governor")


class Events(Protocol):
    """What a framework, or the driver, offers to time a stream with."""

    def record(self, stream: Any, spare: Any | None) -> Any:
        """An event on ``stream``; ``spare`` is one to use again, of the same stream."""
        ...

    def done(self, event: Any) -> bool:
        """Whether it has come to pass. Never waits; asked from any thread."""
        ...

    def between_s(self, first: Any, second: Any) -> float:
        """Seconds on the GPU between two events that have come to pass."""
        ...


@dataclass(frozen=True, slots=True)
class Pending:
    """An inference whose GPU work may not be done."""

    recorder: SpanRecorder
    start_s: float
    host_end_s: float
    items: int
    stream: Hashable
    began: Any
    ended: Any


class GpuTimer:
    """Records inferences when their GPU work is known to have ended.

    A GPU that fails is the application's to report: the timer then leaves the GPU alone, and
    the host's time counts.

    Attributes:
        failed: it has.
    """

    def __init__(self, events: Events) -> None:
        self.failed = False
        self._process = os.getpid()
        self._events = events
        self._pending: list[Pending] = []
        self._spare: defaultdict[Hashable, list[Any]] = defaultdict(list)
        self._last: dict[Hashable, tuple[Any, float]] = {}
        self._collecting = threading.Lock()

    def begin(self, stream: Any, key: Hashable) -> Any | None:
        """Before the work: an event to hand to :meth:`end`; None where there can be none.

        ``key`` tells streams apart.
        """
        if self.failed or len(self._pending) >= MOST_PENDING:
            return None
        try:
            return self._record(stream, key)
        except Exception as error:
            self.fail(error)
            return None

    def end(self, span: SeenInference, stream: Any, key: Hashable, began: Any) -> None:
        """After the host's call: the inference lasts until the work on the stream is done."""
        try:
            ended = self._record(stream, key)
        except Exception as error:
            self.fail(error)
            span.end(completed=True)
            return
        recorder, start_s, host_end_s, items = span.defer()
        self._pending.append(Pending(recorder, start_s, host_end_s, items, key, began, ended))

    def collect(self) -> None:
        """Record what the GPU has finished; nothing in a forked child, which may not ask it."""
        mine = self._pending and os.getpid() == self._process
        if mine and self._collecting.acquire(blocking=False):
            try:
                self._collect()
            except Exception as error:
                self.fail(error)
            finally:
                self._collecting.release()

    def fail(self, error: Exception) -> None:
        """Leave the GPU alone from here on."""
        self.failed = True
        self._pending.clear()
        logger.warning("GPU events failed, the host's time counts from here on: %s", error)

    def _record(self, stream: Any, key: Hashable) -> Any:
        spare = self._spare[key]
        try:
            return self._events.record(stream, spare.pop())
        except IndexError:
            return self._events.record(stream, None)

    def _collect(self) -> None:
        while self._pending and self._events.done(self._pending[0].ended):
            one = self._pending.pop(0)
            one.recorder.record(one.start_s, self._end_s(one), one.items)

    def _end_s(self, one: Pending) -> float:
        """On the host's clock.

        Work begins when the host asks for it, or, where it had to queue, right after what came
        before it on its stream.
        """
        events, spare = self._events, self._spare[one.stream]
        begin_s = one.start_s
        if one.stream in self._last:
            before, before_s = self._last[one.stream]
            idle_s = events.between_s(before, one.began)
            if idle_s < QUEUED_S:
                begin_s = max(begin_s, before_s + idle_s)
            spare.append(before)
        end_s = begin_s + events.between_s(one.began, one.ended)
        spare.append(one.began)
        self._last[one.stream] = one.ended, end_s
        return max(end_s, one.host_end_s)
