"""A stream of inferences: the ways in which an application shows them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from typing import ParamSpec, TypeVar, overload

from governor.instrument.explicit import AsyncWatch, Inference, SpanRecorder, Watch

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
        return inference if function is None else inference(function)

    def tick(self, items: int | None = None) -> None:
        """Call once a turn of the loop: the time between two calls is one inference."""
        self._recorder.tick(items)

    def record(self, start_s: float, end_s: float, items: int | None = None) -> None:
        """An inference that something else has timed, on the device's clock."""
        self._recorder.record(start_s, end_s, self._recorder.items() if items is None else items)
