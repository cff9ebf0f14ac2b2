"""Drives a controller against a device: in threads in real time, inline in virtual time."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from governor.beat import Beat
from governor.controller import Controller
from governor.decision import Decision
from governor.devices.device import ChangingDevice, Clock, Device, Sample
from governor.errors import DeviceError, GovernorError
from governor.instrument.explicit import SpanRecorder
from governor.senses import Senses
from governor.space import OperatingPoint
from governor.trial import Span
from governor.units import format_duration

OnLook = Callable[[float, Sequence[Span], Sample | None], None]

POLL_S = 0.1
STOP_S = 5.0
"""The longest that the end of the block waits for a look in progress."""
READING_SHARE = 0.3
"""Of a sensor's refresh: so often sensors and knobs are read. More finds nothing new."""
RENEW_S = 60.0
"""Until it is tried again to find out what a device allows that has changed."""
logger = logging.getLogger("governor")


class Runtime:
    """Shows the controller what happens, and carries out what it decides.

    In real time a thread looks every ``poll_s``, and another one reads the sensors: a kernel
    file may take seconds to answer, and must not keep the SLO's guard. A virtual clock moves
    only while the application runs, so there :meth:`after_span` does both, from the
    application's own thread.

    Attributes:
        batch_size: what the application shall use for its next inference.
        senses: reads the sensors and counts what fails.
        restores: times the device was put back as it was found, by reason.
        lock: of what the controller knows. Never held while the device is asked, which may
            take seconds, so that whoever wants to know the state does not wait for that.
    """

    def __init__(
        self,
        controller: Controller,
        device: Device | None,
        clock: Clock,
        recorder: SpanRecorder,
        *,
        batch_size: int = 1,
        on_decision: Callable[[Decision], None] = lambda _decision: None,
        on_look: OnLook | None = None,
        on_renewed: Callable[[], None] = lambda: None,
        poll_s: float = POLL_S,
    ) -> None:
        """
        Args:
            on_decision: called with each decision once it is in force.
            on_look: called, before the controller, with the time on the device's clock and what
                it is about to be shown.
            on_renewed: called when the device allows other settings than before, to tell the
                controller; may raise :class:`GovernorError`. All are called from the control
                loop's thread.
        """
        self.batch_size = batch_size
        self.senses = Senses(device, lambda: controller.target is not None)
        self.restores: Counter[str] = Counter()
        self.lock = threading.RLock()
        self._looking = threading.RLock()
        self._controller = controller
        self._device = device
        self._clock = clock
        self._recorder = recorder
        self._first_batch_size = batch_size
        self._on_decision = on_decision
        self._on_look = on_look
        self._on_renewed = on_renewed
        self._changing = device if isinstance(device, ChangingDevice) else None
        self._change = ""
        self._renew_s = -math.inf
        self._poll_s = poll_s
        self._next_look_s = 0.0
        refresh_s = 0.0 if device is None else device.info.sensor_refresh_s
        self._reading_s = max(refresh_s * READING_SHARE, poll_s)
        self._next_reading_s = 0.0
        self._touched = False
        self._running = False
        self._beats: list[Beat] = []

    @property
    def touched(self) -> bool:
        """Whether the device has been set, and not yet put back."""
        return self._touched

    def start(self) -> None:
        """Begin to look; nothing is changed before the baseline is known."""
        self._running = True
        self._recorder.start()
        self._next_look_s = self._next_reading_s = self._clock.now()
        self._controller.applied(self._clock.now())
        if not self._clock.virtual:
            self._beats = [
                Beat("governor senses", self._look_safely, self._reading_s),
                Beat("governor", self._step_safely, self._poll_s),
            ]

    def stop(self, reason: str) -> None:
        """End the threads and put the device back as it was found. May be called twice."""
        for beat in self._beats:
            beat.end()
        until_s = time.monotonic() + STOP_S
        for beat in self._beats:
            beat.join(until_s)
        # a signal may come while this very thread looks, or a device may hang: restore anyway
        locked = self._looking.acquire(timeout=STOP_S)
        try:
            if self._running:
                self._running = False
                self._put_back(reason)
                spans = self._recorder.drain()
                if self._on_look is not None:
                    self._on_look(self._clock.now(), spans, None)
                with self.lock:
                    self._controller.seen.count(spans)
                self._recorder.stop()
        finally:
            if locked:
                self._looking.release()

    def after_span(self) -> None:
        """In virtual time: look, where the poll interval has passed."""
        if self._running and self._clock.virtual and self._clock.now() >= self._next_look_s:
            self._next_look_s = self._clock.now() + self._poll_s
            self._step_safely()

    def _step_safely(self) -> None:
        """The application must not fall over its governor."""
        try:
            self.step()
        except GovernorError as error:
            self._let_go(str(error), for_good=True)
        except Exception as error:
            logger.exception("the control loop failed")
            self._let_go(f"the control loop failed: {error!r}", for_good=True)

    def _look_safely(self) -> None:
        try:
            self.senses.look()
        except Exception as error:
            logger.exception("a sensor's backend failed")
            self._let_go(f"a sensor's backend failed: {error!r}", for_good=True)

    def step(self) -> None:
        """Look once, and carry out what is decided."""
        with self._looking:
            decision = self._renew() or self._look()
            if decision is not None and self._running:
                self._carry_out(decision)

    def _renew(self) -> Decision | None:
        """Where the device allows other settings than before: put back, and begin with those."""
        device, now_s = self._changing, self._clock.now()
        if device is None or not self._running or self._controller.stopped:
            return None
        if change := device.take_change():
            self._change, self._renew_s = change, now_s
        if not self._change or now_s < self._renew_s:
            return None
        with self.lock:
            decision = self._controller.leave(now_s, self._change)
        self._put_back("release")
        try:
            device.renew()
            self._on_renewed()
        except GovernorError as error:
            reason, self._renew_s = f"{self._change}; {error}; measuring only", math.inf
            if isinstance(error, DeviceError):  # else it was refused, until another change
                reason += f"; trying again in {format_duration(RENEW_S)}"
                self._renew_s = now_s + RENEW_S
            with self.lock:
                return self._controller.stay_out(now_s, reason)
        self._change = ""
        return decision

    def _look(self) -> Decision | None:
        if not self._running:
            return None
        now_s = self._clock.now()
        if self._clock.virtual and now_s >= self._next_reading_s:
            self._next_reading_s = now_s + self._reading_s
            self.senses.look()
            now_s = self._clock.now()
        sample, set_point = self.senses.take()
        spans = self._recorder.drain()
        if self._on_look is not None:
            self._on_look(now_s, spans, sample)
        with self.lock:
            return self._controller.observe(
                now_s, spans, sample, set_point, self._recorder.unfinished_s(now_s)
            )

    def _carry_out(self, decision: Decision) -> None:
        try:
            if decision.change:
                self._set(decision)
        except DeviceError as error:
            renewed = self._renew()  # it may have been refused for another power mode's limits
            if renewed is None:
                self._let_go(str(error), for_good=False)
            else:
                self._carry_out(renewed)
        else:
            self._on_decision(decision)

    def _set(self, decision: Decision) -> None:
        point, device = decision.point, self._device
        actual = None
        if point is None:
            self._put_back("release")
        elif device is not None:
            self._touched = True
            actual = device.apply(point.only(device.space.names))
            self.batch_size = int(point.get("batch_size", self._first_batch_size))
        self._applied(actual)

    def _applied(self, actual: OperatingPoint | None = None) -> None:
        self.senses.changed()
        with self.lock:
            self._controller.applied(self._clock.now(), actual)

    def _let_go(self, problem: str, for_good: bool) -> None:
        """Put the device back and only measure: for good, or until it is tried again."""
        with self._looking:
            if not self._running:
                return
            stop = self._controller.stop_governing if for_good else self._controller.rest
            with self.lock:
                decision = stop(self._clock.now(), f"{problem}; released, measuring only")
            self._put_back("error")
            self._applied()
            self._on_decision(decision)

    def _put_back(self, reason: str) -> None:
        self.batch_size = self._first_batch_size
        if self._device is None or not self._touched:
            return
        self.restores[reason] += 1
        try:
            self._device.release()
            self._touched = False
        except DeviceError as error:  # tried again at the end of the block
            self.restores["failed"] += 1
            logger.error("the device could not be put back as it was found: %s", error)
