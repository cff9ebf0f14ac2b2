"""What a user hands to an EnergyGovernor, checked and read before anything is changed."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from governor.devices import open_device
from governor.devices.device import Device, include_named
from governor.errors import InputError, NoDeviceError
from governor.objective import Objective
from governor.pace import Pace
from governor.roofline.work import Work
from governor.schedule import Schedule, parse_objective
from governor.space import Knob, Space
from governor.units import parse_knob_value

if TYPE_CHECKING:
    from governor.exporter import MetricsConfig
    from governor.store import ProfileStore

Limit = tuple[str | float | None, str | float | None]
"""The lowest and the highest level of a knob, each as people write it; None: any."""
_WORKLOAD = re.compile(r"(?!\s)[^@\x00-\x1f\x7f]{1,100}")
_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
logger = logging.getLogger("governor")


def check_kinds(**given: object) -> None:
    """Raises InputError for the first argument that is not of its kind, whatever its value."""
    for name, value in given.items():
        fits, example = _KINDS[name]
        if not fits(value):
            raise InputError(f"{name} must be {example}, got {value!r}")


def _is_whole(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral)


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "percentile": (lambda it: isinstance(it, Real), "a share such as 0.95"),
    "trials": (_is_whole, "a whole number such as 12"),
    "seed": (lambda it: _is_whole(it) and it >= 0, "a whole number from 0 on"),
    "device": (
        lambda it: isinstance(it, str) or hasattr(it, "space"),
        "'auto', 'emulated:agx-orin' or a device object",
    ),
    "limits": (
        lambda it: it is None or isinstance(it, Mapping),
        'by knob, such as {"gpu_hz": (None, "900MHz")}',
    ),
    "batch_size": (
        lambda it: it is None or isinstance(it, Iterable),
        "sizes such as [1, 2, 4]",
    ),
    "instrument": (
        lambda it: isinstance(it, Iterable),
        "'auto', 'off' or names of frameworks",
    ),
    "callback": (lambda it: it is None or callable(it), "something to call with each decision"),
    "workload": (lambda it: isinstance(it, str), "a name such as 'detector'"),
    "pace": (lambda it: it is None or isinstance(it, Pace), "a governor.pace.Pace"),
}


def check_name(name: str, whose: str) -> None:
    """Raises InputError where it cannot be a label of a metric."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"a {whose}'s name is up to 64 letters, digits, '.', '-' and '_', got {name!r}"
        )


def aim_of(
    objective: str | Objective | Schedule, power_cap: str | float | None
) -> Objective | Schedule:
    """What is to be small, now or by the time of day.

    Raises:
        InputError: it is none, or does not go with a power cap.
    """
    if isinstance(objective, str):
        return parse_objective(objective, power_cap)
    if power_cap is not None:
        raise InputError("a power cap goes with an objective's name; an object has its own")
    if not callable(getattr(objective, "objective", None)) and not isinstance(objective, Objective):
        raise InputError(f'objective {objective!r} is none; write it like "energy" or "edp"')
    return objective


def batch_sizes(sizes: Sequence[int] | None) -> tuple[int, ...]:
    """In order, each once; empty: the batch size is no knob.

    Raises:
        InputError: they are no sizes.
    """
    if sizes is None:
        return ()
    wanted = tuple(sizes)
    if not wanted or any(not isinstance(size, int) or size < 1 for size in wanted):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"batch_size must be sizes such as [1, 2, 4], got {sizes!r}")
    return tuple(sorted(set(wanted)))


def device_of(device: str | Device, required: bool) -> Device | None:
    """The device, opened where it is named; None: there is none, and none is required.

    Raises:
        NoDeviceError: there is none.
        InputError: no device has this name.
    """
    if not isinstance(device, str):
        return device
    try:
        return open_device(device)
    except NoDeviceError as error:
        if required:
            raise
        logger.warning("%s; measuring only", error.looked_for)
        return None


def allowed_space(
    device: Device, limits: Mapping[str, Limit] | None, sizes: tuple[int, ...]
) -> Space:
    """The device's space within the limits, times the batch sizes.

    A limit on a knob that the device leaves alone unless asked for asks for it.

    Raises:
        InputError: a limit is none, is of no knob, or leaves nothing.
    """
    optional = include_named(device, limits or ())
    space = device.space
    if sizes:
        space = space.with_knob(Knob("batch_size", tuple(float(size) for size in sizes)))
    if not limits:
        return space
    for knob in limits:
        if knob not in space.names:
            raise InputError(
                f"limit on unknown knob {knob!r}; this device has "
                f"{', '.join((*space.names, *optional))}"
            )
    return space.limited({knob: _limit(knob, limit) for knob, limit in limits.items()})


def _limit(knob: str, limit: Limit) -> tuple[float | None, float | None]:
    if not isinstance(limit, tuple | list) or len(limit) != 2:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f'the limit on {knob} must be a lowest and a highest, ("300MHz", "1GHz") or '
            f"(None, 5), got {limit!r}"
        )
    low, high = (None if end is None else parse_knob_value(knob, end) for end in limit)
    if low is not None and high is not None and low > high:
        raise InputError(f"the limit on {knob} has its lowest above its highest: {limit!r}")
    return low, high


def record_path(record: str | os.PathLike[str]) -> Path:
    """Raises InputError where it is no path."""
    if not isinstance(record, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f'record must be the path of a file such as "run.jsonl", got {record!r}')
    return Path(record)


def counted_work(model: Work | str | Path | None) -> Work | None:
    """What an inference does, as it is counted for the policy; None: nobody said.

    Raises:
        InputError: the model cannot be counted.
    """
    if model is None or isinstance(model, Work):
        return model
    from governor.roofline.prior import counted

    return counted(model)


def profile_store(
    profiles: bool | str | os.PathLike[str] | ProfileStore | None, workload: str
) -> ProfileStore | None:
    """Where profiles are kept; None: nowhere.

    Raises:
        InputError: it is no place, or ``workload`` no name of a profile.
    """
    if workload and not _WORKLOAD.fullmatch(workload):
        raise InputError(
            f"a workload's name is up to 100 printable characters without '@', got {workload!r}"
        )
    if profiles is None or profiles is False:
        return None
    from governor.store import ProfileStore  # SQLAlchemy is 0.3 s that most programs do without

    if isinstance(profiles, ProfileStore):
        return profiles
    return ProfileStore(None if profiles is True else profiles)


def metrics_config(metrics: bool | str | MetricsConfig | None) -> MetricsConfig | None:
    """Where metrics go; None: nowhere.

    Raises:
        InputError: it is no address.
    """
    if metrics is None or metrics is False:
        return None
    from governor.exporter import MetricsConfig  # what is not wanted is not loaded

    return MetricsConfig.parse(metrics)
