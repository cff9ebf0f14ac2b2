"""The ``governor`` command: finds its subcommands, and turns errors into one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, cast

import typer

import governor.cli
from governor import __version__
from governor.errors import GovernorError, InputError, problem_of

# The root of typer's usage errors. By its version, typer uses the installed click or a copy
# of its own, so the class is taken from what typer itself exports.
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__mro__[1])

_SETTINGS = {"help_option_names": ["-h", "--help"]}


def command_names() -> list[str]:
    """The subcommands: each module beside this one holds the function of its own name."""
    return [module.name for module in iter_modules(governor.cli.__path__) if module.name != "main"]


def build(only: str | None = None) -> typer.Typer:
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
        module = import_module(f"governor.cli.{name}")
        app.command(name, context_settings=_SETTINGS)(
            cast(Callable[..., None], getattr(module, name))
        )
    return app


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
        return _fail(f"{_sentence(error)} See: governor {_command(words)}--help", 2)
    except InputError as error:
        return _fail(str(error), 2)
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


def _command(words: Sequence[str]) -> str:
    return f"{words[0]} " if words[0] in command_names() else ""


def _fail(message: str, code: int) -> int:
    """One line on stderr."""
    print("governor: " + " ".join(message.split()), file=sys.stderr)
    return code
