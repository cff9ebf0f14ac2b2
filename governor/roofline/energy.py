"""The energy roofline: joules an item at given clocks.

Energy is what the work itself costs, ``eps(V) * work`` with ``eps ~ V^2``, plus power that
is drawn for as long as the inference takes: static power, memory power that grows with the
memory's clock, and power ``~ f * V^2`` of the CPU cores and of the GPU's clock tree.
While the next input is waited for, static and memory power go on, and part of the rest
(Choi, Bedard, Fowler, Vuduc: A roofline model of energy, IPDPS 2013, with voltage added).
Voltage has a floor: below a certain clock it falls no further (Jetson Nano's kernel tables;
on TX2 the GPU's energy is flat up to 727 of 1300 MHz: github thynics/jetson_dvfs).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from governor.roofline.knobs import BATCH, CORES, CPU, EMC, GPU, PERIOD
from governor.space import FloatArray

ENERGY_PARAMETERS = (
    "static",
    "emc_power",
    "emc_exponent",
    "core_power",
    "cpu_power",
    "gpu_power",
    "gpu_work",
    "cpu_work",
    "gpu_floor",
    "gpu_voltage",
    "cpu_floor",
    "cpu_voltage",
    "idle_clocks",
)

_KNEE = 0.03
"""Width of the voltage curve's bend at its floor, in units of the largest clock."""

_FLOOR_RANGE = (0.3, 0.9)
"""A voltage floor ends somewhere between these shares of the largest clock."""


def squared_voltage(clock: FloatArray, floor: FloatArray, rise: FloatArray) -> FloatArray:
    """V^2 over its value at the largest clock: a floor, then a straight rise in V.

    Args:
        clock: over the largest clock, shape ``(n,)``.
        floor: logit of where in ``_FLOOR_RANGE`` the floor ends, shape ``(k, 1)``.
        rise: log of the relative rise in voltage from the floor to the top, ``(k, 1)``.
    """
    low, high = _FLOOR_RANGE
    end = low + (high - low) / (1 + np.exp(-floor))

    def above(f: FloatArray | float) -> FloatArray:
        return _KNEE * np.logaddexp(0, (f - end) / _KNEE)

    top = above(1.0)
    return ((1 + np.exp(rise) * above(clock) / top) / (1 + np.exp(rise))) ** 2


def log_energy(
    parameters: FloatArray, log_time: FloatArray, growth: FloatArray, inputs: FloatArray
) -> FloatArray:
    """Log of the energy of one item, relative to that at all inputs equal to 1.

    Args:
        parameters: shape ``(k, 13)``, in the order of ``ENERGY_PARAMETERS``: logs of the
            shares of each term at all-max, log of the memory power's exponent over its
            clock, the two voltage curves (see :func:`squared_voltage`), and the logit of the
            share of the clocks' own power that is drawn while idle.
        log_time: shape ``(k, n)``, from :func:`governor.roofline.time.log_time`.
        growth: of the GPU's work with the batch, shape ``(k, n)``, from
            :func:`governor.roofline.time.batch_growth`: what takes no longer costs no more.
        inputs: shape ``(n, 6)``, from :func:`governor.roofline.knobs.model_inputs`.

    Returns:
        shape ``(k, n)``.
    """
    static, emc, exponent, core, cpu, gpu, gpu_work, cpu_work = np.exp(
        parameters[:, :8].T[..., None]
    )
    voltage = parameters[:, 8:12].T[..., None]
    idle_clocks = 1 / (1 + np.exp(-parameters[:, 12, None]))
    gpu_v2 = _by_level(inputs[:, GPU], lambda f: squared_voltage(f, voltage[0], voltage[1]))
    cpu_v2 = _by_level(inputs[:, CPU], lambda f: squared_voltage(f, voltage[2], voltage[3]))
    memory = _by_level(inputs[:, EMC], lambda f: emc * f**exponent)
    cores, batch = inputs[:, CORES], inputs[:, BATCH]
    always_on = static + memory + cores * core
    clocks = cores * cpu * inputs[:, CPU] * cpu_v2 + gpu * inputs[:, GPU] * gpu_v2
    time = np.exp(log_time)
    idle = np.maximum(inputs[:, PERIOD] * batch - time, 0)
    work = gpu_work * gpu_v2 * growth + cpu_work * cpu_v2
    energy = always_on * (time + idle) + clocks * (time + idle_clocks * idle) + work
    return np.log(energy / batch / (static + emc + core + cpu + gpu + gpu_work + cpu_work))


def _by_level(clock: FloatArray, curve: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """A curve over a clock, worked out once a level instead of once a setting: ``(k, n)``."""
    levels, which = np.unique(clock, return_inverse=True)
    return curve(levels)[:, which]
