"""What was learnt of one workload on one board, in a form that outlives the run.

These are the profiles that :mod:`governor.store` keeps, and the JSON that they are exported as.
Whatever is read was written elsewhere: it is checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from annotated_types import Ge, Gt, MaxLen, MinLen

from governor.errors import InputError
from governor.objective import Objective
from governor.space import OperatingPoint, Space
from governor.trial import Trial

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT = 1
"""Of an export."""
EMULATED = "emulated:"
"""Before the name of an emulated board."""
MOST_TRIALS = 64
"""A profile keeps so many; of a longer search the latest."""

Amount = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Name = Annotated[str, MaxLen(200)]
Levels = Annotated[list[Positive], MinLen(1), MaxLen(10_000)]
Point = Annotated[dict[Name, Positive], MinLen(1), MaxLen(32)]

_STRICT = {"allow_inf_nan": False}
"""Of pydantic, where it reads these classes; writing does without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileKey:
    """What a profile is of. Where nothing is known, an empty string.

    Attributes:
        board: the device's name; of an emulated one with ``emulated:`` before it, so that no
            emulated figure is ever taken for a measured one.
        jetpack, power_mode: of the board, as it tells them.
        space: :func:`fingerprint_of` the settings that were allowed.
        workload: its fingerprint: see docs/profiles.md.
        slo: for people and unique: ``p95 <= 50 ms``.
        objective: what was minimised, :func:`about`.
    """

    board: Annotated[Name, MinLen(1)]
    jetpack: Name = ""
    power_mode: Name = ""
    space: Name = ""
    workload: Annotated[Name, MinLen(1)]
    slo: Annotated[Name, MinLen(1)]
    objective: Annotated[Name, MinLen(1)] = "energy"

    @property
    def id(self) -> str:
        """Short, for people to name it by: 12 hexadecimal digits."""
        return _digest(astuple(self))

    __pydantic_config__ = _STRICT


KEY_FIELDS = tuple(field.name for field in fields(ProfileKey))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrial:
    """A clean trial, see :class:`governor.trial.Trial`."""

    point: Point
    latency_s: Positive
    latency_se_s: Amount
    mean_latency_s: Positive
    mean_latency_se_s: Amount
    energy_j: Positive
    energy_se_j: Amount
    power_w: Amount
    inferences: Annotated[int, Gt(0)]
    items: Annotated[int, Gt(0)]
    duration_s: Positive
    warming: Annotated[float, Gt(-1)] = 0.0

    @classmethod
    def of(cls, trial: Trial) -> StoredTrial | None:
        """None where the trial does not say enough: disturbed, or no energy was measured."""
        figures = {name: getattr(trial, name) for name in _FIGURES}
        known = all(math.isfinite(value) for value in figures.values())
        known &= all(value >= 0 for name, value in figures.items() if name != "warming")
        positive = min(trial.latency_s, trial.mean_latency_s, trial.energy_j, trial.duration_s) > 0
        if trial.point is None or not (trial.clean and known and positive and trial.items > 0):
            return None
        return cls(point=dict(trial.point), **figures)

    @property
    def trial(self) -> Trial:
        """As a policy is told."""
        figures = {name: getattr(self, name) for name in _FIGURES}
        return Trial(point=OperatingPoint(self.point), **figures)

    __pydantic_config__ = _STRICT


