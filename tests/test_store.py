"""Profiles outlive the run, whatever happens to the store meanwhile."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from postgres import PASSWORD, PostgresServer
from sqlalchemy import Connection, create_engine, text

from governor import store as store_module
from governor.errors import InputError
from governor.objective import ENERGY
from governor.profile import Entry, Profile, ProfileKey, StoredTrial, dump, load
from governor.store import VERSION, ProfileStore, StoreError, default_path

KEY = ProfileKey(board="agx-orin", space="abc", workload="yolov8n", slo="p95 <= 50 ms")
TRIAL = StoredTrial(
    point={"gpu_hz": 918e6}, latency_s=0.03, latency_se_s=0.0002, mean_latency_s=0.029,
    mean_latency_se_s=0.0001, energy_j=0.4, energy_se_j=0.004, power_w=13.0, inferences=100,
    items=100, duration_s=3.0,
)  # fmt: skip
PROFILE = Profile(
    levels={"gpu_hz": [306e6, 918e6]}, trials=[TRIAL], chosen={"gpu_hz": 918e6}, slo_s=0.05
)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "new" / "profiles.db")
    url = request.getfixturevalue("server").url
    with ProfileStore(url) as store:
        store.forget([key.id for key, _ in store.entries()])
    return url


def learnt(store: ProfileStore, key: ProfileKey) -> Profile:
    found = store.lookup(key)
    assert found is not None
    return found


def test_what_was_saved_is_found_by_its_key_alone(url: str) -> None:
    with ProfileStore(url) as store:
        assert store.lookup(KEY) is None
        store.save(KEY, PROFILE)
    with ProfileStore(url) as store:
        found = learnt(store, KEY)
        assert replace(found, created_s=0.0, updated_s=0.0) == PROFILE
        assert store.lookup(replace(KEY, slo="p95 <= 60 ms")) is None
        assert store.lookup(replace(KEY, objective="delay")) is None


def test_a_trial_is_kept_with_all_that_a_policy_is_told() -> None:
    for warming in (0.03, -0.02):
        warm = replace(TRIAL.trial, warming=warming)
        kept = StoredTrial.of(warm)
        assert kept is not None
        assert kept.trial == warm
    assert StoredTrial.of(replace(TRIAL.trial, warming=math.nan)) is None


def test_a_profile_of_an_earlier_version_is_of_least_energy(url: str) -> None:
    """It said neither what was corrected for heat nor by what was chosen."""
    old = asdict(PROFILE)
    del old["objective"], old["trials"][0]["warming"]
    with ProfileStore(url) as store:
        store.save(KEY, PROFILE)
        with store._transaction() as connection:
            connection.execute(
                text("UPDATE governor_profiles SET profile = :profile"),
                {"profile": json.dumps(old)},
            )
        found = learnt(store, KEY)
    assert found.objective.objective == ENERGY
    assert found.trials == [TRIAL]


def test_the_last_writer_counts(url: str) -> None:
    with ProfileStore(url) as store:
        store.save(KEY, PROFILE)
        first = learnt(store, KEY)
        store.save(KEY, replace(PROFILE, slo_s=0.04))
        second = learnt(store, KEY)
    assert second.slo_s == 0.04
    assert (first.runs, second.runs) == (1, 2)
    assert second.created_s == first.created_s <= first.updated_s <= second.updated_s


def test_the_nearest_of_the_similar_come_first(url: str) -> None:
    nearest_first = [
        replace(KEY, slo="p95 <= 60 ms"),
        replace(KEY, power_mode="15W", space="other"),
        replace(KEY, workload="bert"),
        replace(KEY, workload="lstm", space="other"),
        replace(KEY, board="tx2", space="third"),
    ]
    unlike = replace(KEY, board="tx2", workload="bert")
    emulated = replace(KEY, board="emulated:agx-orin")
    with ProfileStore(url) as store:
        for key in (unlike, emulated, *reversed(nearest_first), KEY):
            store.save(key, PROFILE)
        assert [key for key, _ in store.similar(KEY)] == nearest_first
        assert [key for key, _ in store.similar(KEY, most=2)] == nearest_first[:2]
        assert store.similar(emulated) == []


def test_what_is_forgotten_is_gone(url: str) -> None:
    other = replace(KEY, workload="bert")
    with ProfileStore(url) as store:
        store.save_all([Entry(KEY, PROFILE), Entry(other, PROFILE)])
        assert store.forget([KEY.id, "unknown"]) == 1
        assert [key for key, _ in store.entries()] == [other]


WRITER = """
import sys
from dataclasses import replace
from test_store import KEY, PROFILE
from governor.store import ProfileStore
url, name = sys.argv[1:]
with ProfileStore(url) as store:
    for number in range(20):
        store.save(replace(KEY, workload=f"{name}-{number}"), PROFILE)
        store.save(KEY, PROFILE)
