"""The pictures of a report, each from figures to one inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from governor.records.lines import WindowLine, number
from governor.report.page import figure
from governor.report.svg import Axis, Chart, axis, ramp
from governor.space import OperatingPoint, named
from governor.trial import Trial
from governor.units import (
    format_duration,
    format_energy,
    format_knob_name,
    format_knob_value,
    format_percent,
    format_power,
)

PARETO_KEYS = (("kept", "kept the SLO"), ("missed", "missed it"), ("chosen", "chosen"))
SLOWEST = 3.0
"""A sweep without trials is shown up to so many times its least latency, at most; ..."""
BESIDE = 2.0
"""... and so many times as wide as its Pareto front, which slow settings would squeeze."""
MOST_SPOTS = 100
LEAST_CURVE = 3
"""Levels of a knob, for a curve over it."""
HIDDEN = 3.0
"""Half of a band that is not wider lies behind the line and its spots, in user units."""
MOST_TICKS = 9
MOST_WINDOWS = 600
"""In a chart over time: more than its width in dots are no gain, and a day has 17,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A setting and what it came to; seconds at the SLO's percentile, joules an item.

    Attributes:
        point: None: the system's own governors.
        energy_interval_j: half the width of the 95 % confidence interval, 0: not known.
    """

    point: OperatingPoint | None
    latency_s: float
    energy_j: float
    power_w: float = math.nan
    latency_se_s: float = 0.0
    energy_se_j: float = 0.0
    energy_interval_j: float = 0.0

    @classmethod
    def of(cls, trial: Trial) -> Measured:
        """A trial of a governed run."""
        return cls(
            point=trial.point,
            latency_s=trial.latency_s,
            energy_j=trial.energy_j,
            power_w=trial.power_w,
            latency_se_s=trial.latency_se_s,
            energy_se_j=trial.energy_se_j,
        )

    @property
    def known(self) -> bool:
        """Whether its energy says anything: a point left at once has hardly a sensor reading."""
        return math.isfinite(self.energy_j) and not self.energy_se_j >= 0.2 * self.energy_j

    def __str__(self) -> str:
        return f"{named(self.point)}: {format_duration(self.latency_s)}, " + (
            f"{format_energy(self.energy_j)} an item" if self.known else "left at once"
        )


def pareto(settings: Sequence[Measured]) -> list[Measured]:
    """Those that no other one beats in both latency and energy, by latency."""
    front: list[Measured] = []
    for each in sorted(settings, key=lambda one: (one.latency_s, one.energy_j)):
        if each.known and (not front or each.energy_j < front[-1].energy_j):
            front.append(each)
    return front


def _unit(joules: float) -> tuple[float, str]:
    """What energies are shown in."""
    return (1.0, "J") if joules >= 2.0 else (1e3, "mJ")


# Energy against latency -------------------------------------------------------------------


def plane(
    trials: Sequence[Measured],
    landscape: Sequence[Measured],
    baseline: Measured | None,
    chosen: Measured | None,
    slo_s: float | None,
    slo: str,
) -> str:
    """The energy-latency plane: trials in order, the Pareto front, and the SLO."""
    told = [each for each in trials if each.known]
    shown = [*told, *(each for each in (baseline, chosen) if each is not None)]
    front = pareto(landscape or told)
    if not told:
        quickest_s = min(each.latency_s for each in landscape or shown)
        front_s = max((each.latency_s for each in front), default=quickest_s) - quickest_s
        widest_s = min(SLOWEST * quickest_s, quickest_s + max(BESIDE * front_s, 0.3 * quickest_s))
        widest_s = max(widest_s, 1.5 * (slo_s or 0.0))
        shown += [each for each in landscape if each.latency_s <= widest_s]
    scale, unit = _unit(max(each.energy_j for each in shown))
    latencies = [1e3 * each.latency_s for each in shown]
    if slo_s is not None and 1e3 * slo_s < 2.0 * max(latencies):
        latencies.append(1.02e3 * slo_s)
    x = axis("latency (ms)", latencies)
    seen = [each for each in front if x.low <= 1e3 * each.latency_s <= x.high]
    y = axis(f"energy an item ({unit})", [scale * each.energy_j for each in (*shown, *seen)], 0.1)
    chart = Chart("Energy an item against latency", x, y)
    if slo_s is not None:
        chart.band(1e3 * slo_s, x.high, "over")
        chart.upright(1e3 * slo_s, f"SLO {format_duration(slo_s)}")
    chart.dust([(1e3 * each.latency_s, scale * each.energy_j) for each in landscape])
    chart.line([(1e3 * each.latency_s, scale * each.energy_j) for each in front], "front", True)
    for each in seen[:MOST_SPOTS] if landscape else ():
        chart.spot(1e3 * each.latency_s, scale * each.energy_j, str(each))
    if trials:
        chart.line([(1e3 * each.latency_s, scale * each.energy_j) for each in told], "base thin")
    for each in told:
        chart.error(
            1e3 * each.latency_s,
            scale * each.energy_j,
            1e3 * each.latency_se_s,
            scale * each.energy_se_j,
        )
    for n, each in enumerate(trials, 1):
        if each.known:
            style = _verdict(each, slo_s)
            tip = f"Trial {n}, {each}"
            chart.dot(1e3 * each.latency_s, scale * each.energy_j, style, tip, str(n))
    if baseline is not None and baseline.known:
        tip = f"Default governors: {baseline}"
        chart.square(1e3 * baseline.latency_s, scale * baseline.energy_j, tip, "default")
    if chosen is not None:
        chart.star(1e3 * chosen.latency_s, scale * chosen.energy_j, f"Chosen: {chosen}", "chosen")
    words = f"Energy an item ({unit}) over latency (ms)"
    if landscape:
        words += f"; faint: all {len(landscape)} settings"
    words += "; the stepped line is the Pareto front."
    if trials:
        words += " Trials are numbered in order."
    keys = PARETO_KEYS if trials else ()
    title = "Energy against latency" if slo_s is None else f"Energy against latency, {slo}"
    return figure(title, words, chart.draw(), keys)


def _verdict(each: Measured, slo_s: float | None) -> str:
    return "missed" if slo_s is not None and each.latency_s > slo_s else "kept"


def order(trials: Sequence[Measured], baseline: Measured | None, slo_s: float | None) -> str:
    """Energy trial by trial, and the best so far."""
    told = [each for each in (*trials, baseline) if each is not None and each.known]
    scale, unit = _unit(max((each.energy_j for each in told), default=0.0))
    numbers = [(float(n), str(n)) for n in range(1, len(trials) + 1)]
    x = Axis("trial", 0.5, len(trials) + 0.5, numbers[:: 1 + len(numbers) // 16])
    chart = Chart(
        "Energy an item, trial by trial",
        x,
        axis(f"energy an item ({unit})", [scale * each.energy_j for each in told]),
    )
    kept = [
        each.energy_j if each.known and _verdict(each, slo_s) == "kept" else math.nan
        for each in trials
    ]
    best = [float(scale * value) for value in np.fmin.accumulate(kept)]
    chart.line([(n, value) for n, value in enumerate(best, 1)], "chosen", step=True)
    if baseline is not None and baseline.known:
        chart.level(scale * baseline.energy_j, "default governors", "base")
    for n, each in enumerate(trials, 1):
        value = scale * each.energy_j if each.known else chart.y.low
        text = "" if each.known else "?"
        chart.dot(n, value, _verdict(each, slo_s), f"Trial {n}, {each}", text)
    return figure(
        "The search, trial by trial",
        f"Energy an item ({unit}). The line is the best so far that kept the SLO; ? was left "
        "before its energy could be measured.",
        chart.draw(),
        (("kept", "kept the SLO"), ("missed", "missed it"), ("chosen", "best so far")),
    )


# The lattice ------------------------------------------------------------------------------


def heat_map(
    settings: Sequence[Measured],
    levels: Mapping[str, Sequence[float]],
    trials: Sequence[Measured],
    chosen: Measured | None,
    slo_s: float | None,
    what: str,
) -> str:
    """Energy over two clocks, the least over all else; empty where there are no two."""
    x_knob, y_knob = _two_knobs(levels)
    if not x_knob:
        return ""
    columns, rows = levels[x_knob], levels[y_knob]
    x, y = _level_axis(x_knob, columns), _level_axis(y_knob, rows)
    cells = _cells(settings, x_knob, y_knob, slo_s)
    chart = Chart(f"Energy over {x.name} and {y.name}", x, y)
    chart.cell((-0.5, -0.5), (len(columns) - 0.5, len(rows) - 0.5), "", "empty", "")
    kept = [each for each in cells.values() if _verdict(each, slo_s) == "kept"]
    energies = [each.energy_j for each in kept or cells.values()]
    low, high = (min(energies), max(energies)) if energies else (0.0, 1.0)
    places = {(columns.index(at[0]), rows.index(at[1])): each for at, each in cells.items()
              if at[0] in columns and at[1] in rows}  # fmt: skip
    for (column, row), each in places.items():
        share = math.log(each.energy_j / low) / math.log(high / low) if high > low else 0.0
        out = " out" if _verdict(each, slo_s) == "missed" else ""
        chart.cell(
            (column - 0.5, row - 0.5), (column + 0.5, row + 0.5), ramp(share), f"cell{out}",
            str(each),
        )  # fmt: skip
    for n, each in enumerate(trials, 1):
        place = _place(each.point, x_knob, columns, y_knob, rows)
        if place is not None and (chosen is None or each.point != chosen.point):
            chart.dot(*place, _verdict(each, slo_s), f"Trial {n}, {each}", str(n))
    if chosen is not None:
        place = _place(chosen.point, x_knob, columns, y_knob, rows)
        if place is not None:
            chart.star(*place, f"Chosen: {chosen}")
    others = [format_knob_name(name) for name in levels if name not in (x_knob, y_knob)]
    over = f", the least over {' and '.join(others)}" if others else ""
    return figure(
        f"Energy over {format_knob_name(x_knob)} and {format_knob_name(y_knob)} "
        f"{'clock' if x_knob.endswith('_hz') else ''}".rstrip(),
        f"{what}{over}: dark {format_energy(low)} an item, bright {format_energy(high)} and more. "
        f"{'' if slo_s is None else 'Pale cells miss the SLO. '}Across {x.name}, up {y.name}.",
        chart.draw(),
    )


def _two_knobs(levels: Mapping[str, Sequence[float]]) -> tuple[str, str]:
    """GPU across and CPU up; or else the two with most levels."""
    many = [name for name, each in levels.items() if len(each) > 1]
    if {"gpu_hz", "cpu_hz"} <= set(many):
        return "gpu_hz", "cpu_hz"
    most = sorted(many, key=lambda name: -len(levels[name]))
    return (most[0], most[1]) if len(most) > 1 else ("", "")


def _level_axis(knob: str, levels: Sequence[float]) -> Axis:
    """One place a level; the labels are thinned."""
    scale, unit = (1e6, "MHz") if knob.endswith("_hz") else (1.0, "W" if "_w" in knob else "")
    every = max(1, math.ceil(len(levels) / MOST_TICKS))
    ticks = [
        (float(n), f"{level / scale:.4g}")
        for n, level in enumerate(levels)
        if n % every == 0 or (n == len(levels) - 1 and n % every > every // 2)
    ]
    name = f"{format_knob_name(knob)} ({unit})" if unit else format_knob_name(knob)
    return Axis(name, -0.5, len(levels) - 0.5, ticks)


def _cells(
    settings: Sequence[Measured], x_knob: str, y_knob: str, slo_s: float | None
) -> dict[tuple[float, float], Measured]:
    """By levels of the two knobs: the setting of least energy, of those that keep the SLO first."""
    cells: dict[tuple[float, float], Measured] = {}
    for each in settings:
        if each.point is None or not each.known:
            continue
        at = (each.point.get(x_knob, math.nan), each.point.get(y_knob, math.nan))
        before = cells.get(at)
        if before is None or _rank(each, slo_s) < _rank(before, slo_s):
            cells[at] = each
    return cells


def _rank(each: Measured, slo_s: float | None) -> tuple[bool, float]:
    return _verdict(each, slo_s) == "missed", each.energy_j


def _place(
    point: OperatingPoint | None,
    x_knob: str,
    columns: Sequence[float],
    y_knob: str,
    rows: Sequence[float],
) -> tuple[float, float] | None:
    if point is None or point.get(x_knob) not in columns or point.get(y_knob) not in rows:
        return None
    return float(columns.index(point[x_knob])), float(rows.index(point[y_knob]))


# One clock ---------------------------------------------------------------------------------


def curves(
    settings: Sequence[Measured], levels: Mapping[str, Sequence[float]], chosen: Measured
) -> Iterator[str]:
    """A chart for each knob: energy over it, all others as in the chosen setting."""
    if chosen.point is None:
        return
    for knob in levels:
        fixed = {name: value for name, value in chosen.point.items() if name != knob}
        along = {
            each.point[knob]: each
            for each in settings
            if each.point is not None
            and each.known
            and all(each.point.get(name) == value for name, value in fixed.items())
        }
        if len(along) >= LEAST_CURVE:
            yield _curve(knob, dict(sorted(along.items())), fixed)


def _curve(knob: str, along: Mapping[float, Measured], fixed: Mapping[str, float]) -> str:
    """Energy by level, with its confidence band where that is known."""
    scale, unit = _unit(max(each.energy_j for each in along.values()))
    per, of = (1e6, " (MHz)") if knob.endswith("_hz") else (1.0, "")
    name = format_knob_name(knob)
    middle = [(level / per, scale * each.energy_j) for level, each in along.items()]
    halves = [scale * each.energy_interval_j for each in along.values()]
    low = [(x, max(y - half, 0.0)) for (x, y), half in zip(middle, halves, strict=True)]
    high = [(x, y + half) for (x, y), half in zip(middle, halves, strict=True)]
    chart = Chart(
        f"Energy over {name}",
        axis(f"{name}{of}", [x for x, _ in middle]),
        axis(f"energy an item ({unit})", [y for _, y in (*low, *high)], 0.1),
    )
    chart.area(low, high, "chosen")
    for (x, y), half in zip(middle, halves, strict=True):
        chart.error(x, y, 0.0, half)
    chart.line(middle, "chosen")
    for (x, y), each in zip(middle, along.values(), strict=True):
        chart.spot(x, y, str(each))
    least = min(along, key=lambda level: along[level].energy_j)
    chart.star(least / per, scale * along[least].energy_j, f"Least: {along[least]}", "least")
    at = f", at {OperatingPoint(fixed)}" if fixed else ""
    band = _band(max(halves), max(half / y for (_, y), half in zip(middle, halves, strict=True)),
                 chart)  # fmt: skip
    return figure(f"Energy over {name}", f"In {unit} an item{at}{band}.", chart.draw())


def _band(half: float, share: float, chart: Chart) -> str:
    """What a caption says of a confidence band, the widest half of which is so large."""
    if not half:
        return ""
    what = f"95 % confidence of the mean, by its repeats, at most ±{format_percent(share)}"
    if chart.height_of(half) < HIDDEN:
        return f"; {what}, lies within the line"
    return f"; shaded: {what}"


# Over time --------------------------------------------------------------------------------


def thinned(windows: Sequence[WindowLine], most: int = MOST_WINDOWS) -> list[WindowLine]:
    """About so many windows at most, each of several that follow each other at one point.

    Of latencies the worst is kept, of power the mean, so that no miss is smoothed away.
    """
    every = math.ceil(len(windows) / most)
    if every <= 1:
        return list(windows)
    thin: list[WindowLine] = []
    for _, group in groupby(windows, lambda each: (each.phase, each.point)):
        same = list(group)
        thin += [_merged(same[n : n + every]) for n in range(0, len(same), every)]
    return thin


def _merged(windows: Sequence[WindowLine]) -> WindowLine:
    latencies = [each.latency_s for each in windows if each.latency_s is not None]
    rails = {rail for each in windows for rail in each.power_w}
    read = {rail: [each for each in windows if rail in each.power_w] for rail in rails}
    return replace(
        windows[-1],
        start_s=windows[0].start_s,
        inferences=sum(each.inferences for each in windows),
        violations=sum(each.violations for each in windows),
        latency_s=max(latencies, default=None),
        power_w={
            rail: sum(each.power_w[rail] for each in found) / len(found)
            for rail, found in read.items()
        },
    )


def latency_timeline(windows: Sequence[WindowLine], slo: str) -> str:
    """Latency against the SLO."""
    bounds = [1e3 * number(each.slo_s) for each in windows]
    values = [1e3 * number(each.latency_s) for each in windows]
    bound = next((value for value in reversed(bounds) if math.isfinite(value)), math.nan)
    chart = _over_time(
        "Latency over time", windows, axis("latency (ms)", [*values, bound], zero=True)
    )
    chart.line(_steps(windows, lambda each: 1e3 * number(each.latency_s)), "kept", step=True)
    if math.isfinite(bound):
        chart.level(bound, f"SLO {format_duration(bound / 1e3)}")
    missed = sum(each.violations for each in windows)
    count = sum(each.inferences for each in windows)
    return figure(
        "Latency over time",
        f"{slo}; in ms, a step a window. {missed} of {count} inferences in all were slower. "
        f"Shaded: {_phases(windows)}.",
        chart.draw(),
    )


def power_timeline(windows: Sequence[WindowLine], total_rail: str) -> str:
    """Watts by rail; rails may lie within each other and are never stacked."""
    rails = list(dict.fromkeys(rail for each in windows for rail in each.power_w))
    rails.sort(key=lambda rail: rail != total_rail)
    read = [each for each in windows if each.power_w]  # a short one may hold no reading
    if not rails:
        return ""
    values = [watts for each in windows for watts in each.power_w.values()]
    chart = _over_time("Power over time", windows, axis("power (W)", values, zero=True))
    keys: list[tuple[str, str]] = []
    for n, rail in enumerate(rails[:6]):
        style = f"r{n + 1}"
        chart.line(
            _steps(read, lambda each, rail=rail: each.power_w.get(rail, math.nan)), style, True
        )
        keys.append((style, f"{rail} (all that is charged)" if rail == total_rail else rail))
    return figure("Power by rail over time", "In W, mean of each window.", chart.draw(), keys)


def clocks_timeline(windows: Sequence[WindowLine], levels: Mapping[str, Sequence[float]]) -> str:
    """Each knob over its highest level; a gap where the system's own governors had it."""
    knobs = [name for name, each in levels.items() if len(each) > 1]
    if not knobs:
        return ""
    percent = Axis("share of the highest level (%)", 0.0, 106.0)
    chart = _over_time("Operating point over time", windows, percent)
    keys: list[tuple[str, str]] = []
    for n, knob in enumerate(knobs[:6]):
        top, style = max(levels[knob]), f"r{n + 1}"
        chart.line(
            _steps(
                windows,
                lambda each, knob=knob, top=top: 100 * (each.point or {}).get(knob, math.nan) / top,
            ),
            style,
            True,
        )
        keys.append((style, f"{format_knob_name(knob)} of {format_knob_value(knob, top)}"))
    return figure(
        "Operating point over time",
        "In % of the highest level; no line where the system's own governors chose.",
        chart.draw(),
        keys,
    )


