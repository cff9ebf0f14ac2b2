"""EnergyGovernor: what a user holds."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from datetime import time as midnight
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, cast

from governor.controller import Controller, OnDisturbance, OnDrift
from governor.decision import Decision, Phase
from governor.devices import open_device
from governor.devices.device import (
    Device,
    DeviceInfo,
    MonotonicClock,
    Sample,
    ShadowDevice,
    include_named,
)
from governor.errors import GovernorError, InputError, NoDeviceError
from governor.exits import ExitGuard
from governor.instrument.automatic import Automatic, Instrument, parse_instrument
from governor.instrument.explicit import SpanRecorder
from governor.instrument.stream import Stream
from governor.meter import STALE
from governor.objective import Objective
from governor.pace import Pace
from governor.roofline.work import Work
from governor.runtime import Runtime
from governor.schedule import Follower, Moment, Schedule, parse_objective
from governor.search_worker import SearchWorker
from governor.slo import LatencySLO
from governor.space import Knob, OperatingPoint, Space
from governor.status import Status
from governor.streams import Resolution
from governor.trial import MAIN, Span, Trial
from governor.units import (
    Duration,
    ThermalLimit,
    format_percent,
    parse_knob_value,
    parse_thermal_limit,
)
from policies.policy import (
    DEFAULT_POLICY,
    Policy,
    PolicyFactory,
    Problem,
    check_policy_name,
    load_policy,
)

if TYPE_CHECKING:
    from governor.experience import Experience
    from governor.exporter import Exporter, MetricsConfig
    from governor.metrics import Collector
    from governor.phases import PastPhase
    from governor.store import ProfileStore

Limit = tuple[str | float | None, str | float | None]
_WORKLOAD = re.compile(r"(?!\s)[^@\x00-\x1f\x7f]{1,100}")
_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
logger = logging.getLogger("governor")

_UNKNOWN = DeviceInfo(
    name="none",
    description="nothing to govern",
    emulated=False,
    total_rail="total",
    sensor_refresh_s=0.0,
    settle_s=0.0,
)


class EnergyGovernor(Stream):
    """Finds and holds the clocks of least energy an item that keep a latency bound.

    It governs one ``with`` block, and leaves the device as it was found::

        with EnergyGovernor(latency_slo="50ms"):
            for frame in camera:
                detections = model(frame)

    It is itself its main stream of inferences; :meth:`stream` adds others.

    Calls of PyTorch modules, TensorRT contexts, ONNX Runtime sessions and ``cv2.dnn`` nets are
    seen by themselves, until the application shows an inference by :meth:`watch`,
    :meth:`inference`, :meth:`tick` or :meth:`record`: from then on only such count.
    """

    def __init__(
        self,
        latency_slo: Duration,
        *,
        objective: str | Objective | Schedule = "energy",
        power_cap: str | float | None = None,
        percentile: float = 0.95,
        device: str | Device = "auto",
        policy: str | Policy | PolicyFactory = DEFAULT_POLICY,
        model: Work | str | Path | None = None,
        board: str | Path | None = None,
        trials: int = 12,
        limits: Mapping[str, Limit] | None = None,
        batch_size: Sequence[int] | None = None,
        thermal_limit: ThermalLimit | None = None,
        on_drift: OnDrift = "search",
        on_disturbance: OnDisturbance = "reassert",
        callback: Callable[[Decision], None] | None = None,
        required: bool = True,
        instrument: Instrument = "auto",
        seed: int = 0,
        pace: Pace | None = None,
        record: str | os.PathLike[str] | None = None,
        metrics: bool | str | MetricsConfig | None = None,
        profiles: bool | str | os.PathLike[str] | ProfileStore | None = None,
        workload: str = "",
        name: str = "",
    ) -> None:
        """
        Args:
            latency_slo: of one inference, ``"50ms"``, ``0.05`` s, ``"20fps"``, a timedelta,
                ``"1.3x"`` the latency at the fastest setting, or ``"none"``.
            objective: what is to be small: ``"energy"``, ``"latency"``, their product ``"edp"``;
                or a :class:`Battery` or :class:`Tariff`, also as ``"20Wh until 18:00"`` and
                ``"prices.csv"``.
            power_cap: the most that the board may take on average, ``"10W"`` or 10.0 W. Every
                search begins at the fastest setting, whatever power that takes.
            percentile: the share of inferences that must keep it.
            device: ``"auto"``, ``"emulated:agx-orin"``, ``"emulated:agx-orin/yolov8n"``, or
                a device object; that one is released but not closed.
            policy: a name, a callable that makes a policy of a Problem, or a policy; that one
                serves every search, so it is told of the trials before a drift, too.
            model: what an inference runs, so that a search starts from what the roofline
                predicts for it: its counted work, or what :func:`count_work
                <governor.roofline.counting.count_work>` takes.
            board: whose constants it predicts with: a name, or a file of ``governor
                calibrate``; the device's own where only ``model`` is given.
            trials: operating points that a search may try.
            limits: by knob the lowest and highest allowed, ``{"gpu_hz": ("300MHz", None)}``. The
                number of CPU cores is a knob only where it is named: ``{"cpu_cores": (2, None)}``.
            batch_size: sizes to choose from; the loop reads :attr:`batch_size`.
            thermal_limit: the warmest that the board may get, ``"85C"`` for its hottest zone or
                by zone ``{"gpu-thermal": "80C"}``: what would settle above is not held, even
                where nothing cooler keeps the SLO. The board's own trip point, where it is
                known, is a limit always.
            on_drift: search again, measure the baseline first, or ignore.
            on_disturbance: when someone else sets a knob, set it again or yield to them.
            callback: called with each :class:`Decision`, from the governor's thread.
            required: whether it is an error that there is nothing to govern; if not, the
                loop runs ungoverned and is measured.
            instrument: which frameworks are seen by themselves: ``"auto"``, ``"off"`` or names
                among ``torch``, ``tensorrt``, ``onnxruntime``, ``opencv``.
            seed: of whatever the policy draws at random.
            pace: how long things are looked at.
            record: a file to which trials, decisions and windows are appended as JSON lines, for
                ``governor report``, ``top`` and ``replay``. Where it cannot be written, that is
                logged, and governing goes on.
            metrics: where they go: True for ``localhost:9477``, an address to scrape, or a
                :class:`MetricsConfig`; None: nowhere.
            profiles: where what was learnt is kept, and found again: True for the user's own
                file, a path, or ``postgresql://user@host/database`` for a fleet. None: nowhere,
                for a library should write no file that nobody asked for. A store that fails is
                logged, and governing goes on.
            workload: what the profile is called; without it, it is named by ``model``, or known
                again by what it takes at the fastest setting.
            name: of this governor among others in one process, in its metrics.

        Raises:
            InputError: an argument cannot be used. Nothing was changed.
            NoDeviceError: nothing to govern here, and ``required``.
        """
        slo = LatencySLO.parse(latency_slo, percentile)
        aim = _aim(objective, power_cap)
        if name and not _NAME.fullmatch(name):
            raise InputError(
                f"a governor's name is up to 64 letters, digits, '.', '-' and '_', got {name!r}"
            )
        self._name = name
        self._metrics = _metrics_config(metrics)
        store = _store(profiles, workload)
        self._exporter: Exporter | None = None
        self._source_counts: Callable[[], Mapping[tuple[str, str], int]] = dict
        sizes = _batch_sizes(batch_size)
        limits_c = parse_thermal_limit(thermal_limit)
        frameworks = parse_instrument(instrument)
        self._callback = callback
        self._worker: SearchWorker | None = None
        if isinstance(policy, str):
            check_policy_name(policy)
        self._owned = isinstance(device, str)
        self._device = _open(device, required)
        self._info = self._device.info if self._device is not None else _UNKNOWN
        clock = self._device.clock if self._device is not None else MonotonicClock()
        space = None if self._device is None else _allowed(self._device, limits, sizes)
        self._clock = clock
        self._spent_j: Callable[[], float] = lambda: 0.0
        self._follower: Follower | None = None
        policy_for = self._policy_for(policy, in_process=clock.virtual or space is None)
        policy_for = self._seeded(policy_for, space, model, board)
        self._experience: Experience | None = None
        if store is not None and space is not None:
            from governor.experience import Experience, key_of  # only who keeps profiles pays

            key = key_of(self._info, space, slo, workload, _work(model))
            self._experience = Experience(
                store, key, space, in_thread=not clock.virtual, owned=store is not profiles
            )
            policy_for = self._experience.informing(policy_for)
        self._controller = Controller(
            space,
            slo,
            policy_for,
            self._info,
            trials=trials,
            seed=seed,
            on_drift=on_drift,
            on_disturbance=on_disturbance,
            pace=pace,
            thermal_limits_c=limits_c,
            objective=self._follow(aim),
        )
        self._spent_j = lambda: self._controller.seen.meter.total_j
        recorder = SpanRecorder(
            time.perf_counter if isinstance(clock, MonotonicClock) else clock.now,
            items=(lambda: self.batch_size) if sizes else (lambda: 1),
            stall_s=(pace or Pace()).stall_s,
            stretch=self._stretch if isinstance(self._device, ShadowDevice) else None,
            on_span=self._after_span if clock.virtual else None,
        )
        self._record = None
        if record is not None:
            from governor.records.recorder import Recorder  # only who records pays for it

            self._record = Recorder(
                _path(record), self._controller, space, self._info,
                policy=_name_of(policy), trials=trials, seed=seed, work=_work(model),
            )  # fmt: skip
        super().__init__(recorder)
        # real work takes none of virtual time, so there it is seen only if named
        seen = () if clock.virtual and instrument == "auto" else frameworks
        self._automatic = Automatic(recorder, seen)
        self._runtime = Runtime(
            self._controller,
            self._device,
            clock,
            recorder,
            batch_size=sizes[0] if sizes else 1,
            on_decision=self._report,
            on_look=self._look,
        )
        self._guard = ExitGuard(self._end)
        self._state = "new"

    def _follow(self, aim: Objective | Schedule) -> Objective:
        """From now on ``aim``; returns what that is at present."""
        if isinstance(aim, Objective):
            self._follower = None
            return aim
        self._follower = Follower(aim, self._moment)
        return self._follower.objective

    def _moment(self) -> Moment:
        now = datetime.now()
        if self._clock.virtual:
            now = datetime.combine(now.date(), midnight()) + timedelta(seconds=self._clock.now())
        return Moment(now, self._spent_j())

    def _look(self, now_s: float, spans: Sequence[Span], sample: Sample | None) -> None:
        """Before the controller is shown what happened."""
        if self._record is not None:
            self._record.look(now_s, spans, sample)
        if self._follower is None:
            return
        try:
            objective = self._follower.look(now_s)
        except Exception as error:  # a file or a callable of the user's
            logger.warning("what the objective is now cannot be told: %s", error)
            return
        if objective is not None:
            with self._runtime.lock:
                self._controller.aim(objective)

    def _policy_for(self, policy: str | Policy | PolicyFactory, in_process: bool) -> PolicyFactory:
        if isinstance(policy, str):
            if in_process:
                return lambda problem: load_policy(policy)(problem)
            self._worker = SearchWorker(policy)
            return self._worker.policy_for
        if isinstance(policy, type) or not hasattr(policy, "ask"):
            if not callable(policy):
                raise InputError(f"policy {policy!r} is no name, no policy and no callable")
            return cast(PolicyFactory, policy)
        given = cast(Policy, policy)
        return lambda _problem: given

    def _seeded(
        self,
        policy_for: PolicyFactory,
        space: Space | None,
        model: Work | str | Path | None,
        board: str | Path | None,
    ) -> PolicyFactory:
        """The same policy, told what board and model let expect."""
        if space is None or (model is None and board is None):
            return policy_for
        from governor.roofline.prior import seeding  # only who seeds pays for it

        prior_in = seeding(model, board or self._info.name)
        prior_in(space)  # now, and not in the control loop

        def seeded(problem: Problem) -> Policy:
            """What earlier trials taught is worth more than what was to be expected."""
            if not problem.prior.weak:
                return policy_for(problem)
            return policy_for(replace(problem, prior=prior_in(problem.space)))

        return seeded

    # The block ---------------------------------------------------------------------------

    def __enter__(self) -> EnergyGovernor:
        if self._state != "new":
            raise GovernorError(
                "an EnergyGovernor governs one with block; make a new one for the next"
            )
        if self._metrics is not None:
            self._export(self._metrics)
        self._state = "running"
        if self._worker is not None:
            self._worker.start()
        self._guard.arm()
        if self._record is not None:
            self._record.begin(self._clock.now())
        if self._experience is not None:
            self._experience.begin(self._recall, self._controller.phases.disowned)
        self._runtime.start()
        self._automatic.begin()
        return self

    def _recall(self, phases: Sequence[PastPhase]) -> None:
        """What earlier runs have found, before the first search begins."""
        with self._runtime.lock:
            for phase in phases:
                self._controller.phases.remember(phase)

    def _export(self, config: MetricsConfig) -> None:
        from governor.exporter import Exporter

        try:
            self._exporter = Exporter(config, self)
        except GovernorError:  # such as a port that is taken: nothing began, so nothing ends
            self._state = "ended"
            if self._owned and self._device is not None:
                self._device.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end("exit" if kind is None else "exception")

    async def __aenter__(self) -> EnergyGovernor:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # not in another thread: signal handlers can only be put back from the main one
        self.__exit__(kind, error, trace)

    def _end(self, reason: str) -> None:
        """Leave everything as it was found; by whatever road this is reached, and twice."""
        if self._state != "running":
            return
        self._state = "ended"
        try:
            self._automatic.end()
        finally:
            self._give_back(reason)

    def _give_back(self, reason: str) -> None:
        try:
            self._runtime.stop(reason)
            if self._record is not None:
                self._record.end(self._clock.now(), reason)
        finally:
            if self._experience is not None:
                self._experience.close()
            if self._exporter is not None:
                self._exporter.close()
            if self._worker is not None:
                self._worker.rest()
            if self._owned and self._device is not None:
                self._device.close()
            self._guard.disarm()

    # The loop ----------------------------------------------------------------------------

    def stream(
        self,
        name: str,
        *,
        latency_slo: Duration,
        percentile: float = 0.95,
        counts_items: bool = True,
        stall_s: float = 0.0,
    ) -> Stream:
        """Another stream of inferences on the same board, with a bound of its own.

        The operating point keeps every stream's bound; one that is silent holds nobody back.
        Energy an item is all energy over the items of all streams. Until the first search of
        a new stream, its bound is only guarded.

        Args:
            name: for people and metrics.
            latency_slo, percentile: as of the governor; ``"1.3x"`` is of its own latency at
                the fastest setting.
            counts_items: False where this is another bound on work that another stream counts,
                such as the time to the first token beside the time of each.
            stall_s: a shorter wait for its next inference is never a stall of its input.

        Raises:
            InputError: an argument cannot be used, or the name is taken.
        """
        if not _NAME.fullmatch(name):
            raise InputError(
                f"a stream's name is up to 64 letters, digits, '.', '-' and '_', got {name!r}"
            )
        slo = LatencySLO.parse(latency_slo, percentile)
        with self._runtime.lock:
            self._controller.seen.streams.add(name, slo, stall_s)
        return Stream(self._recorder.branch(name, self._recorder.items if counts_items else _none))

    @property
    def latency_slo(self) -> LatencySLO:
        """The bound of the governor's own stream. Set it at any time, as to the constructor.

        ::

            gov.latency_slo = "700ms"

        What was measured stays true under another bound: that is kept, and the best point under
        the new one found from it, with few trials or none.
        """
        return self._controller.slo_of(MAIN)

    @latency_slo.setter
    def latency_slo(self, latency_slo: Duration | LatencySLO) -> None:
        self.set_slo(latency_slo)

    def set_slo(
        self,
        latency_slo: Duration | LatencySLO,
        percentile: float | None = None,
        stream: str = MAIN,
    ) -> None:
        """Another latency bound from now on; from any thread, at any time.

        Args:
            latency_slo: as of the constructor.
            percentile: None: as before. Where it changes, everything is measured anew.
            stream: whose bound; the governor's own by default.

        Raises:
            InputError: an argument cannot be used, or there is no such stream. Nothing changed.
        """
        with self._runtime.lock:
            self._controller.bind(self._slo(latency_slo, percentile, stream), stream)

    def _slo(
        self, latency_slo: Duration | LatencySLO, percentile: float | None, stream: str
    ) -> LatencySLO:
        if isinstance(latency_slo, LatencySLO):
            return latency_slo
        if percentile is None:
            percentile = self._controller.slo_of(stream).percentile
        return LatencySLO.parse(latency_slo, percentile)

    @property
    def objective(self) -> Objective:
        """What is to be small now, and how much power is allowed for it."""
        return self._controller.objective

    def set_objective(
        self, objective: str | Objective | Schedule, power_cap: str | float | None = None
    ) -> None:
        """Another objective from now on, as to the constructor; from any thread, at any time.

        What was measured stays true: the best point is found from it with few trials or none.

        Raises:
            InputError: an argument cannot be used. Nothing changed.
        """
        aim = _aim(objective, power_cap)
        with self._runtime.lock:
            self._controller.aim(self._follow(aim))

    def set_resolution(self, stream: str, resolution: Resolution) -> None:
        """A stream's latencies are read off a histogram, which tells them to a bucket only.

        Args:
            stream: its name, ``main`` for the governor's own.
            resolution: of a latency in s the edges, in s, of its bucket.
        """
        with self._runtime.lock:
            self._controller.seen.streams[stream].resolution = resolution

    def count_sources(self, counts: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """What is seen of other processes, by source and outcome, for :meth:`status`."""
        self._source_counts = counts

    @property
    def batch_size(self) -> int:
        """How many items the loop shall put into its next inference."""
        return self._runtime.batch_size

    def _stretch(self, start_s: float, end_s: float, items: int) -> None:
        """Shadow mode: let this inference last as long as it would on the emulated board."""
        if isinstance(self._device, ShadowDevice):
            time.sleep(self._device.follow(start_s, end_s, items))

    def _after_span(self) -> None:
        self._runtime.after_span()

    # What is known -----------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """baseline, profile, search, hold or fallback."""
        return self._controller.phase

    @property
    def operating_point(self) -> OperatingPoint | None:
        """What is set now; None: the system's own governors."""
        return self._controller.target

    @property
    def slo_s(self) -> float:
        """The latency bound in seconds; infinite while ``"1.3x"`` is not yet resolved."""
        return self._controller.slo_s

    @property
    def slo_feasible(self) -> bool | None:
        """Whether any setting keeps the SLO; None until known."""
        return self._controller.slo_feasible

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All that was told to the policy, in order."""
        with self._runtime.lock:
            return tuple(self._controller.trials)

    @property
    def baseline(self) -> Trial | None:
        """What was measured before anything was touched."""
        return self._controller.baseline

    @property
    def saving(self) -> float | None:
        """Share of energy an item saved against the baseline; None until it is known."""
        return self._controller.saving

    @property
    def metrics_url(self) -> str | None:
        """Where the metrics can be scraped now; None: nowhere."""
        return None if self._exporter is None else self._exporter.url

    def collector(self) -> Collector:
        """The metrics, for an application's own registry of prometheus_client.

        Several governors share one: ``governor.metrics.Collector(detector, tracker)``.
        """
        from governor.metrics import Collector

        return Collector(self)

    def status(self) -> Status:
        """Everything there is to show, at one moment."""
        with self._runtime.lock:
            controller, runtime = self._controller, self._runtime
            seen = controller.seen
            latest, sample = seen.latest, seen.meter.latest
            return Status(
                name=self._name,
                device=self._info.name,
                emulated=self._info.emulated,
                phase=controller.phase,
                frozen=controller.frozen,
                governing=controller.governing,
                lease_held=runtime.touched,
                point=controller.target,
                objective=str(controller.objective),
                objective_kind=controller.objective.kind,
                power_cap_w=controller.objective.power_cap_w,
                knobs=dict(controller.read_back or {}),
                slo_percentile=controller.slo.percentile,
                slo_s=controller.slo_s,
                slo_feasible=controller.slo_feasible,
                latency_s=math.nan if latest is None else latest.latency_s,
                mean_latency_s=math.nan if latest is None else latest.mean_latency_s,
                energy_j=_energy_of(latest),
                baseline_energy_j=_energy_of(controller.baseline),
                held_energy_j=_energy_of(controller.held),
                best_energy_j=_energy_of(controller.best),
                predicted_energy_j=controller.predicted_j,
                total_rail=self._info.total_rail,
                power_w=dict(sample.power_w) if sample is not None else {},
                temperature_c=dict(sample.temperature_c) if sample is not None else {},
                thermal_limits_c=controller.heat.known_limits_c,
                thermal_headroom_c=controller.heat.headroom_c,
                throttle_events=dict(sample.throttle_events) if sample is not None else {},
                total_j=seen.meter.total_j,
                rail_j=dict(seen.meter.rail_j),
                saved_j=controller.savings.total_j,
                saving=controller.saving,
                defaults_held=controller.defaults_held,
                inferences=seen.inferences,
                items=seen.items,
                violations=seen.violations,
                latencies=seen.latencies.buckets(),
                failed=self._recorder.failed,
                trials=len(controller.trials),
                outcomes=dict(controller.outcomes),
                disturbances=dict(controller.disturbances),
                sensor_errors=dict(runtime.senses.errors),
                restores=dict(runtime.restores),
                fallbacks=controller.fallbacks,
                drifts=controller.drifts,
                record_errors=0 if self._record is None else self._record.errors,
                sources=self._source_counts(),
                streams=tuple(stream.status() for stream in seen.streams),
            )

    def _report(self, decision: Decision) -> None:
        """Log a decision, tell the callback, and let the search worker rest when it can."""
        level = _LEVELS.get(decision.kind, logging.INFO)
        saving = self._controller.saving
        saved = (
            f"; {format_percent(saving)} less than the baseline" if saving and saving > 0 else ""
        )
        logger.log(
            level,
            "%s: %s%s",
            decision.kind,
            decision.reason,
            saved,
            extra={"decision": self._fields(decision)},
        )
        if self._record is not None:
            self._record.decided(decision)
        if decision.kind == "hold" and self._experience is not None:
            with self._runtime.lock:
                several = len(self._controller.seen.streams.percentiles) > 1
                found, slo = self._controller.found, str(self._controller.slo)
            # a search for several bounds is in units of them all: no profile of one workload
            self._experience.keep(None if several else found, slo)
        if decision.kind in ("hold", "infeasible") and self._worker is not None:
            self._worker.rest()
        if self._callback is not None:
            try:
                self._callback(decision)
            except Exception:
                logger.exception("the callback failed")

    def _fields(self, decision: Decision) -> dict[str, object]:
        """A decision for a machine that reads logs; NaN where nothing is known."""
        trial = decision.trial
        return {
            "kind": decision.kind,
            "phase": decision.phase,
            "reason": decision.reason,
            "point": None if decision.point is None else dict(decision.point),
            "change": decision.change,
            "device": self._info.name,
            "emulated": self._info.emulated,
            "slo_s": self._controller.slo_s,
            "saving": self._controller.saving,
            "latency_s": math.nan if trial is None else trial.latency_s,
            "energy_j": _energy_of(trial),
            "power_w": math.nan if trial is None else trial.power_w,
        }


_LEVELS = {
    "wait": logging.DEBUG,
    "infeasible": logging.WARNING,
    "fallback": logging.WARNING,
    "release": logging.WARNING,
    "reassert": logging.WARNING,
    "heat": logging.WARNING,
}


def _energy_of(trial: Trial | None) -> float:
    """NaN also where the window ended before its energy could be measured."""
    if trial is None or not trial.energy_se_j < STALE * trial.energy_j:
        return math.nan
    return trial.energy_j


def _open(device: str | Device, required: bool) -> Device | None:
    if not isinstance(device, str):
        return device
    try:
        return open_device(device)
    except NoDeviceError as error:
        if required:
            raise
        logger.warning("%s; measuring only", error)
        return None


def _aim(
    objective: str | Objective | Schedule, power_cap: str | float | None
) -> Objective | Schedule:
    if isinstance(objective, str):
        return parse_objective(objective, power_cap)
    if power_cap is not None:
        raise InputError("a power cap goes with an objective's name; an object has its own")
    if not callable(getattr(objective, "objective", None)) and not isinstance(objective, Objective):
        raise InputError(f'objective {objective!r} is none; write it like "energy" or "edp"')
    return objective


def _path(record: str | os.PathLike[str]) -> Path:
    if not isinstance(record, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f'record must be the path of a file such as "run.jsonl", got {record!r}')
    return Path(record)


def _work(model: Work | str | Path | None) -> Work | None:
    """As it was counted for the policy."""
    if model is None or isinstance(model, Work):
        return model
    from governor.roofline.prior import counted

    return counted(model)


def _store(
    profiles: bool | str | os.PathLike[str] | ProfileStore | None, workload: str
) -> ProfileStore | None:
    if workload and not _WORKLOAD.fullmatch(workload):
        raise InputError(
            f"a workload's name is up to 100 printable characters without '@', got {workload!r}"
        )
    if profiles is None or profiles is False:
        return None
    from governor.store import ProfileStore  # SQLAlchemy is 0.3 s that most programs do without

    if isinstance(profiles, ProfileStore):
        return profiles
    return ProfileStore(None if profiles is True else profiles)


def _metrics_config(metrics: bool | str | MetricsConfig | None) -> MetricsConfig | None:
    if metrics is None or metrics is False:
        return None
    from governor.exporter import MetricsConfig  # what is not wanted is not loaded

    return MetricsConfig.parse(metrics)


def _name_of(policy: str | Policy | PolicyFactory) -> str:
    if isinstance(policy, str):
        return policy
    return getattr(policy, "__name__", type(policy).__name__)


def _none() -> int:
    return 0


def _batch_sizes(sizes: Sequence[int] | None) -> tuple[int, ...]:
    if sizes is None:
        return ()
    wanted = tuple(sizes)
    if not wanted or any(not isinstance(size, int) or size < 1 for size in wanted):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"batch_size must be sizes such as [1, 2, 4], got {sizes!r}")
    return tuple(sorted(set(wanted)))


def _allowed(device: Device, limits: Mapping[str, Limit] | None, sizes: tuple[int, ...]) -> Space:
    """The device's space within the limits, times the batch sizes.

    A limit on a knob that the device leaves alone unless asked for asks for it.
    """
    optional = include_named(device, limits or ())
    space = device.space
    if sizes:
        space = space.with_knob(Knob("batch_size", tuple(float(size) for size in sizes)))
    if not limits:
        return space
    for knob in limits:
        if knob not in space.names:
            raise InputError(
                f"limit on unknown knob {knob!r}; this device has "
                f"{', '.join((*space.names, *optional))}"
            )
    return space.limited({knob: _limit(knob, limit) for knob, limit in limits.items()})


def _limit(knob: str, limit: Limit) -> tuple[float | None, float | None]:
    if not isinstance(limit, tuple | list) or len(limit) != 2:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f'the limit on {knob} must be a lowest and a highest, ("300MHz", "1GHz") or '
            f"(None, 5), got {limit!r}"
        )
    low, high = (None if end is None else parse_knob_value(knob, end) for end in limit)
    if low is not None and high is not None and low > high:
        raise InputError(f"the limit on {knob} has its lowest above its highest: {limit!r}")
    return low, high
