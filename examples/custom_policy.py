"""A policy of your own: asked for the next operating point, told what was measured there.

This one lowers the GPU clock alone, step by step, until the latency bound would be missed. A
distribution offers its policies by name with an entry point:

    [project.entry-points."governor.policies"]
    step-down = "my_package:StepDown"
"""

from __future__ import annotations

from governor import EnergyGovernor, OperatingPoint, Trial
from governor.devices.emulated import EmulatedBoard
from governor.units import format_energy
from policies.policy import Choice, Problem, Proposal


class StepDown:
    """From the all-max corner down the GPU's levels. No I/O, no clock, no thread."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.trials: list[Trial] = []
        top = problem.space.point(problem.space.fastest)
        steps = (
            OperatingPoint({**top, "gpu_hz": level})
            for knob in problem.space.knobs
            if knob.name == "gpu_hz"
            for level in reversed(knob.levels[:-1])
        )
        self.steps = (point for point in steps if point in problem.space)

    def ask(self) -> Proposal | None:
        """The next level down, as long as the last one kept the bound."""
        if self.trials[-1].latency_s > self.problem.slo_s:
            return None
        point = next(self.steps, None)
        return None if point is None else Proposal(point=point, reason="one step down")

    def tell(self, trial: Trial) -> None:
        """Learn from a trial; the first is the all-max corner's."""
        self.trials.append(trial)

    def choose(self) -> Choice:
        """Of the trials that kept the bound, the one of least energy; else the fastest."""
        kept = [trial for trial in self.trials if trial.latency_s <= self.problem.slo_s]
        best = min(kept or self.trials[:1], key=lambda trial: trial.energy_j)
        assert best.point is not None
        return Choice(
            point=best.point,
            feasible=bool(kept),
            energy_j=best.energy_j,
            latency_s=best.latency_s,
        )


def main() -> None:
    board = EmulatedBoard("xavier-nx", workload="yolov8n")
    with EnergyGovernor("100ms", device=board, policy=StepDown) as gov:
        for _frame in range(1200):
            with gov.inference():
                board.infer()
        for trial in gov.trials:
            print(f"{format_energy(trial.energy_j):>8} an inference (emulated)  {trial.point}")
        print(f"{gov.phase}: {gov.operating_point}")


if __name__ == "__main__":
    main()
