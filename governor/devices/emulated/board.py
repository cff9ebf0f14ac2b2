"""An emulated Jetson in virtual time."""

from __future__ import annotations

import math
from collections.abc import Iterator

from governor.devices.emulated.clock import VirtualClock
from governor.devices.emulated.emulation import Emulation, run
from governor.devices.emulated.hardware import Board
from governor.devices.emulated.noise import LatencyNoise, Noise, widths
from governor.devices.emulated.room import Room
from governor.devices.emulated.workload import Workload
from governor.errors import InputError
from governor.space import OperatingPoint
from governor.trial import Span


class EmulatedBoard(Emulation):
    """An emulated Jetson in virtual time, with one workload to run.

    It starts warm, as if the workload had been running for long under the kernel's governors.
    Time passes in :meth:`infer` and :meth:`idle`, and whenever someone sleeps on its clock.
    """

    def __init__(
        self,
        board: str | Board = "agx-orin",
        workload: str | Workload = "yolov8n",
        *,
        batch_size: int = 1,
        seed: int = 0,
        ambient_c: float | Room = 25.0,
        period_s: float | None = None,
        clock: VirtualClock | None = None,
        noise: bool | Noise = True,
        sensor_noise: float = 0.005,
    ) -> None:
        """
        Args:
            board, workload: names of :func:`board_names` and :func:`workload_names`, or what they
                stand for.
            batch_size: items of one inference.
            seed: of all noise.
            ambient_c: the air's temperature in degrees Celsius, or a :class:`Course` of it.
            period_s: a frame arrives every so many seconds, and a batch waits for its frames; None:
                the next inference starts when the last one ends.
            clock: to share one between boards; its own otherwise.
            noise: whether inference times scatter, or how.
            sensor_noise: standard deviation of a power reading, relative.

        Raises:
            InputError: an unknown board or workload, or a number out of range.
        """
        self._time = clock or VirtualClock()
        super().__init__(
            board, workload, self._time, batch_size=batch_size, seed=seed, ambient_c=ambient_c,
            period_s=period_s, sensor_noise=sensor_noise,
        )  # fmt: skip
        self._busy = False
        self._noise = LatencyNoise(seed) if noise is True else noise or None
        self._widths = widths(self._table().latency_s.shape, seed).ravel().tolist()
        self._frame_s = self._camera_s = self._time.now()
        self._time.subscribe(lambda _, end_s: self._machine.advance(end_s, self._busy))

    def infer(self, items: int | None = None) -> Span:
        """Run one inference now; see :meth:`camera` for frames that arrive at a rate.

        Args:
            items: in this batch; what the board was set up with otherwise.
        """
        items = items or self._scene.batch_size
        self._machine.use(self._table({"batch_size": items}))
        start_s = self._time.now()
        self._frame_s = start_s + items * (self._scene.period_s or 0.0)
        work = self._noise.factor(self._widths[self._machine.row]) if self._noise else 1.0
        self._busy = True
        run(self._machine, work, self._time.sleep_until)
        self._busy = False
        return Span(start_s, self._time.now(), items)

    def camera(self, count: int) -> Iterator[int]:
        """Number ``count`` frames as they arrive: every ``period_s``, or as asked for.

        As with a camera, the wait for a frame is no part of any inference; a frame that is
        asked for late is there at once.
        """
        for frame in range(count):
            self._time.sleep_until(self._frame_s)
            yield frame

    def batch(self, items: int, stale_s: float = math.inf) -> float:
        """Wait until ``items`` frames are there; returns when the oldest of them arrived.

        Frames arrive every ``period_s`` whatever the board does, and wait; one that has waited
        for longer than ``stale_s`` is dropped. Run them by :meth:`infer`.

        Raises:
            InputError: the board was set up without a period.
        """
        period_s, now_s = self._scene.period_s, self._time.now()
        if period_s is None:
            raise InputError("frames arrive only at a rate; set the board up with period_s")
        late_s = now_s - stale_s - self._camera_s
        if late_s > 0:
            self._camera_s += math.ceil(late_s / period_s) * period_s
        oldest_s = self._camera_s
        self._camera_s += items * period_s
        self._time.sleep_until(max(self._camera_s - period_s, now_s))
        return oldest_s

    def true_delay_s(self, point: OperatingPoint) -> float:
        """Mean seconds from the arrival of a batch's oldest frame to its result, once settled.

        Infinite where the board does not keep up with the frames.
        """
        period_s, items = self._scene.period_s or 0.0, point.get("batch_size", 1.0)
        latency_s = self.true_latency_s(point)
        return (items - 1) * period_s + latency_s if latency_s <= items * period_s else math.inf

    def frames(self, count: int) -> Iterator[Span]:
        """Run an inference on each of ``count`` frames of the camera."""
        for _ in self.camera(count):
            yield self.infer()

    def idle(self, seconds: float) -> None:
        """Let virtual time pass with nothing to do."""
        self._time.sleep(seconds)
