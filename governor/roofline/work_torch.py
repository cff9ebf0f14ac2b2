"""Count the work of a PyTorch module, at PyTorch's own dispatcher.

The module runs once on fake tensors, which have shapes and no values, so a large network costs
neither memory nor arithmetic. Every operator that reaches the dispatcher is seen with its
tensors; products are counted by PyTorch's own formulas (``torch.utils.flop_counter``), all else
by :mod:`governor.roofline.arithmetic`.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# PyTorch annotates its own code only in part.

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

from governor.errors import InputError
from governor.roofline.arithmetic import (
    ELEMENTS,
    INTERPOLATION,
    MOVES,
    ROWS,
    attention_flop,
    recurrent_flop,
    sort_flop,
)
from governor.roofline.operations import (
    Fusion,
    Operation,
    Role,
    to_layers,
    unknown_of,
)
from governor.roofline.operations import Tensor as Moved
from governor.roofline.work import PRECISIONS, Unit, Work, check_batch_size, check_precision

Optimizer = Literal["sgd", "adam"]
Arguments = tuple[Any, ...]

_DTYPES = {torch.float16: "fp16", torch.bfloat16: "bf16"}
_SEVERAL_UPDATES = {"fused_sgd": 4, "fused_adam": 14, "fused_adamw": 15}
"""FLOP a parameter of an optimizer's step: SGD with momentum, Adam with its bias correction."""

_OVERWRITES = {"copy", "fill", "zero", "normal", "uniform", "bernoulli", "random"}
"""In place, without reading what was there."""

_SYNONYMS = {
    "bernoulli": "fill", "constant_pad_nd": "pad", "empty_like": "empty", "eq": "where",
    "full_like": "full", "hardtanh": "clamp", "index_select": "gather", "log_sigmoid": "log",
    "native_dropout": "dropout", "new_zeros": "full", "new_full": "full", "new_ones": "full",
    "ones": "full", "ones_like": "full", "rand": "full", "rand_like": "full", "randn": "full",
    "randn_like": "full", "safe_softmax": "softmax", "scalar_tensor": "full",
    "select_backward": "slice_copy", "slice_backward": "slice_copy", "slice_scatter": "slice_copy",
    "softmax_backward_data": "softmax_backward",
    "log_softmax_backward_data": "log_softmax_backward", "native_group_norm": "group_norm",
    "native_layer_norm": "layer_norm", "zero": "fill",
    "fused_rms_norm": "rms_norm", "threshold": "relu", "tril": "triangle", "triu": "triangle",
    "zeros": "full", "zeros_like": "full", "unsafe_index": "index", "scatter_add": "index_put",
    "embedding_dense_backward": "index_put", "index_add": "index_put", "normal": "fill",
    "uniform": "fill", "lift_fresh_copy": "clone", "select_scatter": "slice_copy",
    "linalg_vector_norm": "norm", "pixel_shuffle": "transpose", "pixel_unshuffle": "transpose",
}  # fmt: skip

_UPSAMPLING = {
    "upsample_nearest": "nearest", "upsample_linear": "linear", "upsample_bilinear": "bilinear",
    "upsample_bicubic": "bicubic", "upsample_trilinear": "trilinear",
    "grid_sampler": "bilinear",
}  # fmt: skip
_TABLES = {"embedding", "gather", "index"}
"""Operators that read only as much of their first input as they write."""


def count_module(
    module: nn.Module,
    inputs: Arguments,
    *,
    name: str = "",
    precision: str | None = None,
    training: bool = False,
    fused: bool = False,
    optimizer: Optimizer = "sgd",
) -> Work:
    """The work of one inference of ``module``, or of one training step.

    Args:
        inputs: positional arguments of the module; the first tensor's first dimension is the
            batch. Their values do not matter.
        precision: count floating-point tensors at this precision's size; by default at that of
            the module's own parameters.
        training: forward, backward from the mean of the outputs, and the optimizer's step.
        optimizer: ``sgd`` (with momentum) or ``adam``.

    Raises:
        InputError: the module does not run on these inputs, or looks at their values.
    """
    first = next((t for t in _tensors(inputs) if t.dim()), None)
    if first is None:
        raise InputError(f"the inputs of {name or type(module).__name__} hold no tensor; give one")
    batch_size = check_batch_size(int(first.shape[0]))
    given = precision or _own_precision(module)
    recorder = _Recorder(check_precision(given))
    fake, fake_inputs = _faked(module, inputs)
    fake.train(training)
    # Fused attention is one operator; unfused it is two products and a softmax.
    attention = nullcontext() if fused else sdpa_kernel(SDPBackend.MATH)
    try:
        with _FAKE, attention:
            recorder.watch(fake, fake_inputs)
            if training:
                results = _train(fake, fake_inputs, recorder, optimizer)
            else:
                with torch.no_grad(), recorder:
                    results = fake(*fake_inputs)
    except InputError:
        raise
    except Exception as error:
        first_line = str(error).strip().splitlines()[:1]
        raise InputError(
            f"{name or type(module).__name__} does not run on inputs of shape "
            f"{', '.join(str(tuple(t.shape)) for t in _tensors(inputs))}: "
            f"{type(error).__name__}: {' '.join(first_line)}; give an example input that it takes"
        ) from error
    operations = recorder.operations()
    return Work(
        name=name or type(module).__name__,
        layers=to_layers(operations, recorder.keys(_tensors(results)), fused),
        batch_size=batch_size,
        precision=given,
        training=training,
        fused=fused,
        unknown=unknown_of(operations),
    )


