"""Where ``governor top`` looks: a run record that grows, or a governor's metrics over HTTP."""

from __future__ import annotations

import base64
import math
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from governor.errors import InputError, problem_of
from governor.records.lines import number
from governor.records.reader import Run, RunFile
from governor.report.top import View
from governor.units import format_duration

if TYPE_CHECKING:
    from prometheus_client import Metric

REMEMBERED = 120
"""Values of a small chart."""
PATIENCE_S = 5.0
"""A scrape that takes longer has failed."""
LONGEST_BYTES = 4_000_000
"""Of an answer that is read."""


class Watched(Protocol):
    """Something to look at."""

    def look(self) -> View:
        """How it stands now.

        Raises:
            InputError: it cannot be read, or is nothing of ours.
        """
        ...


def watch(source: str, name: str = "") -> Watched:
    """The run record or the metrics at ``source``; ``name``: which governor of several."""
    if source.startswith(("http://", "https://")):
        return WatchedMetrics(source, name)
    if "://" in source:
        raise InputError(f"{source}: give a run record, or an address that begins with http://")
    if name:
        raise InputError("--governor is for metrics; a run record holds one governor")
    return WatchedRecord(Path(source))


# A record ---------------------------------------------------------------------------------


class WatchedRecord:
    """The latest run of a record, as it is written."""

    def __init__(self, path: Path) -> None:
        self._file = RunFile(path)
        self._path = path

    def look(self) -> View:
        """How it stands now; see :class:`Watched`."""
        self._file.read()
        if not self._file.runs:
            raise InputError(f"{self._path}: holds no run; give a file that --record writes")
        return view_of(self._file.runs[-1])


def view_of(run: Run) -> View:
    """A recorded run as far as it goes."""
    header, windows = run.header, run.windows[-REMEMBERED:]
    last = windows[-1] if windows else None
    decision = run.decisions[-1] if run.decisions else None
    seen = [window for window in windows if window.latency_s is not None]
    read = next((window for window in reversed(windows) if window.power_w), None)
    baseline_j = number(run.baseline.energy_j) if run.baseline is not None else math.nan
    over = f"over: {run.end.reason}" if run.end is not None else ""
    note = f"{decision.kind}: {decision.reason}" if decision is not None else ""
    bound = run.slo_s
    now_s = run.end.time_s if run.end is not None else last.end_s if last is not None else 0.0
    return View(
        title=" on ".join(filter(None, (header.workload or header.program, header.description))),
        time=format_duration(now_s),
        phase=last.phase if last is not None else "baseline",
        point=decision.point if decision is not None else None,
        percentile=header.percentile,
        slo_s=number(bound),
        slo_feasible=decision.slo_feasible if decision is not None else None,
        latency_s=number(seen[-1].latency_s) if seen else math.nan,
        inferences=sum(window.inferences for window in run.windows),
        violations=sum(window.violations for window in run.windows),
        energy_j=number(seen[-1].energy_j) if seen else math.nan,
        baseline_energy_j=baseline_j,
        saved_j=_saved_j(run, baseline_j),
        trials=len(run.searched),
        missed=sum(bound is not None and trial.latency_s > bound for trial in run.searched),
        total_rail=header.total_rail,
        power_w=read.power_w if read is not None else {},
        temperature_c=last.temperature_c if last is not None else {},
        throttled=sum(last.throttle_events.values()) if last is not None else 0,
        latencies_s=[number(window.latency_s) for window in windows],
        total_w=[window.power_w.get(header.total_rail, math.nan) for window in windows],
        note="; ".join(filter(None, (over, note))),
        over=run.end is not None,
    )


def _saved_j(run: Run, baseline_j: float) -> float:
    """Against the baseline's energy an item, since that was known."""
    if not math.isfinite(baseline_j):
        return math.nan
    return sum(
        window.items * (baseline_j - window.energy_j)
        for window in run.windows
        if window.energy_j is not None and window.phase != "baseline"
    )


# Metrics ----------------------------------------------------------------------------------


