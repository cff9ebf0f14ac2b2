"""The ``governor`` command: finds its subcommands, and turns errors into one line."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

import typer

import governor.cli
from governor import __version__
from governor.cli import is_given
from governor.errors import GovernorError, InputError, NoDeviceError, problem_of

# The root of typer's usage errors. By its version, typer uses the installed click or a copy
# of its own, so the class is taken from what typer itself exports.
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__mro__[1])

_SETTINGS = {"help_option_names": ["-h", "--help"]}


def command_names() -> list[str]:
    """The subcommands: each module beside this one holds what has its own name.

    That is a function, or a :class:`typer.Typer` with subcommands of its own.
    """
    return [module.name for module in iter_modules(governor.cli.__path__) if module.name != "main"]


def build(only: str | None = None) -> Callable[..., Any]:
    """The application with every command, or just ``only`` so that no other is imported."""
    app = typer.Typer(
        help="Find and hold the clocks of least energy within a latency bound.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=_SETTINGS,
    )
    app.callback()(_options)
    names = command_names()
    for name in [only] if only in names else names:
        command: Any = getattr(import_module(f"governor.cli.{name}"), name)
        if isinstance(command, typer.Typer):
            for each in (command.registered_callback, *command.registered_commands):
                _name_values(cast(Any, each).callback)
            app.add_typer(command, name=name)
        else:
            _name_values(command)
            app.command(name, context_settings=_SETTINGS)(command)
    built: Any = typer.main.get_command(app)
    built.commands = dict(sorted(built.commands.items()))
    _finish(built)
    return built


def _name_values(function: Callable[..., None]) -> None:
    """In the help, an option's value is N or has the option's name, not that of a Python type."""
    hints = get_type_hints(function, include_extras=True)
    for name, hint in hints.items():
        if get_origin(hint) is not Annotated:
            continue
        kind, option = get_args(hint)[:2]
        while get_origin(kind) is not Literal and get_args(kind):
            kind = get_args(kind)[0]
        chosen = get_origin(kind) is Literal or issubclass(kind, Enum)
        if option.metavar is None and kind is not bool and not chosen:
            numbers = kind in (int, float)
            option.metavar = "N" if numbers else name.upper().replace("_", "-")
    function.__annotations__ = hints  # as text they would be read anew


def _finish(command: Any) -> None:
    """Of a command of click's, and those below it: whole summaries, and numbers that are some."""
    if command.help:
        command.short_help = " ".join(command.help.split("\n\n")[0].split())
    for option in command.params:
        option.callback = partial(_checked, option.callback)
        if option.param_type_name == "argument":  # newer versions of typer add types and brackets
            option.display_type_rich = _nothing
            shown = option.metavar.removesuffix("...") + "..." * (option.nargs != 1)
            option._usage_display_name = partial(str, shown)
    for each in getattr(command, "commands", {}).values():
        _finish(each)


def _nothing(ctx: object) -> str:
    return ""


def _checked(callback: Callable[..., Any] | None, context: Any, option: Any, value: Any) -> Any:
    """What no command can do anything with.

    A range keeps out neither a NaN nor, without an end, the infinite. What is empty would be
    taken for an option that was not given, unless its help says what '' means; and what is given
    twice would count once, or twice as much.
    """
    texts = _each(value)
    if any(isinstance(each, float) and not math.isfinite(each) for each in texts):
        raise typer.BadParameter(f"{value} is not finite.", ctx=context, param=option)
    if option.param_type_name == "option" and is_given(context, option):
        if "" in texts and "''" not in (option.help or ""):
            raise typer.BadParameter("it is empty.", ctx=context, param=option)
        if twice := [each for place, each in enumerate(texts) if each in texts[:place]]:
            raise typer.BadParameter(f"{twice[0]} is there twice.", ctx=context, param=option)
    return value if callback is None else callback(context, option, value)


def _each(value: Any) -> list[Any]:
    return list(cast("list[Any]", value)) if isinstance(value, list) else [value]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"energy-governor {__version__}")
        raise typer.Exit


def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0 done, 1 the work failed, 2 bad usage or input, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = int(build(only=words[0])(words, prog_name="governor", standalone_mode=False) or 0)
        # By its version, typer raises an interrupt again or makes this code of it.
        return _fail("interrupted", 130) if code == 130 else code
    except _UsageError as error:
        where = "governor" if error.ctx is None else error.ctx.command_path
        return _fail(f"{_sentence(error)} See: {where} --help", 2)
    except InputError as error:
        return _fail(str(error), 2)
    except NoDeviceError as error:
        return _fail(error.on_command_line, 1)
    except GovernorError as error:
        return _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output is gone; keep Python from failing again on its last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        return _fail(f"{where}{problem_of(error)}", 1)


def _sentence(error: typer.BadParameter) -> str:
    """What typer, and pydantic within it, say of a word that is wrong."""
    message = error.format_message().replace("Value error, ", "")
    return message if message.endswith((".", "?")) else f"{message}."


def _fail(message: str, code: int) -> int:
    """One line on stderr."""
    print("governor: " + " ".join(message.split()), file=sys.stderr)
    return code