"""


def test_processes_that_write_at_once_lose_nothing(url: str) -> None:
    """Each of them may be the one that makes the tables."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, name],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )
        for name in ("a", "b")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with ProfileStore(url) as store:
        assert len(store.entries()) == 41
        assert learnt(store, KEY).runs == 40


def test_a_newer_schema_is_left_alone(url: str) -> None:
    with ProfileStore(url) as store:
        store.save(KEY, PROFILE)
        with store._transaction() as connection:
            connection.execute(text(f"UPDATE governor_schema SET version = {VERSION + 1}"))
    with ProfileStore(url) as store:
        with pytest.raises(StoreError, match="upgrade energy-governor"):
            store.save(KEY, PROFILE)
        store_module.VERSION, before = VERSION + 1, VERSION
        try:
            assert learnt(store, KEY).runs == 1
        finally:
            store_module.VERSION = before
            with store._transaction() as connection:
                connection.execute(text(f"UPDATE governor_schema SET version = {VERSION}"))


def test_a_server_that_is_killed_loses_nothing_that_was_committed(server: PostgresServer) -> None:
    with ProfileStore(server.url) as store:
        store.save(KEY, PROFILE)
        server.kill()
        with pytest.raises(StoreError):
            store.save(KEY, PROFILE)
        server.start()
        assert learnt(store, KEY).chosen == PROFILE.chosen
        store.save(KEY, PROFILE)


def test_no_message_holds_the_password(server: PostgresServer) -> None:
    for wrong in (
        server.url.replace("fleet:", "nobody:"),
        server.url.replace(f":{PASSWORD}@", "@") + f"&password={PASSWORD}x",
        f"postgresql://fleet:{PASSWORD}@127.0.0.1:1/postgres",
    ):
        with pytest.raises(StoreError) as caught:
            ProfileStore(wrong).entries()
        assert PASSWORD not in "".join(map(str, (caught.value, ProfileStore(wrong))))
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "url", ["", f"mysql://u:{PASSWORD}@h/d", f"postgresql://u:{PASSWORD}@h", f"x y://{PASSWORD}"]
)
def test_a_url_of_something_else_is_refused(url: str) -> None:
    with pytest.raises(InputError) as caught:
        ProfileStore(url)
    assert PASSWORD not in str(caught.value)


def test_the_users_own_file_is_where_state_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_path() == Path("/state/energy-governor/profiles.db")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # which the specification says to ignore
    monkeypatch.setenv("HOME", "/home/me")
    assert default_path() == Path("/home/me/.local/state/energy-governor/profiles.db")


# SQLite's file ----------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "profiles.db"
    with ProfileStore(file) as store:
        store.save(KEY, PROFILE)
    return file


def test_a_locked_file_is_waited_for_and_then_given_up(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PATIENCE_S", 0.1)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ProfileStore(file) as store:
        assert learnt(store, KEY) is not None  # who reads waits for nobody
        with pytest.raises(StoreError, match="locked"):
            store.save(KEY, PROFILE)
        other.close()
        store.save(KEY, PROFILE)
        assert learnt(store, KEY).runs == 2


def test_to_look_for_a_profile_makes_no_file(tmp_path: Path) -> None:
    with ProfileStore(tmp_path / "no" / "such.db") as store:
        assert store.entries() == []
        assert store.lookup(KEY) is None
        assert store.forget([]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"not a database at all, but a text" * 100, b"\0" * 4096])
