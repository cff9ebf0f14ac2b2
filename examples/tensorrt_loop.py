"""Govern a TensorRT loop with pycuda on a Jetson, or on any machine with an NVIDIA GPU.

Builds an engine from an ONNX file, and runs it over and over. The execution context is seen by
itself: nothing in the loop knows of the governor. Written to the Python API of TensorRT 8.5 to 11
(JetPack 5.1 to 7), which has named tensors and ``execute_async_v3``.

NOT YET RUN on a GPU: the API's calls are checked against a stand-in only.

    python -m pip install 'energy-governor[tensorrt]'     on a Jetson, TensorRT comes with JetPack
    python examples/tensorrt_loop.py model.onnx --latency-slo 50ms --device auto
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycuda.autoprimaryctx  # noqa: F401 - makes the GPU's context current; ends it at exit
import pycuda.driver as cuda
import tensorrt as trt
from outcome import say, turns

from governor import EnergyGovernor

LOGGER = trt.Logger(trt.Logger.WARNING)


def build_engine(onnx: Path) -> Any:
    """An engine for this GPU; takes minutes for a large network.

    Raises:
        SystemExit: the network cannot be read, or no engine built of it.
    """
    builder = trt.Builder(LOGGER)
    # up to TensorRT 9 a network must be told that its batch is one of its dimensions
    flags = trt.NetworkDefinitionCreationFlag
    explicit = 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
    network = builder.create_network(explicit)
    parser = trt.OnnxParser(network, LOGGER)
    if not parser.parse(onnx.read_bytes()):
        raise SystemExit("\n".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    if hasattr(trt.BuilderFlag, "FP16"):  # from 11 on, types are those of the network
        config.set_flag(trt.BuilderFlag.FP16)
    config.add_optimization_profile(_smallest_shapes(builder, network))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise SystemExit(f"TensorRT could not build an engine from {onnx}")
    return trt.Runtime(LOGGER).deserialize_cuda_engine(plan)


def _smallest_shapes(builder: Any, network: Any) -> Any:
    """A profile that sets each dimension that is left open to 1."""
    profile = builder.create_optimization_profile()
    for place in range(network.num_inputs):
        tensor = network.get_input(place)
        shape = [max(side, 1) for side in tensor.shape]
        profile.set_shape(tensor.name, shape, shape, shape)
    return profile


@dataclass
class Buffer:
    """One input or output: page-locked on the host, and on the GPU."""

    host: np.ndarray
    device: cuda.DeviceAllocation
    is_input: bool


class Model:
    """An engine with its buffers and its stream."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine  # it must outlive its context
        self._context = engine.create_execution_context()
        self._stream = cuda.Stream()
        self._began, self._ended = cuda.Event(), cuda.Event()
        self._buffers: list[Buffer] = []
        names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        for name in sorted(names, key=modes.__getitem__, reverse=True):  # shapes follow inputs'
            if modes[name]:
                shape = [max(side, 1) for side in engine.get_tensor_shape(name)]
                self._context.set_input_shape(name, shape)
            shape = tuple(self._context.get_tensor_shape(name))
            host = cuda.pagelocked_zeros(shape, trt.nptype(engine.get_tensor_dtype(name)))
            buffer = Buffer(host, cuda.mem_alloc(max(host.nbytes, 1)), modes[name])
            self._context.set_tensor_address(name, int(buffer.device))
            self._buffers.append(buffer)

    def fill(self, draw: np.random.Generator) -> None:
        """Stands for a camera: random inputs."""
        for buffer in self._buffers:
            if buffer.is_input:
                buffer.host[...] = draw.uniform(0, 1, buffer.host.shape).astype(buffer.host.dtype)

    def __call__(self) -> float:
        """Copy in, run, copy out, wait; returns the GPU's own seconds for the run."""
        for buffer in self._buffers:
            if buffer.is_input:
                cuda.memcpy_htod_async(buffer.device, buffer.host, self._stream)
        self._began.record(self._stream)
        if not self._context.execute_async_v3(self._stream.handle):
            raise RuntimeError("TensorRT did not accept the inference")
        self._ended.record(self._stream)
        for buffer in self._buffers:
            if not buffer.is_input:
                cuda.memcpy_dtoh_async(buffer.host, buffer.device, self._stream)
        self._stream.synchronize()
        return self._ended.time_since(self._began) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("onnx", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--latency-slo", default="50ms")
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()

    model, draw = Model(build_engine(asked.onnx)), np.random.default_rng(0)
    on_gpu_s: list[float] = []
    with EnergyGovernor(asked.latency_slo, device=asked.device) as gov:
        for _ in turns(asked.seconds):
            model.fill(draw)
            on_gpu_s.append(model())
    say(gov.status())
    print(f"on the GPU, median: {1e3 * float(np.median(on_gpu_s)):.2f} ms")


if __name__ == "__main__":
    main()
