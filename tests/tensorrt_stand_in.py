"""TensorRT and pycuda as far as examples/tensorrt_loop.py uses them, for a machine without.

Names, signatures and what is refused follow NVIDIA's Python API reference of TensorRT 8.6, 10 and
11 and pycuda's. Nothing is computed: the engine has one input and one output, and its work is
time on a stream of the CUDA stand-in.
"""

from __future__ import annotations

import ctypes
import enum
import sys
import types

import numpy as np
from seen_kinds import cuda_stand_in, tensorrt_module

WORK_S = 0.004


def install(monkeypatch, version: int) -> list[str]:
    """Put both where the example imports them from; returns the log of what it does."""
    log: list[str] = []
    trt, cuda = tensorrt_module(WORK_S)
    monkeypatch.setattr("governor.instrument.cuda_driver.LIBRARY", str(cuda_stand_in()))
    monkeypatch.setitem(sys.modules, "tensorrt", _complete(trt, version, log))
    pycuda, context, driver = (
        types.ModuleType(name) for name in ("pycuda", "pycuda.autoprimaryctx", "pycuda.driver")
    )
    pycuda.autoprimaryctx, pycuda.driver = context, driver
    _fill_driver(driver, cuda)
    for module in (pycuda, context, driver):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    cuda.stand_in_make_current()
    return log


def _complete(trt, version, log):
    trt.Logger = type("Logger", (), {"WARNING": 2, "__init__": lambda self, severity: None})
    trt.TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
    trt.nptype = {"float": np.float32}.__getitem__
    flags = {"EXPLICIT_BATCH": 0} if version < 10 else {}
    trt.NetworkDefinitionCreationFlag = enum.IntEnum(
        "NetworkDefinitionCreationFlag", flags | {"STRONGLY_TYPED": 1}
    )
    trt.BuilderFlag = enum.Enum("BuilderFlag", "FP16" if version < 11 else "DEBUG")

    class Tensor:
        name, shape = "images", (-1, 3, 8, 8)

    class Network:
        num_inputs = 1

        def get_input(self, index):
            return [Tensor][index]

    class Config:
        def set_flag(self, flag):
            log.append(f"flag {flag.name}")

        def add_optimization_profile(self, profile):
            log.append(f"profile {profile.shapes}")
            return 0

    class Profile:
        def __init__(self):
            self.shapes = {}

        def set_shape(self, input, min, opt, max):
            self.shapes[input] = tuple(opt)

    class Builder:
        def __init__(self, logger):
            pass

        def create_network(self, flags=0):
            log.append(f"network {flags}")
            return Network()

        def create_builder_config(self):
            return Config()

        def create_optimization_profile(self):
            return Profile()

        def build_serialized_network(self, network, config):
            return b"plan"

    class OnnxParser:
        num_errors = 1

        def __init__(self, network, logger):
            pass

        def parse(self, model):
            return model == b"a network"

        def get_error(self, index):
            return "line 1: no network"

    class Engine:
        num_io_tensors = 2

        def get_tensor_name(self, index):
            return ["scores", "images"][index]

        def get_tensor_mode(self, name):
            return trt.TensorIOMode.INPUT if name == "images" else trt.TensorIOMode.OUTPUT

        def get_tensor_shape(self, name):
            return Tensor.shape if name == "images" else (-1, 10)

        def get_tensor_dtype(self, name):
            return "float"

        def create_execution_context(self):
            return trt.IExecutionContext()

    def set_input_shape(self, name, shape):
        assert min(shape) > 0
        self.batch = shape[0]
        return True

    def get_tensor_shape(self, name):
        return (self.batch, 3, 8, 8) if name == "images" else (self.batch, 10)

    def set_tensor_address(self, name, memory):
        log.append(f"address of {name}")
        return memory != 0

    class Runtime:
        def __init__(self, logger):
            pass

        def deserialize_cuda_engine(self, serialized_engine):
            return Engine() if serialized_engine == b"plan" else None

    for function in (set_input_shape, get_tensor_shape, set_tensor_address):
        setattr(trt.IExecutionContext, function.__name__, function)
    if version > 9:
        del trt.IExecutionContext.execute_async_v2
    for made in (Builder, OnnxParser, Runtime):
        setattr(trt, made.__name__, made)
    return trt


def _fill_driver(driver, cuda):
    cuda.cuEventElapsedTime.argtypes = [ctypes.c_void_p] * 3

    class Stream:
        def __init__(self):
            self.handle = cuda.stand_in_stream()

        def synchronize(self):
            waits = Event()
            waits.record(self)
            while cuda.cuEventQuery(waits.event):
                pass

    class Event:
        def __init__(self):
            self.event = ctypes.c_void_p()
            assert cuda.cuEventCreate(ctypes.byref(self.event), 0) == 0

        def record(self, stream=None):
            assert cuda.cuEventRecord(self.event, ctypes.c_void_p(stream.handle)) == 0
            return self

        def time_since(self, event):
            elapsed_ms = ctypes.c_float()
            assert not cuda.cuEventElapsedTime(
                ctypes.addressof(elapsed_ms), event.event, self.event
            )
            return elapsed_ms.value

    class DeviceAllocation:
        def __init__(self, size):
            self.memory = ctypes.create_string_buffer(size)

        def __int__(self):
            return ctypes.addressof(self.memory)

    def copy(dest, src, stream=None):
        assert isinstance(stream, Stream)

    driver.Stream, driver.Event, driver.DeviceAllocation = Stream, Event, DeviceAllocation
    driver.mem_alloc = DeviceAllocation
    driver.pagelocked_zeros = np.zeros
    driver.memcpy_htod_async = driver.memcpy_dtoh_async = copy
