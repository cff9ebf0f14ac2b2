"""How warm a board gets at so much power, learnt from its own temperatures as it runs.

A board is taken for two lags in series with its room: the heat sink, slow, and the die on it,
quick. With ``x`` the power behind each lag,

    T = T_room + sum of (R x + e) over sink and die

where ``e`` is how far each is from its steady state, which dies away with its lag: a cold start,
or a room that has changed. For given lags that is linear in ``T_room``, the ``R`` and the ``e``, so
each pair of lags of a small bank has a Kalman filter of its own, once as if the board had run for
long before and once as if it had not; each counts as much as it has foretold the temperatures well.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np

from governor.slo import Estimate
from governor.space import FloatArray

SINK_LAGS_S = (30.0, 60.0, 90.0, 130.0, 200.0, 400.0)
DIE_LAGS_S = (1.0, 2.5, 6.0)
"""What boards are found between: a fan-cooled sink to a bare one in a closed case; most of the
first jump is within a few seconds on Orin Nano (arXiv 2606.16106)."""
ROOM_C, ROOM_SPREAD_C = 30.0, 12.0
SINK_RISE_C, DIE_RISE_C = 35.0, 8.0
"""Before anything is known: at the first reading's power, give or take most of it."""
RISE_SPREAD = 0.8
LEAST_RISE = 0.3
"""Of that, no board rises less: a room that changes fast must not make it look so."""
START_SPREADS_C = (3.0, 40.0)
"""How far the sink may be from its steady state at first: hardly, or just switched on."""
ROOM_WALK_C = 0.2
"""Standard deviation of what the room changes in a second, as a random walk: 12 °C in an hour."""
NOISE_C = 0.7
"""Of a reading: zones count in halves of a degree or so, and two lags are not all there is."""
MEMORY = 0.99
"""Of what a filter foretold well, so much counts a second later."""

_ROOM = np.array([1.0, 0.0, 0.0, -1.0, 0.0])


class ThermalModel:
    """The temperature of one place on the board, and where it is heading.

    Attributes:
        temperature_c: latest reading; NaN before the first.
        readings: so far.
    """

    def __init__(self) -> None:
        self.temperature_c = math.nan
        self.readings = 0
        self._least_c_per_w = 0.0
        self._time_s = math.nan
        bank = np.array(list(product(SINK_LAGS_S, DIE_LAGS_S, START_SPREADS_C)))
        lags, self._start_c = bank[:, :2], bank[:, 2]
        self._lags_s = lags
        self._lagged_w = np.zeros_like(lags)
        self._mean = np.zeros((len(lags), 5))
        self._covariance = np.zeros((len(lags), 5, 5))
        self._log_weight = np.zeros(len(lags))

    def add(self, time_s: float, temperature_c: float, power_w: float) -> None:
        """Take note of a temperature, and of the mean power since the one before."""
        if self.readings == 0:
            self._begin(power_w)
        else:
            self._pass(max(time_s - self._time_s, 0.0), power_w)
        self._time_s, self.temperature_c = time_s, temperature_c
        self.readings += 1
        self._learn(temperature_c)

    def _begin(self, power_w: float) -> None:
        power_w = max(power_w, 1e-3)
        self._lagged_w[:] = power_w
        self._least_c_per_w = LEAST_RISE * (SINK_RISE_C + DIE_RISE_C) / power_w
        sink, die = SINK_RISE_C / power_w, DIE_RISE_C / power_w
        self._mean[:] = ROOM_C, sink, die, 0.0, 0.0
        spread = np.empty_like(self._mean)
        spread[:] = ROOM_SPREAD_C, RISE_SPREAD * sink, RISE_SPREAD * die, 0.0, DIE_RISE_C
        spread[:, 3] = self._start_c
        self._covariance = spread[:, :, None] ** 2 * np.eye(5)

    def _pass(self, seconds: float, power_w: float) -> None:
        keep = np.exp(-seconds / self._lags_s)
        self._lagged_w = power_w + (self._lagged_w - power_w) * keep
        still = np.column_stack([np.ones((len(keep), 3)), keep])
        self._mean *= still
        self._covariance *= still[:, :, None] * still[:, None, :]
        # when the room changes, the board does not follow at once
        self._covariance += ROOM_WALK_C**2 * seconds * _ROOM[:, None] * _ROOM[None, :]
        self._log_weight *= MEMORY**seconds

    def _learn(self, temperature_c: float) -> None:
        """One step of each Kalman filter; shapes ``(n, 5)`` and ``(n, 5, 5)``."""
        seen = self._seen(self._lagged_w)
        spread = np.einsum("nij,nj->ni", self._covariance, seen)
        variance = np.einsum("ni,ni->n", spread, seen) + NOISE_C**2
        error = temperature_c - np.einsum("ni,ni->n", self._mean, seen)
        self._mean += spread * (error / variance)[:, None]
        self._covariance -= spread[:, :, None] * spread[:, None, :] / variance[:, None, None]
        self._log_weight -= 0.5 * (error**2 / variance + np.log(variance))
        self._log_weight -= self._log_weight.max()

    def settles_at(self, power_w: float) -> Estimate:
        """The temperature at which a steady power ends up, in this room; °C."""
        return self._mixture(np.array([1.0, power_w, power_w, 0.0, 0.0]))

    def power_for(self, temperature_c: float) -> float:
        """The steady power that ends up at this temperature, in W; 0 where none is so little.

        It starts from the power of late, of which most is known.
        """
        now_w = float(self._weights() @ self._lagged_w[:, 0])
        left_c = temperature_c - self.settles_at(now_w).value
        return max(now_w + left_c / self.rise_c_per_w, 0.0)

    @property
    def rise_c_per_w(self) -> float:
        """Degrees for each watt, once settled."""
        weight = self._weights()
        rise_c_per_w = float(weight @ (self._mean[:, 1] + self._mean[:, 2]))
        return max(rise_c_per_w, self._least_c_per_w, 1e-3)

    def after(self, seconds: float, power_w: float) -> float:
        """The temperature in so many seconds at this power, in °C."""
        keep = np.exp(-seconds / self._lags_s)
        then = self._seen(power_w + (self._lagged_w - power_w) * keep, keep)
        now = self._seen(self._lagged_w)
        change = np.einsum("ni,ni->n", self._mean, then - now)
        return self.temperature_c + float(self._weights() @ change)

    @staticmethod
    def _seen(lagged_w: FloatArray, left: FloatArray | float = 1.0) -> FloatArray:
        """What a temperature has of each unknown, shape ``(n, 5)``."""
        return np.column_stack(
            [np.ones(len(lagged_w)), lagged_w, np.broadcast_to(left, lagged_w.shape)]
        )

    def _mixture(self, seen: FloatArray) -> Estimate:
        weight = self._weights()
        means = self._mean @ seen
        variances = np.einsum("i,nij,j->n", seen, self._covariance, seen)
        mean = float(weight @ means)
        return Estimate(mean, math.sqrt(float(weight @ (variances + (means - mean) ** 2))))

    def _weights(self) -> FloatArray:
        weight = np.exp(self._log_weight)
        return weight / weight.sum()
