"""``governor bench``: what the governor itself costs, on this machine, against its budgets."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from governor.cli.bench.still import StillDevice
from governor.cli.replay import check_writable, result_console, result_table, write_json
from governor.devices.trace import Sweep
from governor.errors import GovernorError, unknown_name
from governor.pace import Pace
from governor.space import Knob, Space
from governor.units import parse_temperature
from policies.policy import DEFAULT_POLICY, Problem

BURSTS = "bursts"
CALIBRATION = "calibration"
DRIFT = "drift"
HEAT = "heat"
INSTRUMENT = "instrument"
POLLING = "polling"
SOAK = "soak"
BY_NAME_ONLY = (BURSTS, DRIFT, HEAT, INSTRUMENT, POLLING, SOAK, CALIBRATION)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure; with a ``budget``, it must stay below it.

    Attributes:
        what: was measured, for people.
        value, budget: in ``unit``.
        note: what the figure stands beside, or how it was made.
    """

    what: str
    value: float
    unit: str
    budget: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the budget was kept; None where there is none."""
        return None if self.budget is None else self.value < self.budget


def bench(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this one; all by default.")
    ] = None,
    policy: Annotated[
        str, typer.Option(help="Who searches in next-point and converge.")
    ] = DEFAULT_POLICY,
    board: Annotated[str, typer.Option(help="The emulated board that is mounted.")] = "orin-nano",
    ambient: Annotated[
        str, typer.Option(metavar="TEMPERATURE", help="Of the room in heat, such as 45C.")
    ] = "45C",
    repeats: Annotated[int, typer.Option(help="Bursts of each length.", min=1)] = 5,
    minutes: Annotated[
        float, typer.Option(help="Of soak and of heat, here virtual.", min=0.05)
    ] = 60.0,
    hours: Annotated[int, typer.Option(help="Virtual ones of drift.", min=0, max=10_000)] = 24,
    seeds: Annotated[int, typer.Option(help="Runs of each case of drift.", min=1)] = 3,
    latencies: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Measured inference times for drift to draw from."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures.")
    ] = None,
) -> None:
    """Measure what the governor costs here.

    NAME is one of: span, loop, import, next-point, converge, emulator, metrics. Exit code 1 if a
    budget was not kept.

    And bursts, by name only, as it needs FUSE and a minute: the energy of short bursts on a
    mounted virtual board, ours and Zeus's, against what the emulation spent. And instrument,
    by name only, as it loads every framework: what seeing each inference adds to it. And polling,
    by name only, as it needs FUSE, PyTorch and a minute: CPU and slow-down of a PyTorch loop while
    a mounted virtual board's sensors are read every 100, 10 and 1 ms, and not at all. And soak,
    by name only, as root with FUSE: a sidecar on a mounted virtual board for --minutes, while it
    and all around it is killed, hung, flooded and rotated: nothing may grow, and the clocks end
    as found. And calibration, by name only: what governor calibrate states of the seven calibrated
    emulated boards, against the emulation's own constants.
    And drift, by name only, as it takes minutes: what the governor makes of a workload,
    a neighbour, a camera or a bound that changes, and of --hours in which nothing does.

    And heat, by name only, as it takes minutes: --minutes in a hot room on every emulated board, by
    the kernel's governors and by ours: energy, temperature, throttling and the bound.
    """
    check_writable(json_file)
    if name == BURSTS:
        _bursts(board, repeats, json_file)
        return
    if name == CALIBRATION:
        _calibration(json_file)
        return
    if name == DRIFT:
        _drift(hours, seeds, latencies, policy, json_file)
        return
    if name == HEAT:
        _heat(ambient, minutes, policy, json_file)
        return
    if name == INSTRUMENT:
        _instrument(json_file)
        return
    if name == POLLING:
        _report(_polling(board), json_file)
        return
    if name == SOAK:
        _report(_soak(minutes, board), json_file)
        return
    benchmarks = _benchmarks(policy)
    if name is not None and name not in benchmarks:
        raise unknown_name("benchmark", name, [*benchmarks, *BY_NAME_ONLY])
    measurements: list[Measurement] = []
    for wanted in benchmarks if name is None else [name]:
        measurements += benchmarks[wanted]()
    _report(measurements, json_file)


def _report(measurements: Sequence[Measurement], json_file: Path | None) -> None:
    _print(measurements)
    if json_file is not None:
        write_json(json_file, [{**asdict(one), "met": one.met} for one in measurements])
    missed = [one.what for one in measurements if one.met is False]
    if missed:
        raise GovernorError(f"over budget: {', '.join(missed)}")


def _polling(board: str) -> list[Measurement]:
    from governor.cli.bench.polling import measure, measurements

    return measurements(measure(board))


def _soak(minutes: float, board: str) -> list[Measurement]:
    from governor.cli.bench.soak import measurements, soak

    return measurements(soak(minutes, board))


def _bursts(board: str, repeats: int, json_file: Path | None) -> None:
    from governor.cli.bench.bursts import document, measure, show

    outcome = measure(board, repeats)
    show(outcome)
    if json_file is not None:
        write_json(json_file, document(outcome))


def _calibration(json_file: Path | None) -> None:
    from governor.cli.bench.calibration import document, measure, show

    outcome = measure()
    show(outcome)
    if json_file is not None:
        write_json(json_file, document(outcome))
    if untrue := sum(not one.holds for one in outcome):
        raise GovernorError(f"{untrue} constants are not what the calibration states")


def _drift(
    hours: int, seeds: int, latencies: Path | None, policy: str, json_file: Path | None
) -> None:
    from governor.cli.bench.drift import document, measure, show

    outcome = measure(hours, latencies, seeds, policy=policy)
    show(outcome)
    if json_file is not None:
        write_json(json_file, document(outcome))
    if outcome.missed:
        raise GovernorError(f"not reached: {'; '.join(outcome.missed)}")


def _heat(ambient: str, minutes: float, policy: str, json_file: Path | None) -> None:
    from governor.cli.bench.heat import document, measure, show

    outcomes = measure(parse_temperature(ambient, "--ambient"), minutes, policy)
    show(outcomes)
    if json_file is not None:
        write_json(json_file, document(outcomes))
    missed = [f"{each.case.board} {each.case.workload}" for each in outcomes if not each.met]
    if missed:
        raise GovernorError(f"not reached on {', '.join(missed)}")


def _instrument(json_file: Path | None) -> None:
    from governor.cli.bench.instrument import document, measure, show

    outcome = measure()
    show(outcome)
    if json_file is not None:
        write_json(json_file, document(outcome))


def _benchmarks(policy: str) -> dict[str, Callable[[], list[Measurement]]]:
    return {
        "span": span,
        "loop": loop,
        "import": fresh_import,
        "next-point": lambda: next_point(policy),
        "converge": lambda: converge(policy),
        "emulator": emulator,
        "metrics": metrics,
    }


def _print(measurements: Sequence[Measurement]) -> None:
    table = result_table("On this machine", "what", "measured", "budget", "met", "note")
    table.columns[-1].justify = "left"
    for one in measurements:
        table.add_row(
            one.what,
            f"{one.value:,.0f} {one.unit}" if one.value > 100 else f"{one.value:.3g} {one.unit}",
            "" if one.budget is None else f"< {one.budget:g} {one.unit}",
            {True: "yes", False: "NO", None: ""}[one.met],
            one.note,
        )
    result_console().print(table)


def span(rounds: int = 200, inferences: int = 1000) -> list[Measurement]:
    """Time that ``with gov.inference():`` adds, against a bare loop beside it."""
    from governor import EnergyGovernor
    from policies.fixed import FixedPolicy

    bare: list[float] = []
    governed: list[float] = []
    with EnergyGovernor("1s", device=StillDevice(), policy=FixedPolicy) as gov:
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(inferences):
                pass
            middle = time.perf_counter()
            for _ in range(inferences):
                with gov.inference():
                    pass
            end = time.perf_counter()
            bare.append((middle - start) / inferences)
            governed.append((end - middle) / inferences)
    base, added = statistics.median(bare), statistics.median(governed) - statistics.median(bare)
    note = f"median; a turn of the bare loop takes {1e6 * base:.3f} µs"
    return [
        Measurement("explicit span, added to each inference", 1e6 * added, "µs", 2.0, note),
        _client_frame(rounds * inferences // 20),
    ]


def _client_frame(frames: int) -> Measurement:
    """Time that the sidecar's client adds, to a socket that is read meanwhile."""
    from governor.sidecar.client import Client

    took: list[float] = []
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        path = os.path.join(folder, "sidecar.sock")
        end.bind(path)
        client = Client(path=path)
        for _ in range(frames):
            start = time.perf_counter()
            with client.frame():
                pass
            took.append(time.perf_counter() - start)
            end.recv(256)
        client.close()
    note = f"median of {frames}; the socket is emptied after each"
    return Measurement("sidecar's client, a frame", 1e6 * statistics.median(took), "µs", 10.0, note)