def test_a_corrupt_file_is_said_and_kept(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "profiles.db"
    file.write_bytes(content)
    with pytest.raises(StoreError, match="not a database"):
        ProfileStore(file).lookup(KEY)
    assert file.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/profiles\.db"):
        ProfileStore(tmp_path / "file" / "profiles.db").lookup(KEY)


def test_a_file_that_may_not_be_written_stays_as_it_is(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only = create_engine("sqlite://", creator=lambda: sqlite3.connect(
        f"file:{file}?mode=ro", uri=True
    ))  # fmt: skip
    monkeypatch.setattr(store_module, "create_engine", lambda *_, **__: read_only)
    before = file.read_bytes()
    with ProfileStore(file) as store:
        assert learnt(store, KEY).chosen == PROFILE.chosen
        with pytest.raises(StoreError, match="readonly"):
            store.save(KEY, PROFILE)
    assert file.read_bytes() == before


def test_a_damaged_profile_is_passed_over(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = replace(KEY, workload="bert")
    with ProfileStore(file) as store:
        store.save(other, PROFILE)
        with store._transaction() as connection:
            connection.execute(
                text("UPDATE governor_profiles SET profile = '{\"trials\": 1}' WHERE id = :id"),
                {"id": KEY.id},
            )
        assert store.lookup(KEY) is None
        assert [key for key, _ in store.entries()] == [other]
    assert KEY.id in caplog.text


def test_an_older_schema_is_brought_up_to_date(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def add_column(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE governor_profiles ADD note TEXT DEFAULT 'old'"))

    monkeypatch.setattr(store_module, "MIGRATIONS", (*store_module.MIGRATIONS, add_column))
    monkeypatch.setattr(store_module, "VERSION", VERSION + 1)
    with ProfileStore(file) as store:
        assert learnt(store, KEY).chosen == PROFILE.chosen
        with store._transaction() as connection:
            assert connection.execute(text("SELECT note FROM governor_profiles")).scalar() == "old"


def test_a_migration_that_fails_changes_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(connection: Connection) -> None:
        connection.execute(text("DROP TABLE governor_profiles"))
        connection.execute(text("SELECT * FROM nowhere"))

    with monkeypatch.context() as patched:
        patched.setattr(store_module, "MIGRATIONS", (*store_module.MIGRATIONS, fail))
        patched.setattr(store_module, "VERSION", VERSION + 1)
        with pytest.raises(StoreError, match="nowhere"):
            ProfileStore(file).entries()
    with ProfileStore(file) as store:
        assert learnt(store, KEY).runs == 1


# Export -----------------------------------------------------------------------------------


def test_an_export_is_read_back_as_it_was() -> None:
    assert load(json.dumps(dump([Entry(KEY, PROFILE)])), "x.json") == [(KEY, PROFILE)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.update(format=2), "format 2"),
        (lambda d: d["profiles"][0]["key"].pop("board"), r"profiles\.0\.key\.board"),
        (lambda d: d["profiles"][0]["profile"].update(trials=[]), "trials"),
        (lambda d: d["profiles"][0]["profile"].update(slo_s=-1), "slo_s"),
        (lambda d: d["profiles"][0]["profile"]["objective"].update(energy=0), "exponents"),
        (lambda d: d["profiles"][0]["profile"]["trials"][0].update(energy_j="much"), "energy_j"),
    ],
)
def test_a_wrong_export_is_refused_with_the_place(change, told: str) -> None:
    document = json.loads(json.dumps(dump([Entry(KEY, PROFILE)])))
    change(document)
    with pytest.raises(InputError, match=f"x.json.*{told}"):
        load(json.dumps(document), "x.json")
