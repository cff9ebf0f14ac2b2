"""What heat leaves to be tried: the ceiling held against the temperatures."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from toy import CPU, GPU, ToyBoard

from governor.devices.device import Sample
from governor.envelope import Envelope
from governor.heat import LOWER, Heat
from governor.space import Knob, Space
from governor.trial import Trial
from governor.units import HOTTEST

DEFAULT_W = 20.0


class Rig:
    """An envelope whose heat is read once a second."""

    def __init__(self, limit_c: float = math.inf) -> None:
        limits = {HOTTEST: limit_c} if math.isfinite(limit_c) else None
        self.heat = Heat(limits)
        self.envelope = Envelope(Space((Knob("gpu_hz", GPU), Knob("cpu_hz", CPU))), self.heat)
        self.whole = self.envelope.space
        self.envelope.default_w = DEFAULT_W
        self.now_s, self.spent_j = 0.0, 0.0

    def read(self, seconds: int, power_w: float, celsius: float) -> None:
        for _ in range(seconds):
            self.now_s += 1.0
            self.spent_j += power_w
            sample = Sample(
                time_s=self.now_s,
                power_w={"total": power_w},
                temperature_c={"soc": celsius},
                throttle_events={},
                energy_j=None,
            )
            self.heat.read(sample, self.spent_j)

    def renew(self, celsius: float) -> None:
        self.envelope.renew(self.now_s, {"soc": celsius})

    def measure(self, point, power_w: float) -> None:
        self.heat.learn(
            Trial(
                point=point, latency_s=0.020, latency_se_s=1e-5, mean_latency_s=0.020,
                mean_latency_se_s=1e-5, energy_j=0.020 * power_w, energy_se_j=1e-4,
                power_w=power_w, inferences=50, items=50, duration_s=2.0,
            )
        )  # fmt: skip


def capped_by_a_guess() -> Rig:
    """Warmer than its limit, and nothing measured yet of what settings draw."""
    rig = Rig(limit_c=50.0)
    rig.read(3, DEFAULT_W, 60.0)
    rig.renew(60.0)
    assert rig.envelope.capped
    return rig


def fastest(space):
    return space.point(space.fastest)


def test_without_a_limit_everything_is_allowed():
    rig = Rig()
    rig.read(20, DEFAULT_W, 95.0)
    rig.renew(95.0)
    assert rig.envelope.space is rig.whole
    assert rig.envelope.too_hot_to_try(fastest(rig.whole)) == 0.0
    assert rig.envelope.allows(10.0 * DEFAULT_W)


def test_near_a_limit_only_what_draws_little_may_be_tried():
    rig = Rig(limit_c=60.0)
    rig.read(60, DEFAULT_W, 59.8)
    top_w = rig.envelope.too_hot_to_try(fastest(rig.whole))
    assert top_w > rig.heat.trial_cap_w
    rig.renew(59.8)
    assert rig.envelope.lowered
    assert rig.envelope.capped
    space = rig.envelope.space
    assert len(space) < len(rig.whole)
    watts = [rig.envelope.too_hot_to_try(space.point(row)) for row in range(len(space))]
    assert watts == [0.0] * len(space)


def test_it_lifts_once_the_board_has_cooled():
    rig = Rig(limit_c=60.0)
    rig.read(60, DEFAULT_W, 70.0)
    rig.renew(70.0)
    hot = rig.envelope.space
    assert not rig.envelope.may_lift(rig.now_s, {})
    rig.read(300, 5.0, 30.0)
    assert rig.envelope.may_lift(rig.now_s, {})
    rig.renew(30.0)
    assert len(rig.envelope.space) > len(hot)


def test_below_what_proved_too_hot_is_plainly_less():
    rig = Rig(limit_c=60.0)
    rig.read(60, DEFAULT_W, 45.0)
    assert rig.envelope.allow_below(DEFAULT_W)
    assert not rig.envelope.allows(DEFAULT_W)
    assert rig.envelope.hampers(LOWER * DEFAULT_W)
    assert fastest(rig.envelope.space) != fastest(rig.whole)


def test_where_nothing_draws_less_nothing_changes():
    rig = Rig()
    while rig.envelope.allow_below(0.1):
        pass
    least = rig.envelope.space
    assert not rig.envelope.allow_below(0.1)
    assert rig.envelope.space is least
    assert len(least) == 1


def test_a_board_that_throttles_is_searched_below_its_cap():
    rig, board = Rig(), ToyBoard()
    top = fastest(rig.whole)
    board.now_set = top
    board.heat(cap_hz=GPU[2])
    assert rig.envelope.lower(0.0, top, board.read(), {"soc": 95.0})
    assert rig.envelope.lowered
    assert not rig.envelope.capped
    assert rig.envelope.quickest is None
    assert fastest(rig.envelope.space)["gpu_hz"] == GPU[2]


def test_what_draws_less_than_was_thought_lets_more_be_tried():
    rig = capped_by_a_guess()
    few, cap_w = rig.envelope.space, rig.heat.trial_cap_w
    assert not rig.envelope.misplaced
    rig.measure(fastest(few), 0.2 * cap_w)
    assert rig.envelope.misplaced
    rig.renew(60.0)
    more = rig.envelope.space
    assert len(few) < len(more) < len(rig.whole)
    assert all(few.point(row) in more for row in range(len(few)))
    assert not rig.envelope.misplaced
    assert not rig.envelope.allows(1.01 * cap_w)


def test_what_is_held_is_hampered_where_all_that_is_allowed_draws_as_little():
    rig = capped_by_a_guess()
    held_w = 0.2 * rig.heat.trial_cap_w
    least = rig.envelope.space
    for row in range(len(least)):
        rig.measure(least.point(row), held_w)
    assert rig.envelope.hampers(held_w)
    # no search among hotter points so near a limit, or above it
    assert not rig.envelope.may_lift(rig.now_s, {})
    rig.read(60, held_w, 40.0)
    assert rig.envelope.may_lift(rig.now_s, {})


@given(st.lists(st.floats(0.05, 1.5), min_size=1, max_size=8))
def test_better_known_powers_never_let_what_proved_too_hot_be_tried_again(shares):
    rig = capped_by_a_guess()
    hot_w = 0.8 * rig.heat.trial_cap_w
    rig.measure(fastest(rig.envelope.space), 0.3 * hot_w)
    rig.renew(60.0)
    assert rig.envelope.allow_below(hot_w)
    for share in shares:
        rig.measure(fastest(rig.envelope.space), share * hot_w)
        rig.renew(60.0)
        assert not rig.envelope.misplaced
        assert not rig.envelope.allows(hot_w)
