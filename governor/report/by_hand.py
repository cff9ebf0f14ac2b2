"""How to set an operating point without this project: for a terminal, and for ``nvpmodel``.

Write orders and files are those of :mod:`governor.lease.jetson_controls`. To be valid whatever is
set before, a lower limit goes to its lowest first, then the upper limit is set, then the lower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from governor.lease.jetson_board import Board, boards
from governor.lease.jetson_controls import BPMP, BWMGR_T210, CAPS, CPUFREQ, DEVFREQ, OVERRIDE
from governor.space import OperatingPoint

_GPU_NODES = {
    "tegra210": "57000000.gpu",
    "tegra186": "17000000.gp10b",
    "tegra194": "17000000.gv11b",
    "tegra234": "17000000.g*",  # ga10b on L4T 35, gpu on 36
    "tegra264": "gpu-gpc-0",
}
_CPU_PARAMS = {
    "nano": ("CPU_A57",),
    "orin-nano": ("CPU_A78_0", "CPU_A78_1"),
    "orin-nx": ("CPU_A78_0", "CPU_A78_1"),
    "agx-orin": ("CPU_A78_0", "CPU_A78_1", "CPU_A78_2"),
}
"""Of the power mode's entry, one a cluster; where not known, the board's own file tells."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Some commands or lines of a file, and what to do with them."""

    title: str
    words: str
    text: str


def recipes(
    device: str, point: OperatingPoint, levels: Mapping[str, Sequence[float]]
) -> list[Recipe]:
    """How to set ``point``; ``levels``: of each knob, ascending. Empty: nothing to say."""
    board = next((each for each in boards() if each.name == device), None)
    found = [_shell(board, point, levels)]
    if board is not None:
        found.append(_nvpmodel(board, point))
    return [recipe for recipe in found if recipe.text]


def _shell(
    board: Board | None, point: OperatingPoint, levels: Mapping[str, Sequence[float]]
) -> Recipe:
    lines = [*_cores(point), *_cpu(point)]
    if board is not None:
        lines += [*_gpu(board, point, levels), *_emc(board, point, levels)]
    else:
        lines += _nvidia_smi(point)
    words = "In a root shell (sudo -i)."
    if "batch_size" in point:
        words += f" The application itself uses batches of {point['batch_size']:.0f}."
    return Recipe("Until the next boot", words, "\n".join(lines))


def _cores(point: OperatingPoint) -> Iterator[str]:
    """The first core has to stay online."""
    if "cpu_cores" not in point:
        return
    yield "for core in /sys/devices/system/cpu/cpu[1-9]*; do"
    yield f"  [ ${{core##*cpu}} -lt {point['cpu_cores']:.0f} ] && on=1 || on=0"
    yield "  echo $on > $core/online"
    yield "done"


def _cpu(point: OperatingPoint) -> Iterator[str]:
    if "cpu_hz" not in point:
        return
    khz = round(point["cpu_hz"] / 1e3)
    yield f"for policy in /{CPUFREQ}/policy*; do"
    yield "  cat $policy/cpuinfo_min_freq > $policy/scaling_min_freq"
    yield f"  echo {khz} > $policy/scaling_max_freq"
    yield f"  echo {khz} > $policy/scaling_min_freq"
    yield "done"


def _limits(node: str, hz: float, lowest_hz: float) -> Iterator[str]:
    yield f"cd {node}"
    yield f"echo {lowest_hz:.0f} > min_freq; echo {hz:.0f} > max_freq; echo {hz:.0f} > min_freq"


def _gpu(
    board: Board, point: OperatingPoint, levels: Mapping[str, Sequence[float]]
) -> Iterator[str]:
    if "gpu_hz" in point and board.soc in _GPU_NODES:
        lowest_hz = min(levels.get("gpu_hz", (point["gpu_hz"],)))
        yield from _limits(f"/{DEVFREQ}/{_GPU_NODES[board.soc]}", point["gpu_hz"], lowest_hz)


def _emc(
    board: Board, point: OperatingPoint, levels: Mapping[str, Sequence[float]]
) -> Iterator[str]:
    """The board's preferred way, as far as it needs nothing but its files."""
    if "emc_hz" not in point:
        return
    hz = point["emc_hz"]
    way = board.emc[0] if board.emc else "bpmp"
    if way == "bpmp":
        yield f"cd /{BPMP}/clk/emc"
        yield f"echo 1 > mrq_rate_locked; echo {hz:.0f} > rate"
    elif way == "override":
        yield f"cd /{OVERRIDE}  # its range is in /{BWMGR_T210}"
        yield f"echo 1 > clk_state; echo {hz:.0f} > clk_update_rate"
    elif way == "bwmgr":
        lowest_hz = min(levels.get("emc_hz", (hz,)))
        yield from _limits(f"/{DEVFREQ}/bwmgr", hz, lowest_hz)
    else:
        yield f"echo {hz:.0f} > /{CAPS[0]}"


def _nvidia_smi(point: OperatingPoint) -> Iterator[str]:
    """A machine with NVIDIA cards."""
    for knob, option, scale in (
        ("gpu_hz", "--lock-gpu-clocks", 1e6),
        ("emc_hz", "--lock-memory-clocks", 1e6),
        ("power_limit_w", "--power-limit", 1.0),
    ):
        if knob in point:
            value = f"{point[knob] / scale:.0f}"
            yield f"nvidia-smi {option}={value}{f',{value}' if scale > 1 else ''}"


def _nvpmodel(board: Board, point: OperatingPoint) -> Recipe:
    """Lines for a power mode; its EMC entry caps the memory clock, and does not pin it."""
    lines = ["< POWER_MODEL ID=60 NAME=LEAST_ENERGY >"]
    if "cpu_hz" in point:
        khz = round(point["cpu_hz"] / 1e3)
        for name in _CPU_PARAMS.get(board.name, ("CPU_...",)):
            lines += [f"{name} MIN_FREQ {khz}", f"{name} MAX_FREQ {khz}"]
    if "gpu_hz" in point:
        lines += [f"GPU MIN_FREQ {point['gpu_hz']:.0f}", f"GPU MAX_FREQ {point['gpu_hz']:.0f}"]
    if "emc_hz" in point:
        lines.append(f"EMC MAX_FREQ {point['emc_hz']:.0f}")
    words = (
        "Copy your present mode's entry in /etc/nvpmodel.conf under a free ID, put these lines in "
        "place of its own, and choose it with: sudo nvpmodel -m 60. EMC is only capped so."
    )
    if board.name not in _CPU_PARAMS:
        words += " Give each CPU_ entry of your file both lines."
    return Recipe("For good, as a power mode", words, "\n".join(lines) if len(lines) > 1 else "")
