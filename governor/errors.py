"""The one exception tree of the project.

Every message says what was found, what was expected and what to do next.
The command line turns an :class:`InputError` into one line and exit code 2,
and every other :class:`GovernorError` into one line and exit code 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class GovernorError(Exception):
    """Root of every error that this project raises on purpose."""


class InputError(GovernorError, ValueError):
    """Something from outside (an argument, a file, the environment) cannot be used."""


def problem_of(error: Exception) -> str:
    """What went wrong, for people: of the operating system's errors no number and no path.

    >>> problem_of(OSError(2, "No such file or directory", "x")), problem_of(ValueError("odd"))
    ('No such file or directory', 'odd')
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question after a name that is not known, with the nearest that is; empty: none is near.

    >>> did_you_mean("agx-orn", ["nano", "agx-orin"]), did_you_mean("pi", ["nano", "agx-orin"])
    (" (did you mean 'agx-orin'?)", '')
    """
    from difflib import get_close_matches  # only where something went wrong

    names = list(known)
    near = get_close_matches(name, names, n=1) or [
        each for each in names if name and each.startswith(name)
    ]
    return f" (did you mean {near[0]!r}?)" if near else ""


def unknown_name(what: str, name: str, known: Iterable[str], *others: str) -> InputError:
    """The error for a ``what`` of that name when only those of the ``known`` ones are there.

    ``others``: what may be given besides, in words.
    """
    names = list(known)
    return InputError(
        f"unknown {what} {name!r}{did_you_mean(name, names)}; "
        f"choose one of {', '.join([*names, *others])}"
    )


class MissingExtraError(GovernorError, ImportError):
    """An optional dependency is needed and not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"{module} is not installed; install it with: "
            f"python -m pip install 'energy-governor[{extra}]'"
        )
        self.extra = extra


class DeviceError(GovernorError):
    """A device could not be read or set."""


class NoDeviceError(DeviceError):
    """No backend found anything to govern here.

    Attributes:
        refusals: the reason that each backend gave, by its name.
        looked_for: that there is nothing, and these reasons; as text.
        on_command_line: the same, and what to do where the command line is what can be changed.
    """

    def __init__(self, refusals: Mapping[str, str]) -> None:
        self.refusals = dict(refusals)
        tried = "; ".join(f"{backend}: {reason}" for backend, reason in self.refusals.items())
        self.looked_for = f"nothing to govern on this machine ({tried})"
        self.on_command_line = (
            f"{self.looked_for}. Use --device emulated:agx-orin to try it on an emulated board; "
            "governor doctor says what a real one lacks"
        )
        super().__init__(
            f"{self.looked_for}. Use device='emulated:agx-orin' to try it on an emulated board, "
            "or required=False to measure without governing"
        )


class PolicyError(GovernorError):
    """A policy failed or answered with something that is not an operating point."""
