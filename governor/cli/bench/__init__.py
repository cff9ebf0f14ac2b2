"""``governor bench``: what the governor itself costs, on this machine, against its budgets."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from typer.core import TyperGroup

from governor.cli.bench.still import StillDevice
from governor.cli.replay import check_writable, result_console, result_table, write_json
from governor.devices.trace import Sweep
from governor.errors import GovernorError, InputError, unknown_name
from governor.exits import interrupts_later
from governor.pace import Pace
from governor.progress import progress, with_progress
from governor.space import Knob, Space
from governor.units import parse_temperature
from policies.policy import DEFAULT_POLICY, Problem, load_policy

MOST_MINUTES = 7 * 24 * 60.0


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


class _Benchmarks(TyperGroup):
    """Names the known ones where one is not."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name.

        Raises:
            InputError: there is none.
        """
        found = super().get_command(ctx, cmd_name)
        if found is None:
            raise unknown_name("benchmark", cmd_name, self.list_commands(ctx))
        return found

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order in which they are defined."""
        return list(self.commands)


bench = typer.Typer(cls=_Benchmarks, invoke_without_command=True)

PolicyName = Annotated[str, typer.Option("--policy", help="Who searches.")]
Figures = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures.")]
MountedBoard = Annotated[str, typer.Option("--board", help="The emulated board that is mounted.")]


@bench.callback()
def _every(
    context: typer.Context,
    policy: Annotated[
        str | None,
        typer.Option(help="Who searches in next-point and converge.", show_default=DEFAULT_POLICY),
    ] = None,
    json_file: Figures = None,
) -> None:
    """Measure what the governor costs here.

    Without a COMMAND, all of them up to metrics, which takes a minute; the others are run by
    name only. Exit code 1 if a budget was not kept.
    """
    if context.invoked_subcommand is None:
        for_all = policy or DEFAULT_POLICY
        load_policy(for_all)
        quick = (span, loop, fresh_import, lambda: next_point(for_all), lambda: converge(for_all))
        _run([*quick, emulator, metrics], json_file)
    elif policy is not None or json_file is not None:
        raise InputError(f"give options after the name: bench {context.invoked_subcommand} ...")


@bench.command("span")
def _span(json_file: Figures = None) -> None:
    """Time that seeing an inference adds to it, explicitly and by the sidecar's client."""
    _run([span], json_file)


@bench.command("loop")
def _loop(json_file: Figures = None) -> None:
    """CPU time of the governor's own threads."""
    _run([loop], json_file)


@bench.command("import")
def _import(json_file: Figures = None) -> None:
    """Time and memory of the import."""
    _run([fresh_import], json_file)


@bench.command("next-point")
def _next_point(policy: PolicyName = DEFAULT_POLICY, json_file: Figures = None) -> None:
    """Time that a policy takes to name the next point."""
    _run([lambda: next_point(policy)], json_file)


@bench.command("converge")
def _converge(policy: PolicyName = DEFAULT_POLICY, json_file: Figures = None) -> None:
    """Virtual time from the start to hold, on an emulated board."""
    _run([lambda: converge(policy)], json_file)


@bench.command("emulator")
def _emulator(json_file: Figures = None) -> None:
    """How much faster than real time a board is emulated."""
    _run([emulator], json_file)


@bench.command("metrics")
def _metrics(json_file: Figures = None) -> None:
    """How long a scrape takes, and what it does to the control loop."""
    _run([metrics], json_file)


@bench.command("bursts")
def _bursts(
    board: MountedBoard = "orin-nano",
    repeats: Annotated[int, typer.Option(help="Of each length.", min=1, max=1000)] = 5,
    json_file: Figures = None,
) -> None:
    """Energy of short bursts, ours and Zeus's, against the truth. Needs FUSE, takes a minute.

    The bursts run on a mounted virtual board; the truth is what the emulation spent.
    """
    from governor.cli.bench.bursts import document, measure, show

    check_writable(json_file)
    outcome = measure(board, repeats)
    show(outcome)
    if json_file is not None:
        write_json(json_file, document(outcome))


@bench.command("drift")
def _drift(
    hours: Annotated[
        int, typer.Option(help="Virtual ones in which nothing changes.", min=0, max=10_000)
    ] = 24,
    seeds: Annotated[int, typer.Option(help="Runs of each change.", min=1, max=1000)] = 3,
    latencies: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Measured inference times to draw from."),
    ] = None,
    policy: PolicyName = DEFAULT_POLICY,
    json_file: Figures = None,
) -> None:
    """What is made of a change, and of none, on emulated boards. Takes minutes.

    A workload, a neighbour, a camera or a bound changes; then nothing does for --hours.
    """
    from governor.cli.bench.drift import document, measure, show

    check_writable(json_file)
    outcome = measure(hours, latencies, seeds, policy=policy)
    show(outcome)
    if json_file is not None:
        write_json(json_file, document(outcome))
    if outcome.missed:
        raise GovernorError(f"not reached: {'; '.join(outcome.missed)}")


