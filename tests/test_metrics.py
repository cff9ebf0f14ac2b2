"""What the metrics say of a governed run, against what the emulated board really did."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metrics_rig import exposition, families, governed, infer, until_hold, value, values
from prometheus_client import CollectorRegistry, generate_latest

from governor import EnergyGovernor, InputError
from governor.devices.emulated import EmulatedBoard
from governor.latencies import LADDER_S, Latencies, edges
from governor.metrics import DOCUMENTED, FAMILIES, Collector
from governor.objective import Objective
from governor.savings import Savings

DESIGNED = {
    "governor_inferences_total", "governor_items_total", "governor_inference_latency_seconds",
    "governor_slo_seconds", "governor_slo_violations_total", "governor_slo_feasible",
    "governor_energy_joules_total", "governor_power_watts", "governor_energy_per_item_joules",
    "governor_energy_saved_joules_total", "governor_knob_value", "governor_knob_target",
    "governor_phase", "governor_trials_total", "governor_best_energy_per_item_joules",
    "governor_predicted_energy_per_item_joules", "governor_temperature_celsius",
    "governor_throttle_events_total", "governor_lease_held", "governor_restores_total",
    "governor_disturbances_total", "governor_sensor_errors_total", "governor_build_info",
}  # fmt: skip


def state_set(gov: EnergyGovernor, label: str) -> set[str]:
    """Which states of ``governor_LABEL{LABEL=...}`` are 1; all others must be 0."""
    states = {
        dict(labels)[label]: on
        for (name, labels), on in values(exposition(gov)).items()
        if name == f"governor_{label}"
    }
    assert len(states) > 3
    assert set(states.values()) <= {0, 1}
    return {state for state, on in states.items() if on}


@pytest.fixture(scope="module")
def run() -> tuple[EnergyGovernor, EmulatedBoard, float, str]:
    """A run held for a while: its governor, its board, what that spent, and the metrics."""
    board = EmulatedBoard("nano", "yolov8n-trt", seed=1)
    before_j = board.spent_j
    with governed(board=board) as (gov, board):
        until_hold(gov, board)
        infer(gov, board, 3000)
        return gov, board, board.spent_j - before_j, exposition(gov)


def test_every_metric_of_the_design_is_there(
    run: tuple[EnergyGovernor, EmulatedBoard, float, str],
) -> None:
    seen = {
        f"{name}_total" if metric.type == "counter" else name
        for name, metric in families(run[3]).items()
    }
    assert seen >= DESIGNED
    assert {family.exposed_name for family in FAMILIES} >= DESIGNED


def test_promtool_finds_nothing_to_complain_of(
    run: tuple[EnergyGovernor, EmulatedBoard, float, str],
) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; apt-get install prometheus")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=run[3], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_total_rail_says_what_the_board_spent(
    run: tuple[EnergyGovernor, EmulatedBoard, float, str],
) -> None:
    _, _, spent_j, text = run
    assert value(text, "governor_energy_joules_total", rail="total") == pytest.approx(
        spent_j, rel=0.02
    )


def test_no_rail_says_more_than_the_total(
    run: tuple[EnergyGovernor, EmulatedBoard, float, str],
) -> None:
    text = run[3]
    rails = {
        dict(labels)["rail"]: joules
        for (name, labels), joules in values(text).items()
        if name == "governor_energy_joules_total"
    }
    assert len(rails) > 2
    assert max(rails.values()) <= rails["total"] * 1.001


def test_what_is_saved_is_the_baseline_s_energy_less_what_was_spent_since() -> None:
    with governed() as (gov, board):
        while gov.baseline is None:
            infer(gov, board, 1)
        began_j, items = board.spent_j, gov.status().items
        until_hold(gov, board)
        infer(gov, board, 3000)
        baseline_j = gov.baseline.energy_j
        true_j = (gov.status().items - items) * baseline_j - (board.spent_j - began_j)
        assert true_j > 50.0
        saved_j = value(exposition(gov), "governor_energy_saved_joules_total")
        assert saved_j == pytest.approx(true_j, rel=0.05)


def test_the_bound_is_a_bucket_s_edge_and_what_is_above_it_are_the_violations() -> None:
    with governed(slo=0.05) as (gov, board):
        infer(gov, board, 400)
    text = exposition(gov)
    count = value(text, "governor_inference_latency_seconds_count")
    kept = value(text, "governor_inference_latency_seconds_bucket", le="0.05")
    assert count == value(text, "governor_inferences_total") == 400
    assert count - kept == value(text, "governor_slo_violations_total")
    assert count - kept > 0


def test_a_relative_bound_becomes_an_edge_once_it_is_known() -> None:
    with governed(slo="1.5x") as (gov, board):
        assert "governor_slo_seconds" not in families(exposition(gov))
        until_hold(gov, board)
        text = exposition(gov)
    bound = value(text, "governor_slo_seconds")
    assert bound == gov.slo_s
    assert value(text, "governor_inference_latency_seconds_bucket", le=repr(bound)) > 0


def test_exactly_one_phase_is_1() -> None:
    with governed() as (gov, board):
        for _ in range(40):
            infer(gov, board, 20)
            assert state_set(gov, "phase") == {gov.phase}


def test_the_objective_in_force_is_1_and_its_cap_is_told() -> None:
    with governed() as (gov, board):
        assert state_set(gov, "objective") == {"energy"}
        assert "governor_power_cap_watts" not in families(exposition(gov))
        gov.set_objective("latency", power_cap="6W")
        infer(gov, board, 20)
        assert state_set(gov, "objective") == {"latency"}
        assert value(exposition(gov), "governor_power_cap_watts") == 6.0
        gov.set_objective(Objective(1.4, 1.0))
        infer(gov, board, 20)
        assert state_set(gov, "objective") == {"weighted"}


def test_counters_never_fall_while_a_governor_searches() -> None:
    seen: list[dict[str, float]] = []
    with governed() as (gov, board):
        for _ in range(60):
            infer(gov, board, 20)
            seen.append(
                {
                    f"{name}{labels}": number
                    for (name, labels), number in values(exposition(gov)).items()
                    if name.endswith("_total")
                }
            )
    for before, after in pairwise(seen):
        assert all(after[name] >= number for name, number in before.items())


def test_what_is_not_known_is_absent_and_never_a_sentinel() -> None:
    with governed() as (gov, _):
        text = exposition(gov)
        assert all(math.isfinite(number) for number in values(text).values())
        assert "governor_slo_feasible" not in families(text)
        assert "governor_knob_target" not in families(text)


def test_the_knobs_are_those_of_the_operating_point() -> None:
    with governed() as (gov, board):
        until_hold(gov, board)
        text = exposition(gov)
        point = gov.operating_point
        assert point is not None
        for knob, level in point.items():
            assert value(text, "governor_knob_target", knob=knob) == level
            assert value(text, "governor_knob_value", knob=knob) == level
        assert value(text, "governor_lease_held") == 1
    assert value(exposition(gov), "governor_lease_held") == 0
    assert value(exposition(gov), "governor_restores_total", reason="exit") == 1


def test_an_emulated_device_is_labelled_so(
    run: tuple[EnergyGovernor, EmulatedBoard, float, str],
) -> None:
    assert value(run[3], "governor_device_info", device="nano", emulated="true") == 1


def test_governors_of_one_process_are_told_apart_by_their_names() -> None:
    registry = CollectorRegistry()
    with governed(name="detector") as (one, board), governed() as (other, _):
        infer(one, board, 7)
        registry.register(Collector(one, other))
    text = generate_latest(registry).decode()
    assert value(text, "governor_inferences_total", governor="detector") == 7
    assert value(text, "governor_inferences_total") == 0
    assert text.count("# TYPE governor_inferences_total") == 1


def test_streams_are_told_apart_once_there_are_several() -> None:
    with governed(slo=0.05) as (gov, board):
        assert "governor_stream_inferences" not in families(exposition(gov))
        pose = gov.stream("pose", latency_slo=0.02)
        for _ in range(40):
            with gov.inference():
                board.infer()
            with pose.inference():
                board.infer()
    text = exposition(gov)
    for name in ("main", "pose"):
        assert value(text, "governor_stream_inferences_total", stream=name) == 40
    assert value(text, "governor_stream_slo_seconds", stream="pose") == 0.02
    late = value(text, "governor_stream_slo_violations_total", stream="pose")
    assert late == 40  # the board takes longer than that even at its fastest


def test_two_governors_of_one_name_are_refused() -> None:
    with (
        governed() as (one, _),
        governed() as (other, _),
        pytest.raises(InputError, match="name='detector'"),
    ):
        Collector(one, other)


@pytest.mark.parametrize("name", ["a" * 65, "two\nlines", 'a"b'])
def test_a_name_that_cannot_be_a_label_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="up to 64 letters"):
        EnergyGovernor("50ms", device=EmulatedBoard(), name=name)


def test_a_registry_refuses_a_second_collector_of_the_same_metrics() -> None:
    registry = CollectorRegistry()
    with governed() as (gov, _):
        registry.register(gov.collector())
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            registry.register(gov.collector())


def test_governing_without_metrics_loads_nothing_of_them() -> None:
    code = (
        "import sys, governor;"
        "governor.EnergyGovernor('50ms', device='emulated:nano');"
        "print({'prometheus_client', 'wsgiref', 'governor.metrics'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


# The parts --------------------------------------------------------------------------------


@given(st.floats(1e-4, 100.0), st.lists(st.floats(0.0, 20.0), max_size=50))
def test_every_latency_lands_in_the_bucket_that_prometheus_would_put_it_in(
    slo_s: float, latencies_s: list[float]
) -> None:
    histogram = Latencies(slo_s)
    for latency_s in latencies_s:
        histogram.add(latency_s)
    seen = histogram.buckets()
    assert slo_s in seen.edges_s
    for row, edge_s in enumerate(seen.edges_s):
        assert sum(seen.counts[: row + 1]) == sum(one <= edge_s for one in latencies_s)
    assert sum(seen.counts) == len(latencies_s)
    assert seen.sum_s == pytest.approx(sum(latencies_s))


@given(st.floats(1e-9, 1e9))
def test_the_edges_ascend_whatever_the_bound(slo_s: float) -> None:
    assert all(before < after for before, after in pairwise(edges(slo_s)))
    assert set(edges(slo_s)) >= {*LADDER_S, slo_s}


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.0, 50.0)), max_size=40))
def test_what_is_saved_never_falls_and_is_never_below_the_balance(
    looks: list[tuple[int, float]],
) -> None:
    savings, balance_j = Savings(), 0.0
    for items, spent_j in looks:
        before_j = savings.total_j
        savings.add(items, spent_j, 10.0)
        balance_j += items * 10.0 - spent_j
        assert savings.total_j >= before_j
        if spent_j:
            assert savings.total_j >= balance_j - 1e-6


def test_the_documentation_describes_every_metric_as_the_code_does() -> None:
    text = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text(encoding="utf-8")
    for family in DOCUMENTED:
        labels = f"{{{','.join(family.labels)}}}" if family.labels else ""
        name = f"`{family.exposed_name}{labels}`"
        assert f"| {name} | {family.kind} | {family.documentation} |" in text
