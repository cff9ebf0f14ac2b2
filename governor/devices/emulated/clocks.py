"""What a virtual Jetson's kernel holds of its clocks: limits, governors, cores, power mode."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from governor.devices.emulated.kernel import Kernel, Mode
from governor.devices.emulated.limits import UNLIMITED, Emc, Limits, refusal
from governor.devices.emulated.live import LiveBoard
from governor.errors import InputError

CPU_GOVERNORS = ("schedutil", "performance", "powersave", "userspace", "ondemand", "conservative")
GPU_GOVERNORS = ("nvhost_podgov", "performance", "powersave", "userspace", "simple_ondemand")
EMC_GOVERNORS = ("bwmgr", "performance", "powersave", "userspace")
"""Which of them a given image has is not published; on an emulated board all that are none of
performance, powersave and userspace chase utilisation as the first one does."""


class Clocks:
    """The kernel's hold on the clocks of ``board``, which follows every change at once.

    Attributes:
        policies: limits by cpufreq policy, as ``kernel.policies``.
        gpu: the GPU's limits. bwmgr: Thor's for the memory.
        emc: the memory's pin and cap.
        online: cores that are.
        mode: nvpmodel's power mode, as last set.
    """

    def __init__(self, kernel: Kernel, board: LiveBoard) -> None:
        self._kernel, self._board = kernel, board
        self._uncapped = 0 if kernel.l4t < 36 else UNLIMITED
        self.online = set(kernel.cores)
        self.mode = kernel.modes[kernel.uncapped_mode]
        cpu, gpu, memory = (knob.levels for knob in board.space.knobs)
        strict, khz = kernel.old, [round(hz / 1e3) for hz in cpu]
        self.policies = [
            Limits(khz, CPU_GOVERNORS, strict=strict, step=1, changed=self._follow_cpu)
            for _ in kernel.policies
        ]
        self.gpu = Limits(
            [round(hz) for hz in gpu], GPU_GOVERNORS, strict=strict, step=1 if strict else 1000,
            changed=self._follow_gpu,
        )  # fmt: skip
        rates = [round(hz) for hz in memory]
        rates[-1] = kernel.emc_top_hz or rates[-1]
        self.emc = Emc(
            rates, uncapped=self._uncapped, needs_halt=self._thor, changed=self._follow_emc
        )
        self.bwmgr = Limits(rates, EMC_GOVERNORS, strict=False, step=1000, changed=self._follow_emc)

    @property
    def _thor(self) -> bool:
        return self._kernel.soc.emc == "bwmgr"

    def set_mode(self, number: int) -> None:
        """Switch to a power mode, as ``nvpmodel -m`` does: every limit is written anew.

        Raises:
            InputError: the board has no such mode.
        """
        modes = self._kernel.modes
        if number not in modes:
            known = ", ".join(f"{each.id} ({each.name})" for each in modes.values())
            raise InputError(
                f"{self._kernel.board} has no power mode {number}; choose one of {known}"
            )
        self.mode = modes[number]
        self.online = set(self.mode.cores)
        self._board.set_cores(len(self.online))
        self._reset(self.mode)

    def _reset(self, mode: Mode) -> None:
        """nvpmodel writes the level nearest to each cap."""
        low_khz = round(self._board.cpu_min_hz / 1e3)
        for policy in self.policies:
            khz = _nearest(policy.levels, mode.cpu_khz)
            policy.reset(min(low_khz, khz), khz)
        self.gpu.reset(self.gpu.levels[0], _nearest(self.gpu.levels, mode.gpu_hz))
        self.emc.write_cap(str(self._uncapped if mode.emc_hz is None else mode.emc_hz))

    def set_online(self, core: int, online: bool) -> None:
        """Bring a core up or take it down.

        Raises:
            OSError: core 0 cannot go; EBUSY is assumed.
        """
        if core == 0 and not online:
            raise refusal(errno.EBUSY)
        (self.online.add if online else self.online.discard)(core)
        self._board.set_cores(len(self.online))
        self._follow_cpu()

    def _follow_cpu(self) -> None:
        """The busy thread is where it runs fastest: the board's clock is the fastest cluster's."""
        bounds = [
            limits.bounds()
            for limits, cores in zip(self.policies, self._kernel.policies, strict=True)
            if self.online & set(cores)
        ]
        low, high = max(low for low, _ in bounds), max(high for _, high in bounds)
        self._board.limit("cpu_hz", low, high)

    def _follow_gpu(self) -> None:
        self._board.limit("gpu_hz", *self.gpu.bounds())

    def _follow_emc(self) -> None:
        """On Thor the devfreq node's limits hold where nothing is pinned."""
        low, high = self.emc.bounds()
        if self._thor and low != high:
            asked_low, asked_high = self.bwmgr.bounds()
            high = min(high, asked_high)
            low = min(asked_low, high)
        self._board.limit("emc_hz", low, high)


def _nearest(levels: Sequence[int], wanted: int | None) -> int:
    if wanted is None:
        return levels[-1]
    return min(levels, key=lambda level: abs(level - wanted))
