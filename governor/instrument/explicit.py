"""Inferences that the application shows by itself: watch, inference, tick.

The application's own thread pays for two clock readings and one append a span; all else
happens elsewhere. Where spans of one stream nest, the outermost is the inference.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import aclosing
from contextvars import ContextVar
from statistics import median
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from governor.errors import InputError
from governor.trial import MAIN, Span

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

innermost: ContextVar[Inference | None] = ContextVar("governor_innermost_span", default=None)
"""Per thread and per asyncio task: the span opened last, open or long ended."""

STALL_S = 2.0
"""A shorter time between two ticks is always an inference."""
STALL_FACTOR = 5.0
"""A longer one is a pause of the input where it is so many times the usual."""
_Seen = tuple[float, float, int, str, float | None]
"""A :class:`Span` before it is drained: a bare tuple is quicker to make."""
MOST_SPANS = 100_000
"""Spans kept until they are collected; older ones are lost if nobody ever does."""


def _nothing() -> None:
    """Nothing is outstanding."""


class SpanRecorder:
    """Collects the spans of an application, from any thread.

    Attributes:
        name: of the stream that the spans belong to.
        dropped: inferences that ended in an exception and are not counted.
        marked: the application shows its inferences by itself; what is seen without its doing
            no longer counts.
        turns: the ticks so far were seen, and not the application's own.
        before_drain: called before spans are collected; looks for what is still outstanding.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        items: Callable[[], int] = lambda: 1,
        stall_s: float = STALL_S,
        stretch: Callable[[float, float, int], None] | None = None,
        on_span: Callable[[], None] | None = None,
        name: str = MAIN,
    ) -> None:
        """
        Args:
            now: seconds, the clock that spans are stamped with.
            items: how many items an inference has that does not say so.
            stall_s: a shorter time between two ticks is always an inference.
            stretch: called with start, end and items before a span ends; may sleep.
            on_span: called after each span.
        """
        self.name = name
        self.dropped = 0
        self.marked = False
        self.turns = False
        self.before_drain: Callable[[], None] = _nothing
        self.now = now
        self.items = items
        self.ticked_s: float | None = None
        self.open_since: dict[object, float] = {}
        self._spans: deque[_Seen] = deque(maxlen=0)
        self._branches: list[SpanRecorder] = []
        self._root: SpanRecorder | None = None
        self._ticks_s: deque[float] = deque(maxlen=15)
        self._stall_s = stall_s
        self._stretch = stretch
        self._on_span = on_span

    def branch(self, name: str, items: Callable[[], int]) -> SpanRecorder:
        """A recorder of another stream; its spans are drained here."""
        branch = SpanRecorder(
            self.now,
            items=items,
            stall_s=self._stall_s,
            stretch=self._stretch,
            on_span=self._on_span,
            name=name,
        )
        branch._spans, branch._root = self._spans, self
        self._branches.append(branch)
        return branch

    def start(self) -> None:
        """Begin to keep spans."""
        self._keep_in(deque(maxlen=MOST_SPANS))

    def stop(self) -> None:
        """Keep no more spans; recording stays harmless."""
        self._keep_in(deque(maxlen=0))

    def _keep_in(self, spans: deque[_Seen]) -> None:
        for recorder in (self, *self._branches):
            recorder._spans = spans

    @property
    def in_real_time(self) -> bool:
        """Whether a span may be recorded long after it ended, by any thread."""
        return self._stretch is None and self._on_span is None

    def abandon(self) -> None:
        """In a forked child, where nobody collects: keep nothing, and stretch nothing."""
        self.stop()
        self._stretch = self._on_span = None
        self.before_drain = _nothing

    def mark(self) -> None:
        """From now on only what the application shows by itself counts, in any stream."""
        self.marked = True
        if self._root is not None:
            self._root.mark()
        elif self.turns:
            self.turns = False
            self.ticked_s = None

    def drain(self) -> list[Span]:
        """The spans that were recorded since the last call, in that order."""
        self.before_drain()
        spans = self._spans
        return [Span(*spans.popleft()) for _ in range(len(spans))]

    def in_flight_s(self, now_s: float) -> float:
        """For how long the oldest unfinished inference has lasted, 0: there is none."""
        if not self.open_since:
            return 0.0
        oldest_s = min(list(self.open_since.values()), default=now_s)
        return max(now_s - oldest_s, 0.0)

    def unfinished_s(self, now_s: float) -> dict[str, float]:
        """By stream that has one, for how long its oldest unfinished inference has lasted."""
        recorders = (self, *self._branches)
        lasted_s = {recorder.name: recorder.in_flight_s(now_s) for recorder in recorders}
        return {name: seconds for name, seconds in lasted_s.items() if seconds}

    @property
    def failed(self) -> int:
        """Inferences of all streams that ended in an exception."""
        return self.dropped + sum(branch.dropped for branch in self._branches)

    def record(self, start_s: float, end_s: float, items: int) -> None:
        """An inference that has just ended."""
        if self._stretch is not None:
            self._stretch(start_s, end_s, items)
            end_s = self.now()
        self._spans.append((start_s, end_s, items, self.name, None))
        if self._on_span is not None:
            self._on_span()

    def put(
        self, start_s: float, end_s: float, items: int | None, since_s: float | None = None
    ) -> None:
        """An inference of another process, taken as it is."""
        items = self.items() if items is None else items
        self._spans.append((start_s, end_s, items, self.name, since_s))

    def inference(self, items: int | None = None) -> Inference:
        """A context manager around one inference; also a decorator."""
        return Inference(self, checked_items(items))

    @overload
    def watch(self, iterable: Iterable[T]) -> Watch[T]: ...

    @overload
    def watch(self, iterable: AsyncIterable[T]) -> AsyncWatch[T]: ...

    def watch(self, iterable: Iterable[T] | AsyncIterable[T]) -> Watch[T] | AsyncWatch[T]:
        """Iterate, by ``for`` or ``async for``; the body of the loop is one inference."""
        if isinstance(iterable, AsyncIterable):
            return AsyncWatch(self, aiter(iterable))
        return Watch(self, iter(iterable))

    def tick(self, items: int | None = None) -> None:
        """One inference has ended here, and the next one begins.

        A pause of the input looks like one long inference: a time between ticks that is far
        from usual is left out.
        """
        self.mark()
        self._tick(checked_items(items))

    def turn(self) -> None:
        """:meth:`tick`, where something else has seen a turn of the application's loop."""
        if not self.marked:
            self.turns = True
            self._tick(None)

    def _tick(self, items: int | None) -> None:
        now_s = self.now()
        last_s, self.ticked_s = self.ticked_s, now_s
        if last_s is not None and not self.paused(now_s - last_s):
            self.record(last_s, now_s, self.items() if items is None else items)

    def paused(self, between_s: float) -> bool:
        """Whether so long between two ticks is a pause; of the first ticks, nothing is usual."""
        usual_s = self._ticks_s
        paused = between_s > self._stall_s and (
            not usual_s or between_s > STALL_FACTOR * median(usual_s)
        )
        usual_s.append(between_s)
        return paused


