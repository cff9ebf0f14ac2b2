"""The frequency study of Jetson Nano and Xavier NX, done again on the emulated boards.

The study (Stony Brook, IGSC 2023) swept CPU and GPU clocks, batch size by batch size, with the
memory clock left alone, and set the minima against the default governors. What it published, as
far as it is public, is the percentages below; no joules, watts or seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np

from governor.devices.emulated import EmulatedBoard
from governor.devices.emulated.workload import Workload, load_workload
from governor.devices.trace import Sweep as Trace
from governor.space import FloatArray, Knob, OperatingPoint
from governor.sweep.file import SweepFile, describe
from governor.sweep.schedule import schedule, thin
from governor.sweep.sweep import Rules, Sweep

SIZES = (4, 8, 16, 32, 64)
NETWORKS = {
    "alexnet": SIZES,
    "resnet-18": SIZES,
    "mobilenet-v2": (4, 8, 12),
    "yolov4-tiny": SIZES,
    "bert-tiny": SIZES,
    "distilbert": (4, 8, 16),
}
"""Its batch sizes by network: 4 to 64, MobileNet-V2 to 12, DistilBERT to 16; the steps between
are assumed."""
PUBLISHED = {
    ("nano", "alexnet"): 0.13,
    ("nano", "resnet-18"): 0.19,
    ("nano", "mobilenet-v2"): 0.15,
    ("nano", "yolov4-tiny"): 0.09,
    ("nano", "bert-tiny"): 0.17,
    ("nano", "distilbert"): 0.17,
    ("xavier-nx", "resnet-18"): 0.02,
    ("xavier-nx", "yolov4-tiny"): 0.13,
    ("xavier-nx", "bert-tiny"): 0.15,
}
"""Savings at the minimum against the default governors, as shares, by board and network."""
BOARDS = ("nano", "xavier-nx")
_IMAGE, _LARGE_IMAGE, _SENTENCE = 3 * 224 * 224, 3 * 416 * 416, 128
_BOXES = 3 * (26 * 26 + 13 * 13) * (80 + 5)
HANDLED = {
    "alexnet": _IMAGE,
    "resnet-18": _IMAGE,
    "mobilenet-v2": _IMAGE,
    "yolov4-tiny": _LARGE_IMAGE + _BOXES,
    "bert-tiny": _SENTENCE,
    "distilbert": _SENTENCE,
}
"""Elements of an item that the CPU handles: its input, and the boxes that a detector gives: three
at each place of two maps, with 80 classes, four sides and a score."""
HOST_CYCLES = 14.5
"""CPU cycles for each of them while the GPU waits. An input is converted to float (1 + 4 bytes
read and written), normalised, put into a batch and copied (4 + 4 each); a box is copied, decoded,
scored and compared, which is about as much: 29 bytes at two bytes a cycle. Assumed, one value for
all boards and networks; from 12 to 25 seven or eight of the nine savings come out near. At 0,
inputs on the GPU already, they are 1.5 times too large: the CPU clock would cost nothing to
lower."""
TOLERANCE = 0.04
"""How far a saving of ours may lie from the published one to count as the same."""


@dataclass(frozen=True)
class Result:
    """One network on one board at one batch size: all CPU and GPU clocks.

    Attributes:
        cpu_hz, gpu_hz: levels, shapes ``(c,)`` and ``(g,)``.
        energy_j: an item, shape ``(c, g)``.
        latency_s: of a batch, shape ``(c, g)``.
        default_j, default_s: the same under the default governors.
        spread: the standard deviation of the repeats of a setting over their mean, the mean
            over all settings.
    """

    board: str
    network: str
    batch_size: int
    cpu_hz: FloatArray
    gpu_hz: FloatArray
    energy_j: FloatArray
    latency_s: FloatArray
    default_j: float
    default_s: float
    spread: float

    @property
    def best(self) -> tuple[int, int]:
        """CPU and GPU level of least energy."""
        row, column = np.unravel_index(int(self.energy_j.argmin()), self.energy_j.shape)
        return int(row), int(column)

    @property
    def saving(self) -> float:
        """Share of energy saved at the minimum against the default governors."""
        return 1.0 - float(self.energy_j.min()) / self.default_j

    @property
    def saving_from_max(self) -> float:
        """The same against all-max clocks."""
        return 1.0 - float(self.energy_j.min() / self.energy_j[-1, -1])

    @property
    def slower(self) -> float:
        """By how much the minimum is slower than the default governors, as a share."""
        return float(self.latency_s[self.best]) / self.default_s - 1.0

    @property
    def point(self) -> OperatingPoint:
        """The setting of least energy."""
        cpu, gpu = self.best
        return OperatingPoint({"cpu_hz": self.cpu_hz[cpu], "gpu_hz": self.gpu_hz[gpu]})

    def along(self, knob: str) -> FloatArray:
        """Energy over one clock, the other one at its best level; shape ``(n,)``."""
        cpu, gpu = self.best
        return self.energy_j[:, gpu] if knob == "cpu" else self.energy_j[cpu, :]


@dataclass(frozen=True, slots=True)
class Task:
    """One network on one board, to be swept into a file of ``folder``."""

    board: str
    network: str
    folder: str
    inferences: int
    repeats: int
    seed: int


def tasks(folder: Path, inferences: int, repeats: int, seed: int) -> list[Task]:
    """Every network on every board."""
    return [
        Task(board, network, str(folder), inferences, repeats, seed)
        for board in BOARDS
        for network in NETWORKS
    ]


def workload(network: str) -> Workload:
    """The network in PyTorch's eager mode, each item prepared by the CPU."""
    return replace(load_workload(network), host_cycles=HOST_CYCLES * HANDLED[network])


