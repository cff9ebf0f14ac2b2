"""An emulated Jetson that runs its own workload in real time, and keeps a kernel's limits."""

from __future__ import annotations

import threading

from governor.devices.device import Clock, MonotonicClock
from governor.devices.emulated.emulation import Emulation
from governor.devices.emulated.machine import KNOBS
from governor.devices.emulated.noise import LatencyNoise, widths
from governor.devices.emulated.room import Room
from governor.devices.emulated.workload import Workload, load_workload
from governor.trial import Span

PATIENCE_S = 0.005
"""For so long at most a sleeping inference does not notice that it became shorter."""


class LiveBoard(Emulation):
    """An emulated Jetson in real time whose :meth:`infer` lasts as long as the physics say.

    Where :meth:`apply` pins a knob, :meth:`limit` bounds it and leaves the choice to the kernel's
    governors: what a virtual ``/sys`` is made of. Safe to use from several threads; inferences
    that overlap wait for each other, as for one GPU.
    """

    def __init__(
        self,
        board: str = "agx-orin",
        workload: str | Workload = "yolov8n",
        *,
        seed: int = 0,
        ambient_c: float | Room = 25.0,
        clock: Clock | None = None,
        sensor_noise: float = 0.005,
        noise: bool = True,
    ) -> None:
        """As :class:`EmulatedBoard`.

        Raises:
            InputError: an unknown board or workload, or a number out of range.
        """
        super().__init__(
            board, workload, clock or MonotonicClock(), batch_size=1, seed=seed,
            ambient_c=ambient_c, period_s=None, sensor_noise=sensor_noise,
        )  # fmt: skip
        self._gpu = threading.Lock()
        self._work = 0.0
        self._ended_s = self._clock.now()
        self._noise = LatencyNoise(seed) if noise else None
        self._widths = widths(self._table().latency_s.shape, seed).ravel().tolist()

    def infer(self, items: int = 1) -> Span:
        """Run one inference of a batch of ``items``; returns once it has ended."""
        table = self._table({"batch_size": items})
        with self._gpu:
            with self._lock:
                self._catch_up()
                self._machine.use(table)
                width = self._widths[self._machine.row]
                self._work = self._noise.factor(width) if self._noise else 1.0
                start_s = self._machine.now_s
            while (left_s := self._left_s()) > 0:
                self._clock.sleep(min(left_s, PATIENCE_S))
            return Span(start_s, self._ended_s, items)

    def limit(self, knob: str, low: int, high: int) -> None:
        """Let the kernel's governor choose ``knob`` between two levels, both included."""
        with self._lock:
            self._catch_up()
            self._machine.limit(KNOBS.index(knob), low, high, self._clock.now())

    def run(self, workload: str) -> None:
        """From the next inference on, run something else.

        Raises:
            InputError: no such workload.
        """
        self.set_workload(load_workload(workload))

    @property
    def cpu_min_hz(self) -> float:
        """The power mode's lowest CPU clock."""
        return self._board.cpu.min_hz

    @property
    def ambient_c(self) -> float:
        """The air's temperature in degrees Celsius."""
        return self._machine.air_c

    @property
    def latency_s(self) -> float:
        """Mean seconds of one inference at the clocks in force."""
        with self._lock:
            self._catch_up()
            return self._machine.latency_s

    @property
    def clocks(self) -> tuple[int, int, int]:
        """Levels of CPU, GPU and EMC clock that the kernel reports."""
        with self._lock:
            self._catch_up()
            return self._machine.settings

    @property
    def clocks_in_force(self) -> tuple[int, int, int]:
        """Levels of CPU, GPU and EMC clock that counters would measure."""
        with self._lock:
            self._catch_up()
            return self._machine.indices

    @property
    def throttled(self) -> tuple[int, int, int]:
        """By how many levels CPU, GPU and EMC clock are held below the top to protect the board."""
        with self._lock:
            self._catch_up()
            return self._machine.throttled

    @property
    def part_w(self) -> dict[str, float]:
        """Each component's mean power over the sensors' last interval, without noise."""
        with self._lock:
            self._catch_up()
            return dict(self._machine.part_w)

    @property
    def board_c(self) -> float:
        """Temperature of the circuit board in degrees Celsius."""
        with self._lock:
            self._catch_up()
            return self._machine.board_c

    @property
    def busy(self) -> bool:
        """Whether an inference is running."""
        with self._lock:
            self._catch_up()
            return self._work > 0

    def _left_s(self) -> float:
        """Seconds until the inference ends, if nothing changes."""
        with self._lock:
            self._catch_up()
            return self._work * self._machine.latency_s

    def _catch_up(self) -> None:
        """Account the time that has passed: first what is left of the inference, then idle."""
        machine, now_s = self._machine, self._clock.now()
        while self._work > 0 and machine.now_s < now_s:
            latency_s = machine.latency_s
            end_s = machine.now_s + self._work * latency_s
            stop_s = min(end_s, machine.next_event_s, now_s)
            self._work -= (stop_s - machine.now_s) / latency_s
            machine.advance(stop_s, busy=True)
            if stop_s == end_s:
                self._work, self._ended_s = 0.0, end_s
        machine.advance(now_s, busy=False)