_FAKE = FakeTensorMode(allow_non_fake_inputs=True)


def _own_precision(module: nn.Module) -> str:
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return _DTYPES.get(parameter.dtype, "fp32")
    return "fp32"


def _faked(module: nn.Module, inputs: Arguments) -> tuple[nn.Module, Arguments]:
    """The module and its inputs with tensors that have shapes only."""
    memo: dict[int, Any] = {
        id(tensor): _shape_only(tensor)
        for tensor in [*module.parameters(), *module.buffers(), *_tensors(inputs)]
    }
    return copy.deepcopy(module, memo), copy.deepcopy(inputs, memo)


def _shape_only(tensor: Tensor) -> Tensor:
    """The same without values; what has none is taken to be on the CPU."""
    if not tensor.is_meta:
        return _FAKE.from_tensor(tensor)
    with _FAKE:
        fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
    return nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake


def _train(
    module: nn.Module, inputs: Arguments, recorder: _Recorder, optimizer: Optimizer
) -> object:
    """One training step; the optimizer's first step, which sets its state up, is not counted."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise InputError("no parameter of the module requires a gradient; count its inference")
    step = (
        torch.optim.SGD(trained, lr=0.1, momentum=0.9, fused=True)
        if optimizer == "sgd"
        else torch.optim.Adam(trained, lr=0.1, fused=True)
    )
    with recorder:
        results = module(*inputs)
        loss = sum((t.mean() for t in _tensors(results) if t.requires_grad), torch.zeros(()))
        recorder.begin("backward")
        loss.backward()
    step.step()
    recorder.weights(p.grad for p in trained if p.grad is not None)
    recorder.weights(t for state in step.state.values() for t in _tensors(state))
    recorder.begin("update")
    with recorder:
        step.step()
    return results


def _tensors(value: object) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples, dictionaries and objects of named outputs."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in cast(Mapping[object, object], value).values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in cast(Iterable[object], value):
            yield from _tensors(item)


@dataclass(frozen=True, slots=True)
class _Use:
    """A tensor as it was when an operator used it."""

    storage: int
    version: int
    part: Hashable
    bytes: float
    elements: int
    made_from_input: bool


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of an operator, with what its rule says."""

    name: str
    phase: str
    rule: _Rule
    reads: tuple[_Use, ...]
    writes: tuple[_Use, ...]


@dataclass(frozen=True, slots=True)
class _Rule:
    operator: str
    flop: float
    unit: Unit = "vector"
    fusion: Fusion = "none"
    known: bool = True