def loop(seconds: float = 10.0, pace: Pace | None = None) -> list[Measurement]:
    """CPU time of the governor's threads, which look every 100 ms: until it holds, and then."""
    from governor import EnergyGovernor
    from policies.fixed import FixedPolicy

    def slow(problem: Problem) -> FixedPolicy:
        return FixedPolicy(problem, problem.space.point(3))

    with EnergyGovernor("1s", device=StillDevice(), policy=slow, pace=pace) as gov:
        threads = [one for one in threading.enumerate() if one.name.startswith("governor")]
        clocks = [time.pthread_getcpuclockid(thread.ident or 0) for thread in threads]

        def cpu_s() -> float:
            return sum(map(time.clock_gettime, clocks))

        def run(until: Callable[[float], bool]) -> tuple[float, float]:
            """Seconds that passed, and seconds of CPU time that the threads took."""
            start_s, start_cpu_s = time.perf_counter(), cpu_s()
            while not until(time.perf_counter() - start_s):
                with gov.inference():
                    time.sleep(0.010)
            return time.perf_counter() - start_s, cpu_s() - start_cpu_s

        search_s, search_cpu_s = run(until=lambda _elapsed_s: gov.phase == "hold")
        hold_s, hold_cpu_s = run(until=lambda elapsed_s: elapsed_s >= seconds)
    note = "of 10 ms inferences, without a device's own reads"
    return [
        Measurement(
            "control loop and polling at 100 ms, in hold",
            100 * hold_cpu_s / hold_s, "%", 0.5, f"of one core, over {hold_s:.0f} s {note}",
        ),
        Measurement(
            "the same, start-up and a search of two trials",
            100 * search_cpu_s / search_s, "%", None, f"of one core, over {search_s:.0f} s {note}",
        ),
    ]  # fmt: skip


