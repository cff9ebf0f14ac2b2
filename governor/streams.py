"""The streams of inferences under one governor: each with its own bound, judged as one.

One operating point serves them all, so it must keep every stream's bound. What the search is
shown is the stream nearest to its bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from governor.errors import InputError
from governor.slo import BurnGuard, Estimate, LatencySLO, SearchBudget
from governor.trial import MAIN, Span, StreamLatency, Trial
from governor.window import Arrivals

HUNG = 10.0
"""An unfinished inference that has lasted so many times the bound is violation enough."""
MOST_STREAMS = 32
"""Each becomes a label of metrics, which must stay few."""

Resolution = Callable[[float], tuple[float, float]]
"""Of a latency in s that was read off a histogram: the edges of its bucket, in s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatus:
    """How one stream stands.

    Attributes:
        slo_s: infinite while a relative bound is not yet resolved.
        latency_s: at the percentile, in the latest finished window that it was in; NaN: none.
        burn_rate: the share of its latest inferences at this operating point that missed the
            bound, over the share that may; NaN: none yet.
        confidence: that the true share is within what is allowed, in [0, 1].
        silent: none of its inferences arrive; its bound holds nobody back.
    """

    name: str
    slo: LatencySLO
    slo_s: float
    latency_s: float
    inferences: int
    violations: int
    burn_rate: float
    confidence: float
    silent: bool


class SeenStream:
    """What is seen of one stream, and of its bound.

    Attributes:
        slo_s: the bound in seconds; infinite while a relative one is not yet resolved.
        guard: watches the SLO's budget.
        budget: what of it a search may still spend.
        silent: no inference has come yet, or none comes any more.
        met: a search has taken account of it.
        resolution: where its latencies are read off a histogram, the bucket around one.
        hung: an unfinished inference that is violation enough; None: there is none.
        latest: in the latest finished window that it was in.
    """

    def __init__(self, name: str, slo: LatencySLO, stall_s: float) -> None:
        self.name = name
        self.slo = slo
        self.slo_s = math.inf if slo.bound.relative else slo.bound.value
        self.guard = BurnGuard(slo.budget)
        self.budget = SearchBudget(slo.budget)
        self.arrivals = Arrivals(stall_s)
        self.silent = True
        self.met = False
        self.resolution: Resolution | None = None
        self.hung: Span | None = None
        self.latest: StreamLatency | None = None
        self.inferences = self.violations = 0

    def bind(self, slo: LatencySLO) -> None:
        """From now on by another bound, a relative one once it is resolved."""
        effect = self.guard.effect
        self.slo = slo
        self.slo_s = math.inf if slo.bound.relative else slo.bound.value
        self.guard = BurnGuard(slo.budget)
        self.guard.effect = effect
        self.budget = SearchBudget(slo.budget)

    def note_unfinished(self, now_s: float, in_flight_s: float, here: bool) -> None:
        """Its oldest unfinished inference has lasted so long; ``here``: in this window alone."""
        hung = here and in_flight_s > HUNG * self.slo_s
        self.hung = Span(now_s - in_flight_s, now_s, stream=self.name) if hung else None

    def share(self, latency: StreamLatency) -> Estimate:
        """The latency at the percentile over the bound.

        Where it lies in the same bucket of a histogram as the bound, it may be anywhere there.
        """
        se_s = latency.latency_se_s
        if self.resolution is not None:
            low_s, high_s = self.resolution(latency.latency_s)
            if low_s < self.slo_s < high_s:
                se_s = math.hypot(se_s, (high_s - low_s) / math.sqrt(12.0))
        return Estimate(latency.latency_s / self.slo_s, se_s / self.slo_s)

    def status(self) -> StreamStatus:
        """A snapshot."""
        known = not math.isinf(self.slo_s)
        return StreamStatus(
            name=self.name,
            slo=self.slo,
            slo_s=self.slo_s,
            latency_s=math.nan if self.latest is None else self.latest.latency_s,
            inferences=self.inferences,
            violations=self.violations,
            burn_rate=self.guard.burn_rate if known else math.nan,
            confidence=self.guard.confidence if known else math.nan,
            silent=self.silent,
        )


