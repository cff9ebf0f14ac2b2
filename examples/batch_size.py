"""Let the governor choose the batch size as well: the loop reads it and does as it says.

On an emulated board in virtual time; no figure was measured on hardware. The latency bound is
for a whole batch, energy is per item.
"""

from __future__ import annotations

from governor import EnergyGovernor
from governor.devices.emulated import EmulatedBoard
from governor.units import format_energy


def main() -> None:
    board = EmulatedBoard("agx-orin", workload="resnet-50")
    with EnergyGovernor("150ms", device=board, batch_size=(1, 2, 4, 8)) as gov:
        for _frame in range(600):
            with gov.inference():
                board.infer(items=gov.batch_size)
        print("EMULATED, no figure was measured on hardware")
        for trial in gov.trials:
            print(f"{format_energy(trial.energy_j):>8} an item  {trial.point}")
        print(f"{gov.phase}: {gov.operating_point}")


if __name__ == "__main__":
    main()