@bench.command("heat")
def _heat(
    ambient: Annotated[
        str, typer.Option(metavar="TEMPERATURE", help="Of the room, such as 45C.")
    ] = "45C",
    minutes: Annotated[
        float, typer.Option(help="Virtual ones.", min=0.05, max=MOST_MINUTES)
    ] = 60.0,
    policy: PolicyName = DEFAULT_POLICY,
    json_file: Figures = None,
) -> None:
    """An hour in a hot room on every emulated board. Takes minutes.

    By the kernel's governors and by ours: energy, temperature, throttling and the bound.
    """
    from governor.cli.bench.heat import document, measure, show

    check_writable(json_file)
    outcomes = measure(parse_temperature(ambient, "--ambient"), minutes, policy)
    show(outcomes)
    if json_file is not None:
        write_json(json_file, document(outcomes))
    missed = [f"{each.case.board} {each.case.workload}" for each in outcomes if not each.met]
    if missed:
        raise GovernorError(f"not reached on {', '.join(missed)}")


@bench.command("instrument")
def _instrument(json_file: Figures = None) -> None:
    """What seeing each inference adds to it, by framework. Loads all that are installed."""
    from governor.cli.bench.instrument import document, measure, show

    check_writable(json_file)
    outcome = measure()
    show(outcome)
    if json_file is not None:
        write_json(json_file, document(outcome))


@bench.command("polling")
def _polling(board: MountedBoard = "orin-nano", json_file: Figures = None) -> None:
    """What reading the sensors more often costs. Needs FUSE and PyTorch, takes a minute.

    CPU and slow-down of a PyTorch loop while a mounted virtual board's sensors are read every
    100, 10 and 1 ms, and not at all.
    """
    from governor.cli.bench.polling import measure, measurements

    _run([lambda: measurements(measure(board))], json_file)


@bench.command("soak")
def _soak(
    minutes: Annotated[float, typer.Option(help="Real ones.", min=0.05, max=MOST_MINUTES)] = 60.0,
    board: MountedBoard = "orin-nano",
    json_file: Figures = None,
) -> None:
    """A sidecar in trouble for an hour. Needs root and FUSE.

    It governs a mounted virtual board while it and all around it is killed, hung, flooded and
    rotated: nothing may grow, and the clocks end as found.
    """
    from governor.cli.bench.soak import measurements, soak

    _run([lambda: measurements(soak(minutes, board))], json_file)


@bench.command("calibration")
def _calibration(json_file: Figures = None) -> None:
    """What calibrate states of emulated boards, against the truth. Takes minutes."""
    from governor.cli.bench.calibration import document, measure, show

    check_writable(json_file)
    outcome = measure()
    show(outcome)
    if json_file is not None:
        write_json(json_file, document(outcome))
    if untrue := sum(not one.holds for one in outcome):
        raise GovernorError(f"{untrue} constants are not what the calibration states")


def _run(measures: Iterable[Callable[[], list[Measurement]]], json_file: Path | None) -> None:
    check_writable(json_file)
    _report([one for measure in measures for one in measure()], json_file)


def _report(measurements: Sequence[Measurement], json_file: Path | None) -> None:
    _print(measurements)
    if json_file is not None:
        write_json(json_file, [{**asdict(one), "met": one.met} for one in measurements])
    missed = [one.what for one in measurements if one.met is False]
    if missed:
        raise GovernorError(f"over budget: {', '.join(missed)}")


def _print(measurements: Sequence[Measurement]) -> None:
    table = result_table("On this machine", "what", "measured", "budget", "met", "note")
    table.columns[-1].justify, table.columns[-1].no_wrap = "left", False
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
        for _ in with_progress(range(rounds), rounds, "span", still=True):
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

        with progress("loop, until it holds", None):
            search_s, search_cpu_s = run(until=lambda _elapsed_s: gov.phase == "hold")
        with progress("loop", seconds) as tell:

            def over(elapsed_s: float) -> bool:
                tell(elapsed_s)
                return elapsed_s >= seconds

            hold_s, hold_cpu_s = run(until=over)
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
    for _ in with_progress(range(processes), processes, "import", still=True):
        with interrupts_later():
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
        seeds = with_progress(range(searches), searches, "next-point", still=True)
        last = list(map(search, seeds))
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
    for seed in with_progress(range(searches), searches, "converge"):
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
