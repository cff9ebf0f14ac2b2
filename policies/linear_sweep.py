"""One knob stepped down from the top, as Zeus finds a GPU's power limit.

Zeus (You, Chung, Chowdhury: Zeus: Understanding and optimizing GPU energy consumption of DNN
training, NSDI 2023) measures one power limit after the other, from the highest down, and
keeps the one that serves its cost best, here least energy within a bound on the latency. It
has one knob, and sweeps that to its end.
"""

from __future__ import annotations

from policies.measured import rank
from policies.walk import Steps, Walk

_GPU_FIRST = ("power_limit_w", "gpu_hz")
"""Zeus's own knob, and the one nearest to it where there is none."""


class LinearSweepPolicy(Walk):
    """Sweeps one knob after the other, the GPU's first, each from where the last one ended.

    Where Zeus goes on to the lowest limit, a sweep here ends once a step takes more energy
    than the one above it or misses the bound: there are several knobs to sweep, and all but
    the GPU's would be out of reach of most budgets.
    """

    reason = "one step lower"

    def walk(self) -> Steps:
        """Ends when each knob was swept once."""
        space = self.problem.space
        here = space.point(space.fastest)
        best = yield from self.measured(here)
        for knob in sorted(space.knobs, key=lambda knob: knob.name not in _GPU_FIRST):
            while (there := self.moved(here, knob, -1)) is not None:
                trial = yield from self.measured(there)
                if rank(trial, self.problem) >= rank(best, self.problem):
                    break
                here, best = there, trial
