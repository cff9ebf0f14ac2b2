"""TensorRT's asynchronous executions last until their stream's work is done.

TensorRT, pycuda and the driver are stand-ins; the driver's is a library that is really loaded.
"""

from __future__ import annotations

import logging
import sys
import time
from itertools import pairwise

import pytest
from seen_kinds import cuda_stand_in, tensorrt_module

from governor.errors import InputError
from governor.instrument.automatic import Automatic, parse_instrument
from governor.instrument.explicit import SpanRecorder

WORK_S = 0.02


@pytest.fixture
def recorder(monkeypatch):
    recorder = SpanRecorder(time.perf_counter)
    recorder.start()
    return recorder


@pytest.fixture
def trt(monkeypatch, recorder):
    module, cuda = tensorrt_module(WORK_S)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr("governor.instrument.cuda_driver.LIBRARY", str(cuda_stand_in()))
    automatic = Automatic(recorder, ["tensorrt"])
    automatic.begin()
    cuda.stand_in_make_current()
    yield module, cuda
    automatic.end()


def wait_for(recorder, spans):
    found = []
    deadline = time.monotonic() + 10
    while len(found) < spans and time.monotonic() < deadline:
        found += recorder.drain()
        time.sleep(0.001)
    return found


@pytest.mark.parametrize(
    "execute",
    [
        lambda context, stream: context.execute_async_v3(stream),
        lambda context, stream: context.execute_async_v3(stream_handle=stream),
        lambda context, stream: context.execute_async_v2([0], stream),
        lambda context, stream: context.execute_async_v2(bindings=[0], stream_handle=stream),
    ],
)
def test_an_execution_lasts_until_its_stream_is_done_and_nothing_waits(trt, recorder, execute):
    module, cuda = trt
    context, stream = module.IExecutionContext(), cuda.stand_in_stream()
    assert execute(context, stream) is True
    assert recorder.drain() == []
    (span,) = wait_for(recorder, 1)
    assert span.latency_s >= WORK_S


def test_executions_that_queue_on_a_stream_end_one_after_another(trt, recorder):
    module, cuda = trt
    context, stream = module.IExecutionContext(), cuda.stand_in_stream()
    for _ in range(3):
        context.execute_async_v3(stream)
    spans = wait_for(recorder, 3)
    ends_s = [span.end_s for span in spans]
    assert all(later - sooner >= 0.9 * WORK_S for sooner, later in pairwise(ends_s))


def test_an_execution_that_is_not_accepted_is_no_inference(trt, recorder):
    module, cuda = trt
    context = module.IExecutionContext()
    context.accepts = False
    assert context.execute_async_v3(cuda.stand_in_stream()) is False
    assert recorder.drain() == []
    assert recorder.dropped == 1


def test_without_a_driver_the_hosts_time_counts(trt, recorder, monkeypatch, caplog):
    module, cuda = trt
    monkeypatch.setattr("governor.instrument.cuda_driver.LIBRARY", "libno-such-driver.so")
    with caplog.at_level(logging.WARNING, "governor"):
        module.IExecutionContext().execute_async_v3(cuda.stand_in_stream())
    assert len(recorder.drain()) == 1
    assert "libno-such-driver.so" in caplog.text


@pytest.mark.parametrize("instrument", ["torch", "everything", [], ["torch", "jax"], [3]])
def test_an_unknown_framework_is_refused_with_those_that_are_known(instrument):
    with pytest.raises(InputError, match="among torch, tensorrt, onnxruntime, opencv"):
        parse_instrument(instrument)
