"""Measures settings one after another while the application's own loop runs."""

from __future__ import annotations

import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from governor.beat import Beat
from governor.devices.device import Device, ShadowDevice
from governor.errors import DeviceError, GovernorError
from governor.exits import ExitGuard
from governor.meter import STALE, Meter
from governor.senses import Senses
from governor.space import OperatingPoint, named
from governor.sweep.schedule import Measurement
from governor.sweep.stillness import Stillness
from governor.trial import MAIN, Span, Trial
from governor.units import format_duration, format_knob_name, format_knob_value
from governor.window import Window

OnError = Literal["stop", "skip"]

READING_SHARE = 0.3
"""Of a sensor's refresh: so often it is read."""
POLL_S = 0.1
REFRESHES = 4.0
"""A window spans so many refreshes of the power sensor; the first of them is discarded."""
LIVELY = 8.0
"""In so many refreshes a power sensor that lives has moved, where the setting is a far one."""
NAP_S = 0.5
"""Between two looks at the temperature while the board cools down."""
CLOSE = 0.01
"""A knob that reads back this near, relatively, is as it was asked for."""
MEMORY_S = 0.1
"""Between two looks at the memory, of real time."""


class SweepError(GovernorError):
    """A setting could not be measured, and the sweep was to stop at that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How each setting is measured.

    Attributes:
        inferences: at least so many ...
        seconds: ... and at least for so long.
        warm_up: inferences left out after each change of the setting.
        percentile: of the latency that stands beside the mean.
        cool_down_c: a measurement begins when no zone is warmer than at the start of the
            sweep by more than so many degrees; infinite: at once.
        cool_down_s: it begins after so many seconds in any case.
        attempts: measurements of one setting that were throttled, disturbed, made by other clocks
            than asked for or with a stale power sensor, before it is given up.
        patience_s: so long a power sensor may stay silent or stale.
        memory_bytes: by so much the process may grow, all in all.
    """

    inferences: int = 30
    seconds: float = 3.0
    warm_up: int = 3
    percentile: float = 0.95
    cool_down_c: float = 5.0
    cool_down_s: float = 120.0
    attempts: int = 3
    patience_s: float = 90.0
    memory_bytes: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One setting, measured once.

    Attributes:
        temperature_c: of the warmest zone when it began; NaN: unknown.
    """

    measurement: Measurement
    trial: Trial
    temperature_c: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A setting that could not be measured, and why."""

    measurement: Measurement
    problem: str

    def __str__(self) -> str:
        return f"{named(self.measurement.point)}, repeat {self.measurement.repeat}: {self.problem}"


