"""Measuring a workload at many settings of a device: ``governor sweep``, or an app's own loop.

::

    space = sample(device.space, 20, seed=0)
    rules = Rules(inferences=50)
    about = describe(device, "my app", space, rules)
    file = SweepFile(Path("sweep.csv"), space.names, about, provenance(device))
    with Sweep(device, file.remaining(schedule(space)), file.keep, rules) as sweep:
        for batch_size in sweep.turns():
            model(next_frames(batch_size))
    file.finish(sweep.failures)
"""

from governor.sweep.file import SweepFile, describe
from governor.sweep.provenance import provenance
from governor.sweep.schedule import Measurement, sample, schedule, thin
from governor.sweep.sweep import Failure, Measured, Rules, Sweep, SweepError

__all__ = [
    "Failure",
    "Measured",
    "Measurement",
    "Rules",
    "Sweep",
    "SweepError",
    "SweepFile",
    "describe",
    "provenance",
    "sample",
    "schedule",
    "thin",
]