class _Recorder(TorchDispatchMode):
    """Sees every operator that reaches the dispatcher while it is entered."""

    def __init__(self, precision: str) -> None:
        super().__init__()
        self._precision = precision
        self._calls: list[_Call] = []
        self._phase = "forward"
        self._modules = ModuleTracker()
        self._weights: set[int] = set()
        self._from_input: set[int] = set()
        self._versions: dict[int, int] = {}
        # A storage's address is its identity only while it lives; holding the tensor itself
        # would keep autograd from using its memory again, and add copies.
        self._alive: dict[int, object] = {}

    def watch(self, module: nn.Module, inputs: Arguments) -> None:
        """These are the weights, and what depends on the input begins here."""
        self.weights([*module.parameters(), *module.buffers()])
        self._from_input.update(map(self._storage, _tensors(inputs)))

    def weights(self, tensors: Iterable[Tensor]) -> None:
        """These are moved once a batch."""
        self._weights.update(map(self._storage, tensors))

    def begin(self, phase: str) -> None:
        """From here on weights are read anew."""
        self._phase = phase

    def keys(self, tensors: Iterable[Tensor]) -> list[Hashable]:
        """Of these tensors as they are now."""
        storages = map(self._storage, tensors)
        return [(storage, self._versions.get(storage, 0)) for storage in storages]

    def operations(self) -> list[Operation]:
        """What was seen, in order."""
        return [
            Operation(
                name=call.name,
                operator=call.rule.operator,
                flop=call.rule.flop,
                reads=tuple(self._moved(use, call.phase) for use in call.reads),
                writes=tuple(self._moved(use, call.phase) for use in call.writes),
                unit=call.rule.unit,
                precision=self._precision,
                fusion=call.rule.fusion,
                known=call.rule.known,
            )
            for call in self._calls
        ]

    def _moved(self, use: _Use, phase: str) -> Moved:
        role: Role = "activation"
        key: Hashable = (use.storage, use.version)
        if use.storage in self._weights:
            role, key = "weight", (use.storage, phase)
        elif not use.made_from_input:
            role = "constant"
        return Moved(key, use.bytes, use.elements, role, use.part)

    def __enter__(self) -> _Recorder:
        self._modules.__enter__()
        return cast(_Recorder, super().__enter__())

    def __exit__(self, *details: Any) -> None:
        super().__exit__(*details)
        self._modules.__exit__(*details)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Arguments = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operator, and note what it did."""
        named = kwargs or {}
        read = list(_tensors((args, named)))
        before = [self._use(tensor) for tensor in read]
        result = func(*args, **named)
        if func.namespace == "aten":
            self._note(func, args, named, list(zip(read, before, strict=True)), result)
        return result

    def _note(
        self,
        func: Any,
        args: Arguments,
        named: dict[str, Any],
        read: list[tuple[Tensor, _Use]],
        result: Any,
    ) -> None:
        operator = _operator(func)
        changed = list(_changed(func, args, named))
        inputs = {use.storage for _, use in read}
        made = [t for t in _tensors(result) if self._storage(t) not in inputs]
        if "empty" in operator or not (made or changed):
            return
        uses = [use for _, use in read]
        if operator in _OVERWRITES and changed:
            uses = uses[1:]
        from_input = any(use.made_from_input for use in uses)
        written: list[_Use] = []
        for tensor in [*changed, *made]:
            storage = self._storage(tensor)
            if tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes():
                self._versions[storage] = self._versions.get(storage, -1) + 1
            if from_input:
                self._from_input.add(storage)
            written.append(self._use(tensor))
        rule = _rule(func, operator, args, named, [*made, *changed], result)
        if operator in _TABLES and uses:
            uses[0] = self._rows(uses[0], written[0])
        self._calls.append(
            _Call(self._module_name(), self._phase, rule, tuple(uses), tuple(written))
        )

    def _rows(self, table: _Use, rows: _Use) -> _Use:
        """Of a table only the rows asked for are read; of a weight, as many for each item."""
        number = len(self._calls)
        weight = table.storage in self._weights
        return replace(
            table,
            storage=-1 - number if weight else table.storage,
            part=number,
            bytes=rows.bytes,
            elements=rows.elements,
            made_from_input=rows.made_from_input,
        )

    def _use(self, tensor: Tensor) -> _Use:
        storage = self._storage(tensor)
        elements = math.prod(
            size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride
        )
        floating = tensor.is_floating_point()
        size = PRECISIONS[self._precision] if floating else tensor.element_size()
        return _Use(
            storage,
            self._versions.get(storage, 0),
            (tensor.storage_offset(), elements),
            float(elements * size),
            elements,
            storage in self._from_input,
        )

    def _storage(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        address: int = storage._cdata  # pyright: ignore[reportPrivateUsage] - a fake one has no data
        self._alive[address] = storage
        return address

    def _module_name(self) -> str:
        """The innermost module at work, without the root's own name."""
        names = [str(name) for name in self._modules.parents if name != "Global"]
        deepest = max(names, key=lambda name: name.count("."), default="")
        return deepest.partition(".")[2] or deepest


def _changed(func: Any, args: Arguments, named: dict[str, Any]) -> Iterator[Tensor]:
    """The arguments that the operator's schema says it writes to.

    Except gradients, which an optimizer only writes where a scaler asks it to.
    """
    for place, argument in enumerate(func._schema.arguments):
        alias = argument.alias_info
        if alias is not None and alias.is_write and argument.name != "grads":
            value = args[place] if place < len(args) else named.get(argument.name)
            yield from _tensors(value)


def _operator(func: Any) -> str:
    """The operator's plain name: ``aten._softmax.default`` is ``softmax``."""
    name = str(func._schema.name).partition("::")[2].strip("_")
    return _SYNONYMS.get(name, name)


