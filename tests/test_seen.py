"""Inferences are seen by themselves: every kind of them in every shape of application."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from seen_kinds import KINDS, make

from governor import EnergyGovernor, Pace
from governor.instrument.automatic import FRAMEWORKS, Automatic
from governor.instrument.explicit import SpanRecorder
from governor.instrument.opencv import RUNS


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    kind = make(request.param, monkeypatch)
    kind.infer()  # what compiles at its first call has done so
    return kind


@pytest.fixture
def recorder():
    recorder = SpanRecorder(time.perf_counter)
    recorder.start()
    automatic = Automatic(recorder, tuple(FRAMEWORKS))
    automatic.begin()
    yield recorder
    automatic.end()


def count(recorder):
    """How many inferences were seen, those included whose GPU work has ended by now."""
    spans = recorder.drain()
    assert all(0.0 < span.latency_s < 60.0 for span in spans)
    return len(spans)


def bare_loop(kind, _recorder):
    for _ in range(5):
        kind.infer()
    return 5


def inside_explicit_spans(kind, recorder):
    for _ in range(3):
        with recorder.inference():
            kind.infer()
            kind.infer()
    return 3


def in_a_watched_loop(kind, recorder):
    for _ in recorder.watch(range(4)):
        kind.infer()
    return 4


def beside_ticks(kind, recorder):
    for _ in range(4):
        recorder.tick()
        kind.infer()
    return 3


def beside_spans_of_its_own(kind, recorder):
    """Who shows inferences by themselves has said what one is; a second model is none."""
    for _ in range(3):
        with recorder.inference():
            pass
        kind.infer()
    return 3


def in_threads(kind, _recorder):
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: kind.infer(), range(12)))
    return 12


def in_asyncio_tasks(kind, _recorder):
    async def serve():
        kind.infer()
        await asyncio.sleep(0)
        kind.infer()

    async def app():
        await asyncio.gather(serve(), serve(), asyncio.to_thread(kind.infer))

    asyncio.run(app())
    return 5


def in_a_generator(kind, _recorder):
    def detections():
        for _ in range(4):
            yield kind.infer()

    for turn, _ in enumerate(detections()):
        if turn == 2:
            break
    return 3


def that_raises(kind, recorder):
    kind.infer()
    with pytest.raises(Exception):  # noqa: B017, PT011 - each framework has its own
        kind.fail()
    kind.infer()
    assert recorder.dropped == 1
    assert not recorder.open_since
    return 2


def in_a_forked_child(kind, recorder):
    """As a DataLoader's workers are: they neither count nor find anything changed."""
    kind.infer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pytest has threads
        child = os.fork()
    if child == 0:
        code = 99
        try:
            kind.infer()
            listeners = sum(len(framework.recorders) for framework in FRAMEWORKS.values())
            code = len(recorder.drain()) + listeners
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    kind.infer()
    return 2


SHAPES = [
    bare_loop,
    inside_explicit_spans,
    in_a_watched_loop,
    beside_ticks,
    beside_spans_of_its_own,
    in_threads,
    in_asyncio_tasks,
    in_a_generator,
    that_raises,
    in_a_forked_child,
]


@pytest.mark.parametrize("shape", SHAPES)
def test_each_inference_counts_once(kind, shape, recorder):
    assert count(recorder) == 0
    expected = shape(kind, recorder)
    assert count(recorder) == expected


def test_everything_is_the_very_same_object_again_afterwards(kind):
    before = kind.places()
    recorder = SpanRecorder(time.perf_counter)
    automatic = Automatic(recorder, tuple(FRAMEWORKS))
    automatic.begin()
    for _ in range(3):
        kind.infer()
    during = kind.places()
    automatic.end()
    automatic.end()
    after = kind.places()
    assert any(during[name] is not before[name] for name in before)
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)


def test_blocks_that_overlap_leave_nothing_in_any_order(kind):
    before = kind.places()
    recorders = [SpanRecorder(time.perf_counter) for _ in range(2)]
    first, second = (Automatic(recorder, tuple(FRAMEWORKS)) for recorder in recorders)
    for recorder in recorders:
        recorder.start()
    first.begin()
    kind.infer()
    second.begin()
    kind.infer()
    first.end()
    kind.infer()
    second.end()
    kind.infer()
    assert [count(recorder) for recorder in recorders] == [1, 2]
    assert all(kind.places()[name] is before[name] for name in before)


def test_models_that_take_turns_all_count(recorder, monkeypatch):
    kinds = [make(name, monkeypatch) for name in KINDS if name != "tensorrt v2 (stand-in)"]
    recorder.drain()  # what was imported just now is seen from here on
    for _ in range(3):
        for one in kinds:
            one.infer()
    assert count(recorder) == 3 * len(kinds)


def test_an_opencv_whose_classes_cannot_be_changed_is_left_alone_and_said(monkeypatch, caplog):
    """As Debian's is: there the classes are static C types, as ``int`` is."""
    opencv = types.ModuleType("cv2")
    opencv.__spec__ = types.SimpleNamespace(_initializing=False)
    opencv.dnn = types.SimpleNamespace(Net=int)
    monkeypatch.setitem(sys.modules, "cv2", opencv)
    monkeypatch.setitem(RUNS, "Net", ("bit_length",))
    automatic = Automatic(SpanRecorder(time.perf_counter), ["opencv"])
    with caplog.at_level(logging.WARNING, "governor"):
        automatic.begin()
    automatic.end()
    assert "keeps its nets from being seen" in caplog.text
    assert (7).bit_length() == 3


def test_a_framework_that_is_not_what_it_was_taken_for_is_left_alone_and_said(monkeypatch, caplog):
    strange = types.ModuleType("tensorrt")
    strange.__spec__ = types.SimpleNamespace(_initializing=False)
    strange.__version__ = "99.0"
    monkeypatch.setitem(sys.modules, "tensorrt", strange)
    recorder = SpanRecorder(time.perf_counter)
    automatic = Automatic(recorder, ["tensorrt"])
    with caplog.at_level(logging.WARNING, "governor"):
        automatic.begin()
        recorder.drain()
        automatic.end()
    assert "tensorrt 99.0 cannot be seen by itself" in caplog.text
    assert len(caplog.records) == 1


QUICK = Pace(
    baseline_precision=0.1,
    precision=0.1,
    window_max_s=0.5,
    window_min_s=0.2,
    readings_min=1.0,
    baseline_max_s=0.5,
    warm_up=0,
)


def test_a_bare_loop_is_governed_until_a_point_is_held():
    torch = pytest.importorskip("torch", reason="python -m pip install torch")

    class Camera(torch.nn.Module):
        def forward(self, frame):
            time.sleep(0.004)
            return frame

    model, frame = Camera().eval(), torch.zeros(1)
    with EnergyGovernor(
        "100ms", device="emulated:agx-orin", policy="coordinate", trials=2, pace=QUICK
    ) as gov:
        deadline = time.monotonic() + 30
        while gov.phase != "hold" and time.monotonic() < deadline:
            model(frame)
        assert gov.phase == "hold"
        assert len(gov.trials) == 2


def test_a_thread_that_is_in_an_inference_hides_none_of_another(recorder, monkeypatch):
    kind = make("onnxruntime run", monkeypatch)
    recorder.drain()  # what was imported just now is seen from here on
    inside, leave = threading.Event(), threading.Event()

    def other():
        with recorder.inference():
            inside.set()
            leave.wait(5.0)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(5.0)
    recorder.marked = False
    kind.infer()
    assert count(recorder) == 1
    leave.set()
    thread.join()