def told(failures: Sequence[Failure]) -> str:
    """How many there are and the first of them, for people; empty: none."""
    if len(failures) < 2:
        return "".join(f"could not be measured: {failure}" for failure in failures)
    return f"{len(failures)} could not be measured, the first: {failures[0]}"


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why there is no measurement.

    Attributes:
        cause: it is worth another attempt, and counted so.
        stale: what is held was measured with a stale power sensor, too.
    """

    text: str
    cause: str = ""
    stale: bool = False


class Sweep:
    """Measures a schedule of settings; each turn of :meth:`turns` is one inference.

    ::

        with Sweep(device, schedule(space, repeats=3, seed=0), keep) as sweep:
            for batch_size in sweep.turns():
                model(frames[:batch_size])

    Everything is put back when the block ends, however it ends.

    Attributes:
        failures: what could not be measured.
        redone: measurements thrown away and done again, by cause.
        begun: the measurement in progress.
    """

    def __init__(
        self,
        device: Device,
        measurements: Sequence[Measurement],
        keep: Callable[[Measured], None],
        rules: Rules | None = None,
        *,
        batch_size: int = 1,
        on_error: OnError = "stop",
        on_progress: Callable[[int], None] = lambda _left: None,
    ) -> None:
        """
        Args:
            device: what is set and measured; released at the end, not closed.
            measurements: in this order; see :func:`governor.sweep.schedule.schedule`.
            keep: is given each measurement as soon as it is done. An OSError of it ends the sweep.
            rules: how each is measured.
            batch_size: of an inference where that is no knob of the settings.
            on_error: whether a setting that cannot be measured ends the sweep.
            on_progress: is told how many measurements are left, whenever that changes.
        """
        self.failures: list[Failure] = []
        self.redone: Counter[str] = Counter()
        self.begun: Measurement | None = None
        self._device = device
        self._clock = device.clock
        self._meter = Meter(device.info)
        self._senses = Senses(device, lambda: self._set_point is not None)
        self._measurements = measurements
        self._keep = keep
        self._rules = rules or Rules()
        self._batch_size = batch_size
        self._on_error = on_error
        self._on_progress = on_progress
        self._set_point: OperatingPoint | None = None
        self._foreign = ""
        self._stillness = Stillness(device.info.sensor_refresh_s)
        self._stale = False
        self._held: list[tuple[Measured, int]] = []
        self._told_s = math.inf
        self._next_memory_s = -math.inf
        self._error: str | None = None
        self._start_c: float | None = None
        self._start_bytes = 0
        self._look_every_s = max(device.info.sensor_refresh_s * READING_SHARE, POLL_S)
        self._next_look_s = -math.inf
        self._beat: Beat | None = None
        self._guard = ExitGuard(self._end)

    def __enter__(self) -> Sweep:
        self._guard.arm()
        if not self._clock.virtual:
            self._beat = Beat("sweep senses", self._senses.look, self._look_every_s)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._end("exit")
        except GovernorError as problem:
            before = str(error) if isinstance(error, GovernorError) else told(self.failures)
            if not before:
                raise
            raise SweepError(f"{before}; besides: {problem}") from error

    def _end(self, _reason: str) -> None:
        if self._beat is not None:
            self._beat.end()
        try:
            self._device.release()
        finally:  # who is told of a failure now need not be told again at exit
            self._guard.disarm()

    def fail(self, problem: str) -> None:
        """The inference of this turn did not come to its end."""
        self._error = problem

    def turns(self) -> Generator[int, None, None]:
        """The batch size of each inference to run, until everything is measured.

        Raises:
            SweepError: a setting could not be measured, and the sweep was to stop at that; or
                the process grew beyond its memory.
            OSError: what was measured could not be kept.
        """
        left = deque((measurement, 1) for measurement in self._measurements)
        self._start_bytes = _resident_bytes()
        while left or self._held:
            if not left:
                left += yield from self._doubt()
                continue
            self._on_progress(len(left) + len(self._held))
            self.begun, attempt = left.popleft()
            done = yield from self._measure(self.begun)
            if isinstance(done, Measured):
                self._held.append((done, attempt))
                if self._stillness.changed_s >= self._told_s:
                    self._keep_held()
            elif done.cause and attempt < self._rules.attempts:
                self.redone[done.cause] += 1
                left.append((self.begun, attempt + 1))
            else:
                again = f" in each of {attempt} attempts" if attempt > 1 and done.cause else ""
                self._give_up(self.begun, f"{done.text}{again}")
            if isinstance(done, _Problem) and done.stale:
                left += self._redo_held()
            self._check_memory(self.begun)
        self.begun = None
        self._on_progress(0)

    def _doubt(self) -> Generator[int, None, list[tuple[Measurement, int]]]:
        """Nothing is left to measure, and the power sensor has not moved for what is held.

        Settings far apart tell whether it lives; returns what is to be measured again.
        """
        space, nothing = self._device.space, OperatingPoint({})
        slowest = min((space.point(row) for row in range(len(space))), key=_by_levels)
        fastest = max((each.point or nothing for each in self._measurements), key=_by_levels)
        batch_size = self._batch_size_at(self._held[-1][0].measurement.point)
        for point in (slowest, None, fastest or None):
            with suppress(DeviceError):
                self._set(point)
            until_s = self._clock.now() + LIVELY * self._device.info.sensor_refresh_s
            while self._clock.now() < until_s:
                if (yield from self._turn(batch_size)) is None:
                    self._error = None
                    return self._redo_held()
                self._look()
                if self._stale:
                    return self._redo_held()
                if self._stillness.changed_s >= self._told_s:
                    self._keep_held()
                    return []
        return self._redo_held()

    def _batch_size_at(self, point: OperatingPoint | None) -> int:
        return int((point or OperatingPoint({})).get("batch_size", self._batch_size))

    def _keep_held(self) -> None:
        while self._held:
            self._keep(self._held[0][0])
            del self._held[0]

    def _redo_held(self) -> list[tuple[Measurement, int]]:
        """What was measured while the power sensor was stale, to be measured again."""
        held, self._held = self._held, []
        again = [
            (measured.measurement, attempt + 1)
            for measured, attempt in held
            if attempt < self._rules.attempts
        ]
        if again:
            self.redone["stale"] += len(again)
        for measured, attempt in held:
            if attempt >= self._rules.attempts:
                self._give_up(
                    measured.measurement,
                    f"the power sensor was stale in each of {attempt} attempts",
                )
        return again

    def _give_up(self, measurement: Measurement, problem: str) -> None:
        failure = Failure(measurement, problem)
        self.failures.append(failure)
        if self._on_error == "stop":
            raise SweepError(f"{failure}; --on-error skip goes on with the next setting")

    def _check_memory(self, measurement: Measurement) -> None:
        self._next_memory_s = time.monotonic() + MEMORY_S
        grown = _resident_bytes() - self._start_bytes
        if grown > self._rules.memory_bytes:
            raise SweepError(
                f"{named(measurement.point)}: the process has grown by {grown / 2**20:.0f} MiB "
                "since the sweep began: the workload leaks memory; run again to go on from here"
            )

    def _measure(self, measurement: Measurement) -> Generator[int, None, Measured | _Problem]:
        """One measurement; or why there is none."""
        point, rules = measurement.point, self._rules
        try:
            other = self._set(point)
        except DeviceError as error:
            return _Problem(f"cannot be set: {error}")
        if other:
            return _Problem(f"the kernel set {other}", "not as asked")
        self._cool_down()
        if (problem := self._looked_wrong()) is not None:
            return problem
        batch_size = self._batch_size_at(point)
        began_s = self._clock.now()
        window = Window(
            point,
            began_s + self._device.info.settle_s,
            {MAIN: rules.percentile},
            rules.warm_up,
            self._events,
        )
        temperature_c = self._warmest_c
        self._told_s = began_s + 2.0 * self._device.info.sensor_refresh_s
        least_s = max(rules.seconds, REFRESHES * self._device.info.sensor_refresh_s)
        while True:
            span = yield from self._turn(batch_size)
            if span is None:
                error, self._error = self._error, None
                return _Problem(error or "the workload gave no result")
            window.add(span)
            self._look(window)
            if time.monotonic() >= self._next_memory_s:
                self._check_memory(measurement)
            if (problem := self._looked_wrong(window)) is not None:
                return problem
            if len(window) < rules.inferences or window.duration_s < least_s:
                continue
            patience_s = max(rules.patience_s, 2.0 * least_s)
            if stale := self._stillness.problem:
                if self._clock.now() - self._stillness.changed_s > patience_s:
                    return _Problem(stale, stale=True)
                continue
            trial = window.trial(self._meter)
            if trial.energy_se_j < STALE * trial.energy_j:
                return Measured(measurement=measurement, trial=trial, temperature_c=temperature_c)
            if self._clock.now() - began_s > patience_s:
                return _Problem(f"no fresh power reading for {format_duration(rules.patience_s)}")

    def _looked_wrong(self, window: Window | None = None) -> _Problem | None:
        """What the last look says against this measurement, and those that are held."""
        if self._stale:
            return _Problem("the power sensor was stale", "stale", stale=True)
        if window is not None and window.throttled and window.point is not None:
            return _Problem("throttled", "throttled")
        if self._foreign:
            return _Problem(f"disturbed: {self._foreign}", "disturbed")
        return None

    def _turn(self, batch_size: int) -> Generator[int, None, Span | None]:
        """One inference; None: it failed."""
        start_s = self._clock.now()
        yield batch_size
        end_s = self._clock.now()
        if self._error is not None:
            return None
        if isinstance(self._device, ShadowDevice):
            self._clock.sleep(self._device.follow(start_s, end_s, batch_size))
            end_s = self._clock.now()
        return Span(start_s, end_s, batch_size)

    def _set(self, point: OperatingPoint | None) -> str:
        """Set it; returns what reads back otherwise than asked for, empty: nothing does."""
        other = ""
        if point is None:
            self._device.release()
            self._set_point = None
        else:
            asked = point.only(self._device.space.names)
            self._stillness.set(asked)
            self._set_point = self._device.apply(asked)
            other = _differences(self._set_point, asked, CLOSE)
        self._senses.changed()
        self._foreign, self._stale = "", False
        return other

    def _look(self, window: Window | None = None) -> None:
        """Take what the sensors say; in virtual time, read them."""
        now_s = self._clock.now()
        if self._clock.virtual:
            if now_s < self._next_look_s:
                return
            self._next_look_s = now_s + self._look_every_s
            self._senses.look()
        sample, seen = self._senses.take()
        if sample is not None:
            self._meter.add(sample)
            self._stale |= self._stillness.read(sample)
            if self._start_c is None and sample.temperature_c:
                self._start_c = max(sample.temperature_c.values())
            if window is not None:
                window.watch_throttling(sample.throttle_events)
        if seen is not None and self._set_point is not None and seen != self._set_point:
            self._foreign = f"the kernel has {_differences(seen, self._set_point)}"

    @property
    def _events(self) -> dict[str, int] | None:
        latest = self._meter.latest
        return None if latest is None else dict(latest.throttle_events)

    @property
    def _warmest_c(self) -> float:
        latest = self._meter.latest
        if latest is None or not latest.temperature_c:
            return math.nan
        return max(latest.temperature_c.values())

    def _cool_down(self) -> None:
        """Rest until the board is about as warm as it was when the sweep began."""
        until_s = self._clock.now() + self._rules.cool_down_s
        self._look()
        while (
            self._start_c is not None
            and self._warmest_c > self._start_c + self._rules.cool_down_c
            and self._clock.now() < until_s
        ):
            self._clock.sleep(NAP_S)
            self._look()


def _by_levels(point: OperatingPoint) -> tuple[float, ...]:
    return tuple(point.values())


def _differences(seen: OperatingPoint, asked: OperatingPoint, close: float = 0.0) -> str:
    """The knobs that are not as asked for, for people: ``GPU 306 MHz instead of 612 MHz``."""
    return ", ".join(
        f"{format_knob_name(name)} {format_knob_value(name, seen[name])} instead of "
        f"{format_knob_value(name, value)}"
        for name, value in asked.items()
        if name in seen and abs(seen[name] - value) > close * value
    )


def _resident_bytes() -> int:
    """Of this process; 0 where the kernel does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