def _rule(
    func: Any,
    operator: str,
    args: Arguments,
    named: dict[str, Any],
    made: list[Tensor],
    result: Any,
) -> _Rule:
    """What this call of ``operator`` computes."""
    inputs = list(_tensors((args, named)))
    elements = float(made[0].numel())
    entered = float(inputs[0].numel()) if inputs else 0.0
    special = _special(operator, args, inputs, elements)
    if special is not None:
        return special
    if func._overloadpacket in flop_registry:
        formula = cast(Callable[..., int], flop_registry[func._overloadpacket])
        flop = float(formula(*args, **named, out_val=result))
        depthwise = "convolution" in operator and _is_depthwise(operator, inputs)
        return _Rule(operator, flop, "vector" if depthwise else "matmul")
    base = operator.removesuffix("_backward")
    effort = 2.0 if base != operator else 1.0
    base = _SYNONYMS.get(base, base)
    if base in ELEMENTS:
        return _Rule(operator, effort * ELEMENTS[base] * elements, fusion="elements")
    if base in ROWS:
        return _Rule(operator, effort * ROWS[base] * entered, fusion="rows")
    if base in MOVES:
        return _Rule(operator, 0.0, fusion=MOVES[base])
    if torch.Tag.pointwise in func.tags or operator.startswith("foreach"):
        return _Rule(operator, elements, fusion="elements")
    if torch.Tag.reduction in func.tags:
        return _Rule(operator, entered, fusion="rows")
    return _Rule(operator, elements, known=False)


def _special(operator: str, args: Arguments, inputs: list[Tensor], elements: float) -> _Rule | None:
    """Operators whose cost is neither PyTorch's formula nor so much an element."""
    base = operator.removesuffix("_backward")
    effort = 2.0 if base != operator else 1.0
    entered = inputs[0].numel() if inputs else 0
    if "batch_norm" in base:
        training = base != operator or any(argument is True for argument in args)
        if training:
            return _Rule(operator, effort * ROWS["batch_norm_training"] * entered, fusion="rows")
        return _Rule("batch_norm", ELEMENTS["batch_norm"] * elements, fusion="elements")
    if base in _SEVERAL_UPDATES:
        parameters = sum(t.numel() for t in _tensors(args[0]))
        return _Rule(operator, float(_SEVERAL_UPDATES[base] * parameters))
    if base.startswith(("max_pool", "avg_pool")):
        window = cast("list[int]", args[2 if base != operator else 1])
        cost = math.prod(window) if len(window) > 1 else window[0] ** 2
        return _Rule(operator, elements * (cost - base.startswith("max")))
    if base.startswith("adaptive_avg_pool"):
        return _Rule(operator, float(max(entered, elements)), fusion="rows")
    for prefix, kind in _UPSAMPLING.items():
        if base.startswith(prefix):
            return _Rule(operator, effort * INTERPOLATION[kind] * elements)
    if base in ("topk", "sort", "argsort"):
        return _Rule(operator, sort_flop(entered, inputs[0].shape[-1] if inputs[0].dim() else 1))
    if "scaled_dot_product" in base and base.endswith("for_cpu"):
        query, key, value = inputs[:3] if base == operator else inputs[1:4]
        rows = math.prod(query.shape[:-2])
        flop = attention_flop(
            rows, query.shape[-2], key.shape[-2], query.shape[-1], value.shape[-1]
        )
        return _Rule("attention", (2.5 if base != operator else 1.0) * flop, "matmul")
    if base in ("mkldnn_rnn_layer", "cudnn_rnn"):
        return _Rule("recurrent", effort * _recurrent(inputs[0], args[1:3]), "matmul")
    return None


def _recurrent(entered: Tensor, weights: object) -> float:
    """Layers of gates: their kind shows in how many rows the weights have for each state."""
    steps, batch_size = entered.shape[:2]
    kinds = {4: "lstm", 3: "gru", 1: "rnn"}
    matrices = [t for t in _tensors(weights) if t.dim() == 2]
    flop = 0.0
    for entry, state in zip(matrices[::2], matrices[1::2], strict=False):
        rows, hidden = state.shape
        flop += recurrent_flop(kinds[rows // hidden], steps, batch_size, entry.shape[1], hidden)
    return flop


def _is_depthwise(operator: str, inputs: list[Tensor]) -> bool:
    """One filter a channel, which tensor cores have no use for."""
    weight = inputs[2] if operator.endswith("_backward") else inputs[1]
    channels = inputs[1 if operator.endswith("_backward") else 0].shape[1]
    return weight.shape[1] == 1 and channels > 1
