"""The number of CPU cores as a knob of an emulated board, where it is asked for."""

from __future__ import annotations

import pytest

from governor import EnergyGovernor
from governor.devices.emulated import EmulatedBoard
from governor.errors import InputError
from governor.space import OperatingPoint


def with_cores(board: str = "nano", workload: str = "mobilenet-v2") -> EmulatedBoard:
    device = EmulatedBoard(board, workload, noise=False)
    device.include("cpu_cores")
    return device


def at(device: EmulatedBoard, cores: int) -> OperatingPoint:
    return OperatingPoint({**device.space.point(device.space.fastest), "cpu_cores": float(cores)})


def test_it_is_left_alone_unless_asked_for() -> None:
    device = EmulatedBoard("nano")
    assert "cpu_cores" not in device.space.names
    assert device.optional == ("cpu_cores",)
    device.include("cpu_cores")
    assert device.space.knobs[-1].levels == (1, 2, 3, 4)
    assert device.optional == ()


def test_fewer_cores_cost_less_and_only_a_single_one_costs_time() -> None:
    device = with_cores()
    latency_s = [device.true_latency_s(at(device, cores)) for cores in (1, 2, 3, 4)]
    energy_j = [device.true_energy_j(at(device, cores)) for cores in (2, 3, 4)]
    assert latency_s[0] > latency_s[1] == latency_s[2] == latency_s[3]
    assert energy_j == sorted(energy_j)
    assert energy_j[0] < energy_j[-1]


def test_who_else_needs_a_core_makes_the_missing_ones_felt() -> None:
    device = with_cores()
    device.set_contention(cpu_cores=2.0)
    assert device.true_latency_s(at(device, 2)) > device.true_latency_s(at(device, 4))


def test_the_truth_of_all_settings_has_the_order_of_the_space() -> None:
    device = with_cores()
    latency_s, energy_j = device.truth()
    for row in (0, 1, len(device.space) - 2, len(device.space) // 2):
        point = device.space.point(row)
        assert latency_s[row] == device.true_latency_s(point)
        assert energy_j[row] == pytest.approx(device.true_energy_j(point))


def test_what_is_set_is_in_force_and_given_back() -> None:
    device = with_cores()
    default = device.true_default()
    assert device.apply(at(device, 2))["cpu_cores"] == 2
    device.idle(1)
    spent_j = device.spent_j
    latency_s = sum(device.infer().latency_s for _ in range(50)) / 50
    assert latency_s == pytest.approx(device.true_latency_s(at(device, 2)))
    assert (device.spent_j - spent_j) / 50 == pytest.approx(
        device.true_energy_j(at(device, 2)), rel=0.02
    )
    assert device.true_default() == default
    device.release()
    assert device.read()["cpu_cores"] == 4


def test_cores_that_someone_else_has_turned_off_since_stay_off() -> None:
    device = with_cores()
    device.apply(at(device, 2))
    device.set_cores(3)
    device.release()
    assert device.read()["cpu_cores"] == 3


@pytest.mark.parametrize("cores", [0, 5, 2.5])
def test_a_number_of_cores_that_the_board_has_not_is_refused(cores: float) -> None:
    device = with_cores()
    with pytest.raises(InputError, match="has 1 to 4"):
        device.apply(OperatingPoint({**at(device, 4), "cpu_cores": cores}))


def test_the_governor_tunes_it_within_its_limits() -> None:
    device = EmulatedBoard("nano", "mobilenet-v2")
    with EnergyGovernor("1.5x", device=device, limits={"cpu_cores": (2, None)}) as governor:
        while governor.phase != "hold":
            with governor.inference():
                device.infer()
        held = governor.operating_point
    assert held is not None
    assert held["cpu_cores"] == 2
    assert device.read()["cpu_cores"] == 4
