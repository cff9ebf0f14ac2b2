"""The kernel's own governors, which set the clocks until someone else does.

Each chases utilisation: it looks at the last interval and knows nothing of energy or latency.
"""

from __future__ import annotations

from bisect import bisect_left

INTERVAL_S = 0.02
"""Between two decisions (assumed: near nvhost_podgov's polling and schedutil's averaging)."""

SCHEDUTIL_HEADROOM = 1.25
"""schedutil asks for 1.25 times the utilised frequency (Linux ``map_util_perf``)."""

PODGOV_TARGET, PODGOV_MAX = 0.7, 0.9
"""GPU load that nvhost_podgov aims at, and from which on it goes up fast: its defaults load_target
and load_max, 700 and 900 of 1000, in both its generations (governor_pod_scaling.c of the Tegra
kernels, and the later module out of tree). 0.7 reproduces the 510 MHz that it was seen to choose
for a 100 Hz MobileNet on Orin Nano."""

EMC_TARGET = 0.6
"""Share of the memory's bandwidth that its governor lets be used (derived: a token loop using
53 % stayed at 2133 MHz on Orin Nano)."""

EMC_PER_GPU_CLOCK = 0.6
"""The GPU driver asks for this share of the bandwidth its clock could use (derived: between 0.2 and
0.64, since Orin Nano at GPU 1020 MHz runs and idles at EMC 2133 MHz)."""


def _at_least(levels: list[float], wanted: float) -> int:
    return min(bisect_left(levels, wanted), len(levels) - 1)


def schedutil(levels_hz: list[float], index: int, utilisation: float) -> int:
    """The CPU's next level, from the busiest core's share of busy time at the level ``index``."""
    return _at_least(levels_hz, SCHEDUTIL_HEADROOM * utilisation * levels_hz[index])


def podgov(levels_hz: list[float], index: int, load: float) -> int:
    """The GPU's next level, from its share of busy time at the level ``index``."""
    if load > PODGOV_MAX:
        return len(levels_hz) - 1
    return _at_least(levels_hz, levels_hz[index] * load / PODGOV_TARGET)


def bandwidth_manager(reachable: list[float], moved: float, gpu_could: float) -> int:
    """The memory's next level.

    ``reachable`` is bandwidth by level, ``moved`` what was used, ``gpu_could`` what the GPU could
    move at its clock; all in bytes/s.
    """
    return _at_least(reachable, max(moved / EMC_TARGET, EMC_PER_GPU_CLOCK * gpu_could))
