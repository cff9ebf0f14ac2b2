"""What ``governor sidecar`` is told on its command line: applications and their sources."""

from __future__ import annotations

import re
from dataclasses import dataclass

from governor.errors import InputError
from governor.slo import LatencySLO
from governor.trial import MAIN
from governor.web import check_url

_APP = re.compile(r"(?P<name>[\w.-]{1,64})=(?P<slo>[^@]+)(?:@p?(?P<percentile>[0-9.]+))?", re.ASCII)
_SOURCE = re.compile(
    r"(?:(?P<app>[\w.-]{1,64})=)?(?P<kind>prometheus|triton|log):(?P<where>[^#]+)(?:#(?P<what>.+))?",
    re.ASCII,
)
_SERIES = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})?", re.ASCII)
_LABEL = re.compile(r'\s*([A-Za-z_]\w*)\s*=\s*"([^"]*)"\s*(?:,|$)', re.ASCII)
_NOTHING = re.compile("(?!)")
LOG_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


@dataclass(frozen=True, slots=True)
class App:
    """An application and its bound, as it was written and as it is read."""

    name: str
    latency_slo: str
    slo: LatencySLO

    @classmethod
    def parse(cls, text: str) -> App:
        """``NAME=SLO`` or ``NAME=SLO@PERCENTILE``, such as ``tracker=100ms@p99``.

        >>> str(App.parse("tracker=100ms@p99").slo)
        'p99 <= 100 ms'

        Raises:
            InputError: it is neither.
        """
        found = _APP.fullmatch(text)
        if found is None:
            raise InputError(f"--app {text!r}: write NAME=SLO or NAME=SLO@p99, as tracker=100ms")
        try:
            percentile = float(found["percentile"] or 95.0) / 100.0
        except ValueError:
            raise InputError(f"--app {text!r}: {found['percentile']!r} is no percentile") from None
        slo = LatencySLO.parse(found["slo"], percentile)
        return cls(found["name"], found["slo"], slo)


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """Where an application's inferences are seen.

    Attributes:
        kind: ``prometheus``, ``triton`` or ``log``.
        where: URL, or path; ``-``: standard input.
        name: of the metric, or of Triton's model; empty: all models.
        labels: that the series must have.
        pattern: of a log line, with a group named for its unit: ``(?P<ms>[0-9.]+)``.
    """

    app: str
    kind: str
    where: str
    name: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    pattern: re.Pattern[str] = _NOTHING

    @classmethod
    def parse(cls, text: str) -> SourceSpec:
        """``[APP=]KIND:WHERE[#WHAT]``.

        ``prometheus:http://localhost:8000/metrics#latency_seconds{model="yolo"}``,
        ``triton:http://localhost:8002/metrics#yolo``, ``log:-#took (?P<ms>[0-9.]+) ms``.

        Raises:
            InputError: it is none of these.
        """
        found = _SOURCE.fullmatch(text)
        if found is None:
            raise InputError(
                f"--source {text!r}: write [APP=]prometheus:URL#METRIC, [APP=]triton:URL#MODEL or "
                "[APP=]log:FILE#PATTERN"
            )
        app, kind, where, what = (found[k] or "" for k in ("app", "kind", "where", "what"))
        app = app or MAIN
        if kind == "log":
            return cls(app, kind, where, pattern=_pattern(text, what))
        check_url(where, f"--source {text!r}: ", "/metrics")
        if kind == "triton":
            return cls(app, kind, where, name=what)
        series = _SERIES.fullmatch(what)
        if series is None:
            raise InputError(
                f"--source {text!r}: after # must be a metric, perhaps with {{labels}}"
            )
        return cls(app, kind, where, series["name"], _labels(text, series["labels"] or ""))


def _pattern(text: str, what: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(what)
    except re.error as error:
        raise InputError(f"--source {text!r}: the pattern is none: {error}") from None
    if len([name for name in pattern.groupindex if name in LOG_UNITS]) != 1:
        raise InputError(
            f"--source {text!r}: the pattern needs one group named for the unit of the latency, "
            "(?P<s>...), (?P<ms>...) or (?P<us>...)"
        )
    return pattern


def _labels(text: str, labels: str) -> tuple[tuple[str, str], ...]:
    found = _LABEL.findall(labels)
    if _LABEL.sub("", labels).strip():
        raise InputError(f'--source {text!r}: labels are written {{name="value",other="value"}}')
    return tuple(found)
