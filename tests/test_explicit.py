"""How an application shows its inferences: watch, inference, decorator, tick."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest

from governor.errors import InputError
from governor.instrument.explicit import MOST_SPANS, SpanRecorder, open_span
from governor.instrument.stream import Stream
from governor.trial import Span


class Ticks:
    """A clock that moves when it is told to."""

    def __init__(self):
        self.time_s = 0.0

    def __call__(self):
        return self.time_s

    def work(self, seconds=1.0):
        self.time_s += seconds


@pytest.fixture
def clock():
    return Ticks()


@pytest.fixture
def recorder(clock):
    recorder = SpanRecorder(clock)
    recorder.start()
    return recorder


def latencies(recorder):
    return [span.latency_s for span in recorder.drain()]


def test_a_with_block_is_one_inference(recorder, clock):
    clock.work(5.0)
    with recorder.inference(items=3):
        clock.work(2.0)
    assert recorder.drain() == [Span(5.0, 7.0, 3)]
    assert recorder.drain() == []


def test_the_body_of_a_watched_loop_is_one_inference_and_the_wait_is_not(recorder, clock):
    def camera():
        for frame in range(3):
            clock.work(10.0)
            yield frame

    frames = []
    for frame in recorder.watch(camera()):
        frames.append(frame)
        clock.work(1.0)
    assert frames == [0, 1, 2]
    assert latencies(recorder) == [1.0, 1.0, 1.0]


def test_a_decorated_function_is_one_inference_a_call(recorder, clock):
    @recorder.inference()
    def infer(seconds, *, more=0.0):
        """Docs."""
        clock.work(seconds + more)
        return seconds

    assert infer(2.0, more=1.0) == 2.0
    assert infer(1.0) == 1.0
    assert infer.__name__ == "infer"
    assert latencies(recorder) == [3.0, 1.0]


def test_a_decorated_coroutine_is_one_inference_until_it_ends(recorder, clock):
    @recorder.inference(items=2)
    async def infer():
        clock.work(1.0)
        await asyncio.sleep(0)
        clock.work(1.0)
        return "done"

    assert asyncio.run(infer()) == "done"
    assert recorder.drain() == [Span(0.0, 2.0, 2)]


def test_an_async_with_block_is_one_inference(recorder, clock):
    async def infer():
        async with recorder.inference(items=2):
            await asyncio.sleep(0)
            clock.work(2.0)

    asyncio.run(infer())
    assert recorder.drain() == [Span(0.0, 2.0, 2)]


class Camera:
    """Frames that arrive, by ``async for``."""

    def __init__(self, clock, frames):
        self.clock = clock
        self.frames = iter(range(frames))

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        self.clock.work(10.0)
        for frame in self.frames:
            return frame
        raise StopAsyncIteration


def test_the_body_of_a_watched_async_loop_is_one_inference_and_the_wait_is_not(recorder, clock):
    async def app():
        frames = []
        async for frame in recorder.watch(Camera(clock, 3)):
            frames.append(frame)
            await asyncio.sleep(0)
            clock.work(1.0)
        return frames

    assert asyncio.run(app()) == [0, 1, 2]
    assert latencies(recorder) == [1.0, 1.0, 1.0]


def test_watched_async_loops_of_different_tasks_are_not_nested(recorder, clock):
    async def app():
        async for _ in recorder.watch(Camera(clock, 2)):
            await asyncio.sleep(0)

    async def both():
        await asyncio.gather(app(), app())

    asyncio.run(both())
    assert len(recorder.drain()) == 4


def test_a_watched_async_loop_that_is_left_does_not_count_its_last_body(recorder, clock):
    async def app():
        async for frame in recorder.watch(Camera(clock, 9)):
            clock.work(1.0)
            if frame == 2:
                break

    asyncio.run(app())
    assert latencies(recorder) == [1.0, 1.0]


def test_the_time_between_ticks_is_one_inference(recorder, clock):
    for _ in range(3):
        recorder.tick()
        clock.work(2.0)
    recorder.tick(items=4)
    assert [(span.latency_s, span.items) for span in recorder.drain()] == [(2, 1), (2, 1), (2, 4)]


def test_a_pause_between_ticks_is_no_inference(recorder, clock):
    for seconds in (0.1, 0.1, 0.1, 30.0, 0.1, 1.9):
        recorder.tick()
        clock.work(seconds)
    recorder.tick()
    assert latencies(recorder) == pytest.approx([0.1, 0.1, 0.1, 0.1, 1.9])


def test_a_pause_before_the_first_inference_is_none_either(recorder, clock):
    for seconds in (30.0, 0.1):
        recorder.tick()
        clock.work(seconds)
    recorder.tick()
    assert latencies(recorder) == pytest.approx([0.1])


def test_ticks_of_slow_inferences_are_no_pauses(recorder, clock):
    for _ in range(5):
        recorder.tick()
        clock.work(7.0)
    recorder.tick()
    assert latencies(recorder) == [7.0] * 4  # nothing is known yet at the first


def test_of_nested_spans_the_outermost_counts(recorder, clock):
    @recorder.inference()
    def inner():
        clock.work(1.0)

    with recorder.inference():
        inner()
        with recorder.inference():
            clock.work(1.0)
    for _ in recorder.watch([1]):
        inner()
    assert latencies(recorder) == [2.0, 1.0]


def test_in_a_loop_that_ticks_only_the_ticks_count(recorder, clock):
    for _ in range(3):
        recorder.tick()
        with recorder.inference():
            clock.work(1.0)
    assert latencies(recorder) == [1.0, 1.0]


def test_spans_of_different_threads_are_not_nested(recorder):
    inside, leave = threading.Event(), threading.Event()

    def other():
        with recorder.inference():
            inside.set()
            leave.wait(5.0)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(5.0)
    with recorder.inference():
        pass
    assert len(recorder.drain()) == 1
    leave.set()
    thread.join()
    assert len(recorder.drain()) == 1


def test_no_span_of_many_threads_is_lost(recorder):
    def worker():
        for _ in range(500):
            with recorder.inference():
                pass

    threads = [threading.Thread(target=worker) for _ in range(8)]
    for thread in threads:
        thread.start()
    collected = 0
    while any(thread.is_alive() for thread in threads):
        collected += len(recorder.drain())
    assert collected + len(recorder.drain()) == 4000


def test_spans_of_different_tasks_are_not_nested(recorder, clock):
    async def infer():
        with recorder.inference():
            await asyncio.sleep(0)
            clock.work(1.0)

    async def both():
        await asyncio.gather(infer(), infer())

    asyncio.run(both())
    assert len(recorder.drain()) == 2


def test_an_exception_in_the_body_goes_through_and_is_no_inference(recorder, clock):
    with pytest.raises(KeyError, match="frame"), recorder.inference():
        raise KeyError("frame")
    with recorder.inference():
        clock.work(1.0)
    assert latencies(recorder) == [1.0]
    assert recorder.dropped == 1


def test_a_watched_loop_that_is_left_does_not_count_its_last_body(recorder, clock):
    for frame in recorder.watch(range(10)):
        clock.work(1.0)
        if frame == 2:
            break
    assert len(recorder.drain()) == 2
    with recorder.inference():
        clock.work(1.0)
    assert len(recorder.drain()) == 1


def test_an_exception_in_a_watched_loop_leaves_later_spans_alone(recorder, clock):
    def loop():
        for _ in recorder.watch(range(10)):
            raise OSError("camera")

    with pytest.raises(OSError, match="camera"):
        loop()
    with recorder.inference():
        clock.work(1.0)
    assert latencies(recorder) == [1.0]


def test_a_watched_loop_that_dies_in_another_thread_leaves_later_spans_alone(recorder, clock):
    loops = [recorder.watch(range(10))]
    next(loops[0])
    thread = threading.Thread(target=loops.clear)
    thread.start()
    thread.join()
    with recorder.inference():
        clock.work(1.0)
    assert latencies(recorder) == [1.0]


def test_an_unfinished_inference_is_seen_while_it_lasts(recorder, clock):
    assert recorder.in_flight_s(clock()) == 0.0
    with recorder.inference():
        clock.work(3.0)
        assert recorder.in_flight_s(clock()) == 3.0
    assert recorder.in_flight_s(clock()) == 0.0


def test_an_inference_can_be_stretched(clock):
    def stretch(start_s, end_s, _items):
        clock.work(0.5 * (end_s - start_s))

    recorder = SpanRecorder(clock, stretch=stretch)
    recorder.start()
    with recorder.inference():
        clock.work(2.0)
    assert latencies(recorder) == [3.0]


def test_nothing_is_kept_unless_it_runs(clock):
    recorder = SpanRecorder(clock)
    with recorder.inference():
        clock.work(1.0)
    assert recorder.drain() == []
    recorder.start()
    recorder.stop()
    with recorder.inference():
        clock.work(1.0)
    assert recorder.drain() == []


def test_memory_stays_bounded_when_nobody_collects(recorder):
    for _ in range(MOST_SPANS + 10):
        recorder.record(0.0, 1.0, 1)
    assert len(recorder.drain()) == MOST_SPANS


def test_an_inference_of_no_items_is_refused(recorder):
    with pytest.raises(InputError, match="at least 1, got 0"):
        recorder.inference(items=0)


@pytest.mark.parametrize("items", [0, -1, 1.5, "2", float("nan"), True])
@pytest.mark.parametrize("show", ["inference", "tick", "record"])
def test_items_that_are_no_number_of_items_are_refused(show, items, recorder):
    shown = {
        "inference": lambda: recorder.inference(items=items),
        "tick": lambda: recorder.tick(items),
        "record": lambda: Stream(recorder).record(0.0, 1.0, items),
    }
    with pytest.raises(InputError, match="items must be a whole number of at least 1, got"):
        shown[show]()
    assert recorder.drain() == []


@pytest.mark.parametrize(("start_s", "end_s"), [(2.0, 1.0), (float("nan"), 1.0), (0.0, math.inf)])
def test_a_time_that_cannot_be_is_refused(start_s, end_s, recorder):
    with pytest.raises(InputError, match="end_s"):
        Stream(recorder).record(start_s, end_s)
    assert recorder.drain() == []


def test_what_is_no_function_cannot_be_decorated(recorder):
    with pytest.raises(InputError, match="items=8"):
        Stream(recorder).inference(8)


def test_one_object_may_mark_many_inferences_each_with_the_batch_of_its_time(clock):
    sizes = [4]
    recorder = SpanRecorder(clock, items=lambda: sizes[0])
    recorder.start()
    inference = recorder.inference()
    for size in (4, 8):
        sizes[0] = size
        with inference:
            clock.work(1.0)
    assert [span.items for span in recorder.drain()] == [4, 8]


def test_an_object_that_is_entered_again_while_it_is_open_is_one_inference(recorder, clock):
    inference = recorder.inference()
    with inference:
        clock.work(1.0)
        with inference:
            clock.work(1.0)
        clock.work(1.0)
    assert latencies(recorder) == [3.0]
    with inference:
        clock.work(1.0)
    assert latencies(recorder) == [1.0]
    assert recorder.in_flight_s(clock()) == 0.0


def test_a_decorated_generator_is_one_inference_from_its_first_item_to_its_end(recorder, clock):
    @recorder.inference()
    def tokens(count):
        for number in range(count):
            clock.work(1.0)
            yield number
        return "done"

    def consumer():
        return (yield from tokens(3))

    assert list(consumer()) == [0, 1, 2]
    assert latencies(recorder) == [3.0]
    for _ in tokens(3):
        break
    assert latencies(recorder) == []
    assert recorder.dropped == 1


def test_a_decorated_async_generator_is_one_inference_until_it_ends(recorder, clock):
    closed = []

    @recorder.inference()
    async def tokens(count):
        try:
            for number in range(count):
                clock.work(1.0)
                yield number
        finally:
            closed.append(count)

    async def consume():
        assert [number async for number in tokens(3)] == [0, 1, 2]
        left = tokens(5)
        assert await anext(left) == 0
        await left.aclose()

    asyncio.run(consume())
    assert latencies(recorder) == [3.0]
    assert closed == [3, 5]
    assert recorder.dropped == 1


def test_a_decorated_object_with_an_async_call_is_one_inference_until_it_ends(recorder, clock):
    class Model:
        async def __call__(self):
            await asyncio.sleep(0)
            clock.work(2.0)

    asyncio.run(recorder.inference()(Model())())
    assert latencies(recorder) == [2.0]


def test_a_watched_loop_that_is_taken_up_again_does_not_count_the_time_between(recorder, clock):
    frames = recorder.watch(iter(range(4)))
    for frame in frames:
        clock.work(1.0)
        if frame == 1:
            break
    clock.work(100.0)
    for _ in frames:
        clock.work(1.0)
    assert latencies(recorder) == [1.0, 1.0, 1.0]


def test_a_source_that_fails_ends_the_loop_and_counts_the_body_before(recorder, clock):
    def camera():
        yield 0
        raise OSError("unplugged")

    def loop():
        for _ in recorder.watch(camera()):
            clock.work(1.0)

    with pytest.raises(OSError, match="unplugged"):
        loop()
    assert latencies(recorder) == [1.0]
    assert recorder.in_flight_s(clock()) == 0.0


def test_a_task_that_is_cancelled_leaves_nothing_open(recorder, clock):
    async def forever():
        async with recorder.inference():
            await asyncio.sleep(3600)

    async def cancel():
        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert latencies(recorder) == []
    assert recorder.in_flight_s(clock() + 9.0) == 0.0


# several streams


def test_spans_of_different_streams_nest_and_both_count(recorder, clock):
    token = recorder.branch("token", items=lambda: 1)
    with recorder.inference():
        for _ in range(2):
            with token.inference():
                clock.work(1.0)
                with recorder.inference():  # of a stream that is open already
                    clock.work(1.0)
    assert [(span.stream, span.latency_s) for span in recorder.drain()] == [
        ("token", 2.0),
        ("token", 2.0),
        ("main", 4.0),
    ]


def test_streams_that_leapfrog_leave_nothing_behind(recorder, clock):
    left, right = recorder.watch(range(50)), recorder.branch("right", lambda: 1).watch(range(50))
    for _ in zip(left, right, strict=True):
        clock.work(1.0)
    span, depth = open_span(), 0
    while span is not None:
        span, depth = span.around, depth + 1
    assert depth == 0
    assert len(recorder.drain()) == 100


def test_only_an_open_span_is_open(recorder):
    assert open_span() is None
    with recorder.inference():
        assert open_span() is not None
    assert open_span() is None


def test_a_stream_that_begins_while_the_recorder_runs_is_kept_and_stopped_with_it(recorder):
    branch = recorder.branch("late", lambda: 1)
    branch.record(0.0, 1.0, 1)
    recorder.stop()
    branch.record(1.0, 2.0, 1)
    recorder.start()
    branch.record(2.0, 3.0, 1)
    assert [span.start_s for span in recorder.drain()] == [2.0]


def test_the_oldest_unfinished_inference_is_known_by_stream(recorder, clock):
    branch = recorder.branch("slow", lambda: 1)
    with branch.inference():
        clock.work(2.0)
        with recorder.inference():
            clock.work(1.0)
            assert recorder.unfinished_s(clock()) == {"main": 1.0, "slow": 3.0}
    assert recorder.unfinished_s(clock()) == {}
