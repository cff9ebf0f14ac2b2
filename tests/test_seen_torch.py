"""What is particular to PyTorch: its modules, its training steps and its GPU's time."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import pickle
import subprocess
import sys
import textwrap
import time
import warnings

import pytest

from governor.instrument.automatic import FRAMEWORKS, Automatic
from governor.instrument.explicit import SpanRecorder

torch = pytest.importorskip("torch", reason="python -m pip install torch")
PLACE = "_compiled_call_impl"


@pytest.fixture
def recorder():
    recorder = SpanRecorder(time.perf_counter)
    recorder.start()
    yield recorder
    recorder.stop()


@pytest.fixture
def seen(recorder):
    automatic = Automatic(recorder, ["torch"])
    automatic.begin()
    yield recorder
    automatic.end()


class Net(torch.nn.Module):
    def __init__(self, layers=3):
        super().__init__()
        self.layers = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(layers)))

    def forward(self, x):
        return self.layers(x)


FRAME = torch.zeros(1, 2)


def test_once_the_outermost_module_is_known_no_other_is_listened_to(seen, monkeypatch):
    model = Net().eval()
    model(FRAME)
    assert vars(torch.nn.Module)[PLACE] is not None
    later_s = time.perf_counter() + 1.5
    monkeypatch.setattr("governor.instrument.torch.time.perf_counter", lambda: later_s)
    model(FRAME)
    seen.drain()
    assert vars(torch.nn.Module)[PLACE] is None
    assert PLACE in vars(model)
    assert PLACE not in vars(model.layers)
    model(FRAME)
    assert len(seen.drain()) == 1


def test_when_the_known_ones_fall_silent_all_are_listened_to_again(seen, monkeypatch):
    Net().eval()(FRAME)
    now_s = time.perf_counter()
    for ahead_s, listens in ((1.5, False), (3.0, True)):
        monkeypatch.setattr(
            "governor.instrument.torch.time.perf_counter", lambda ahead_s=ahead_s: now_s + ahead_s
        )
        seen.drain()
        assert (vars(torch.nn.Module)[PLACE] is not None) == listens
    Net().eval()(FRAME)
    assert len(seen.drain()) == 1


def test_a_copy_and_a_pickle_of_a_module_that_is_seen_have_nothing_of_it(seen):
    model = Net().eval()
    model(FRAME)
    assert PLACE in vars(model)
    assert PLACE not in vars(copy.deepcopy(model))
    assert PLACE not in vars(pickle.loads(pickle.dumps(model)))


def test_a_module_that_is_seen_can_be_scripted_and_traced(seen):
    model = Net().eval()
    model(FRAME)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is deprecated, and in use
        assert torch.equal(torch.jit.script(model)(FRAME), model(FRAME))
        assert torch.equal(torch.jit.trace(model, FRAME)(FRAME), model(FRAME))


def test_a_module_that_is_seen_goes_away_when_the_application_lets_go_of_it(seen):
    import weakref

    model = Net().eval()
    model(FRAME)
    gone = weakref.ref(model)
    del model
    assert gone() is None


@pytest.mark.parametrize("inside", [False, True])
def test_nothing_is_compiled_again_because_of_being_seen(recorder, inside):
    graphs = []

    def backend(graph, _examples):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    automatic = Automatic(recorder, ["torch"])
    if inside:
        automatic.begin()
    model = torch.compile(Net().eval(), backend=backend, fullgraph=True)
    whole = Net().eval()
    function = torch.compile(lambda x: whole(x) + 1, backend=backend, fullgraph=True)
    other = Net().eval()
    other.compile(backend=backend, fullgraph=True)
    if not inside:
        model(FRAME), other(FRAME), function(FRAME)
        automatic.begin()
    for _ in range(3):
        model(FRAME), other(FRAME), function(FRAME)
    compiled = len(graphs)
    assert len(recorder.drain()) == 6
    automatic.end()
    model(FRAME), other(FRAME), function(FRAME)
    assert len(graphs) == compiled == 2  # the two networks share their code


def test_a_forward_that_only_makes_a_generator_is_no_inference_but_what_it_calls_is(seen):
    class Streaming(Net):
        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
                yield x

    assert len(list(Streaming().eval()(FRAME))) == 3
    assert len(seen.drain()) == 3


def test_a_forward_that_is_a_coroutine_is_none_either(seen):
    class Awaited(Net):
        async def forward(self, x):
            await asyncio.sleep(0)
            return self.layers(x)

    asyncio.run(Awaited().eval()(FRAME))
    assert len(seen.drain()) == 1


def step(model, optimizer):
    optimizer.zero_grad()
    model(FRAME + 1).sum().backward()
    optimizer.step()


def test_in_training_a_step_counts_and_not_its_forward_pass(seen):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step(model, optimizer)
    seen.drain()  # the first forward pass: until a step, nothing tells it from an inference
    for _ in range(4):
        time.sleep(0.002)
        step(model, optimizer)
    spans = seen.drain()
    assert len(spans) == 4
    assert all(span.latency_s >= 0.002 for span in spans)


def test_steps_that_are_marked_count_as_they_are_marked(seen):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        step(model, optimizer)
    seen.drain()
    for _ in range(3):
        with seen.inference():
            for _ in range(2):
                step(model, optimizer)
    assert len(seen.drain()) == 3


class Frames(torch.utils.data.Dataset):
    """Each item is what a network makes of it, as in a preprocessing that is learnt."""

    net = Net().eval().requires_grad_(False)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.net(torch.full((2,), float(index)))


def test_workers_of_a_data_loader_run_as_they_would_and_count_nothing(seen):
    torch.set_num_threads(1)
    expected = [Frames()[index] for index in range(6)]
    seen.drain()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pytest has threads, and this machine may have one core
        loader = torch.utils.data.DataLoader(Frames(), num_workers=2, batch_size=1)
        found = [batch[0] for batch in loader]
    assert all(map(torch.equal, found, expected))
    assert seen.drain() == []


def test_entering_a_block_imports_nothing_and_what_is_imported_later_is_seen():
    """In a process of its own; all three at once, for the sake of time."""
    script = """
        import sys, time
        from governor import EnergyGovernor

        names = ("torch", "tensorrt", "onnxruntime", "cv2")
        with EnergyGovernor("1s", device="emulated:agx-orin") as gov:
            time.sleep(0.3)
            assert not set(names) & set(sys.modules), sys.modules.keys()
            import torch
            call = torch.nn.Module.__dict__["_compiled_call_impl"]
            model, frame = torch.nn.Linear(2, 2).eval(), torch.zeros(1, 2)
            deadline = time.monotonic() + 30
            while not gov.status().inferences and time.monotonic() < deadline:
                model(frame)
                time.sleep(0.01)
            print(gov.status().inferences > 0)
        print(torch.nn.Module.__dict__["_compiled_call_impl"] is call)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.split() == ["True", "True"], done.stderr


