"""Another try comes later each time."""

from __future__ import annotations

import math

from governor.backoff import MOST_DOUBLINGS, MOST_DROPS, Backoff


def test_each_rest_is_twice_as_long_as_the_last_up_to_a_longest():
    backoff = Backoff(30.0)
    rests = []
    for _ in range(MOST_DOUBLINGS + 3):
        backoff.later(100.0)
        rests.append(backoff.retry_s - 100.0)
    longest = 30.0 * 2**MOST_DOUBLINGS
    assert rests == [min(30.0 * 2**n, longest) for n in range(MOST_DOUBLINGS + 3)]


def test_relief_makes_the_next_rest_short_again_and_a_short_one_does_not_count():
    backoff = Backoff(30.0)
    backoff.later(0.0)
    backoff.soon(0.0)
    backoff.later(0.0)
    assert backoff.retry_s == 60.0
    backoff.relieved()
    backoff.later(0.0)
    assert backoff.retry_s == 30.0
    backoff.never()
    assert math.isinf(backoff.retry_s)


def test_only_drops_in_a_row_are_too_many():
    backoff = Backoff(30.0)
    assert [backoff.drop() for _ in range(MOST_DROPS)] == [False] * (MOST_DROPS - 1) + [True]
    backoff.drops = 0
    assert not backoff.drop()
