"""An emulated Jetson in shadow of a real application, in real time."""

from __future__ import annotations

from dataclasses import replace

from governor.devices.device import Clock, DeviceInfo, MonotonicClock
from governor.devices.emulated.emulation import Emulation
from governor.devices.emulated.room import Room
from governor.devices.emulated.workload import Workload
from governor.lease.cpu_cores import NAME as CPU_CORES

PATIENCE_S = 0.25
"""A real inference is known only when it has ended. So long, time of which nothing is known waits
to be accounted: taken for idle at once, it would lower the clocks of the kernel's governors."""


class ShadowBoard(Emulation):
    """An emulated Jetson that follows a real application in real time.

    Each real inference counts as if it had run at all-max clocks; at lower ones it must be
    stretched by what the physics of ``workload`` say. Power, heat and sensors follow real time.
    Safe to use from several threads.
    """

    def __init__(
        self,
        board: str = "agx-orin",
        workload: str | Workload = "yolov8n",
        *,
        batch_size: int = 1,
        seed: int = 0,
        ambient_c: float | Room = 25.0,
        clock: Clock | None = None,
        sensor_noise: float = 0.005,
    ) -> None:
        """As :class:`EmulatedBoard`; ``workload`` lends its mix of computing, moving, launching.

        Raises:
            InputError: an unknown board or workload, or a number out of range.
        """
        super().__init__(
            board, workload, clock or MonotonicClock(), batch_size=batch_size, seed=seed,
            ambient_c=ambient_c, period_s=None, sensor_noise=sensor_noise,
        )  # fmt: skip
        self._busy_until_s = self._clock.now()

    @property
    def info(self) -> DeviceInfo:
        """What this device is; what runs on it, only the application knows."""
        return replace(super().info, workload="")

    def follow(self, start_s: float, end_s: float, items: int) -> float:
        """Account one real inference; returns the seconds by which it must still be stretched.

        ``items`` is taken as it comes: the real inference's time already holds the batch.
        """
        with self._lock:
            machine = self._machine
            seen_s = min(max(start_s, self._busy_until_s), machine.now_s)
            taken_for_idle_s = min(end_s, machine.now_s) - seen_s
            if taken_for_idle_s > 0:
                machine.correct(taken_for_idle_s)
            machine.advance(min(start_s, self._busy_until_s), busy=True)
            machine.advance(start_s, busy=False)
            machine.advance(end_s, busy=True)
            stretch_s = (end_s - start_s) * max(self.slowdown() - 1.0, 0.0)
            self._busy_until_s = end_s + stretch_s
            return stretch_s

    def slowdown(self) -> float:
        """Latency at the clocks in force over that at all-max."""
        all_on = self._table({CPU_CORES: self._board.cpu.cores})
        return self._machine.latency_s / float(all_on.latency_s[-1, -1, -1])

    def _catch_up(self) -> None:
        now_s = self._clock.now()
        self._machine.advance(min(now_s, self._busy_until_s), busy=True)
        self._machine.advance(now_s - PATIENCE_S, busy=False)
