"""What it costs an application that its inferences are seen, kind by kind, and Zeus's windows.

Networks of one small layer: what is added does not depend on the network, and beside such a short
call it can be told from noise. The ways take turns; of each, the quickest of many batches counts,
which are short enough that most of them are left alone by whatever else the machine does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from governor.cli.replay import result_console, result_table
from governor.instrument.automatic import Automatic
from governor.instrument.explicit import SpanRecorder
from governor.instrument.torch import AGAIN_S, LISTEN_S
from governor.progress import with_progress

LAYERS = 100
BATCH_S = 0.5e-3
WARM_UP = 20

Infer = Callable[[], object]
Loop = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """Of one kind of inference: seconds a call, bare, and what each way to see it adds.

    Attributes:
        seen_s: by itself.
        marked_s: with ``gov.inference()``.
        zeus_s: with Zeus's ``begin_window`` and ``end_window``; None where it is not installed.
    """

    kind: str
    bare_s: float
    seen_s: float
    marked_s: float
    zeus_s: float | None

    @property
    def ratio(self) -> float:
        """A call that is seen by itself over the bare call."""
        return 1.0 + self.seen_s / self.bare_s


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured; ``missing`` says by kind why others were not."""

    overheads: list[Overhead]
    missing: dict[str, str]
    zeus: str | None


def measure(rounds: int = 5, batches: int = 100) -> Outcome:
    """Every kind that is installed here."""
    overheads: list[Overhead] = []
    missing = {"TensorRT": "it needs an NVIDIA GPU, on which nothing was run yet"}
    for kind, (framework, make) in _KINDS.items():
        try:
            infer = make()
        except ImportError as error:
            missing[kind] = f"{error.name} is not installed"
            continue
        # the first second of PyTorch is a kind of its own
        settle_s = LISTEN_S if framework == "torch" and kind != LISTENING else 0.0
        overheads.append(_overhead(kind, framework, infer, settle_s, rounds, batches))
    return Outcome(overheads, missing, _zeus_version())


def _overhead(
    kind: str, framework: str, infer: Infer, settle_s: float, rounds: int, batches: int
) -> Overhead:
    marking = SpanRecorder(time.perf_counter)
    marking.start()
    ways: dict[str, tuple[AbstractContextManager[object], Loop]] = {}
    best: dict[str, float] = {}
    for _ in with_progress(range(rounds), rounds, f"Timing {kind}", still=True):
        ways = {
            "bare": (nullcontext(), _bare(infer)),
            "seen": (_seen(framework, infer, settle_s), _bare(infer)),
            "marked": (nullcontext(), _marked(infer, marking)),
        }
        if _zeus_version() is not None:
            ways["zeus"] = (nullcontext(), _in_zeus_windows(infer))
        for name, (context, loop) in ways.items():
            with context:
                rough_s = _time(loop, WARM_UP)
                turns = max(1, round(BATCH_S / rough_s))
                each_s = min(_time(loop, turns) for _ in range(batches))
            best[name] = min(each_s, best.get(name, each_s))
            marking.drain()
    bare_s = best["bare"]
    return Overhead(
        kind=kind,
        bare_s=bare_s,
        seen_s=best["seen"] - bare_s,
        marked_s=best["marked"] - bare_s,
        zeus_s=best["zeus"] - bare_s if "zeus" in best else None,
    )


def _time(loop: Loop, turns: int) -> float:
    """Seconds a turn."""
    start_s = time.perf_counter()
    loop(turns)
    return (time.perf_counter() - start_s) / turns


@contextmanager
def _seen(framework: str, infer: Infer, settle_s: float) -> Generator[None]:
    recorder = SpanRecorder(time.perf_counter)
    recorder.start()
    automatic = Automatic(recorder, [framework])
    automatic.begin()
    try:
        infer()
        time.sleep(settle_s)
        infer()
        recorder.drain()
        yield
    finally:
        automatic.end()


# The loops: as alike as they can be


def _bare(infer: Infer) -> Loop:
    def loop(turns: int) -> None:
        for _ in range(turns):
            infer()

    return loop


def _marked(infer: Infer, recorder: SpanRecorder) -> Loop:
    def loop(turns: int) -> None:
        for _ in range(turns):
            with recorder.inference():
                infer()

    return loop