def checked_items(items: int | None) -> int | None:
    """Of an inference, as an ``int``; None: not told.

    Raises:
        InputError: it is no whole number of at least 1.
    """
    if items is None:
        return None
    try:
        count = 0 if isinstance(items, bool) else operator.index(items)
    except TypeError:
        count = 0
    if count < 1:
        raise InputError(f"items must be a whole number of at least 1, got {items!r}")
    return count


class Inference:
    """One inference: a context manager, or a decorator that makes a fresh one a call.

    It may be entered again: after its end, for another inference; before, for nothing more.

    Attributes:
        counts: it is open, and no other span of its stream is around it.
        recorder: of its stream.
        around: the span around it, of another stream.
    """

    __slots__ = ("_again", "_count", "_items", "_start_s", "around", "counts", "recorder")

    def __init__(self, recorder: SpanRecorder, items: int | None) -> None:
        self.recorder = recorder
        self.around: Inference | None = None
        self.counts = False
        self._items = items
        self._count = 1
        self._start_s = 0.0
        self._again = 0

    def __enter__(self) -> None:
        if not self.recorder.marked:
            self.recorder.mark()
        self.open()

    def open(self) -> None:
        """Begin to count, unless another span of the stream is around this one."""
        recorder = self.recorder
        if self.counts:
            self._again += 1
            return
        if recorder.ticked_s is not None:
            return
        around = outer = open_span()
        while outer is not None:
            if outer.recorder is recorder:
                return
            outer.around = outer = _open(outer.around)
        self.around = around
        innermost.set(self)
        self.counts = True
        self._count = recorder.items() if self._items is None else self._items
        self._start_s = recorder.open_since[self] = recorder.now()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(completed=kind is None)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(completed=kind is None)

    def end(self, completed: bool) -> None:
        """Count the inference if it was completed, else only note that it was not."""
        if not self.counts:
            return
        if self._again:
            self._again -= 1
            return
        recorder = self.recorder
        end_s = recorder.now()
        self.counts = False
        if not completed:
            recorder.dropped += 1
        try:
            if completed:
                recorder.record(self._start_s, end_s, self._count)
        finally:
            recorder.open_since.pop(self, None)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, each call of which is one inference.

        That of a generator lasts from its first item to its end.
        """
        recorder, items = self.recorder, self._items
        own = cast(Callable[..., Any], function)
        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def streamed(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any]:
                with Inference(recorder, items):
                    async with aclosing(own(*args, **kwargs)) as stream:
                        async for item in stream:
                            yield item

            return cast(Callable[P, R], streamed)

        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generated(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, Any]:
                with Inference(recorder, items):
                    source = cast(Generator[Any, Any, Any], own(*args, **kwargs))
                    return (yield from source)

            return cast(Callable[P, R], generated)

        if any(map(inspect.iscoroutinefunction, (function, type(function).__call__))):

            @functools.wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                with Inference(recorder, items):
                    return await own(*args, **kwargs)

            return cast(Callable[P, R], awaited)

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            with Inference(recorder, items):
                return function(*args, **kwargs)

        return called


def open_span() -> Inference | None:
    """The innermost open span of any stream in this thread or task that counts.

    What sees inferences by itself looks here: within a span there is nothing to add.
    """
    return _open(innermost.get())


def _open(span: Inference | None) -> Inference | None:
    """The span, or the next one around it that has not ended."""
    while span is not None and not span.counts:
        span = span.around
    return span


class _Body:
    """The body of a watched loop, one turn after another."""

    def __init__(self, recorder: SpanRecorder) -> None:
        self._recorder = recorder
        self._open: Inference | None = None

    def begin(self) -> None:
        self._open = Inference(self._recorder, None)
        self._open.__enter__()

    def end(self, completed: bool) -> None:
        span, self._open = self._open, None
        if span is not None:
            span.end(completed)

    def __del__(self) -> None:
        self.end(completed=False)


class Watch(Generic[T]):
    """Iterates over something; the time between two requests for an item is one inference.

    The wait for the next item is not part of it. A loop that is left by ``break``, ``return``
    or an exception does not count its last, unfinished body.
    """

    def __init__(self, recorder: SpanRecorder, source: Iterator[T]) -> None:
        self._body = _Body(recorder)
        self._source = source

    def __iter__(self) -> Watch[T]:
        self._body.end(completed=False)  # a loop that was left, and is taken up again
        return self

    def __next__(self) -> T:
        self._body.end(completed=True)
        item = next(self._source)
        self._body.begin()
        return item


class AsyncWatch(Generic[T]):
    """:class:`Watch` for ``async for``.

    What other tasks do while the body awaits is part of its time: it is what its user waits.
    """

    def __init__(self, recorder: SpanRecorder, source: AsyncIterator[T]) -> None:
        self._body = _Body(recorder)
        self._source = source

    def __aiter__(self) -> AsyncWatch[T]:
        self._body.end(completed=False)
        return self

    async def __anext__(self) -> T:
        self._body.end(completed=True)
        item = await anext(self._source)
        self._body.begin()
        return item
