"""What a policy is: asked for the next operating point, told what was measured there.

A policy never touches a file, a clock or a thread. Mechanism knows policies only by this
protocol and by name; third parties add one through the entry point group
``governor.policies``, whose entries are callables that take a :class:`Problem`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol, cast

from governor.errors import PolicyError, unknown_name
from governor.objective import ENERGY, Objective
from governor.roofline.fit import WEAK, Prior
from governor.space import OperatingPoint, Space
from governor.trial import Trial
from policies.background import Background

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

ENTRY_POINT_GROUP = "governor.policies"

STOP_BELOW = 0.005
"""A search ends when the expected improvement left is under this share of the cost."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Find the operating point of least cost that keeps the bounds on latency and power.

    Attributes:
        space: the allowed settings.
        slo_s: seconds, the bound on ``Trial.latency_s``; infinite where there is none.
        seed: for whatever a policy draws at random.
        prior: what is known of the roofline's coefficients in this space before any trial.
        objective: what it costs, and the bound on ``Trial.power_w``.
        background: what was measured of other workloads, or on other boards.
    """

    space: Space
    slo_s: float
    seed: int = 0
    prior: Prior = WEAK
    objective: Objective = ENERGY
    background: Background | None = None

    def cost(self, trial: Trial) -> float:
        """What is to be small: J an item, unless another objective is asked for."""
        return self.objective.cost(trial)

    def strain(self, trial: Trial) -> float:
        """How far the bound that is worst kept is used up; over 1: it is not kept."""
        return self.objective.strain(trial, self.slo_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The next operating point to try, and why.

    Attributes:
        purpose: ``profile`` to learn the model, ``search`` to find the optimum.
        expected_energy_j: joules an item the policy expects there, None: no idea.
        expected_latency_s: seconds at the SLO's percentile it expects there.
        p_safe: its probability of keeping the bounds there.
        improvement: expected relative improvement of the cost over the best so far; the search
            ends when it is small. Infinite where the policy has no model of it.
        reason: for the log, one clause.
    """

    point: OperatingPoint
    purpose: Literal["profile", "search"] = "search"
    expected_energy_j: float | None = None
    expected_latency_s: float | None = None
    p_safe: float | None = None
    improvement: float = float("inf")
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The operating point to hold.

    Attributes:
        feasible: whether the policy believes that it keeps the bounds.
        energy_j, latency_s: what is expected there, in J an item and s.
    """

    point: OperatingPoint
    feasible: bool
    energy_j: float
    latency_s: float
    reason: str = ""


class NotReady(Exception):  # noqa: N818 - no error: an answer that is still on its way
    """Raised by a policy that runs elsewhere: ask the same again a little later."""


class Policy(Protocol):
    """Asked and told. The first trial told is always the all-max corner's, or that of a guess of
    the fastest, where the space has no such corner: see :attr:`Space.has_top`.

    ``ask`` and ``choose`` may raise :class:`NotReady`.
    """

    def ask(self) -> Proposal | None:
        """The next point to try; None when nothing is left that is worth a trial."""
        ...

    def tell(self, trial: Trial) -> None:
        """Learn from a trial. Its ``point`` is in the problem's space."""
        ...

    def choose(self) -> Choice:
        """The point to hold with what is known now. Needs at least one trial."""
        ...


PolicyFactory = Callable[[Problem], Policy]

_BUILT_IN = {
    "bayesian": "policies.bayesian:BayesianPolicy",
    "roofline": "policies.roofline:RooflinePolicy",
    "coordinate": "policies.coordinate:CoordinatePolicy",
    "random": "policies.random:RandomPolicy",
    "exhaustive": "policies.exhaustive:ExhaustivePolicy",
    "fixed": "policies.fixed:FixedPolicy",
    "skopt-baseline": "policies.skopt_baseline:SkoptPolicy",
    "gp-ehvi": "policies.gp_ehvi:GpEhviPolicy",
    "gradient-descent": "policies.gradient_descent:GradientDescentPolicy",
    "linear-sweep": "policies.linear_sweep:LinearSweepPolicy",
}
DEFAULT_POLICY = "bayesian"


def _third_parties() -> EntryPoints:
    from importlib.metadata import entry_points  # 25 ms that most programs need not spend

    return entry_points(group=ENTRY_POINT_GROUP)


def policy_names() -> list[str]:
    """The names that :func:`load_policy` takes: the built-in ones, then third parties'."""
    third = sorted(entry.name for entry in _third_parties())
    return [*_BUILT_IN, *(name for name in third if name not in _BUILT_IN)]


def check_policy_name(name: str) -> None:
    """Say so when no policy has this name; imports none.

    Raises:
        InputError: unknown.
    """
    if name not in _BUILT_IN and name not in policy_names():
        raise unknown_name("policy", name, policy_names())


def load_policy(name: str) -> PolicyFactory:
    """The factory of the policy called ``name``; imports it only now.

    Raises:
        InputError: no policy has this name.
        PolicyError: its module cannot be imported.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        return cast(PolicyFactory, getattr(import_module(module), attribute))
    for entry in _third_parties():
        if entry.name == name:
            try:
                return cast(PolicyFactory, entry.load())
            except (ImportError, AttributeError) as error:
                raise PolicyError(f"policy {name!r} cannot be loaded: {error}") from error
    raise unknown_name("policy", name, policy_names())
