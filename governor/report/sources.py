"""Reports of whatever was measured: a recorded run, a sweep, a replayed search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from governor.devices.trace import Sweep
from governor.records.lines import number
from governor.records.reader import Run
from governor.replay import ReplayRun, Truth
from governor.report.beside import Beside
from governor.report.ceilings import ceilings_of, roofline
from governor.report.document import NO_SLO, Landscape, Report
from governor.report.panels import Measured, curves
from governor.space import OperatingPoint
from governor.units import Bound, format_duration, format_percent

_EMULATED = "EMULATED: nothing was measured on hardware"
_COMMANDS = ("commands", "from public facts about the board; none was run for this page")


def of_run(
    run: Run,
    *,
    landscape: Landscape | None = None,
    others: Sequence[tuple[str, Measured]] = (),
    remarks: Sequence[str] = (),
    subject: str = "",
) -> Report:
    """A recorded run, and what else is known of its device; ``subject``: what was governed."""
    header = run.header
    trials = [Measured.of(line.trial) for line in run.searched]
    baseline = None if run.baseline is None else Measured.of(run.baseline.trial)
    held, ceilings = _held(run), ceilings_of(header)
    charts = [] if ceilings is None else [roofline(ceilings, header.levels, held, trials)]
    where = "emulated" if header.emulated else "measured on the device"
    subject = subject or header.workload or header.model or header.program or "an application"
    notes = list(remarks)
    if run.end is None:
        crashed = "its last line is cut off, as by a crash" if run.torn else "without an end"
        notes.append(f"The record stops {crashed}: this is what was written until then.")
    sources = [
        ("latency", f"{'emulated inferences' if header.emulated else 'measured in the application'}"
                    f", at {header.slo}"),
        ("power and energy", f"{where}, of the rail {header.total_rail}, idle time included"
                             if any(line.power_w for line in run.windows) else "none was read"),
        ("trials, decisions", f"recorded while {header.program or 'the application'} ran, "
                              f"from {header.started_at}"),
    ]  # fmt: skip
    if header.objective != "energy":
        sources.append(("objective", f"{header.objective}, instead of the least energy"))
    if landscape is not None:
        sources.append(("faint dots, heat map", f"{landscape.what}; the search knew nothing of it"))
    if ceilings is not None:
        sources.append(("roofs", f"{ceilings.source}; the dots from the latencies above"))
    if held is not None and held.point is not None:
        sources.append(_COMMANDS)
    return Report(
        title=f"{subject} on {header.description or header.device}",
        badge=_EMULATED if header.emulated else "MEASURED",
        real=not header.emulated,
        sources=sources,
        device=header.device,
        slo=header.slo,
        slo_s=run.slo_s,
        latency="at the SLO's percentile",
        levels=header.levels,
        trials=trials,
        baseline=baseline,
        chosen=held,
        others=others,
        landscape=landscape,
        windows=run.windows,
        decisions=run.decisions,
        total_rail=header.total_rail,
        remarks=notes,
        charts=charts,
    )


def _held(run: Run) -> Measured | None:
    """What was held last, by all its windows; None: it never came to that."""
    held = [line for line in run.windows if line.phase == "hold" and line.inferences]
    if not held:
        return None
    point = held[-1].point
    same = [line for line in held if line.point == point and line.energy_j is not None]
    inferences = sum(line.inferences for line in same)
    if not inferences:
        return None
    seconds = sum(line.end_s - line.start_s for line in same)
    total_w = sum(
        line.power_w.get(run.header.total_rail, float("nan")) * (line.end_s - line.start_s)
        for line in same
    )
    items = sum(line.items for line in same)
    return Measured(
        point=None if point is None else OperatingPoint(point),
        latency_s=sum(number(line.latency_s) * line.inferences for line in same) / inferences,
        energy_j=sum(number(line.energy_j) * line.items for line in same) / items,
        power_w=total_w / seconds,
    )


def of_sweep(sweep: Sweep, slo: Bound | None = None, known: Beside | None = None) -> Report:
    """A sweep: every setting, and the best of them within ``slo``.

    ``known``: what lies beside its trace; see :func:`governor.report.beside.beside`.
    """
    known = known or Beside()
    emulated = known.emulated or sweep.emulated
    bound = None if slo is None else slo.seconds(sweep.all_max_latency_s)
    settings = _with_intervals(landscape_of(sweep), sweep, known)
    fastest = settings[sweep.space.fastest]
    chosen = settings[sweep.optimum(float("inf") if bound is None else bound)]
    return Report(
        title=str(sweep),
        badge=_EMULATED if emulated else "MEASURED SWEEP",
        real=not emulated,
        sources=_own_sweep_sources() if known.device else _sweep_sources(),
        device=known.device or sweep.board,
        slo=f"latency <= {slo}" if slo is not None else NO_SLO,
        slo_s=bound,
        levels=levels_of(sweep),
        baseline=known.default if sweep.batch_size == 1 else None,
        chosen=chosen,
        others=[("all-max", fastest)],
        landscape=Landscape(settings=settings, what="the sweep as it is"),
        charts=list(curves(settings, levels_of(sweep), chosen)),
    )


def _with_intervals(settings: list[Measured], sweep: Sweep, known: Beside) -> list[Measured]:
    """Settings are matched by what the trace says of them: it leaves out knobs that never vary."""

    def key(point: OperatingPoint | None) -> tuple[str, ...]:
        return tuple(f"{(point or {})[name]:.6g}" for name in sweep.space.names)

    intervals_j = {
        key(point): interval_j
        for point, interval_j in known.spread.items()
        if point.get("batch_size", 1.0) == sweep.batch_size and set(sweep.space.names) <= set(point)
    }
    return [
        replace(each, energy_interval_j=intervals_j.get(key(each.point), 0.0)) for each in settings
    ]


def of_replay(run: ReplayRun, sweep: Sweep) -> Report:
    """A search of a measured sweep."""

    def told(truth: Truth) -> Measured:
        return Measured(
            point=truth.point,
            latency_s=truth.latency_s,
            energy_j=truth.energy_j / run.batch_size,
            power_w=truth.energy_j / truth.latency_s,
        )

    verdict = f"{format_percent(run.energy_excess, signed=True)} against the best of all"
    if not run.feasible:
        verdict = "no setting of this sweep keeps the SLO"
    return Report(
        title=f"{sweep}, {run.slo}",
        badge=f"{'EMULATED, ' if sweep.emulated else ''}REPLAYED by {run.policy}, seed {run.seed}",
        real=not sweep.emulated,
        sources=[
            ("trials", "what the sweep says of each setting that the policy asked for; the policy "
                       "itself was told these figures with noise"),
            *_sweep_sources(),
        ],
        device=sweep.board,
        slo=f"latency <= {run.slo}"
        + (f" = {format_duration(run.slo_s)}" if run.slo.relative else ""),
        slo_s=run.slo_s,
        levels=levels_of(sweep),
        trials=[told(trial.truth) for trial in run.trials],
        chosen=told(run.chosen),
        others=[("all-max", told(run.trials[0].truth)), ("best of all", told(run.oracle))],
        landscape=Landscape(settings=landscape_of(sweep), what="the sweep as it is"),
        remarks=[f"{run.policy} chose within {len(run.trials)} trials: {verdict}."],
    )  # fmt: skip


def landscape_of(sweep: Sweep) -> list[Measured]:
    """Every setting of a sweep, in its order; joules an item."""
    return [
        Measured(
            point=sweep.space.point(row),
            latency_s=float(sweep.latency_s[row]),
            energy_j=float(sweep.energy_j[row]) / sweep.batch_size,
            power_w=float(sweep.power_w[row]),
        )
        for row in range(len(sweep.space))
    ]


def levels_of(sweep: Sweep) -> dict[str, list[float]]:
    """By knob, ascending."""
    return {knob.name: list(knob.levels) for knob in sweep.space.knobs}


def _sweep_sources() -> list[tuple[str, str]]:
    return [
        ("dots, heat map", "the figures of the trace as they are; who measured them, and how, is "
                           "not in the file"),
        _COMMANDS,
    ]  # fmt: skip


def _own_sweep_sources() -> list[tuple[str, str]]:
    return [
        ("dots, heat map, curves", "the mean of each setting's repeats; the .json beside the trace "
                                   "tells of board, power mode, versions and command"),
        ("default governors", "measured in the same sweep, at batch size 1"),
        _COMMANDS,
    ]  # fmt: skip
