"""Emulated Jetson boards: physics, clocks and sensors in software.

Nothing that comes from here is a measurement of hardware. ``governor emulate --calibration``
shows how far each board's physics lie from published figures.
"""

from governor.devices.emulated.board import EmulatedBoard
from governor.devices.emulated.clock import VirtualClock
from governor.devices.emulated.hardware import board_names
from governor.devices.emulated.room import Course, Room
from governor.devices.emulated.shadow import ShadowBoard
from governor.devices.emulated.workload import workload_names

__all__ = [
    "Course",
    "EmulatedBoard",
    "Room",
    "ShadowBoard",
    "VirtualClock",
    "board_names",
    "workload_names",
]
