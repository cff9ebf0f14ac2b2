"""The workload that a user names: a built-in network, a callable or a model file, made ready."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from governor.errors import InputError, MissingExtraError, did_you_mean
from governor.sweep import network
from governor.workloads import workload_names

Prepare = Callable[[int], Callable[[], object]]
"""Given a batch size, gives a function of which each call is one inference."""


def load_callable(name: str) -> Prepare:
    """The built-in network ``name``, ``package.module:callable``, or the model in ``FILE.onnx``.

    A callable with a parameter ``batch_size`` is called once for each batch size, and must give
    a function that runs one inference, or a ``torch.nn.Module`` and its input as a pair: that is
    run on the GPU where there is one. A callable without is itself one inference.

    Raises:
        InputError: it cannot be imported, or is no callable.
        MissingExtraError: PyTorch or ONNX Runtime is not installed.
    """
    if name in workload_names():
        return network.built_in(name)
    if name.endswith(".onnx"):
        return _onnx(Path(name))
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        hint = did_you_mean(name, workload_names())
        raise InputError(
            f"workload {name!r}{hint}: write package.module:callable, the path of an .onnx file, "
            f"or one of {', '.join(workload_names())}"
        )
    found = _imported(name, module_name, attribute)
    if not callable(found):
        raise InputError(f"workload {name!r}: {attribute} is no callable")
    try:
        parameters = inspect.signature(found).parameters
    except ValueError:  # of a builtin, nobody may know them
        parameters = {}
    if "batch_size" not in parameters:
        return lambda _batch_size: found
    make: Callable[..., object] = found

    def prepare(batch_size: int) -> Callable[[], object]:
        inference = make(batch_size=batch_size)
        if network.is_network(inference):
            return network.prepare(*cast(tuple[Any, Any], inference))
        if not callable(inference) or network.lacks_input(inference):
            raise InputError(
                f"workload {name!r}: takes a batch_size, so it must give a function that runs one "
                "inference, or a torch.nn.Module and its input; "
                f"it gave {type(inference).__name__}"
            )
        return inference

    return prepare


def _imported(name: str, module_name: str, attribute: str) -> Any:
    if os.getcwd() not in sys.path:  # as `python -m` does: the user's own module lies here
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # whatever the user's module does to be imported
        raise InputError(
            f"workload {name!r}: cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return found


_ONNX_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def _onnx(path: Path) -> Prepare:
    if not path.is_file():
        raise InputError(f"workload {path}: there is no such file")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx") from error
    runtime: Any = onnxruntime
    try:
        session: Any = runtime.InferenceSession(
            str(path), providers=runtime.get_available_providers()
        )
    except Exception as error:
        raise InputError(f"workload {path}: ONNX Runtime cannot load it: {error}") from error

    def prepare(batch_size: int) -> Callable[[], object]:
        feed = {entry.name: _random(path, entry, batch_size) for entry in session.get_inputs()}
        return lambda: session.run(None, feed)

    return prepare


def _random(path: Path, entry: Any, batch_size: int) -> Any:
    """An input of the model's own shape; a free first dimension is the batch."""
    import numpy as np

    shape = list(entry.shape)
    if shape and not isinstance(shape[0], int):
        shape[0] = batch_size
    if not all(isinstance(size, int) for size in shape):
        raise InputError(
            f"workload {path}: input {entry.name} has the free shape {entry.shape}; export it with "
            "only the batch left free, or name a package.module:callable"
        )
    if shape and shape[0] != batch_size:
        raise InputError(
            f"workload {path}: input {entry.name} is fixed to a batch of {shape[0]}, "
            f"not {batch_size}"
        )
    kind = _ONNX_TYPES.get(entry.type)
    if kind is None:
        raise InputError(f"workload {path}: input {entry.name} has the type {entry.type}")
    return np.random.default_rng(0).random(shape).astype(kind)