class WatchedMetrics:
    """A governor's metrics, scraped at each look."""

    def __init__(self, address: str, name: str = "") -> None:
        """``address`` may hold ``user:password@``; ``name``: of one governor among several."""
        self._request = _request(address)
        self._name = name
        self._latencies_s: deque[float] = deque(maxlen=REMEMBERED)
        self._total_w: deque[float] = deque(maxlen=REMEMBERED)
        self._before: Mapping[float, float] = {}

    def look(self) -> View:
        """How it stands now; see :class:`Watched`."""
        metrics = self._scrape()
        others = sorted({_governor(sample.labels) for m in metrics for sample in m.samples})
        if self._name and self._name not in others:
            raise InputError(
                f"{self._request.full_url}: has no governor {self._name!r}; "
                f"choose among {', '.join(repr(each) for each in others)}"
            )
        name = self._name or others[0]
        return self._view(_Metrics(metrics, name), name, len(others))

    def _view(self, metrics: _Metrics, name: str, count: int) -> View:
        percentile = metrics.one("governor_slo_objective_ratio", 0.95)
        buckets = metrics.buckets("governor_inference_latency_seconds")
        latency_s = quantile(buckets, self._before, percentile)
        self._before = buckets
        power_w = metrics.by("governor_power_watts", "rail")
        self._latencies_s.append(latency_s)
        self._total_w.append(power_w.get("total", math.nan))
        knobs = metrics.by("governor_knob_target", "knob")
        phases = metrics.by("governor_phase", "phase")
        energy = metrics.by("governor_energy_per_item_joules", "state")
        trials = metrics.by("governor_trials_total", "outcome")
        feasible = metrics.one("governor_slo_feasible", math.nan)
        device = metrics.labels("governor_device_info")
        emulated = " (emulated)" if device.get("emulated") == "true" else ""
        which = f"{name}: " if name else ""
        more = f"; {count - 1} more here, choose with --governor" if count > 1 else ""
        return View(
            title=f"{which}{device.get('device', 'a governor')}{emulated} at "
            f"{self._request.host}{more}",
            time=time.strftime("%H:%M:%S"),
            phase=next((phase for phase, on in phases.items() if on), "baseline"),
            point=knobs or None,
            percentile=percentile,
            slo_s=metrics.one("governor_slo_seconds", math.nan),
            slo_feasible=None if math.isnan(feasible) else bool(feasible),
            latency_s=latency_s,
            inferences=int(metrics.one("governor_inferences_total", 0.0)),
            violations=int(metrics.one("governor_slo_violations_total", 0.0)),
            energy_j=energy.get("now", math.nan),
            baseline_energy_j=energy.get("baseline", math.nan),
            saved_j=metrics.one("governor_energy_saved_joules_total", math.nan),
            trials=int(trials.get("kept", 0.0) + trials.get("violated", 0.0)),
            missed=int(trials.get("violated", 0.0)),
            power_w=power_w,
            temperature_c=metrics.by("governor_temperature_celsius", "zone"),
            throttled=int(sum(metrics.by("governor_throttle_events_total", "cause").values())),
            latencies_s=list(self._latencies_s),
            total_w=list(self._total_w),
            note="no inferences arrive" if metrics.one("governor_frozen", 0.0) else "",
        )

    def _scrape(self) -> list[Metric]:
        from prometheus_client.parser import text_string_to_metric_families

        url = self._request.full_url
        try:
            with urlopen(self._request, timeout=PATIENCE_S) as answer:  # noqa: S310 - see _request
                text = answer.read(LONGEST_BYTES + 1)
        except (OSError, ValueError) as error:  # URLError is an OSError
            if isinstance(error, HTTPError):
                error.close()
            reason = error.reason if isinstance(error, URLError) else error
            said = problem_of(reason) if isinstance(reason, OSError) else reason
            raise InputError(
                f"{url}: cannot be read ({said}); is a governor there that shows its metrics?"
            ) from error
        if len(text) > LONGEST_BYTES:
            raise InputError(f"{url}: answers with more than a governor's metrics")
        try:
            families = list(text_string_to_metric_families(text.decode()))
        except (ValueError, IndexError, KeyError) as error:
            raise InputError(f"{url}: what it answers are no metrics; give a /metrics") from error
        ours = [family for family in families if family.name.startswith("governor_")]
        if not any(family.name == "governor_phase" for family in ours):
            raise InputError(f"{url}: has metrics, but none of a governor; give another address")
        return [family for family in ours if family.name != "governor_build_info"]


class _Metrics:
    """The samples of one governor."""

    def __init__(self, families: Iterable[Metric], name: str) -> None:
        self._samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in families:
            for sample in family.samples:
                if _governor(sample.labels) == name:
                    each = self._samples.setdefault(sample.name, [])
                    each.append((sample.labels, float(sample.value)))

    def one(self, name: str, otherwise: float) -> float:
        """The value of a metric without labels of its own."""
        found = self._samples.get(name)
        return found[0][1] if found else otherwise

    def by(self, name: str, label: str) -> dict[str, float]:
        """Values by what their label says."""
        return {labels.get(label, ""): value for labels, value in self._samples.get(name, ())}

    def labels(self, name: str) -> Mapping[str, str]:
        """The labels of a metric that is all labels."""
        found = self._samples.get(name)
        return found[0][0] if found else {}

    def buckets(self, name: str) -> dict[float, float]:
        """A histogram: how many were at or under each edge."""
        return {float(edge): value for edge, value in self.by(f"{name}_bucket", "le").items()}


def quantile(now: Mapping[float, float], before: Mapping[float, float], share: float) -> float:
    """The quantile of what a histogram counted since ``before``; NaN where that is nothing.

    Linear within a bucket, as Prometheus has it; above the last edge, that edge.
    """
    edges = sorted(now)
    counts = [max(now[edge] - before.get(edge, 0.0), 0.0) for edge in edges]
    if not counts or counts[-1] <= 0:
        return math.nan
    rank, low, under = share * counts[-1], 0.0, 0.0
    for edge, count in zip(edges, counts, strict=True):
        if count >= rank:
            if math.isinf(edge):
                return low
            part = (rank - under) / (count - under) if count > under else 1.0
            return low + part * (edge - low)
        low, under = edge, count
    return low


def _governor(labels: Mapping[str, str]) -> str:
    return labels.get("governor", "")


def _request(address: str) -> Request:
    """A GET of the address, whose path is /metrics by default; only http and https."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise InputError(f"{address}: is no address ({error}); write http://host:9477") from error
    if not parts.hostname:
        raise InputError(f"{address}: names no host; write http://host:9477")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    where = f"{host}:{port}" if port else host
    path = parts.path if parts.path not in ("", "/") else "/metrics"
    request = Request(urlunsplit((parts.scheme, where, path, parts.query, "")))  # noqa: S310
    if parts.username:
        word = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(word.encode()).decode()}")
    return request
