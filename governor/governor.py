"""EnergyGovernor: what a user holds."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from governor import arguments, decision_log
from governor.arguments import Limit
from governor.controller import Controller, OnDisturbance, OnDrift
from governor.decision import Decision, Phase
from governor.devices.device import Device, DeviceInfo, MonotonicClock, Sample, ShadowDevice
from governor.errors import GovernorError
from governor.exits import ExitGuard
from governor.instrument.automatic import Automatic, Instrument, parse_instrument
from governor.instrument.explicit import SpanRecorder
from governor.instrument.stream import Stream
from governor.objective import Objective
from governor.pace import Pace
from governor.policy_source import PolicySource
from governor.roofline.work import Work
from governor.runtime import Runtime
from governor.schedule import Follower, Schedule
from governor.slo import LatencySLO
from governor.space import OperatingPoint, Space
from governor.status import Status
from governor.streams import Resolution
from governor.trial import MAIN, Span, Trial
from governor.units import Duration, ThermalLimit, parse_thermal_limit
from policies.policy import DEFAULT_POLICY, Policy, PolicyFactory

if TYPE_CHECKING:
    from governor.experience import Experience
    from governor.exporter import Exporter, MetricsConfig
    from governor.metrics import Collector
    from governor.phases import PastPhase
    from governor.profile import ProfileKey
    from governor.store import ProfileStore

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
            objective: what is to be small: ``"energy"``, ``"latency"``, their product ``"edp"``
                (energy-delay product); or a :class:`Battery` or :class:`Tariff`, also as
                ``"20Wh until 18:00"`` and ``"prices.csv"``.
            power_cap: the most that the board may take on average, ``"10W"`` or 10.0 W. Every
                search begins at the fastest setting, whatever power that takes.
            percentile: the share of inferences that must keep it.
            device: ``"auto"``, ``"emulated:agx-orin"``, ``"emulated:agx-orin/yolov8n"``, or
                a device object; that one is released but not closed.
            policy: a name, a callable that makes a policy of a Problem for each search, such as
                its class, or a policy object: that one serves every search, so it is told of the
                trials before a drift, too, and bound and objective cannot change under it.
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
            on_drift: when the workload changes, ``"search"`` again, measure the ``"baseline"``
                first, or ``"ignore"`` it.
            on_disturbance: when someone else sets a knob, ``"reassert"`` it or ``"yield"``.
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
        arguments.check_kinds(
            percentile=percentile, trials=trials, seed=seed, device=device, limits=limits,
            batch_size=batch_size, instrument=instrument, callback=callback, workload=workload,
            pace=pace,
        )  # fmt: skip
        slo = LatencySLO.parse(latency_slo, percentile)
        aim = arguments.aim_of(objective, power_cap)
        if name:
            arguments.check_name(name, "governor")
        self._name = name
        self._workload, self._limits = workload, limits
        self._metrics = arguments.metrics_config(metrics)
        store = arguments.profile_store(profiles, workload)
        told = store is not None or record is not None
        self._work = arguments.counted_work(model) if told else None
        self._sizes = sizes = arguments.batch_sizes(batch_size)
        limits_c = parse_thermal_limit(thermal_limit)
        frameworks = parse_instrument(instrument)
        self._policies = PolicySource(policy)
        if not isinstance(aim, Objective):
            self._policies.check_may_change("the objective")
        self._owned = isinstance(device, str)
        self._device = arguments.device_of(device, required)
        self._info = _UNKNOWN if self._device is None else self._device.info
        self._clock = clock = MonotonicClock() if self._device is None else self._device.clock
        space = None
        if self._device is not None:
            space = arguments.allowed_space(self._device, limits, sizes)
            if not clock.virtual:
                self._policies.in_child()
            if model is not None or board is not None:
                self._policies.seed(space, model, board or self._info.name)
        policy_for: PolicyFactory = self._policies
        self._experience: Experience | None = None
        if store is not None and space is not None:
            from governor.experience import Experience  # only who keeps profiles pays

            self._experience = Experience(
                store,
                self._key(space, slo),
                space,
                in_thread=not clock.virtual,
                owned=store is not profiles,
            )
            policy_for = self._experience.informing(policy_for)
        self._callback = callback
        self._exporter: Exporter | None = None
        self._source_counts: Callable[[], Mapping[tuple[str, str], int]] = dict
        self._follower: Follower | None = None
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
                arguments.record_path(record), self._controller, space, self._info,
                policy=self._policies.name, trials=trials, seed=seed,
                work=self._work,
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
            on_renewed=self._renewed,
        )
        self._guard = ExitGuard(self._end)
        self._state = "new"

    def _follow(self, aim: Objective | Schedule, spent_j: float = 0.0) -> Objective:
        """From now on ``aim``; returns what that is at present."""
        if isinstance(aim, Objective):
            self._follower = None
            return aim
        self._follower = Follower(aim, self._clock, spent_j)
        return self._follower.objective

    def _look(self, now_s: float, spans: Sequence[Span], sample: Sample | None) -> None:
        """Before the controller is shown what happened."""
        if self._record is not None:
            self._record.look(now_s, spans, sample)
        if self._follower is None:
            return
        try:
            objective = self._follower.look(now_s, self._controller.seen.meter.total_j)
        except Exception as error:  # a file or a callable of the user's
            logger.warning("what the objective is now cannot be told: %s", error)
            return
        if objective is not None:
            with self._runtime.lock:
                self._controller.aim(objective)

    # The block ---------------------------------------------------------------------------

    def __enter__(self) -> EnergyGovernor:
        if self._state != "new":
            raise GovernorError(
                "an EnergyGovernor governs one with block; make a new one for the next"
            )
        if self._metrics is not None:
            self._export(self._metrics)
        self._state = "running"
        self._policies.start()
        self._guard.arm()
        if self._record is not None:
            self._record.begin(self._clock.now())
        if self._experience is not None:
            self._experience.begin(self._recalling(), self._controller.phases.disowned)
        self._runtime.start()
        self._automatic.begin()
        return self

    def _recalling(self) -> Callable[[Sequence[PastPhase]], None]:
        """Takes note of what earlier runs have found in the present settings, before a search."""
        known = self._controller.phases

        def recall(phases: Sequence[PastPhase]) -> None:
            with self._runtime.lock:
                for phase in phases:
                    if phase not in known.disowned:
                        known.remember(phase)

        return recall

    def _key(self, space: Space, slo: LatencySLO) -> ProfileKey:
        from governor.experience import key_of

        return key_of(self._info, space, slo, self._workload, self._work)

    def _renewed(self) -> None:
        """The device allows other settings than before, as in another power mode.

        Raises:
            InputError: none of them is within the limits, or the policy knows only the old ones.
        """
        if self._device is None:
            return
        self._policies.check_may_change("the power mode")
        space = arguments.allowed_space(self._device, self._limits, self._sizes)
        self._info = self._device.info
        if self._record is not None:
            self._record.move(self._clock.now(), space, self._info)
        with self._runtime.lock:
            self._controller.enter(space, self._info)
        if self._experience is not None:
            key = self._key(space, self._controller.slo)
            disowned = self._controller.phases.disowned
            self._experience.move(key, space, self._recalling(), disowned)

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
            self._policies.rest()
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
        arguments.check_name(name, "stream")
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
        self._policies.check_may_change("the latency bound")
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
        aim = arguments.aim_of(objective, power_cap)
        self._policies.check_may_change("the objective")
        with self._runtime.lock:
            self._controller.aim(self._follow(aim, self._controller.seen.meter.total_j))

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
            return Status.of(
                self._controller,
                self._runtime,
                self._info,
                name=self._name,
                failed=self._recorder.failed,
                record_errors=0 if self._record is None else self._record.errors,
                sources=self._source_counts(),
            )

    def _report(self, decision: Decision) -> None:
        """Log a decision, tell the callback, and let the search worker rest when it can."""
        decision_log.log(decision, self._controller, self._info)
        if self._record is not None:
            self._record.decided(decision)
        if decision.kind == "hold" and self._experience is not None:
            with self._runtime.lock:
                several = len(self._controller.seen.streams.percentiles) > 1
                found, slo = self._controller.found, str(self._controller.slo)
            # a search for several bounds is in units of them all: no profile of one workload
            self._experience.keep(None if several else found, slo)
        if decision.kind in ("hold", "infeasible"):
            self._policies.rest()
        if self._callback is not None:
            try:
                self._callback(decision)
            except Exception:
                logger.exception("the callback failed")


def _none() -> int:
    return 0