def _in_zeus_windows(infer: Infer) -> Loop:
    zeus: Any = import_module("zeus.monitor")
    monitor = zeus.ZeusMonitor()

    def loop(turns: int) -> None:
        for _ in range(turns):
            monitor.begin_window("inference")
            infer()
            monitor.end_window("inference")

    return loop


def _zeus_version() -> str | None:
    try:
        return version("zeus")
    except PackageNotFoundError:
        return None


# The networks


def _torch_module(layers: int = 1) -> Infer:
    torch: Any = import_module("torch")
    torch.set_num_threads(1)
    rows = [torch.nn.Linear(8, 8) for _ in range(layers)]
    model = (rows[0] if layers == 1 else torch.nn.Sequential(*rows)).eval().requires_grad_(False)
    frame = torch.zeros(1, 8)
    return lambda: model(frame)


def _torchscript() -> Infer:
    torch: Any = import_module("torch")
    torch.set_num_threads(1)
    frame = torch.zeros(1, 8)
    model = torch.jit.trace(torch.nn.Linear(8, 8).eval().requires_grad_(False), frame)
    return lambda: model(frame)


def _torch_compile() -> Infer:
    torch: Any = import_module("torch")
    torch.set_num_threads(1)
    # no compiler is needed for this backend, and the way into it is that of all
    model = torch.compile(torch.nn.Linear(8, 8).eval().requires_grad_(False), backend="eager")
    frame = torch.zeros(1, 8)
    return lambda: model(frame)


def _onnx_model() -> bytes:
    onnx: Any = import_module("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", floats, [1, 8])],
        [helper.make_tensor_value_info("y", floats, [1, 8])],
        [onnx.numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


def _onnxruntime() -> Infer:
    onnxruntime: Any = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        _onnx_model(), options, providers=["CPUExecutionProvider"]
    )
    frame = {"x": np.zeros((1, 8), dtype=np.float32)}
    return lambda: session.run(None, frame)


def _opencv() -> Infer:
    cv2: Any = import_module("cv2")
    cv2.setNumThreads(1)
    net = cv2.dnn.readNetFromONNX(np.frombuffer(_onnx_model(), dtype=np.uint8))
    frame = np.zeros((1, 8), dtype=np.float32)

    def infer() -> object:
        net.setInput(frame)  # without it there is nothing to compute anew
        return net.forward()

    return infer


LISTENING = f"torch, {LAYERS} layers *"
_KINDS: dict[str, tuple[str, Callable[[], Infer]]] = {
    "torch module": ("torch", _torch_module),
    LISTENING: ("torch", lambda: _torch_module(LAYERS)),
    "torch.jit": ("torch", _torchscript),
    "torch.compile": ("torch", _torch_compile),
    "ONNX Runtime": ("onnxruntime", _onnxruntime),
    "cv2.dnn": ("opencv", _opencv),
}


# What is shown


def show(outcome: Outcome) -> None:
    """On 80 columns."""
    table = result_table(
        "Added to each inference, on this machine",
        "kind",
        "bare call",
        "seen by\nitself",
        "ratio",
        "marked\nby hand",
        "in a Zeus\nwindow",
    )
    for one in outcome.overheads:
        table.add_row(
            one.kind,
            _microseconds(one.bare_s),
            _microseconds(one.seen_s),
            f"{one.ratio:.2f}x",
            _microseconds(one.marked_s),
            "" if one.zeus_s is None else _microseconds(one.zeus_s),
        )
    console = result_console()
    console.print(table)
    console.print(
        f"* for a second, at first and every {AGAIN_S:g} s: each of its {LAYERS + 1} modules is\n"
        "  looked at. At all other times a network costs what one module does.",
        markup=False,
    )
    for kind, why in outcome.missing.items():
        console.print(f"{kind}: not measured; {why}", markup=False)
    if outcome.zeus is None:
        console.print("Zeus: not installed; to see it beside: pip install zeus", markup=False)
    else:
        console.print(f"Zeus {outcome.zeus}, with whatever sensors it finds here.", markup=False)


def document(outcome: Outcome) -> dict[str, object]:
    """The figures, in s."""
    return {
        "zeus": outcome.zeus,
        "overheads": [asdict(one) | {"ratio": one.ratio} for one in outcome.overheads],
        "missing": outcome.missing,
    }


def _microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:.1f} µs"
