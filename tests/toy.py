"""A small board in virtual time: what the control loop is specified against.

latency = compute / gpu_hz + launch / cpu_hz, power = static + gpu_hz^3 + cpu_hz^3 terms. Its
sensor refreshes every 0.4 s with the mean power since the last refresh, as an INA3221 does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from governor.controller import Controller
from governor.decision import Decision
from governor.devices.device import DeviceInfo, Sample
from governor.errors import DeviceError
from governor.space import Knob, OperatingPoint, Space
from governor.trial import Span, Trial
from policies.policy import Choice, Problem, Proposal

GPU = tuple(f * 1e6 for f in (300.0, 500.0, 700.0, 900.0, 1100.0, 1300.0))
CPU = tuple(f * 1e6 for f in (500.0, 1000.0, 1500.0, 2000.0))


@dataclass
class VirtualClock:
    virtual: bool = True
    time_s: float = 100.0

    def now(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.time_s += seconds


@dataclass
class ToyBoard:
    """Turn its fields while it runs: more work, broken sensors, a meddling neighbour."""

    seed: int = 0
    noise: float = 0.005
    burst: float = 0.0
    compute: float = 20e6
    launch: float = 6e6
    static_w: float = 5.0
    period_s: float = 0.0
    refresh_s: float = 0.4
    sensor_noise: float = 0.01
    sensor_broken: bool = False
    counts_energy: bool = False
    write_broken: bool = False
    throttles: int = 0
    cap_hz: float = float("inf")
    throttles_above_hz: float = float("inf")
    temperature_c: float = 50.0
    latency_factor: Callable[[OperatingPoint], float] = lambda _point: 1.0
    clock: VirtualClock = field(default_factory=VirtualClock)

    def __post_init__(self) -> None:
        self.info = DeviceInfo(
            name="toy",
            description="Toy board (emulated)",
            emulated=True,
            total_rail="total",
            sensor_refresh_s=self.refresh_s,
            settle_s=0.01,
        )
        self.space = Space((Knob("gpu_hz", GPU), Knob("cpu_hz", CPU)))
        self.found = OperatingPoint({"gpu_hz": 1100e6, "cpu_hz": 2000e6})
        self.now_set = self.found
        self.writes: list[OperatingPoint] = []
        self.releases = 0
        self._random = random.Random(self.seed)
        self._burst_left = 0
        self._energy_j = 0.0
        self._reading_w = self.power_w(self.found)
        self._read_at = (self.clock.now(), 0.0)

    def latency_s(self, point: OperatingPoint) -> float:
        """Without noise, at a point."""
        seconds = self.compute / point["gpu_hz"] + self.launch / point["cpu_hz"]
        return seconds * self.latency_factor(point)

    def power_w(self, point: OperatingPoint) -> float:
        ghz, cpu_ghz = point["gpu_hz"] / 1e9, point["cpu_hz"] / 1e9
        return self.static_w + 10.0 * ghz**3 + 1.5 * cpu_ghz**3

    def energy_j(self, point: OperatingPoint) -> float:
        """An item, without noise."""
        return self.power_w(point) * max(self.latency_s(point), self.period_s)

    def best(self, slo_s: float) -> OperatingPoint:
        points = [self.space.point(row) for row in range(len(self.space))]
        return min((p for p in points if self.latency_s(p) <= slo_s), key=self.energy_j)

    def _pass(self, seconds: float) -> None:
        while seconds > 0:
            since, joules = self._read_at
            step = min(seconds, since + self.refresh_s - self.clock.now())
            self.clock.sleep(step)
            self._energy_j += self.power_w(self.in_force()) * step
            seconds -= step
            if self.clock.now() >= since + self.refresh_s - 1e-12:
                mean = (self._energy_j - joules) / self.refresh_s
                self._reading_w = mean * self._random.gauss(1.0, self.sensor_noise)
                self._read_at = (self.clock.now(), self._energy_j)

    def heat(self, cap_hz: float) -> None:
        """Throttle: cap the GPU clock and count it once."""
        self.cap_hz = cap_hz
        self.temperature_c = 95.0
        self.throttles += 1

    def cool(self) -> None:
        self.cap_hz = float("inf")
        self.temperature_c = 50.0

    def infer(self) -> Span:
        """One inference, then the wait for the next frame."""
        start_s = self.clock.now()
        seconds = self.latency_s(self.in_force()) * max(0.5, self._random.gauss(1.0, self.noise))
        if self._burst_left == 0 and self._random.random() < self.burst / 4.0:
            self._burst_left = 4
        if self._burst_left:
            self._burst_left -= 1
            seconds *= 1.5
        self._pass(seconds)
        if self.in_force()["gpu_hz"] > self.throttles_above_hz:
            self.throttles += 1
        return Span(start_s, self.clock.now())

    def idle(self, seconds: float) -> None:
        self._pass(seconds)

    def in_force(self) -> OperatingPoint:
        """What is set, or less where the board caps its GPU clock: it throttles."""
        return OperatingPoint({**self.now_set, "gpu_hz": min(self.now_set["gpu_hz"], self.cap_hz)})

    def read(self) -> OperatingPoint:
        return self.in_force()

    def apply(self, point: OperatingPoint) -> OperatingPoint:
        self.space.index(point)
        if self.write_broken:
            raise DeviceError("toy: cannot write gpu_hz: Permission denied")
        self.now_set = point
        self.writes.append(point)
        return self.in_force()

    def release(self) -> None:
        """What was found, but for the knobs that someone else has set since."""
        self.releases += 1
        ours = self.writes[-1] if self.writes else self.now_set
        foreign = {name: value for name, value in self.now_set.items() if value != ours[name]}
        self.now_set = OperatingPoint({**self.found, **foreign})

    def sample(self) -> Sample:
        if self.sensor_broken:
            raise DeviceError("toy: the power sensor does not answer")
        return Sample(
            time_s=self.clock.now(),
            power_w={"total": self._reading_w},
            temperature_c={"soc": self.temperature_c},
            throttle_events={"thermal": self.throttles},
            energy_j=self._read_at[1] if self.counts_energy else None,
        )

    def close(self) -> None:
        self.release()


class ToyPolicy:
    """Walks down from the fastest point by speed, and learns nothing but what it tried."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.told: list[Trial] = []

    def ask(self) -> Proposal | None:
        space = self.problem.space
        speed = space.normalised.prod(axis=1)
        tried = {trial.point for trial in self.told}
        for row in sorted(range(len(space)), key=lambda row: -speed[row]):
            if space.point(row) not in tried:
                return Proposal(point=space.point(row), reason="the next slower one")
        return None

    def tell(self, trial: Trial) -> None:
        assert trial.clean
        assert trial.energy_j > 0
        self.told.append(trial)

    def choose(self) -> Choice:
        kept = [trial for trial in self.told if trial.latency_s <= self.problem.slo_s]
        best = min(kept or self.told[:1], key=lambda trial: trial.energy_j)
        assert best.point is not None
        return Choice(
            point=best.point,
            feasible=bool(kept),
            energy_j=best.energy_j,
            latency_s=best.latency_s,
        )