class SeenStreams:
    """All streams: the governor's own, which is there from the start, and those added.

    Attributes:
        percentiles: by stream, as a window needs them.
    """

    def __init__(self, slo: LatencySLO, stall_s: float) -> None:
        self.percentiles: dict[str, float] = {}
        self._streams: dict[str, SeenStream] = {}
        self._stall_s = stall_s
        self.add(MAIN, slo)

    def __getitem__(self, name: str) -> SeenStream:
        return self._streams[name]

    def __iter__(self) -> Iterator[SeenStream]:
        return iter(tuple(self._streams.values()))

    def add(
        self,
        name: str,
        slo: LatencySLO,
        stall_s: float = 0.0,
    ) -> None:
        """One more stream.

        Args:
            stall_s: a shorter wait for its next inference is never a stall.

        Raises:
            InputError: its name is taken, or there are too many.
        """
        if name in self._streams:
            raise InputError(f"there is a stream {name!r} already; name this one differently")
        if len(self._streams) >= MOST_STREAMS:
            raise InputError(f"at most {MOST_STREAMS} streams under one governor")
        self._streams[name] = SeenStream(name, slo, max(stall_s, self._stall_s))
        self.percentiles[name] = slo.percentile

    # Who is there ------------------------------------------------------------------------

    @property
    def active(self) -> list[str]:
        """The streams whose inferences arrive."""
        return [stream.name for stream in self if not stream.silent]

    def arrive(self, span: Span) -> bool:
        """Take note of an inference; returns whether what was measured so far is another mix.

        That is where its input had stalled before it, or where it is the first of its stream.
        A stream may fall silent for one long inference, whose end shows that it was none.
        """
        stream = self._streams[span.stream]
        joins = not stream.inferences and bool(self.active)
        stream.silent = False
        stream.inferences += 1
        return stream.arrivals.add(span) or joins

    def fall_silent(self, now_s: float, unfinished_s: Mapping[str, float]) -> bool:
        """See who no longer sends; returns whether anyone has just ceased to."""
        ceased = False
        for stream in self:
            waits = not unfinished_s.get(stream.name) and stream.arrivals.stalled(now_s)
            if waits and not stream.silent:
                stream.silent = ceased = True
        return ceased

    def meet(self) -> None:
        """A baseline was taken of all that are active."""
        for stream in self:
            stream.met = stream.met or not stream.silent

    @property
    def newcomers(self) -> list[str]:
        """The streams that are active and were in no baseline, or whose bound is not known yet."""
        return [stream.name for stream in self if not stream.silent and not stream.met]

    @property
    def patience_s(self) -> float:
        """The longest ordinary wait for the next inference of any stream that has sent some."""
        heard = [stream for stream in self if stream.inferences] or list(self)
        return max(stream.arrivals.patience_s for stream in heard)

    # Their bounds ------------------------------------------------------------------------

    @property
    def slo_s(self) -> float:
        """The unit of :meth:`judged`: the governor's own bound, in seconds.

        Where that is relative and its stream has never been heard, another stream's bound.
        """
        known = (stream.slo_s for stream in self if not math.isinf(stream.slo_s))
        return next(known, math.inf)

    def bind(self, name: str, slo: LatencySLO) -> bool:
        """A stream has another bound; returns whether trials say what they are asked for now."""
        stream = self._streams[name]
        same_percentile = slo.percentile == stream.slo.percentile
        stream.bind(slo)
        self.percentiles[name] = slo.percentile
        return same_percentile

    def missed(self, span: Span) -> bool:
        """Whether this inference took longer than its stream's bound."""
        return span.end_s - span.start_s > self._streams[span.stream].slo_s

    def scaled_s(self, span: Span) -> float:
        """How long it took, scaled so that its stream's bound is the governor's."""
        bound_s, latency_s = self._streams[span.stream].slo_s, span.end_s - span.start_s
        return latency_s if math.isinf(bound_s) else latency_s / bound_s * self.slo_s

    def resolve(self, trial: Trial) -> None:
        """``trial`` was measured at the fastest point: relative bounds follow from it."""
        for latency in trial.by_stream:
            stream = self._streams[latency.stream]
            stream.slo_s = stream.slo.bound.seconds(latency.latency_s)
        for stream in self:
            stream.met = stream.met and (math.isfinite(stream.slo_s) or stream.slo.unbounded)

    def judged(self, trial: Trial) -> Trial:
        """The trial, its latency made to speak for all of its streams (see :class:`Trial`)."""
        heard = [(self._streams[latency.stream], latency) for latency in trial.by_stream]
        bound = [(stream, latency) for stream, latency in heard if not math.isinf(stream.slo_s)]
        if not bound or [(s.name, s.resolution) for s, _ in heard] == [(MAIN, None)]:
            return trial
        unit_s = self.slo_s
        latency = _worst([stream.share(latency) for stream, latency in bound])
        count = len(bound)
        mean = sum(latency.mean_latency_s / stream.slo_s for stream, latency in bound) / count
        errors = [latency.mean_latency_se_s / stream.slo_s for stream, latency in bound]
        return replace(
            trial,
            latency_s=latency.value * unit_s,
            latency_se_s=latency.se * unit_s,
            mean_latency_s=mean * unit_s,
            mean_latency_se_s=math.hypot(*errors) / count * unit_s,
        )

    # Keeping them ------------------------------------------------------------------------

    def note(self, missed: Sequence[tuple[str, bool]]) -> None:
        """Take note of inferences that count at this point: whose, and did they miss?"""
        for name in {name for name, _ in missed}:
            stream = self._streams[name]
            own = [miss for stream_name, miss in missed if stream_name == name]
            stream.guard.add(own)
            stream.budget.add(own)

    def restart_guards(self) -> None:
        """Another operating point is in force."""
        for stream in self:
            stream.guard.restart()

    def restart_budgets(self) -> None:
        """Another search begins."""
        for stream in self:
            stream.budget.restart()

    @property
    def burning(self) -> bool:
        """Whether any stream's budget plainly burns."""
        burning = [stream.guard.burning for stream in self]  # each must look: it learns
        return any(burning)

    @property
    def overspent(self) -> bool:
        """Whether any stream has missed its bound more often than a search may."""
        return any(stream.budget.overspent for stream in self)


def _worst(shares: Sequence[Estimate]) -> Estimate:
    """The largest of latencies over their bounds; its error that of the least sure.

    So the probability that it is under 1 is the least of all.
    """
    largest = max(shares, key=lambda share: share.value)
    deviations = min((1.0 - share.value) / share.se for share in shares)
    if not deviations or not np.isfinite(deviations):
        return largest
    return Estimate(largest.value, (1.0 - largest.value) / deviations)
