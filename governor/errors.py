"""The one exception tree of the project.

Every message says what was found, what was expected and what to do next.
The command line turns an :class:`InputError` into one line and exit code 2,
and every other :class:`GovernorError` into one line and exit code 1.
"""

from __future__ import annotations

from collections.abc import Mapping


class GovernorError(Exception):
    """Root of every error that this project raises on purpose."""


class InputError(GovernorError, ValueError):
    """Something from outside (an argument, a file, the environment) cannot be used."""


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

    ``refusals`` maps each backend that was tried to the reason it gave.
    """

    def __init__(self, refusals: Mapping[str, str]) -> None:
        self.refusals = dict(refusals)
        tried = "; ".join(f"{backend}: {reason}" for backend, reason in self.refusals.items())
        super().__init__(
            f"nothing to govern on this machine ({tried}). "
            "Use device='emulated:agx-orin' to try it on an emulated board, "
            "or required=False to measure without governing"
        )


class PolicyError(GovernorError):
    """A policy failed or answered with something that is not an operating point."""
