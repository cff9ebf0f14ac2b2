"""Count the work of whatever a network comes as."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from governor.errors import InputError, MissingExtraError, did_you_mean
from governor.roofline.work import Work, check_batch_size, check_precision
from governor.workloads import load_workload, workload_names

if TYPE_CHECKING:
    from torch import nn

HOW_TO_NAME = (
    "give an .onnx file, a TensorRT inspector's .json, package.module:callable, or one of: "
    + ", ".join(workload_names())
)


def count_work(
    model: str | Path | nn.Module,
    example_input: Any = None,
    *,
    batch_size: int | None = None,
    item_shape: Sequence[int] | None = None,
    precision: str | None = None,
    training: bool = False,
    fused: bool = True,
    optimizer: str = "sgd",
    rules: str = "own",
) -> Work:
    """FLOP and bytes of one inference or training step, layer by layer.

    Args:
        model: a PyTorch module; the path of an ``.onnx`` file or of the ``.json`` that TensorRT's
            engine inspector writes; ``package.module:callable``, where the callable returns a
            PyTorch module, or a tuple of it and its example input; or the name of a built-in
            workload.
        example_input: what a PyTorch module is called with: a tensor, or a tuple of its
            arguments. Its values do not matter.
        batch_size: items in a batch; by default the example's, the file's, or 1. With an
            example, every tensor with the example's batch as its first dimension is resized.
        item_shape: in place of an example, the shape of one floating-point item; for an ONNX
            file with further dynamic dimensions, of one item of its first input.
        precision: ``fp32``, ``tf32``, ``bf16``, ``fp16``, ``fp8`` or ``int8``: what
            floating-point tensors are counted as; by default what they are.
        training: forward, backward and the optimizer's step; needs a PyTorch module.
        fused: see :mod:`governor.roofline.operations`.
        optimizer: ``sgd`` (with momentum) or ``adam``, for training.
        rules: ``pagoda`` counts inference unfused in single precision as that study does (see
            :mod:`governor.roofline.pagoda`); a module is exported to ONNX for it.

    Raises:
        InputError: the model cannot be found, read or run, or an argument does not fit it.
        MissingExtraError: PyTorch or onnx is needed and not installed.
    """
    if precision is not None:
        check_precision(precision)
    if batch_size is not None:
        check_batch_size(batch_size)
    if optimizer not in ("sgd", "adam"):
        raise InputError(f"optimizer {optimizer!r} is unknown; use sgd or adam")
    if rules not in ("own", "pagoda"):
        raise InputError(f"rules {rules!r} are unknown; use own or pagoda")
    if rules == "pagoda":
        if training or precision not in (None, "fp32"):
            raise InputError("Pagoda's rules count inference in fp32 only; leave the rest out")
        return _count_as_pagoda(model, example_input, batch_size, item_shape)
    if isinstance(model, str | Path) and Path(model).suffix in (".onnx", ".json"):
        if training:
            raise InputError(f"{model}: holds inference only; count training from PyTorch")
        if example_input is not None:
            raise InputError(f"{model}: has its own inputs; leave the example out")
        return _count_file(Path(model), batch_size, item_shape, precision, fused)
    name, module, inputs = _module(model, example_input, batch_size, item_shape)
    from governor.roofline.work_torch import count_module

    return count_module(
        module,
        inputs,
        name=name,
        precision=precision,
        training=training,
        fused=fused,
        optimizer="adam" if optimizer == "adam" else "sgd",
    )


def _count_as_pagoda(
    model: str | Path | nn.Module,
    example_input: Any,
    batch_size: int | None,
    item_shape: Sequence[int] | None,
) -> Work:
    from governor.roofline.work_onnx import read_onnx

    if isinstance(model, str | Path) and Path(model).suffix == ".onnx":
        graph = read_onnx(Path(model), batch_size, _checked_shape(item_shape))
    else:
        _, module, inputs = _module(model, example_input, None, item_shape)
        from governor.roofline.export import export_structure

        graph = read_onnx(export_structure(module, inputs))
    from governor.roofline.pagoda import count_pagoda

    work = count_pagoda(graph)
    return work if batch_size is None else work.scaled(batch_size)


def _count_file(
    path: Path,
    batch_size: int | None,
    item_shape: Sequence[int] | None,
    precision: str | None,
    fused: bool,
) -> Work:
    if path.suffix == ".onnx":
        from governor.roofline.work_onnx import count_onnx

        return count_onnx(
            path,
            batch_size=batch_size,
            item_shape=_checked_shape(item_shape),
            precision=precision,
            fused=fused,
        )
    from governor.roofline.work_tensorrt import count_engine

    if precision is not None or item_shape is not None:
        raise InputError(f"{path}: an engine has its own precision and shapes; leave them out")
    return count_engine(path, batch_size=batch_size)


def _module(
    model: str | Path | nn.Module,
    example_input: Any,
    batch_size: int | None,
    item_shape: Sequence[int] | None,
) -> tuple[str, nn.Module, tuple[Any, ...]]:
    """The module, its name, and the arguments to call it with."""
    if isinstance(model, str | Path) and ":" not in str(model):
        _check_built_in(str(model))
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "torch") from error
    shape = _checked_shape(item_shape)
    if isinstance(model, str | Path):
        name = str(model)
        if ":" not in name:
            workload = load_workload(name)
            # No weights are needed to count, and a large network's take long to draw.
            with torch.device("meta"):
                module = workload.build()
            if example_input is None:
                return name, module, (workload.example(batch_size or 1, shape),)
        else:
            module, own = _with_example(_call(name))
            example_input = own if example_input is None else example_input
    else:
        name, module = type(model).__name__, model
    if not isinstance(module, torch.nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"{name} gave a {type(module).__name__}, not a torch.nn.Module; {HOW_TO_NAME}"
        )
    if example_input is None:
        if shape is None:
            raise InputError(
                f"{name}: what it takes is unknown; give an example input or the shape of one item "
                "(--shape 3,224,224), or let the callable return (module, example input)"
            )
        return name, module, (torch.empty((batch_size or 1, *shape)),)
    several = isinstance(example_input, tuple | list)
    inputs = tuple(cast("Sequence[Any]", example_input)) if several else (example_input,)
    return name, module, inputs if batch_size is None else _resized(inputs, batch_size)


def _check_built_in(name: str) -> None:
    if name not in workload_names():
        hint = did_you_mean(name, workload_names())
        raise InputError(f"{name!r} is no model that can be counted{hint}; {HOW_TO_NAME}")


def _checked_shape(item_shape: Sequence[int] | None) -> tuple[int, ...] | None:
    if item_shape is None:
        return None
    shape = tuple(item_shape)
    if not all(isinstance(size, int) and size > 0 for size in shape):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"item shape {shape} has a size that is no positive whole number; "
            "give one such as (3, 224, 224)"
        )
    return shape


def _resized(inputs: tuple[Any, ...], batch_size: int) -> tuple[Any, ...]:
    """The same arguments for another batch."""
    import torch

    tensors = [t for t in inputs if isinstance(t, torch.Tensor) and t.dim()]
    if not tensors:
        raise InputError("the example input holds no tensor whose batch could be set")
    own = tensors[0].shape[0]

    def resize(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dim() and value.shape[0] == own:
            return value.new_empty((batch_size, *value.shape[1:]))
        return value

    return tuple(resize(value) for value in inputs)


def _with_example(made: Any) -> tuple[Any, Any]:
    """What a callable returned: the module, and its example input or None."""
    if not isinstance(made, tuple):
        return made, None
    module, *rest = cast("tuple[Any, ...]", made)
    return module, rest[0] if rest else None


def _call(name: str) -> Any:
    """What ``package.module:callable`` returns when called; the current folder is searched."""
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found: Any = import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{name}: cannot be imported ({error}); {HOW_TO_NAME}") from error
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise InputError(
            f"{name} is a {type(found).__name__}, which cannot be called; "
            "name a function or class that returns a torch.nn.Module"
        )
    try:
        return found()
    except Exception as error:
        raise InputError(
            f"{name}() failed with {type(error).__name__}: {error}; "
            "name a callable that needs no arguments"
        ) from error