_FIGURES = tuple(each.name for each in fields(StoredTrial) if each.name != "point")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObjective:
    """What a setting was chosen by, see :class:`governor.objective.Objective`.

    Attributes:
        power_cap_w: None: there was none, as JSON knows nothing infinite.
    """

    energy: Amount = 1.0
    latency: Amount = 0.0
    power_cap_w: Positive | None = None

    def __post_init__(self) -> None:
        _ = self.objective  # it says what is wrong

    @classmethod
    def of(cls, objective: Objective) -> StoredObjective:
        """What of it is kept: all."""
        cap_w = objective.power_cap_w if objective.capped else None
        return cls(energy=objective.energy, latency=objective.latency, power_cap_w=cap_w)

    @property
    def objective(self) -> Objective:
        """As a search is told."""
        cap_w = math.inf if self.power_cap_w is None else self.power_cap_w
        return Objective(self.energy, self.latency, cap_w)

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """One of the roofline's, fitted: most probable value and standard deviation."""

    mean: float
    sd: Positive

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What was learnt.

    Attributes:
        levels: by knob, ascending.
        trials: the search's, the one at the fastest setting first.
        coefficients: by name, of the fit to the trials.
        chosen: the best setting, measured twice at least.
        slo_s: the bound in seconds that it keeps.
        objective: what it was chosen by.
        created_s, updated_s: when first and last written, seconds since 1970.
        runs: how often it was written.
    """

    levels: Annotated[dict[Name, Levels], MinLen(1), MaxLen(32)]
    trials: Annotated[list[StoredTrial], MinLen(1), MaxLen(MOST_TRIALS)]
    coefficients: Annotated[dict[Name, Coefficient], MaxLen(100)] = field(
        default_factory=dict[str, Coefficient]
    )
    chosen: Point
    slo_s: Positive
    objective: StoredObjective = field(default_factory=StoredObjective)
    created_s: Amount = 0.0
    updated_s: Amount = 0.0
    runs: Annotated[int, Ge(1)] = 1

    @property
    def chosen_trial(self) -> StoredTrial | None:
        """The latest trial at the chosen setting; None where there is none."""
        return next((one for one in reversed(self.trials) if one.point == self.chosen), None)

    __pydantic_config__ = _STRICT


class Entry(NamedTuple):
    """A profile with what it is of."""

    key: ProfileKey
    profile: Profile


def fingerprint_of(space: Space) -> str:
    """Of the knobs and their levels: equal spaces have equal ones, on every machine."""
    return _digest([[knob.name, list(knob.levels)] for knob in space.knobs] + [len(space)])


def about(objective: Objective) -> str:
    """For a profile's key: to two digits, for a battery's cap or a tariff's weight is hardly ever
    the same twice.

    >>> about(Objective(0.0, 1.0, 9.8342))
    'latency under 9.8 W'
    """
    return str(Objective(*(float(f"{value:.2g}") for value in astuple(objective))))


def _digest(value: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


# As JSON ----------------------------------------------------------------------------------


def profile_to_json(profile: Profile) -> str:
    """As the store keeps it."""
    return json.dumps(asdict(profile), allow_nan=False, separators=(",", ":"))


def profile_from_json(text: str | bytes) -> Profile:
    """
    Raises:
        ValueError: it is none; pydantic's, which says what is wrong with it.
    """
    return _reader(Profile).validate_json(text)


def dump(entries: Sequence[Entry]) -> dict[str, object]:
    """Profiles as plain data, for export."""
    return {
        "format": FORMAT,
        "profiles": [{"key": asdict(key), "profile": asdict(profile)} for key, profile in entries],
    }


def load(text: str | bytes, where: str) -> list[Entry]:
    """What :func:`dump` made.

    Args:
        where: the file's name, for the error.

    Raises:
        InputError: it is no export, or was written by a newer version.
    """
    from pydantic import ValidationError

    try:
        document = _reader(_Document).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{where}: is no export of profiles: {at + ': ' if at else ''}{first['msg']}"
        ) from None
    if document.format != FORMAT:
        raise InputError(
            f"{where}: has format {document.format}, this version reads {FORMAT}; "
            "export it again with the same version"
        )
    return [Entry(each.key, each.profile) for each in document.profiles]


@dataclass(frozen=True, slots=True)
class _Item:
    key: ProfileKey
    profile: Profile

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True)
class _Document:
    format: int
    profiles: list[_Item]

    __pydantic_config__ = _STRICT


@cache
def _reader(kind: type[Any]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # 100 ms that only those spend who read

    return TypeAdapter(kind)
