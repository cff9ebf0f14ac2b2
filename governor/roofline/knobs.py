"""From a space of operating points to the clocks that the roofline model knows."""

from __future__ import annotations

import numpy as np

from governor.space import FloatArray, Space

CPU, GPU, EMC, CORES, BATCH, PERIOD = range(6)
"""Columns of :func:`model_inputs`."""

_COLUMNS = {"cpu_hz": CPU, "gpu_hz": GPU, "emc_hz": EMC, "cpu_cores": CORES, "batch_size": BATCH}


def model_inputs(space: Space) -> FloatArray:
    """What the roofline sees of each setting.

    Returns:
        shape ``(n, 6)``: CPU, GPU and memory clock and number of cores over their largest
        value here, batch size over its smallest; 1 where the space has no such knob. Last,
        the period of an input that comes at a rate, over the latency at all-max: 0, for an
        input that is always there, until the caller knows better.
    """
    inputs = np.ones((len(space), PERIOD + 1))
    inputs[:, PERIOD] = 0
    for name, column in _COLUMNS.items():
        if name in space.names:
            values = space.settings[:, space.names.index(name)]
            inputs[:, column] = values / (values.min() if column == BATCH else values.max())
    return inputs


def other_knobs(space: Space) -> FloatArray:
    """The knobs that the roofline has no formula for, over their largest value: ``(n, m)``."""
    columns = [column for column, name in enumerate(space.names) if name not in _COLUMNS]
    return space.normalised[:, columns]