_IMPORT = """
import time, numpy
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])
before, start = resident(), time.perf_counter()
from governor import EnergyGovernor
print(time.perf_counter() - start, resident() - before)
"""


def fresh_import(processes: int = 7) -> list[Measurement]:
    """``from governor import EnergyGovernor`` in fresh interpreters that have numpy."""
    times: list[float] = []
    sizes: list[float] = []
    for _ in range(processes):
        done = subprocess.run(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True
        )
        elapsed, pages = done.stdout.split()
        times.append(float(elapsed))
        sizes.append(float(pages) * os.sysconf("SC_PAGE_SIZE"))
    seconds, size = statistics.median(times), statistics.median(sizes)
    note = f"median of {processes} fresh processes, numpy already imported"
    return [
        Measurement("import of EnergyGovernor, time", 1e3 * seconds, "ms", 100, note),
        Measurement("import of EnergyGovernor, memory", size / 1e6, "MB", 12, note),
    ]


def next_point(
    policy: str = DEFAULT_POLICY, searches: int = 3, trials: int = 20
) -> list[Measurement]:
    """Time to learn of one more trial and name the next point, with 20 trials known."""
    from threadpoolctl import threadpool_limits

    from governor.devices.replay import ReplayDevice
    from policies.policy import load_policy

    sweep = _made_up_sweep()
    factory = load_policy(policy)

    def search(seed: int) -> float:
        device = ReplayDevice(sweep, noise=0.02, seed=seed)
        asked = factory(Problem(sweep.space, 1.5 * sweep.all_max_latency_s, seed))
        row, spent = sweep.space.fastest, 0.0
        for trial in range(trials):
            measured = device.measure(row)
            start = time.perf_counter()
            asked.tell(measured)
            proposal = asked.ask()
            spent = time.perf_counter() - start
            # Who has nothing left to ask still has to learn of 20 trials.
            row = 17 * (trial + 1) if proposal is None else sweep.space.index(proposal.point)
        return spent

    with threadpool_limits(1):
        last = [search(seed) for seed in range(searches)]
    what = f"next point, {len(sweep.space)} settings, {trials} trials, {policy}"
    note = f"median of {searches} searches of a made-up board; one thread, as the worker has"
    return [Measurement(what, 1e3 * statistics.median(last), "ms", 50, note)]