# The GPU: torch.cuda's streams and events, played by what has their signatures


class Gpu:
    """A stream whose work is time on a clock that is moved by hand."""

    device_index, cuda_stream = 0, 7

    def __init__(self):
        self.now_s = 0.0
        self.busy_until_s = 0.0
        self.made = 0

    def work(self, seconds):
        self.busy_until_s = max(self.busy_until_s, self.now_s) + seconds


@pytest.fixture
def gpu(monkeypatch):
    gpu = Gpu()

    class Event:
        def __init__(self, enable_timing=False, blocking=False, interprocess=False):
            assert enable_timing
            gpu.made += 1

        def record(self, stream=None):
            assert stream is gpu
            self.at_s = max(gpu.busy_until_s, gpu.now_s)

        def query(self):
            return gpu.now_s >= self.at_s

        def elapsed_time(self, end_event):
            assert self.query()
            assert end_event.query()
            return 1e3 * (end_event.at_s - self.at_s)

        def synchronize(self):
            raise AssertionError("nothing may wait for the GPU")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: gpu)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", Event.synchronize)
    return gpu


@pytest.fixture
def on_gpu(gpu):
    """A recorder on the same clock, and a network that leaves 5 s of work on the GPU."""

    class OnGpu(torch.nn.Module):
        def forward(self, x):
            gpu.now_s += 1.0  # the host's own part
            gpu.work(5.0)
            return x

    recorder = SpanRecorder(lambda: gpu.now_s)
    recorder.start()
    automatic = Automatic(recorder, ["torch"])
    automatic.begin()
    yield recorder, OnGpu().eval()
    automatic.end()


def test_an_inference_lasts_until_its_gpu_work_is_done(gpu, on_gpu):
    recorder, model = on_gpu
    model(FRAME)
    assert recorder.drain() == []
    assert recorder.in_flight_s(gpu.now_s) == 0.0
    gpu.now_s = 60.0
    (span,) = recorder.drain()
    assert (span.start_s, span.end_s) == (0.0, 6.0)


def test_work_that_had_to_queue_ends_after_what_was_before_it(gpu, on_gpu):
    recorder, model = on_gpu
    for _ in range(3):
        model(FRAME)
    gpu.now_s = 60.0
    assert [(span.start_s, span.end_s) for span in recorder.drain()] == [
        (0.0, 6.0), (1.0, 11.0), (2.0, 16.0),
    ]  # fmt: skip


def test_events_are_used_again(gpu, on_gpu):
    recorder, model = on_gpu
    for _ in range(20):
        model(FRAME)
        gpu.now_s += 10.0
        assert len(recorder.drain()) == 1
    assert gpu.made <= 4


def test_a_gpu_that_fails_is_left_alone_and_the_hosts_time_counts(gpu, on_gpu, monkeypatch, caplog):
    def fails(self, stream=None):
        raise RuntimeError("CUDA error: unspecified launch failure")

    recorder, model = on_gpu
    monkeypatch.setattr(torch.cuda.Event, "record", fails)
    with caplog.at_level(logging.WARNING, "governor"):
        for _ in range(3):
            model(FRAME)
    assert [span.latency_s for span in recorder.drain()] == [1.0, 1.0, 1.0]
    assert len(caplog.records) == 1
    assert "unspecified launch failure" in caplog.text


def test_a_stream_that_cannot_be_asked_for_fails_no_call(gpu, on_gpu, monkeypatch, caplog):
    def fails():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    recorder, model = on_gpu
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", fails)
    with caplog.at_level(logging.WARNING, "governor"):
        for _ in range(3):
            model(FRAME)
    assert [span.latency_s for span in recorder.drain()] == [1.0, 1.0, 1.0]
    assert len(caplog.records) == 1


def test_a_forked_child_asks_the_gpu_nothing(gpu, on_gpu, monkeypatch):
    """CUDA answers a forked child with an error; workers of a data loader are such."""
    _recorder, model = on_gpu
    model(FRAME)
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pytest has threads
        patch.setattr(torch.cuda.Event, "query", lambda self: os._exit(1))
        child = os.fork()
        if child == 0:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_while_a_cuda_graph_is_captured_no_event_gets_into_it(gpu, on_gpu, monkeypatch):
    recorder, model = on_gpu
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    model(FRAME)
    assert gpu.made == 0
    assert [span.latency_s for span in recorder.drain()] == [1.0]


def test_all_frameworks_are_closed_when_nobody_listens():
    assert all(not framework.recorders for framework in FRAMEWORKS.values())
    assert vars(torch.nn.Module)[PLACE] is None
