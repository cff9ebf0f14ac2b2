"""The sensors of a virtual Jetson: power monitors, thermal zones, over-current counters."""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Callable, Sequence
from functools import partial

from governor.devices.emulated.kernel import Channel, Chip, Kernel
from governor.devices.emulated.limits import refusal
from governor.devices.emulated.live import LiveBoard
from governor.devices.emulated.machine import CPU, GPU
from governor.devices.emulated.tree import File, Tree

BUS_STEP_MV = 8
SHUNT_STEP_UV = 40
"""Steps of an INA3221's registers (datasheet); a current's step is the shunt's over its ohms."""

CONVERSION_US, SAMPLES = 140, 512
"""Each of an INA3221's conversions, and how many it averages (read on an Orin Nano; 140 us is
derived from the 0.43 s between two fresh readings)."""

PMIC_MC = 100_000
"""What PMIC-Die always reads."""


class Sensors:
    """Adds the sensors of ``board`` to a tree. ``hwmon``: the first hwmon number."""

    def __init__(self, tree: Tree, kernel: Kernel, board: LiveBoard, hwmon: int) -> None:
        self._tree, self._kernel, self._board = tree, kernel, board
        self._hwmon = hwmon
        for number, chip in enumerate(kernel.chips):
            self._add_chip(chip, number)
        if kernel.soc_name in ("t234", "t264"):
            self._add_over_current()
        self._add_zones()
        self._add_cooling()

    # -- power ----------------------------------------------------------------------------

    def watts(self, channel: Channel) -> float:
        """What a channel sees: a reading as old as the sensor's last refresh."""
        rails = self._board.sample().power_w
        if channel.rail in rails:
            return rails[channel.rail]
        parts = self._board.part_w
        return sum(parts[part] for part in channel.parts) + channel.carrier_w

    def _add_chip(self, chip: Chip, number: int) -> None:
        bus = chip.address.split("-")[0]
        adapter = self._kernel.release.i2c
        if chip.adapter:
            adapter = posixpath.join(posixpath.dirname(adapter), chip.adapter)
        device = f"{adapter}/i2c-{bus}/{chip.address}"
        driver = f"{chip.driver}x" if self._kernel.old else chip.driver
        self._text(f"{device}/name", driver)
        self._tree.link(f"/sys/bus/i2c/drivers/{driver}/{chip.address}", device)
        self._tree.link(f"/sys/bus/i2c/devices/{chip.address}", device)
        if self._kernel.old:
            self._add_iio(chip, f"{device}/iio:device{number}")
        elif chip.driver == "ina238":
            self._add_ina238(chip, self._new_hwmon(device, "ina238"))
        else:
            self._add_ina3221(chip, self._new_hwmon(device, "ina3221"))

    def _new_hwmon(self, device: str, name: str) -> str:
        hwmon = f"{device}/hwmon/hwmon{self._hwmon}"
        self._tree.link(f"/sys/class/hwmon/hwmon{self._hwmon}", hwmon)
        self._hwmon += 1
        self._text(f"{hwmon}/name", name)
        self._tree.link(f"{hwmon}/device", device)
        return hwmon

    def _milliamps(self, chip: Chip, channel: Channel) -> int:
        step = SHUNT_STEP_UV / chip.shunt_mohm
        return round(round(1e3 * self.watts(channel) / channel.volts / step) * step)

    def _milliwatts(self, chip: Chip, channel: Channel) -> int:
        return _millivolts(channel) * self._milliamps(chip, channel) // 1000

    def _shunt_millivolts(self, chip: Chip, channels: Sequence[Channel]) -> int:
        return round(1e-3 * self._sum_milliamps(chip, channels) * chip.shunt_mohm)

    def _sum_milliamps(self, chip: Chip, channels: Sequence[Channel]) -> int:
        return sum(self._milliamps(chip, channel) for channel in channels)

    def _add_iio(self, chip: Chip, directory: str) -> None:
        """Linux 4.9's driver: channels from 0, a power file in mW, limits with their unit."""
        self._tree.link(f"/sys/bus/iio/devices/{posixpath.basename(directory)}", directory)
        self._text(f"{directory}/name", "ina3221x")
        self._text(f"{directory}/running_mode", "continuous")
        for index, channel in enumerate(chip.channels):
            millivolts = _millivolts(channel)
            milliamps = partial(self._milliamps, chip, channel)
            self._text(f"{directory}/rail_name_{index}", channel.rail)
            self._text(f"{directory}/in_voltage{index}_input", str(millivolts))
            self._number(f"{directory}/in_current{index}_input", milliamps)
            power = partial(self._milliwatts, chip, channel)
            self._number(f"{directory}/in_power{index}_input", power)
            self._ask(f"{directory}/ui_input_{index}", partial(_pair, millivolts, milliamps))
            self._text(f"{directory}/in_power{index}_trigger_input", "0")
            for limit in ("warn", "crit"):
                self._text(f"{directory}/{limit}_current_limit_{index}", "32760 ma")
            self._text(f"{directory}/crit_power_limit_{index}", "32760 mw")

    def _add_ina3221(self, chip: Chip, hwmon: str) -> None:
        """Linux 5's driver: channels from 1, no power file; 4 to 7 are shunt voltages and sums."""
        connected = [channel for channel in chip.channels if channel.volts]
        period_ms = round(2e-3 * len(connected) * CONVERSION_US * SAMPLES)
        self._text(f"{hwmon}/samples", str(SAMPLES), mode=0o644)
        self._text(f"{hwmon}/update_interval", str(period_ms), mode=0o644)
        for index, channel in enumerate(chip.channels, start=1):
            self._text(f"{hwmon}/in{index}_label", channel.rail)
            self._text(f"{hwmon}/in{index}_enable", str(int(channel.volts > 0)), mode=0o644)
            self._text(f"{hwmon}/shunt{index}_resistor", f"{1e3 * chip.shunt_mohm:.0f}")
            if not channel.volts:
                for name in (f"in{index}_input", f"curr{index}_input"):
                    self._ask(f"{hwmon}/{name}", _no_data)
                continue
            self._text(f"{hwmon}/in{index}_input", str(_millivolts(channel)))
            self._number(f"{hwmon}/curr{index}_input", partial(self._milliamps, chip, channel))
            shunt = partial(self._shunt_millivolts, chip, [channel])
            self._number(f"{hwmon}/in{index + 3}_input", shunt)
            for limit in ("max", "crit"):
                self._text(f"{hwmon}/curr{index}_{limit}", "32760", mode=0o644)
                self._text(f"{hwmon}/curr{index}_{limit}_alarm", "0")
        self._text(f"{hwmon}/in7_label", "sum of shunt voltages")
        self._number(f"{hwmon}/in7_input", partial(self._shunt_millivolts, chip, connected))
        self._number(f"{hwmon}/curr4_input", partial(self._sum_milliamps, chip, connected))

    def _add_ina238(self, chip: Chip, hwmon: str) -> None:
        """Thor's carrier: one channel, power in microwatts."""
        (channel,) = chip.channels
        millivolts = round(1e3 * channel.volts)
        self._text(f"{hwmon}/in1_input", str(millivolts))
        self._number(f"{hwmon}/curr1_input", lambda: round(1e6 * self.watts(channel) / millivolts))
        self._number(f"{hwmon}/power1_input", lambda: round(1e6 * self.watts(channel)))

    # -- heat and throttling ---------------------------------------------------------------

    def _add_over_current(self) -> None:
        hwmon = self._new_hwmon("/sys/devices/platform/soctherm-oc-event", "soctherm_oc")
        for number in (1, 2, 3):
            self._text(f"{hwmon}/oc{number}_throt_en", "1")

        def events() -> int:
            return self._board.sample().throttle_events["over_current"]

        self._text(f"{hwmon}/oc1_event_cnt", "0")  # under-voltage: not emulated
        self._number(f"{hwmon}/oc2_event_cnt", events)
        self._number(f"{hwmon}/oc3_event_cnt", events)

    def _add_zones(self) -> None:
        for number, zone in enumerate(self._kernel.zones):
            directory = f"/sys/devices/virtual/thermal/thermal_zone{number}"
            self._tree.link(f"/sys/class/thermal/thermal_zone{number}", directory)
            self._text(f"{directory}/type", zone)
            self._text(f"{directory}/mode", "enabled", mode=0o644)

            self._ask(f"{directory}/temp", partial(self._temperature_mc, zone))
            soc = self._kernel.soc
            trips = (("passive", soc.passive_mc), ("critical", soc.critical_mc))
            for trip, (kind, limit_mc) in enumerate(trips):
                if limit_mc:
                    self._text(f"{directory}/trip_point_{trip}_type", kind)
                    self._text(f"{directory}/trip_point_{trip}_temp", str(limit_mc))

    def _temperature_mc(self, zone: str) -> str:
        if zone in self._kernel.soc.off_zones:
            raise refusal(errno.EAGAIN)
        if zone == "PMIC-Die":
            return str(PMIC_MC)
        by_part = self._board.sample().temperature_c
        lower = zone.lower()
        part = next((part for part in by_part if part in lower), None)
        outside = any(word in lower for word in ("board", "diode", "fan"))
        celsius = self._board.board_c if outside else by_part[part or "tj"]
        return str(round(celsius * 1e3))

    def _add_cooling(self) -> None:
        """What the kernel throttles by: a state above 0 says by how many levels."""
        for number, (knob, name) in enumerate(
            ((CPU, "thermal-cpufreq-0"), (GPU, "thermal-devfreq-0"))
        ):
            directory = f"/sys/devices/virtual/thermal/cooling_device{number}"
            self._tree.link(f"/sys/class/thermal/cooling_device{number}", directory)
            levels = len(self._board.space.knobs[knob].levels)
            self._text(f"{directory}/type", name)
            self._text(f"{directory}/max_state", str(levels - 1))
            self._number(f"{directory}/cur_state", partial(self._throttled, knob))

    def _throttled(self, knob: int) -> int:
        return self._board.throttled[knob]

    # -- files ------------------------------------------------------------------------------

    def _text(self, path: str, text: str, mode: int = 0o444) -> None:
        write = None if mode == 0o444 else _ignore
        self._tree.add(path, File(lambda: f"{text}\n", write, mode))

    def _number(self, path: str, read: Callable[[], int]) -> None:
        self._ask(path, lambda: str(read()))

    def _ask(self, path: str, read: Callable[[], str]) -> None:
        self._tree.add(path, File(lambda: f"{read()}\n"))


def _millivolts(channel: Channel) -> int:
    return round(1e3 * channel.volts / BUS_STEP_MV) * BUS_STEP_MV


def _pair(millivolts: int, milliamps: Callable[[], int]) -> str:
    return f"{millivolts} {milliamps()}"


def _no_data() -> str:
    raise refusal(errno.ENODATA)


def _ignore(_text: str) -> None:
    """A limit or a setting of the sensor that is taken and changes nothing here."""
