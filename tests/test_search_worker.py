"""The policy in a child process: the same answers, never in the way, never an orphan."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import ToyBoard

from governor.errors import InputError, PolicyError
from governor.roofline.fit import WEAK, Prior
from governor.search_worker import (
    MOST_RESTARTS,
    SearchWorker,
    decode_problem,
    decode_trial,
    encode_problem,
    encode_trial,
)
from governor.space import Knob, Space
from governor.trial import Trial
from policies.policy import NotReady, Problem, load_policy


def trial_at(point, energy_j=1.0, latency_s=0.02):
    return Trial(
        point=point,
        latency_s=latency_s,
        latency_se_s=0.0002,
        mean_latency_s=latency_s,
        mean_latency_se_s=0.0002,
        energy_j=energy_j,
        energy_se_j=0.01,
        power_w=20.0,
        inferences=50,
        items=50,
        duration_s=2.0,
    )


@pytest.fixture
def problem():
    return Problem(ToyBoard().space, 0.040, seed=3)


@pytest.fixture
def worker():
    worker = SearchWorker("coordinate")
    yield worker
    worker.rest()


def once(question):
    """Whether there is an answer, and the answer."""
    try:
        return True, question()
    except NotReady:
        return False, None


def patiently(question, seconds=30.0):
    """Ask until the answer is there, as the control loop does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ready, answer = once(question)
        if ready:
            return answer
        time.sleep(0.02)
    raise AssertionError("no answer")


def gone(pid, seconds=10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        with contextlib.suppress(FileNotFoundError):  # a zombie that nobody has waited for yet
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        time.sleep(0.05)
    return False


def test_the_policy_in_the_child_believes_what_its_problem_says(problem):
    known = Prior(mean=WEAK.mean + 0.1, sd=WEAK.sd / 3)
    again = decode_problem(json.loads(json.dumps(encode_problem(replace(problem, prior=known)))))
    np.testing.assert_array_equal(again.prior.mean, known.mean)
    np.testing.assert_array_equal(again.prior.sd, known.sd)
    assert not again.prior.weak
    assert decode_problem(json.loads(json.dumps(encode_problem(problem)))).prior.weak


def test_a_problem_survives_the_pipe(problem):
    again = decode_problem(encode_problem(problem))
    assert again.space.knobs == problem.space.knobs
    assert (again.space.settings == problem.space.settings).all()
    assert (again.slo_s, again.seed) == (problem.slo_s, problem.seed)


def test_a_space_with_holes_survives_the_pipe(problem):
    space = Space.of_settings(problem.space.names, problem.space.settings[[1, 5, 6, 17]])
    again = decode_problem(encode_problem(Problem(space, 0.04))).space
    assert {again.point(row) for row in range(4)} == {space.point(row) for row in range(4)}


def test_a_large_space_is_a_short_message():
    knobs = [Knob(f"knob{n}_hz", tuple(float(f) for f in range(1, 31))) for n in range(4)]
    assert len(encode_problem(Problem(Space(knobs), 0.04))["present"]) < 200_000


def test_a_trial_survives_the_pipe(problem):
    trial = trial_at(problem.space.point(3))
    assert decode_trial(encode_trial(trial)) == trial


def test_it_answers_as_the_same_policy_in_process_would(worker, problem):
    remote = worker.policy_for(problem)
    local = load_policy("coordinate")(problem)
    point = problem.space.point(problem.space.fastest)
    for energy_j in (1.0, 0.9, 0.8, 0.95):
        for policy in (remote, local):
            policy.tell(trial_at(point, energy_j))
        proposal = patiently(remote.ask)
        assert proposal == local.ask()
        point = proposal.point
    assert patiently(remote.choose) == local.choose()


def test_asking_never_waits(worker, problem):
    remote = worker.policy_for(problem)
    remote.tell(trial_at(problem.space.point(problem.space.fastest)))
    with pytest.raises(NotReady):  # a new interpreter cannot have answered yet
        remote.ask()


def test_a_killed_child_is_started_again_and_told_its_history(worker, problem):
    remote = worker.policy_for(problem)
    local = load_policy("coordinate")(problem)
    for policy in (remote, local):
        policy.tell(trial_at(problem.space.point(problem.space.fastest)))
    first = patiently(remote.ask)
    os.kill(worker.pid, signal.SIGKILL)
    for policy in (remote, local):
        policy.tell(trial_at(first.point, 0.9))
    assert patiently(remote.ask) == local.ask()


def test_a_child_killed_while_it_thinks_is_started_again(worker, problem):
    remote = worker.policy_for(problem)
    remote.tell(trial_at(problem.space.point(problem.space.fastest)))
    with pytest.raises(NotReady):
        remote.ask()
    os.kill(worker.pid, signal.SIGKILL)
    assert patiently(remote.ask) is not None


def test_a_child_that_dies_again_and_again_is_given_up(worker, problem):
    remote = worker.policy_for(problem)
    remote.tell(trial_at(problem.space.point(problem.space.fastest)))
    for _ in range(MOST_RESTARTS + 1):
        once(remote.ask)
        worker.rest()
    with pytest.raises(PolicyError, match="given up"):
        remote.ask()


def test_a_rested_worker_wakes_up_when_it_is_asked(worker, problem):
    remote = worker.policy_for(problem)
    remote.tell(trial_at(problem.space.point(problem.space.fastest)))
    for _ in range(MOST_RESTARTS + 2):
        patiently(remote.ask)
        worker.rest()
    assert not worker.alive


def test_what_the_policy_raises_is_reported(worker, problem):
    remote = worker.policy_for(problem)
    with pytest.raises(PolicyError, match="the policy failed"):
        patiently(remote.choose)  # told nothing


def test_an_unknown_policy_is_refused_before_anything_starts():
    with pytest.raises(InputError, match="unknown policy 'genius'"):
        SearchWorker("genius")


def test_the_child_runs_at_the_lowest_priority(worker):
    worker.start()
    deadline = time.monotonic() + 10
    while os.getpriority(os.PRIO_PROCESS, worker.pid) != 19:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_resting_leaves_no_child(worker):
    worker.start()
    pid = worker.pid
    worker.rest()
    assert gone(pid)


PARENT = """
import os, sys, time
from governor.search_worker import SearchWorker
worker = SearchWorker("coordinate")
worker.start()
if {fork}:
    if os.fork() == 0:
        time.sleep(8)  # a sibling that inherits the pipes and outlives the parent
        os._exit(0)
print(worker.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("fork", [False, True], ids=["alone", "with a forked sibling"])
def test_a_parent_that_is_killed_leaves_no_orphan(fork):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(fork=fork)], stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(pid, seconds=6.0)
