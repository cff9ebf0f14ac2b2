"""The command line: one module a command, and :mod:`governor.cli.main`, which finds them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from governor.errors import InputError

if TYPE_CHECKING:
    import typer


def is_given(context: Any, option: Any) -> bool:
    """Whether the user gave this option of click's, rather than its default."""
    source = context.get_parameter_source(option.name)
    return source is not None and source.name == "COMMANDLINE"


def refuse(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Refuse what would have no effect: options by their names in the code.

    Raises:
        InputError: one of them was given; ``why`` goes on after it.
    """
    for option in cast(Any, context).command.params:
        if option.name in names and is_given(context, option):
            names = option.opts if option.param_type_name == "option" else [option.metavar]
            raise InputError(f"{max(names, key=len).strip('[].')} {why}")