def _over_time(label: str, windows: Sequence[WindowLine], y: Axis) -> Chart:
    """An empty chart over time, with every second phase shaded."""
    chart = Chart(label, Axis("time (s)", windows[0].start_s, windows[-1].end_s), y, height=280.0)
    for n, (phase, group) in enumerate(_by_phase(windows)):
        tip = f"{phase}, {format_duration(group[-1].end_s - group[0].start_s)}"
        chart.band(group[0].start_s, group[-1].end_s, "odd" if n % 2 else "even", tip)
    return chart


def _by_phase(windows: Sequence[WindowLine]) -> list[tuple[str, list[WindowLine]]]:
    return [(phase, list(group)) for phase, group in groupby(windows, lambda each: each.phase)]


def _phases(windows: Sequence[WindowLine]) -> str:
    parts = [f"{phase} to {group[-1].end_s:.0f} s" for phase, group in _by_phase(windows)]
    return ", ".join(parts if len(parts) < 7 else [*parts[:3], "...", *parts[-2:]])


def _steps(
    windows: Sequence[WindowLine], value: Callable[[WindowLine], float]
) -> list[tuple[float, float]]:
    """A level from each window's start on, and the last one to its end."""
    steps = [(each.start_s, value(each)) for each in windows]
    return [*steps, (windows[-1].end_s, steps[-1][1])]


# Figures ----------------------------------------------------------------------------------


def watts(each: Measured) -> str:
    """Its power for people, a dash where it is not known."""
    return format_power(each.power_w) if math.isfinite(each.power_w) else "–"