def measure(task: Task) -> list[Result]:
    """Sweep one network at all its batch sizes, in virtual time; goes on where it was killed.

    Sensors are read, noise is drawn and heat is waited for as in a sweep of a real board.
    """
    sizes = NETWORKS[task.network]
    board = EmulatedBoard(task.board, workload(task.network), seed=task.seed)
    clocks = thin(board.space, {"cpu_hz": "all", "gpu_hz": "all"})
    space = clocks.with_knob(Knob("batch_size", tuple(float(size) for size in sizes)))
    rules = Rules(inferences=task.inferences, seconds=0.0)
    path = Path(task.folder) / f"{task.board}-{task.network}.csv"
    file = SweepFile(
        path,
        space.names,
        describe(board, task.network, space, rules, task.repeats, task.seed),
    )
    wanted = [one for one in schedule(space, task.repeats, task.seed) if one.point is not None]
    with Sweep(board, file.remaining(wanted), file.keep, rules) as sweep:
        for size in sweep.turns():
            board.infer(size)
    file.finish(sweep.failures)
    return [_result(task, trace, file) for trace in file.traces()]


def _result(task: Task, trace: Trace, file: SweepFile) -> Result:
    cpu = np.unique(trace.space.settings[:, trace.space.names.index("cpu_hz")])
    gpu = np.unique(trace.space.settings[:, trace.space.names.index("gpu_hz")])
    shape = (len(cpu), len(gpu))
    default = EmulatedBoard(task.board, workload(task.network), batch_size=trace.batch_size)
    default_s, default_j = default.true_default()
    spreads: list[float] = []
    for row in range(len(trace.space)):
        point = OperatingPoint({**trace.space.point(row), "batch_size": trace.batch_size})
        repeats = [trial.energy_j for trial in file.repeats(point)]
        if len(repeats) > 1:
            spreads.append(float(np.std(repeats, ddof=1)) / mean(repeats))
    return Result(
        task.board,
        task.network,
        trace.batch_size,
        cpu_hz=cpu,
        gpu_hz=gpu,
        energy_j=(trace.energy_j / trace.batch_size).reshape(shape),
        latency_s=trace.latency_s.reshape(shape),
        default_j=default_j,
        default_s=default_s,
        spread=mean(spreads) if spreads else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """A statement of the study, and whether it holds here.

    Attributes:
        margin: by how much, for people.
    """

    statement: str
    holds: bool
    margin: str


def saving_of(results: Sequence[Result], board: str, network: str) -> float:
    """The mean saving over the batch sizes."""
    return mean(r.saving for r in results if (r.board, r.network) == (board, network))


def findings(results: Sequence[Result]) -> Iterator[Finding]:
    """The study's statements, each checked."""
    inside = [r for r in results if 0 < r.best[1] < len(r.gpu_hz) - 1]
    yield Finding(
        "Energy is not monotonic in the GPU clock: the minimum lies inside the range",
        len(inside) == len(results),
        f"{len(inside)} of {len(results)} sweeps",
    )
    stronger = [r for r in results if _swing(r, "gpu") > _swing(r, "cpu")]
    yield Finding(
        "The GPU clock matters more to energy than the CPU clock",
        len(stronger) == len(results),
        f"{len(stronger)} of {len(results)} sweeps; dearest over cheapest "
        f"{_typical(results, 'gpu'):.1f}x along the GPU clock, "
        f"{_typical(results, 'cpu'):.1f}x along the CPU clock",
    )
    ratios = {network: _board_ratio(results, network) for network in NETWORKS}
    yield Finding(
        "Xavier NX uses 2 to 4 times less energy than Nano",
        all(2.0 <= ratio <= 4.0 for ratio in ratios.values()),
        ", ".join(f"{network} {ratio:.1f}x" for network, ratio in ratios.items()),
    )
    spread = max(r.spread for r in results)
    yield Finding(
        "Repeats of a setting vary by less than 5 %", spread < 0.05, f"at most {100 * spread:.1f} %"
    )
    for (board, network), published in PUBLISHED.items():
        ours = saving_of(results, board, network)
        yield Finding(
            f"{board}, {network}: {100 * published:.0f} % below the default governors",
            abs(ours - published) <= TOLERANCE,
            f"{100 * ours:.0f} % here, {100 * (ours - published):+.0f} points",
        )


def _swing(result: Result, knob: str) -> float:
    energy = result.along(knob)
    return float(energy.max() / energy.min())


def _typical(results: Sequence[Result], knob: str) -> float:
    return float(np.median([_swing(result, knob) for result in results]))


def _board_ratio(results: Sequence[Result], network: str) -> float:
    """Nano's energy an item over the NX's, both under their default governors."""
    nano, nx = (
        mean(r.default_j for r in results if (r.board, r.network) == (board, network))
        for board in BOARDS
    )
    return nano / nx


def to_json(results: Sequence[Result]) -> dict[str, object]:
    """Everything, with SI units in the names."""
    return {
        "emulated": True,
        "findings": [
            {"statement": f.statement, "holds": f.holds, "margin": f.margin}
            for f in findings(results)
        ],
        "results": [
            {
                "board": r.board,
                "network": r.network,
                "batch_size": r.batch_size,
                "best": dict(r.point),
                "energy_j": float(r.energy_j.min()),
                "default_energy_j": r.default_j,
                "all_max_energy_j": float(r.energy_j[-1, -1]),
                "saving": r.saving,
                "saving_from_all_max": r.saving_from_max,
                "slower": r.slower,
                "published_saving": PUBLISHED.get((r.board, r.network)),
            }
            for r in results
        ],
    }
