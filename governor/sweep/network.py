"""A PyTorch network as the workload of a sweep: one call is one whole inference."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from governor.errors import MissingExtraError
from governor.workloads import load_workload

Prepared = Callable[[], object]


def built_in(name: str) -> Callable[[int], Prepared]:
    """The built-in network called ``name``, with random weights; built once for all batch sizes.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    workload = load_workload(name)
    module = workload.build()
    return lambda batch_size: prepare(module, workload.example(batch_size))


def is_network(found: object) -> bool:
    """Whether this is a pair of a ``torch.nn.Module`` and its input."""
    pair = cast(tuple[object, ...], found) if isinstance(found, tuple) else ()
    return len(pair) == 2 and lacks_input(pair[0])


def lacks_input(found: object) -> bool:
    """Whether this is a ``torch.nn.Module`` alone: nobody has said what to run it on."""
    torch: Any = sys.modules.get("torch")  # who has such a module has imported it
    return torch is not None and isinstance(found, torch.nn.Module)


def prepare(module: Any, given: Any) -> Prepared:
    """What runs ``module`` on ``given`` once, on the GPU where there is one.

    A GPU works on after the call has come back; so each call waits for it, and lasts as long as
    its inference.

    Args:
        module: a ``torch.nn.Module``.
        given: a tensor; a tuple of arguments; or a dict of them by name.
    """
    torch = _torch()
    cuda = torch.cuda.is_available()
    place = torch.device("cuda" if cuda else "cpu")
    module = module.eval().to(place)
    positional, named = _arguments(given)
    positional = tuple(_moved(torch, each, place) for each in positional)
    named = {name: _moved(torch, each, place) for name, each in named.items()}

    def infer() -> object:
        with torch.inference_mode():
            result: object = module(*positional, **named)
        if cuda:
            torch.cuda.synchronize()
        return result

    return infer


def _torch() -> Any:
    try:
        return import_module("torch")
    except ImportError as error:
        raise MissingExtraError("torch", "torch") from error


def _arguments(given: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(given, dict):
        return (), given  # pyright: ignore[reportUnknownVariableType]
    if isinstance(given, tuple):
        return given, {}  # pyright: ignore[reportUnknownVariableType]
    return (given,), {}


def _moved(torch: Any, value: Any, place: Any) -> Any:
    return value.to(place) if isinstance(value, torch.Tensor) else value
