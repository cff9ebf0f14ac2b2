"""A device whose reads and writes cost nothing: what is left is the governor's own cost."""

from __future__ import annotations

from governor.devices.device import Clock, DeviceInfo, MonotonicClock, Sample
from governor.space import Knob, OperatingPoint, Space


class StillDevice:
    """Draws power in proportion to its clock; its sensor refreshes as a Jetson's rails do."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.info = DeviceInfo("still", "costs nothing", True, "total", 0.43, 0.0)
        self.space = Space([Knob("gpu_hz", tuple(level * 1e8 for level in range(1, 14)))])
        self.clock = clock or MonotonicClock()
        self._point = self.space.point(self.space.fastest)

    def read(self) -> OperatingPoint:
        """What was set last."""
        return self._point

    def apply(self, point: OperatingPoint) -> OperatingPoint:
        """Take note of the point."""
        self._point = point
        return point

    def release(self) -> None:
        """Back to the fastest."""
        self._point = self.space.point(self.space.fastest)

    def close(self) -> None:
        """As :meth:`release`."""
        self.release()

    def sample(self) -> Sample:
        """Power in proportion to the clock."""
        return Sample(self.clock.now(), {"total": self._point["gpu_hz"] / 1e8})
