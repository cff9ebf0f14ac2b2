"""The time roofline: how long one inference takes at given clocks.

The GPU's stream of kernels takes ``compute/f_gpu`` plus memory traffic over the bandwidth,
which is the lower of what the GPU's clock and what the memory's clock allow (on Orin Nano
a sharp minimum of both: github dankang21/jetson-latency-lab, arXiv 2606.16106). The CPU's
stream of kernel launches takes ``launch/f_cpu`` and overlaps with the GPU's, so the longer
of the two dominates; how sharply is a parameter. What no clock changes is ``fixed``.

The roofline itself: Williams, Waterman, Patterson, CACM 52(4), 2009.
"""

from __future__ import annotations

import numpy as np

from governor.roofline.knobs import BATCH, CPU, EMC, GPU
from governor.space import FloatArray

TIME_PARAMETERS = ("compute", "launch", "memory", "fixed", "overlap", "gpu_bandwidth", "per_batch")

_BANDWIDTH_SHARPNESS = 6.0
"""Exponent of the smooth minimum of the two bandwidth limits; a sharp one is infinite."""


def batch_growth(parameters: FloatArray, inputs: FloatArray) -> FloatArray:
    """By what factor a batch lengthens the GPU's work: from 1 to the number of its items.

    Arguments as of :func:`log_time`; shape ``(k, n)``.
    """
    per_batch = 1 / (1 + np.exp(-parameters[:, 6, None]))
    return per_batch + (1 - per_batch) * inputs[:, BATCH]


def log_time(parameters: FloatArray, inputs: FloatArray) -> FloatArray:
    """Log of one inference's time, relative to that at all inputs equal to 1.

    Args:
        parameters: shape ``(k, 7)``, in the order of ``TIME_PARAMETERS``: logs of the shares
            of compute, launch, memory and fixed time; log of (overlap exponent - 1), 0 being
            the sum of both streams, large the longer one; log of the GPU clock's bandwidth
            limit over the memory's at all-max; logit of the share of GPU time that a larger
            batch does not lengthen.
        inputs: shape ``(n, 6)``, from :func:`governor.roofline.knobs.model_inputs`.

    Returns:
        shape ``(k, n)``.
    """
    compute, launch, memory, fixed, overlap, gpu_bandwidth = np.exp(parameters[:, :6].T[..., None])
    q, p = _BANDWIDTH_SHARPNESS, 1 + overlap

    def total(
        cpu: FloatArray | float, gpu: FloatArray | float, emc: FloatArray | float, batch: FloatArray
    ) -> FloatArray:
        traffic = memory * (emc**-q + (gpu_bandwidth * gpu) ** -q) ** (1 / q)
        gpu_stream = (compute / gpu + traffic) * batch
        return (gpu_stream**p + (launch / cpu) ** p) ** (1 / p) + fixed

    batch = batch_growth(parameters, inputs)
    time = total(inputs[:, CPU], inputs[:, GPU], inputs[:, EMC], batch)
    return np.log(time / total(1.0, 1.0, 1.0, np.ones(1)))
