"""jetson-stats (``jtop``) as a second source: rails, power mode, fan, over its Python API.

Used where the kernel's own files cannot be read, and to cross-check them. Written for
jetson-stats 4.3 and 7.2, whose client and service must be of one version. Its units are
milliwatts; its own total is not taken: where a board has no rail for the whole it sums up
all rails, which counts the DRAM of an AGX Orin twice.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from governor.devices.ina3221 import TOTAL, with_total
from governor.errors import DeviceError, MissingExtraError
from governor.lease.jetson_board import Board

INTERVAL_S = 0.5
"""The shortest that its service takes; faster only repeats what it says."""


@dataclass(frozen=True)
class JtopReading:
    """What jetson-stats says.

    Attributes:
        version: of its Python package.
        power_w: watts by rail.
        total_w: what it calls the total.
        mode: name of the power mode, empty if it has none.
        fan_percent: speed by fan.
    """

    version: str
    power_w: Mapping[str, float]
    total_w: float | None
    mode: str
    fan_percent: Mapping[str, float]


class JtopRails:
    """The rails of this board as jetson-stats says, for where the chips cannot be read."""

    refresh_s = INTERVAL_S

    def __init__(self, session: Any, board: Board) -> None:
        """``session``: a started ``jtop.jtop``."""
        self._session = session
        self._total = board.total
        self.total_rail = board.total[0] if len(board.total) == 1 else TOTAL

    @classmethod
    def open(cls, board: Board) -> JtopRails:
        """Connect to the service.

        Raises:
            DeviceError: it is not there, not to be reached, or lacks the board's total.
        """
        rails = cls(_start(), board)
        if rails.total_rail in rails.read():
            return rails
        rails.close()
        raise DeviceError(f"jetson-stats shows no rail {', '.join(board.total)} on this board")

    def read(self) -> dict[str, float]:
        """Watts by rail, the total included; empty when the service is lost."""
        try:
            if not self._session.ok(spin=True):
                return {}
        except Exception:  # jetson-stats raises here whatever its reader thread met
            return {}
        return with_total(_rails(self._session)[0], self._total)

    def close(self) -> None:
        """Disconnect."""
        self._session.close()


def read_jtop() -> JtopReading:
    """Ask once.

    Raises:
        DeviceError: jetson-stats is not installed, its service does not run, is of another
            version, or is not for this user; says what to do.
    """
    with _session() as session:
        power_w, total_w = _rails(session)
        mode = session.nvpmodel
        return JtopReading(
            version=_version(),
            power_w=power_w,
            total_w=total_w,
            mode=str(mode.name) if mode is not None else "",
            fan_percent=_fans(session),
        )


@contextmanager
def _session() -> Generator[Any, None, None]:
    session = _start()
    try:
        yield session
    finally:
        session.close()


def _start() -> Any:
    module = _module()
    session = module.jtop(interval=INTERVAL_S)
    try:
        session.start()
    except (module.JtopException, OSError, EOFError) as error:
        problem = " ".join(str(error).split()) or repr(error)
        raise DeviceError(
            f"jetson-stats {_version()} does not answer ({problem}); client and service must be "
            "of one version, and the user in the group jtop: sudo systemctl restart jtop; "
            'sudo usermod -aG jtop "$USER", then log in again'
        ) from None
    return session


def _module() -> Any:
    try:
        return import_module("jtop")
    except ImportError:
        raise _NotInstalledError from None


class _NotInstalledError(MissingExtraError, DeviceError):
    def __init__(self) -> None:
        super().__init__("jetson-stats", "jetson")


def _version() -> str:
    return str(getattr(_module(), "__version__", "of unknown version"))


def _rails(session: Any) -> tuple[dict[str, float], float | None]:
    """Watts by rail; the rail that it calls the total is listed apart, with its name."""
    power = cast(dict[str, dict[str, Any]], session.power)
    milliwatts = {name: rail["power"] for name, rail in power.get("rail", {}).items()}
    total = power.get("tot", {})
    if "name" in total:
        milliwatts[total["name"]] = total["power"]
    watts = {name: 1e-3 * float(mw) for name, mw in milliwatts.items()}
    return watts, 1e-3 * float(total["power"]) if "power" in total else None


def _fans(session: Any) -> dict[str, float]:
    fans = cast(Mapping[str, Mapping[str, Any]], session.fan)
    speeds = {name: cast(list[float], fan.get("speed") or []) for name, fan in fans.items()}
    return {name: float(speed[0]) for name, speed in speeds.items() if speed}
