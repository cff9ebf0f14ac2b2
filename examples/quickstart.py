"""Govern an inference loop on an emulated Jetson AGX Orin, in virtual time.

Nothing here touches hardware, and no figure was measured on any: half a minute of the board's
time passes in a second.
"""

from __future__ import annotations

from governor import EnergyGovernor
from governor.devices.emulated import EmulatedBoard
from governor.units import format_energy, format_percent


def main() -> None:
    board = EmulatedBoard("agx-orin", workload="yolov8n")
    with EnergyGovernor(latency_slo="50ms", device=board) as gov:
        for _frame in range(1500):
            with gov.inference():
                board.infer()  # an application calls its model here
        status = gov.status()
    print(f"{status.phase} after {status.trials} trials: {status.point}")
    print(f"emulated energy an inference: {format_energy(status.held_energy_j)}")
    if status.saving is not None:
        print(f"saved against the default governors, emulated: {format_percent(status.saving)}")


if __name__ == "__main__":
    main()
