"""Trusts the fitted roofline alone: goes where it says, and refits to what is found there."""

from __future__ import annotations

import math

import numpy as np

from governor.roofline.fit import Observations, fit, log_readings, predict, relative_noise
from governor.roofline.knobs import model_inputs
from governor.space import BoolArray, FloatArray
from policies.measured import Measured
from policies.policy import Problem, Proposal
from policies.power import Power

_MARGIN = 0.02
"""Relative. Without an error bar of its own, the model keeps this far from the bounds."""

_LEARN_FROM = 3
"""Trials before the model's word is final: two besides all-max, as far from it as allowed."""


class RooflinePolicy(Measured):
    """The predicted optimum, until the prediction is a point that was already tried."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._inputs = model_inputs(problem.space)
        self._parameters: FloatArray | None = None

    def ask(self) -> Proposal | None:
        """Where the roofline expects the least cost within the bounds; None once tried."""
        time, energy = self._predict()
        keeps, objective = self._keeps(time, energy), self.problem.objective
        if not np.any(keeps):
            return None
        cost = objective.energy * energy + objective.latency * time
        row = int(np.argmin(np.where(keeps, cost, np.inf)))
        point = self.problem.space.point(row)
        if point in self.trials:
            tried = [self.problem.space.index(point) for point in self.trials]
            keeps[tried] = False
            if len(tried) >= _LEARN_FROM or not np.any(keeps):
                return None
            point = self.problem.space.point(row := int(np.argmax(np.where(keeps, time, -np.inf))))
        return Proposal(
            point=point,
            expected_energy_j=math.exp(energy[row]),
            expected_latency_s=math.exp(time[row]),
            reason="the roofline's optimum",
        )

    def _keeps(self, time: FloatArray, energy: FloatArray) -> BoolArray:
        """Which settings are expected to keep the bounds, from log time and log energy."""
        objective, slo_s = self.problem.objective, self.problem.slo_s
        keeps = np.ones(len(time), dtype=np.bool_)
        if math.isfinite(slo_s):
            keeps &= time <= math.log(slo_s) - _MARGIN
        if objective.capped:
            rows = np.array([self.problem.space.index(point) for point in self.trials])
            power = Power.of(self.problem.space, list(self.trials.values()), rows, time)
            log_power = np.sum(power.slopes * (time, energy), axis=0) + power.offset
            keeps &= log_power <= math.log(objective.power_cap_w) - _MARGIN
        return keeps

    def _predict(self) -> FloatArray:
        """Log time and log energy of every setting, shape ``(2, n)``."""
        trials = list(self.trials.values())
        rows = [self.problem.space.index(point) for point in self.trials]
        logs = np.array([log_readings(trial) for trial in trials]).T
        noise = np.array([relative_noise(trial) for trial in trials]).T
        unit = logs[:, :1]
        covariance = noise[:, None] ** 2 * np.eye(len(rows))
        observations = Observations(self._inputs[rows], logs - unit, covariance)
        self._parameters = fit(observations, self._parameters, self.problem.prior)
        return predict(self._parameters[None], self._inputs)[0] + unit
