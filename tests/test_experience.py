"""A governor starts from what earlier runs have learnt, and trusts none of it unseen."""

from __future__ import annotations

import logging
import shutil
import socket
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from postgres import PASSWORD, PostgresServer

from governor import EnergyGovernor
from governor import experience as experience_module
from governor.cli.main import main
from governor.devices.emulated import EmulatedBoard
from governor.errors import InputError
from governor.experience import Experience
from governor.phases import PastPhase
from governor.profile import Entry, Profile
from governor.store import ProfileStore


def govern(
    profiles: object,
    network: str = "yolov8n",
    *,
    slo: str = "50ms",
    seed: int = 0,
    workload: str = "",
    **aim: object,
) -> tuple[EnergyGovernor, EmulatedBoard, list[str]]:
    """Until a point is held."""
    board, kinds = EmulatedBoard("agx-orin", network, seed=seed), list[str]()
    with EnergyGovernor(
        slo, device=board, seed=seed, profiles=profiles, workload=workload,
        callback=lambda decision: kinds.append(decision.kind), **aim,
    ) as governor:  # fmt: skip
        while governor.phase != "hold":
            assert board.clock.now() < 300.0
            with governor.inference():
                board.infer()
    return governor, board, kinds


def entries(file: Path) -> list[Entry]:
    with ProfileStore(file) as store:
        return store.entries()


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that has seen one run."""
    file = tmp_path_factory.mktemp("store") / "profiles.db"
    govern(file)
    return file


@pytest.fixture
def file(learnt: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(learnt, tmp_path / "profiles.db"))


def test_a_run_leaves_a_profile(learnt: Path) -> None:
    [(key, profile)] = entries(learnt)
    assert (key.board, key.workload, key.slo) == ("emulated:agx-orin", "yolov8n", "p95 <= 50 ms")
    assert key.objective == "energy"
    assert profile.chosen_trial is not None
    assert profile.chosen_trial.latency_s < profile.slo_s == 0.05
    fastest = {name: levels[-1] for name, levels in profile.levels.items()}
    assert profile.trials[0].point == fastest
    assert profile.coefficients["gpu_voltage"].sd > 0


def test_a_known_workload_takes_two_windows(file: Path) -> None:
    [(_, before)] = entries(file)
    governor, board, kinds = govern(file, seed=1)
    assert kinds == ["try", "verify", "hold"]
    assert dict(governor.operating_point or {}) == before.chosen
    _, _, least_j = board.optimum(0.05)
    assert governor.status().held_energy_j < 1.03 * least_j
    [(_, after)] = entries(file)
    assert (after.runs, len(after.trials)) == (2, len(before.trials))


def test_another_bound_starts_from_the_same_trials(file: Path) -> None:
    cold, _, _ = govern(None, slo="30ms", seed=1)
    warm, _, _ = govern(file, slo="30ms", seed=1)
    assert len(warm.trials) < len(cold.trials) / 2
    assert {key.slo for key, _ in entries(file)} == {"p95 <= 50 ms", "p95 <= 30 ms"}


def test_another_network_starts_where_the_boards_physics_point(file: Path) -> None:
    board = EmulatedBoard("agx-orin", "resnet-50")
    _, _, least_j = board.optimum(0.03)
    true_j = board.truth()[1]
    best_of_three: list[float] = []
    for store in (None, file):
        governor, _, _ = govern(store, "resnet-50", slo="30ms", seed=3)
        points = [trial.point for trial in governor.trials[:3] if trial.point is not None]
        least = min(float(true_j[board.space.index(point)]) for point in points)
        best_of_three.append(least / least_j - 1)
    assert best_of_three[1] < 0.02 < best_of_three[0]


def test_a_profile_of_another_network_under_this_name_is_found_out(file: Path) -> None:
    cold, _, _ = govern(None, "resnet-50", workload="mine", seed=2)
    [(key, profile)] = entries(file)
    with ProfileStore(file) as store:
        store.save(replace(key, workload="mine"), profile)
    misled, board, _ = govern(file, "resnet-50", workload="mine", seed=2)
    assert len(misled.trials) <= len(cold.trials) + 2
    _, _, least_j = board.optimum(0.05)
    assert misled.status().held_energy_j < 1.03 * least_j
    mine = {key.workload: profile for key, profile in entries(file)}["mine"]
    assert mine.chosen == dict(misled.operating_point or {})


def test_a_choice_that_no_longer_keeps_its_promise_is_not_held(file: Path) -> None:
    """Alike at the fastest setting, and a lie elsewhere."""
    [(key, profile)] = entries(file)
    slow = profile.trials[0].point | {"gpu_hz": profile.levels["gpu_hz"][0]}
    assert profile.chosen_trial is not None
    lie = replace(profile.chosen_trial, point=slow)
    with ProfileStore(file) as store:
        store.save(key, Profile(levels=profile.levels, trials=[profile.trials[0], lie],
                                chosen=slow, slo_s=profile.slo_s))  # fmt: skip
    governor, board, _ = govern(file, seed=1)
    assert dict(governor.operating_point or {}) != slow
    _, _, least_j = board.optimum(0.05)
    assert governor.status().held_energy_j < 1.03 * least_j


def test_a_profile_that_lies_throughout_costs_one_trial_and_no_more(file: Path) -> None:
    """The slower the cheaper, it says, and the lowest setting of all as fast as the highest."""
    [(key, profile)] = entries(file)
    anchor = profile.trials[0]
    lowest = {name: levels[0] for name, levels in profile.levels.items()}
    lies = [
        replace(anchor, point=point, energy_j=anchor.energy_j * sum(
            (point[name] / anchor.point[name]) ** 2 for name in point) / len(point))
        for point in [*(one.point for one in profile.trials[1:]), lowest]
    ]  # fmt: skip
    with ProfileStore(file) as store:
        store.save(key, replace(profile, trials=[anchor, *lies], chosen=lowest))
    cold, _, _ = govern(None, seed=1)
    misled, _, _ = govern(file, seed=1)
    assert len(misled.trials) <= len(cold.trials) + 2
    assert misled.operating_point == cold.operating_point
    [(_, mended)] = entries(file)
    assert mended.chosen == dict(cold.operating_point or {})


def test_each_objective_has_a_choice_of_its_own_and_the_trials_serve_all(file: Path) -> None:
    capped: dict[str, object] = {"objective": "latency", "power_cap": "14W"}
    first, _, kinds = govern(file, **capped)
    cold, _, _ = govern(None, **capped)
    assert kinds.count("try") < len(cold.trials)
    second, _, kinds = govern(file, seed=1, **capped)
    assert kinds == ["try", "verify", "hold"]
    assert second.operating_point == first.operating_point
    _, _, kinds = govern(file, seed=1)
    assert kinds == ["try", "verify", "hold"]
    assert {key.objective for key, _ in entries(file)} == {"energy", "latency under 14 W"}


def test_what_profiles_have_taken_over_from_each_other_teaches_once(file: Path) -> None:
    [entry] = entries(file)
    other = Entry(replace(entry.key, objective="edp"), entry.profile)
    with ProfileStore(file) as store:
        store.save(*other)
        space = EmulatedBoard("agx-orin").space
        key = replace(entry.key, workload="another")
        experience = Experience(store, key, space, in_thread=False, owned=False)
        experience.begin(lambda _: None)
    assert experience.background is not None
    told = [len(donor.trials) for donor in experience.background.donors]
    assert told == [len(entry.profile.trials), 1]  # every profile has its fastest setting


def test_an_unnamed_workload_is_known_by_what_it_takes(tmp_path: Path) -> None:
    class Nameless(EmulatedBoard):
        @property
        def info(self):
            return replace(super().info, workload="")

    file = tmp_path / "profiles.db"
    for seed, network in enumerate(("yolov8n", "resnet-50", "yolov8n")):
        board = Nameless("agx-orin", network, seed=seed)
        with EnergyGovernor("50ms", device=board, seed=seed, profiles=file) as governor:
            while governor.phase != "hold":
                with governor.inference():
                    board.infer()
        assert seed != 2 or len(governor.trials) == 1
    found = entries(file)
    assert sorted(profile.runs for _, profile in found) == [1, 2]
    assert all(key.workload.startswith("@ ") for key, _ in found)


def test_a_bound_that_is_changed_live_has_a_profile_of_its_own(file: Path) -> None:
    board = EmulatedBoard("agx-orin", "yolov8n", seed=1)
    with EnergyGovernor("50ms", device=board, profiles=file) as governor:
        for bound in ("50ms", "30ms"):
            governor.latency_slo = bound
            while governor.slo_s != float(bound[:2]) / 1e3 or governor.phase != "hold":
                with governor.inference():
                    board.infer()
    bounds = {key.slo: profile.slo_s for key, profile in entries(file)}
    assert bounds == {"p95 <= 50 ms": 0.05, "p95 <= 30 ms": 0.03}
    assert {key.workload for key, _ in entries(file)} == {"yolov8n"}


def test_no_store_is_read_or_written_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    board = EmulatedBoard("nano", "resnet-18")
    with EnergyGovernor("1.5x", device=board) as governor, governor.inference():
        board.infer()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["corrupt", "no folder", "newer", "no server"])
def test_governing_goes_on_without_a_store(
    what: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    profiles: object = file
    if what == "corrupt":
        file.write_bytes(b"not a database" * 1000)
    elif what == "no folder":
        profiles = file / "profiles.db"
    elif what == "newer":
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE governor_schema SET version = 999")
        connection.close()
    else:
        pytest.importorskip("psycopg", reason="psycopg is not installed; it is the extra postgres")
        profiles = f"postgresql://me:{PASSWORD}@127.0.0.1:1/fleet"
    before = file.read_bytes()
    with caplog.at_level(logging.WARNING, "governor"):
        governor, _, _ = govern(profiles, slo="25ms")
    assert governor.operating_point is not None
    said = [record.getMessage() for record in caplog.records if "profile store" in record.message]
    assert len(said) == 1
    assert said[0].endswith("governing goes on without it")
    assert PASSWORD not in caplog.text
    assert file.read_bytes() == before


def test_a_server_that_dies_during_the_run_costs_its_profile_alone(learnt: Path) -> None:
    server = PostgresServer()
    try:
        with ProfileStore(server.url) as store:
            store.save_all(entries(learnt))
            board = EmulatedBoard("agx-orin")
            with EnergyGovernor("30ms", device=board, profiles=store) as governor:
                server.kill()
                while governor.phase != "hold":
                    with governor.inference():
                        board.infer()
            assert len(governor.trials) < 6  # what had been read by then was of use
            server.start()
            assert [key.slo for key, _ in store.entries()] == ["p95 <= 50 ms"]
    finally:
        server.stop()


def test_in_real_time_nobody_waits_for_the_store(file: Path) -> None:
    [(key, _)] = entries(file)
    space = EmulatedBoard("agx-orin").space
    told: list[PastPhase] = []
    experience = Experience(ProfileStore(file), key, space, in_thread=True, owned=True)
    experience.begin(told.extend)
    experience.close()  # waits until all is done
    [phase] = told
    assert experience.background is not None
    again = Experience(ProfileStore(file), key, space, in_thread=True, owned=True)
    again.begin(told.extend)
    again.keep(phase, key.slo)
    again.close()
    assert [profile.runs for _, profile in entries(file)] == [2]


def test_a_server_that_hangs_keeps_nobody(
    learnt: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed; pip install psycopg")
    monkeypatch.setattr(experience_module, "PATIENCE_S", 0.2)
    [(key, profile)] = entries(learnt)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"postgresql://me@127.0.0.1:{hanging.getsockname()[1]}/fleet"
        space = EmulatedBoard("agx-orin").space
        experience = Experience(ProfileStore(url), key, space, in_thread=True, owned=True)
        experience.begin(lambda _: pytest.fail("nothing was read"))
        assert profile.chosen_trial is not None
        chosen = profile.chosen_trial.trial
        trials = tuple(one.trial for one in profile.trials)
        experience.keep(PastPhase(profile.slo_s, trials, chosen), key.slo)
        experience.close()
        assert experience.background is None


@pytest.mark.parametrize(
    "wrong", [{"profiles": "mysql://h/d"}, {"profiles": True, "workload": "a@b"}, {"workload": " "}]
)
def test_a_wrong_argument_is_refused_before_anything(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        EnergyGovernor("50ms", device="emulated:nano/resnet-18", **wrong)


def test_the_demo_starts_from_its_last_run(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--profiles", str(file), "--seed", "1"]) == 0
    assert "Trials: 1 in" in capsys.readouterr().out
    assert main(["demo", "--profiles", "mysql://h/d"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
