"""What points that were tried let expect of others: how much they draw, how long they take.

A few numbers a knob, fitted anew each time: good enough to leave out what would be too hot before
it is tried, and to begin with what should be quickest among the rest. The policies know better.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from governor.space import FloatArray, OperatingPoint, Space
from governor.trial import Trial

BEYOND = 0.6
"""Of the lowest level tried of a knob: below that, time may well grow as nothing has shown yet."""
REMEMBERED = 24
"""Points; of each, the latest trial."""
OTHER_WORK = 0.15
"""Relative change of time or power at one point, beyond which others were of another workload."""
NOISE = 0.03
"""Relative standard deviation of a trial about what the few numbers can follow."""
STATIC_SHARE = 0.4
"""Of the power at the highest setting, before anything was tried; the rest is the knobs'."""
SERIAL_SHARE = 0.1
"""Of the time there, that follows no knob."""


class Tried:
    """The latest trials, one of each point.

    Attributes:
        count: of all trials ever added: as long as it stays, so does what they let expect.
    """

    def __init__(self) -> None:
        self.count = 0
        self._at: dict[OperatingPoint, Trial] = {}

    @property
    def _trials(self) -> list[Trial]:
        return list(self._at.values())

    def add(self, trial: Trial) -> None:
        """Take note of a trial at a point, as measured."""
        if trial.point is None:
            return
        self.count += 1
        before = self._at.pop(trial.point, trial)
        if _other_work(trial, before):
            self._at.clear()
        self._at[trial.point] = trial
        if len(self._at) > REMEMBERED:
            del self._at[next(iter(self._at))]

    def power_w(self, space: Space, top_w: float) -> FloatArray:
        """Watts of every setting, shape ``(n,)``: a static part, and for each knob one that grows
        with its level and one with its cube (a clock alone, and with its voltage squared).

        ``top_w``: of the highest setting, as long as nothing was tried.
        """
        watts = [trial.power_w for trial in self._trials]
        most_w = max([top_w, *watts])
        power_w = self._fit(space, most_w, STATIC_SHARE, lambda x: [x, x**3], watts)
        for point, trial in self._at.items():
            if point in space:
                power_w[space.index(point)] = trial.power_w
        return power_w

    def quickest(self, space: Space) -> OperatingPoint | None:
        """The setting that should take least time; None: nothing was tried.

        For each knob a part of the time falls as its level rises.
        """
        if not self._at:
            return None
        seconds = [trial.mean_latency_s for trial in self._trials]
        latency_s = self._fit(space, min(seconds), SERIAL_SHARE, lambda x: [1.0 / x], seconds)
        lowest = {
            name: BEYOND * min(point.get(name, 0.0) for point in self._at) for name in space.names
        }
        near = (space.settings >= [lowest[name] for name in space.names]).all(axis=1)
        return space.point(int(np.where(near, latency_s, latency_s + latency_s.max()).argmin()))

    def _fit(
        self,
        space: Space,
        at_top: float,
        share: float,
        parts: Callable[[FloatArray], list[FloatArray]],
        seen: list[float],
    ) -> FloatArray:
        """Bayesian linear regression on parts of each knob's level; shape ``(n,)``.

        Before anything was seen, the highest setting comes to ``at_top``: ``share`` of it follows
        no knob, and the others share the rest alike; each give or take as much again.
        """
        columns = [i for i, name in enumerate(space.names) if name != "batch_size"]
        names = [space.names[column] for column in columns]
        levels = np.array([[point.get(name, np.nan) for name in names] for point in self._at])
        levels = levels.reshape(-1, len(names))
        top = np.fmax.reduce(np.vstack([levels, space.settings[:, columns]]))

        def features(of: FloatArray) -> FloatArray:
            return np.column_stack([np.ones(len(of)), *parts(of / top)])

        wanted = features(space.settings[:, columns])
        rest = wanted.shape[1] - 1
        mean = at_top * np.array([share, *[(1.0 - share) / max(rest, 1)] * rest])
        if seen:
            tried, values = features(levels), np.array(seen)
            spread = np.diag(mean**2)
            doubt = tried @ spread @ tried.T + np.diag((NOISE * values) ** 2)
            mean = mean + spread @ tried.T @ np.linalg.solve(doubt, values - tried @ mean)
            mean = np.maximum(mean, 0.0)  # no part of either is less than nothing
        return wanted @ mean


def _other_work(trial: Trial, before: Trial) -> bool:
    time, power = trial.mean_latency_s / before.mean_latency_s, trial.power_w / before.power_w
    return max(abs(time - 1.0), abs(power - 1.0)) > OTHER_WORK
