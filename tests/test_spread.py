"""Work spread over processes and clusters: the same results in the same order, wherever."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from analytic_sweep import analytic_sweep
from threadpoolctl import threadpool_info

import governor
from governor import spread as places
from governor.cli.main import main
from governor.errors import InputError, MissingExtraError
from governor.replay import ReplayRun, Task, run
from governor.spread import Place, spread
from governor.units import parse_bound

TASKS = [
    Task(analytic_sweep(), parse_bound("1.3x"), policy, seed, 5, 0.02)
    for policy in ("bayesian", "random")
    for seed in range(3)
]


def without_time(found: ReplayRun) -> ReplayRun:
    return dataclasses.replace(found, search_seconds=0.0)


def runs(place: Place) -> list[ReplayRun]:
    return [without_time(one) for one in spread(run, TASKS, place)]


def optional(module: str) -> Any:
    try:
        return import_module(module)
    except Exception as error:  # Ray meets all kinds where a driver that it looks for is broken
        pytest.skip(f"{module}: {error}; python -m pip install 'energy-governor[cluster]'")


@pytest.fixture(scope="module")
def alone() -> list[ReplayRun]:
    return runs(Place(1))


def process_and_threads(_: int) -> tuple[int, int]:
    import numpy as np

    np.linalg.inv(np.eye(2))
    return os.getpid(), max(int(each["num_threads"]) for each in threadpool_info())


def fail(number: int) -> int:
    if number == 3:
        raise InputError("3 is too many")
    return number


def test_several_processes_give_the_same_runs_in_the_same_order(alone: list[ReplayRun]) -> None:
    assert runs(Place(2)) == alone


def test_each_process_uses_one_thread() -> None:
    for jobs in (1, 2):
        found = list(spread(process_and_threads, range(4), Place(jobs)))
        assert {threads for _, threads in found} == {1}
        assert (os.getpid() in {process for process, _ in found}) == (jobs == 1)


def test_ctrl_c_is_left_to_the_process_that_shares_the_work_out() -> None:
    # In a process of its own: the first that multiprocessing starts is the one in question.
    script = """
import signal
from functools import partial
from governor.spread import Place, spread
blocked = partial(signal.pthread_sigmask, signal.SIG_BLOCK)
assert all(signal.SIGINT in mask for mask in spread(blocked, [()] * 4, Place(2)))
assert signal.SIGINT not in blocked(())
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_short_work_starts_no_processes() -> None:
    assert {pid for pid, _ in spread(process_and_threads, range(4), Place())} == {os.getpid()}


def test_long_work_starts_them_once_that_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PAYS_S", 0.0)
    monkeypatch.setattr(places, "_cores", lambda: 2)
    found = [pid for pid, _ in spread(process_and_threads, range(4), Place())]
    assert found[0] == os.getpid()
    assert os.getpid() not in found[1:]


def test_an_error_in_another_process_arrives_as_itself() -> None:
    with pytest.raises(InputError, match="3 is too many"):
        list(spread(fail, range(8), Place(2)))


def test_a_dask_cluster_gives_the_same_runs(
    alone: list[ReplayRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = optional("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        place = Place(cluster="dask", scheduler=cluster.scheduler_address)
        assert runs(place) == alone
        assert {threads for _, threads in spread(process_and_threads, range(2), place)} == {1}
        monkeypatch.setattr(governor, "__version__", "0.0.1")
        with pytest.raises(InputError, match=r"this machine 0\.0\.1; install one version"):
            runs(place)


def test_a_ray_cluster_gives_the_same_runs(alone: list[ReplayRun]) -> None:
    """The slowest of these by far: Ray takes its time to start and to end."""
    optional("ray")
    assert runs(Place(2, "ray")) == alone


@pytest.mark.parametrize(("cluster", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_a_scheduler_that_does_not_answer_is_said_so(
    cluster: Any, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    optional(module)
    monkeypatch.setattr(places, "PATIENCE_S", 0.2)
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9: no (Dask|Ray) \w+ answers"):
        runs(Place(cluster=cluster, scheduler="127.0.0.1:9"))


@pytest.mark.parametrize(("cluster", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_library_names_its_extra(
    cluster: Any, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"energy-governor\[cluster\]"):
        runs(Place(cluster=cluster))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--scheduler", "tcp://10.0.0.1:8786"], "needs --backend dask or --backend ray"),
        (["--scheduler", "auto", "--backend", "ray", "--jobs", "2"], "a cluster has its own"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["replay", str(tmp_path / "t.csv"), "--latency-slo", "1x", *options]
    assert main(arguments) == 2
    assert says in capsys.readouterr().err
