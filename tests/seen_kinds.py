"""Every kind of inference that is seen by itself, small and real.

TensorRT and its CUDA stream are stand-ins: they have its call signatures, and run nothing.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
import types
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

SOURCE = Path(__file__).with_name("cuda_stand_in.c")


@cache
def cuda_stand_in() -> Path:
    """The compiled stand-in for libcuda."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler; apt-get install -y gcc")
    library = Path(tempfile.mkdtemp(), "libcuda.so.1")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    return library


class Kind:
    """One way to run a network.

    Attributes:
        framework: by which it is seen.
        infer: runs the network once.
        fail: runs it so that it raises; None where it cannot be made to.
        places: what must be the very same objects again afterwards, by name.
    """

    def __init__(self, framework, infer, fail, places):
        self.framework = framework
        self.infer: Callable[[], object] = infer
        self.fail: Callable[[], object] = fail
        self.places: Callable[[], dict[str, object]] = places


def _own(owner, *names):
    """What stands in a class or instance itself, or that nothing does."""
    return {f"{owner}.{name}": vars(owner).get(name, "inherited") for name in names}


# PyTorch


def _net(torch):
    class Inner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(x)

    return torch.nn.Sequential(Inner(), torch.nn.ReLU(), Inner()).eval()


def _torch_kind(make):
    torch = pytest.importorskip("torch", reason="python -m pip install torch")
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is deprecated, and in use
        model = make(torch, _net(torch))
    frame, wrong = torch.zeros(1, 4), torch.zeros(1, 5)

    def infer():
        with torch.inference_mode():
            return model(frame)

    def fail():
        with torch.inference_mode():
            model(wrong)

    def places():
        owners = (torch.nn.Module, type(model), model)
        names = ("__call__", "_compiled_call_impl", "_call_impl", "compile", "forward")
        registries = torch.nn.modules.module, sys.modules["torch.optim.optimizer"]
        return (
            {key: value for owner in owners for key, value in _own(owner, *names).items()}
            | {f"hooks {name}": len(found) for registry in registries
               for name, found in vars(registry).items() if name.startswith("_global_")
               and hasattr(found, "__len__")}
        )  # fmt: skip

    return Kind("torch", infer, fail, places)


def torch_module():
    return _torch_kind(lambda _torch, net: net)


def torchscript():
    return _torch_kind(lambda torch, net: torch.jit.trace(net, torch.zeros(1, 4)))


def torch_compile():
    return _torch_kind(lambda torch, net: torch.compile(net, backend="eager"))


def torch_module_compile():
    def make(_torch, net):
        net.compile(backend="eager")
        return net

    return _torch_kind(make)


# ONNX Runtime


@cache
def onnx_model() -> bytes:
    """One matrix product, rows by 4."""
    onnx = pytest.importorskip("onnx", reason="python -m pip install onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", floats, [1, 4])],
        [helper.make_tensor_value_info("y", floats, [1, 4])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


def _session():
    runtime = pytest.importorskip("onnxruntime", reason="python -m pip install onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(onnx_model(), options, providers=["CPUExecutionProvider"])

    def places():
        names = ("run", "run_with_iobinding", "run_with_ort_values", "run_async")
        return {
            key: value
            for owner in runtime.InferenceSession.__mro__[:-1]
            for key, value in _own(owner, *names).items()
        }

    return session, places


FRAME = np.zeros((1, 4), dtype=np.float32)


def onnx_session():
    session, places = _session()
    return Kind(
        "onnxruntime",
        lambda: session.run(None, {"x": FRAME}),
        lambda: session.run(None, {"x": FRAME[:, :2]}),
        places,
    )


def onnx_iobinding():
    session, places = _session()

    def infer():
        binding = session.io_binding()
        binding.bind_cpu_input("x", FRAME)
        binding.bind_output("y")
        session.run_with_iobinding(binding)

    return Kind("onnxruntime", infer, lambda: session.run_with_iobinding(None), places)


# OpenCV


def opencv_net():
    cv2 = pytest.importorskip("cv2", reason="python -m pip install opencv-python-headless")
    cv2.setNumThreads(1)
    net = cv2.dnn.readNetFromONNX(np.frombuffer(onnx_model(), dtype=np.uint8))

    def infer():
        net.setInput(FRAME)
        return net.forward()

    def fail():
        net.forward("no such layer")

    return Kind("opencv", infer, fail, lambda: _own(cv2.dnn.Net, "forward", "forwardAndRetrieve"))


# TensorRT


def tensorrt_module(work_s: float = 0.0) -> tuple[types.ModuleType, ctypes.CDLL]:
    """A stand-in with the methods of TensorRT 8.5 to 9, the most that there ever were."""
    cuda = ctypes.CDLL(str(cuda_stand_in()))
    cuda.stand_in_stream.restype = ctypes.c_void_p
    cuda.stand_in_work.argtypes = (ctypes.c_void_p, ctypes.c_double)

    class IExecutionContext:
        """Its methods return whether the work was accepted."""

        accepts = True

        def execute_v2(self, bindings):
            return self.accepts

        def execute_async_v2(self, bindings, stream_handle, input_consumed=None):
            cuda.stand_in_work(stream_handle, work_s)
            return self.accepts

        def execute_async_v3(self, stream_handle):
            cuda.stand_in_work(stream_handle, work_s)
            return self.accepts

    module = types.ModuleType("tensorrt")
    module.__spec__ = types.SimpleNamespace(_initializing=False)
    module.IExecutionContext = IExecutionContext
    return module, cuda


def _tensorrt_kind(monkeypatch, infer):
    module, cuda = tensorrt_module()
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr("governor.instrument.cuda_driver.LIBRARY", str(cuda_stand_in()))
    context = module.IExecutionContext()
    stream = cuda.stand_in_stream()

    def run():
        cuda.stand_in_make_current()
        infer(context, stream)

    def fail():
        infer(context, None, 1, 2, 3)

    def places():
        return _own(module.IExecutionContext, "execute_v2", "execute_async_v2", "execute_async_v3")

    return Kind("tensorrt", run, fail, places)


def tensorrt_v2(monkeypatch):
    return _tensorrt_kind(
        monkeypatch, lambda context, _stream, *more: context.execute_v2([0, 0], *more)
    )


def tensorrt_async_v3(monkeypatch):
    return _tensorrt_kind(
        monkeypatch, lambda context, stream, *more: context.execute_async_v3(stream, *more)
    )


KINDS = {
    "torch module": torch_module,
    "torchscript": torchscript,
    "torch.compile": torch_compile,
    "module.compile": torch_module_compile,
    "onnxruntime run": onnx_session,
    "onnxruntime iobinding": onnx_iobinding,
    "cv2.dnn forward": opencv_net,
    "tensorrt v2 (stand-in)": tensorrt_v2,
    "tensorrt async v3 (stand-in)": tensorrt_async_v3,
}


def make(name: str, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """The kind with this name, or a skip that says what to install."""
    builder = KINDS[name]
    return builder(monkeypatch) if name.startswith("tensorrt") else builder()