def _made_up_sweep() -> Sweep:
    """5,000 settings: time is work over each clock, power static and cubic in each clock."""
    counts = {"cpu_hz": 20, "gpu_hz": 25, "emc_hz": 10}
    space = Space(
        [
            Knob(name, tuple(1e8 * level for level in range(1, count + 1)))
            for name, count in counts.items()
        ]
    )
    cpu, gpu, emc = (space.normalised[:, column] for column in range(3))
    latency_s = 0.05 * (0.2 / cpu + 0.6 / gpu + 0.2 / emc)
    power_w = 5.0 + 5.0 * cpu**3 + 20.0 * gpu**3 + 5.0 * emc**3
    return Sweep("made-up", "net", 1, space, latency_s, power_w * latency_s, power_w)


def converge(policy: str = DEFAULT_POLICY, searches: int = 3) -> list[Measurement]:
    """Virtual time from the start to hold, on an emulated board, for a 50 ms workload."""
    from governor import EnergyGovernor
    from governor.devices.emulated import EmulatedBoard

    times: list[float] = []
    for seed in range(searches):
        board = EmulatedBoard("xavier-nx", "yolov8n", seed=seed)
        start_s = board.clock.now()
        with EnergyGovernor("1.3x", device=board, policy=policy, seed=seed) as gov:
            while gov.phase != "hold" and board.clock.now() - start_s < 10 * 60:
                with gov.inference():
                    board.infer()
        times.append(board.clock.now() - start_s)
    note = f"virtual time on an emulated xavier-nx, yolov8n, SLO 1.3x, {policy}; of {searches}"
    return [
        Measurement("from start to hold, emulated, median", statistics.median(times), "s", 60, note)
    ]


def emulator(inferences: int = 20_000) -> list[Measurement]:
    """How much faster than real time a board is emulated."""
    from governor.devices.emulated import EmulatedBoard

    board = EmulatedBoard("agx-orin", "yolov8n")
    start, start_s = time.perf_counter(), board.clock.now()
    for _ in range(inferences):
        board.infer()
    elapsed = time.perf_counter() - start
    speed = (board.clock.now() - start_s) / elapsed
    note = f"virtual over real time; {inferences / elapsed:.0f} inferences a second"
    return [Measurement("emulator's speed, agx-orin yolov8n", speed, "x", None, note)]


def metrics(seconds: float = 2.0, rounds: int = 4) -> list[Measurement]:
    """How long a scrape takes, and how late the control loop looks without and with scrapes."""
    from governor.cli.bench.scraping import HANGING, POLL_S, RATE_HZ, measure

    seen = measure(seconds, rounds)
    note = f"median of {len(seen.scrapes_s)}; {RATE_HZ:g} a second, {HANGING} others hanging"
    figures = [Measurement("a scrape", 1e3 * statistics.median(seen.scrapes_s), "ms", None, note)]
    for name, late_s in (("quiet", seen.quiet_late_s), ("scraped", seen.scraped_late_s)):
        for statistic, share in (("median", 0.5), ("p99", 0.99)):
            late_ms = 1e3 * max(float(np.quantile(late_s, share)), 0.0)
            about = f"of {len(late_s)} looks, {1e3 * POLL_S:g} ms apart"
            figures.append(
                Measurement(f"control loop late, {name}, {statistic}", late_ms, "ms", None, about)
            )
    return figures