class Loop:
    """Runs inferences on a toy board under a controller, as a runtime would, and keeps a diary."""

    def __init__(self, board: ToyBoard, controller: Controller, poll_s: float = 0.1) -> None:
        self.board = board
        self.controller = controller
        self.decisions: list[Decision] = []
        self.latencies_s: list[float] = []
        self._poll_s = poll_s
        self._next_look_s = board.clock.now()
        self._spans: list[Span] = []
        controller.applied(board.clock.now())

    def run(self, inferences: int, until: Callable[[Controller], bool] | None = None) -> bool:
        """So many inferences, or fewer; returns whether ``until`` came true."""
        for _ in range(inferences):
            span = self.board.infer()
            self.latencies_s.append(span.latency_s)
            self._spans.append(span)
            if self.board.clock.now() >= self._next_look_s:
                self.look()
            if until is not None and until(self.controller):
                return True
            if self.board.period_s > span.latency_s:
                self.board.idle(self.board.period_s - span.latency_s)
        return False

    def hold(self) -> Loop:
        """Until a point is held."""
        assert self.run(6000, until=lambda controller: controller.phase == "hold")
        return self

    def pause(self, seconds: float) -> None:
        """No inferences; the runtime goes on looking."""
        for _ in range(round(seconds / self._poll_s)):
            self.board.idle(self._poll_s)
            self.look()

    def look(self) -> None:
        board, controller = self.board, self.controller
        self._next_look_s = board.clock.now() + self._poll_s
        try:
            sample = board.sample()
        except DeviceError:
            sample = None
        set_point = board.read() if controller.target is not None else None
        decision = controller.observe(board.clock.now(), self._spans, sample, set_point)
        self._spans = []
        if decision is None:
            return
        self.decisions.append(decision)
        if not decision.change:
            return
        actual = None
        if decision.point is None:
            board.release()
        else:
            actual = board.apply(decision.point.only(board.space.names))
        controller.applied(board.clock.now(), actual)

    def kinds(self) -> list[str]:
        return [decision.kind for decision in self.decisions]
