"""A stream of inferences: the ways in which an application shows them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Callable, Iterable
from typing import ParamSpec, TypeVar, overload

from governor.errors import InputError
from governor.instrument.explicit import AsyncWatch, Inference, SpanRecorder, Watch, checked_items

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Stream:
    """Inferences with one latency bound. Usable from any thread."""

    def __init__(self, recorder: SpanRecorder) -> None:
        self._recorder = recorder

    @overload
    def watch(self, iterable: Iterable[T]) -> Watch[T]: ...

    @overload
    def watch(self, iterable: AsyncIterable[T]) -> AsyncWatch[T]: ...

    def watch(self, iterable: Iterable[T] | AsyncIterable[T]) -> Watch[T] | AsyncWatch[T]:
        """Iterate over frames, by ``for`` or ``async for``; the loop's body is one inference."""
        return self._recorder.watch(iterable)

    @overload
    def inference(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def inference(self, /, *, items: int | None = None) -> Inference: ...

    def inference(
        self, function: Callable[P, R] | None = None, /, *, items: int | None = None
    ) -> Callable[P, R] | Inference:
        """``with gov.inference():`` around one inference, or ``@gov.inference``.

        Args:
            function: what is decorated: each of its calls is one inference.
            items: in this inference; the governor's ``batch_size`` where that is governed,
                else 1.
        """
        inference = self._recorder.inference(items)
        if function is None:
            return inference
        if not callable(function):
            raise InputError(
                f"{function!r} is no function to decorate; a number of items is written items=8"
            )
        return inference(function)

    def tick(self, items: int | None = None) -> None:
        """Call once a turn of the loop: the time between two calls is one inference."""
        self._recorder.tick(items)

    def put(
        self, start_s: float, end_s: float, items: int | None = None, since_s: float | None = None
    ) -> None:
        """An inference of another process, which no emulated board can hold up.

        Args:
            start_s, end_s: on the device's clock.
            items: in this inference.
            since_s: where it is known only by a counter, the time of the reading before.
        """
        self._recorder.put(start_s, end_s, items, since_s)

    def paused(self, between_s: float) -> bool:
        """Whether so long between two ticks is a pause; asked once for each, in order."""
        return self._recorder.paused(between_s)

    def record(self, start_s: float, end_s: float, items: int | None = None) -> None:
        """An inference that something else has timed, on the device's clock.

        That is ``time.perf_counter()``; of an emulated board in virtual time ``board.clock.now()``.

        Raises:
            InputError: it ends before it starts, or a number is none.
        """
        if not (math.isfinite(start_s) and start_s <= end_s < math.inf):
            raise InputError(f"start_s must not lie after end_s, got {start_s!r} and {end_s!r}")
        count = checked_items(items)
        self._recorder.mark()
        self._recorder.record(start_s, end_s, count or self._recorder.items())
