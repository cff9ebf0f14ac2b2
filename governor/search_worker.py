"""Runs a policy in a child process of low priority, asked and told over pipes.

So the application's process imports neither scipy nor scikit-learn, and a policy that
thinks for long delays neither the application nor the SLO guard. Messages are lines of
JSON, versioned and limited in length; nothing is ever unpickled. The child ends with its
parent, however that ends, and with the search.
"""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np

from governor.errors import PolicyError
from governor.objective import Objective
from governor.roofline.fit import Prior
from governor.space import Knob, OperatingPoint, Space
from governor.trial import Trial
from policies.background import Background, Donor
from policies.policy import (
    Choice,
    NotReady,
    Policy,
    Problem,
    Proposal,
    check_policy_name,
    load_policy,
)

VERSION = 2
MOST_BYTES = 4 * 1024 * 1024
"""Of one message. The largest is a space: a bit a setting and the levels of each knob."""
PATIENCE_S = 30.0
"""A child that has not answered by then is started again."""
MOST_RESTARTS = 3
"""Of one search, before the policy is given up."""
WATCH_S = 0.5
"""How often the child looks whether its parent still lives."""

Message = dict[str, Any]

# What crosses the pipe --------------------------------------------------------------------


def encode_problem(problem: Problem) -> Message:
    """The space as its knobs' levels, and a bit for each setting of their product."""
    space = problem.space
    present = np.zeros([len(knob.levels) for knob in space.knobs], dtype=np.bool_)
    present[_places(space)] = True
    return {
        "knobs": {knob.name: knob.levels for knob in space.knobs},
        "present": base64.b64encode(np.packbits(present).tobytes()).decode(),
        "slo_s": problem.slo_s,
        "seed": problem.seed,
        "objective": asdict(problem.objective),
        "prior": {"mean": problem.prior.mean.tolist(), "sd": problem.prior.sd.tolist()},
        "background": _encode_background(problem.background),
    }


def _encode_background(background: Background | None) -> Message | None:
    if background is None:
        return None
    donors = [
        {
            "board": donor.board,
            "workload": donor.workload,
            "trials": [encode_trial(trial) for trial in donor.trials],
        }
        for donor in background.donors
    ]
    return {"board": background.board, "workload": background.workload, "donors": donors}


def _decode_background(message: Message | None) -> Background | None:
    if message is None:
        return None
    donors = [
        Donor(each["board"], each["workload"], tuple(map(decode_trial, each["trials"])))
        for each in message["donors"]
    ]
    return Background(message["board"], message["workload"], tuple(donors))


def _places(space: Space) -> tuple[Any, ...]:
    return tuple(
        np.searchsorted(knob.levels, space.settings[:, column])
        for column, knob in enumerate(space.knobs)
    )


def decode_problem(message: Message) -> Problem:
    """The opposite of :func:`encode_problem`; settings come in the order of the product."""
    knobs = [Knob(name, tuple(levels)) for name, levels in message["knobs"].items()]
    shape = [len(knob.levels) for knob in knobs]
    bits = np.frombuffer(base64.b64decode(message["present"]), dtype=np.uint8)
    present = np.flatnonzero(np.unpackbits(bits, count=math.prod(shape)))
    columns = [
        np.asarray(knob.levels)[place]
        for knob, place in zip(knobs, np.unravel_index(present, shape), strict=True)
    ]
    space = Space(knobs, np.column_stack(columns))
    prior = Prior(**{name: np.array(values) for name, values in message["prior"].items()})
    objective = Objective(**message["objective"])
    background = _decode_background(message["background"])
    return Problem(space, message["slo_s"], message["seed"], prior, objective, background)


def encode_trial(trial: Trial) -> Message:
    """A trial at a point of the space."""
    return {**asdict(replace(trial, by_stream=())), "point": dict(trial.point or {})}


def decode_trial(message: Message) -> Trial:
    """The opposite of :func:`encode_trial`."""
    return Trial(**_with_point(message))


def _with_point(message: Message) -> Message:
    return {**message, "point": OperatingPoint(message["point"])}


def _encode_answer(answer: Proposal | Choice | None) -> Message | None:
    return None if answer is None else {**asdict(answer), "point": dict(answer.point)}


# The parent's side ------------------------------------------------------------------------


class SearchWorker:
    """The child process and its pipes. :meth:`policy_for` is what a controller needs.

    Used from one thread at a time.
    """

    def __init__(self, policy_name: str) -> None:
        """Raises InputError when no policy has this name; starts nothing yet."""
        check_policy_name(policy_name)
        self.policy_name = policy_name
        self._child: subprocess.Popen[bytes] | None = None
        self._outbox = bytearray()
        self._inbox = bytearray()

    @property
    def pid(self) -> int | None:
        """Of the child, None while there is none."""
        return None if self._child is None else self._child.pid

    @property
    def alive(self) -> bool:
        """Whether a child runs."""
        return self._child is not None and self._child.poll() is None

    def policy_for(self, problem: Problem) -> RemotePolicy:
        """The policy, to be asked and told from here."""
        return RemotePolicy(self, problem)

    def start(self) -> None:
        """Start a child, and let it load its policy meanwhile."""
        self.rest()
        if not sys.executable:
            raise PolicyError(
                "this Python does not know its own executable, so no search worker can be "
                "started; give a policy object instead of a name"
            )
        child = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
            [sys.executable, "-m", "governor.search_worker", str(os.getpid()), self.policy_name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",  # -m puts the working directory first on the path: not the application's
            env=_environment(),
            start_new_session=True,  # a Ctrl-C at the terminal is not for the child
        )
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
        self._child = child

    def rest(self) -> None:
        """End the child; the next question starts one again."""
        child, self._child = self._child, None
        self._outbox.clear()
        self._inbox.clear()
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def send(self, message: Message) -> None:
        """Queue a message for the child, and send what the pipe takes."""
        line = json.dumps({"v": VERSION, **message}).encode() + b"\n"
        if len(line) > MOST_BYTES:
            raise PolicyError(
                f"the space is too large for the search worker ({len(line)} bytes, at most "
                f"{MOST_BYTES}); limit a knob"
            )
        self._outbox += line
        self._flush()

    def receive(self) -> Message | None:
        """An answer, where one is there. Never waits.

        Raises:
            PolicyError: what came is no answer.
        """
        self._flush()
        child = self._child
        if child is None or child.stdout is None:
            return None
        with suppress(BlockingIOError):
            while chunk := os.read(child.stdout.fileno(), 65536):
                self._inbox += chunk
                if len(self._inbox) > MOST_BYTES:
                    raise PolicyError("the search worker's answer is too long")
        line, newline, rest = bytes(self._inbox).partition(b"\n")
        if not newline:
            return None
        self._inbox[:] = rest
        return _parse(line)

    def _flush(self) -> None:
        child = self._child
        if child is None or child.stdin is None:
            return
        with suppress(BlockingIOError, BrokenPipeError):  # a dead child is seen by `alive`
            while self._outbox:
                del self._outbox[: os.write(child.stdin.fileno(), self._outbox)]


def _environment() -> dict[str, str]:
    """Ours, with the import path of this process, and one thread for linear algebra."""
    paths = [os.path.abspath(path) for path in sys.path if path]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    quiet = {"PYTHONWARNINGS": "ignore"}  # its stderr is the application's
    return {**os.environ, **threads, **quiet, "PYTHONPATH": os.pathsep.join(paths)}


def _parse(line: bytes) -> Message:
    try:
        message = json.loads(line)
    except ValueError as error:
        raise PolicyError(f"the search worker sent no JSON: {line[:80]!r}") from error
    if not isinstance(message, dict) or cast(Message, message).get("v") != VERSION:
        raise PolicyError(f"the search worker does not speak version {VERSION}: {line[:80]!r}")
    return cast(Message, message)


class RemotePolicy:
    """A policy in the child. ``ask`` and ``choose`` raise NotReady until the answer is here.

    A child that dies or hangs is started again and told everything once more.
    """

    def __init__(self, worker: SearchWorker, problem: Problem) -> None:
        self._worker = worker
        self._problem = problem
        self._told: list[Trial] = []
        self._question: str | None = None
        self._asked_at_s = 0.0
        self._introduced_to: int | None = None
        self._restarts = 0

    def tell(self, trial: Trial) -> None:
        """Learn from a trial; the answer to an earlier question is void."""
        self._told.append(trial)
        self._question = None
        if self._introduced:
            self._worker.send({"op": "tell", "trial": encode_trial(trial)})

    def ask(self) -> Proposal | None:
        """The next point to try, or NotReady."""
        answer = self._answer("ask")
        if answer is None:
            return None
        return Proposal(**_with_point(answer))

    def choose(self) -> Choice:
        """The point to hold, or NotReady."""
        answer = self._answer("choose")
        if answer is None:
            raise PolicyError("the policy chose nothing")
        return Choice(**_with_point(answer))

    @property
    def _introduced(self) -> bool:
        """Whether the child that runs now knows of this problem."""
        return self._worker.alive and self._worker.pid == self._introduced_to

    def _answer(self, question: str) -> Message | None:
        if not self._introduced:
            self._introduce()
        if self._question != question:
            self._question = question
            self._asked_at_s = time.monotonic()
            self._worker.send({"op": question, "told": len(self._told)})
        while (message := self._worker.receive()) is not None:
            if (message.get("op"), message.get("told")) == (question, len(self._told)):
                self._question = None
                self._restarts = 0
                if "error" in message:
                    raise PolicyError(f"the policy failed: {message['error']}")
                return message["answer"]
        if time.monotonic() - self._asked_at_s > PATIENCE_S:
            self._worker.rest()
        raise NotReady

    def _introduce(self) -> None:
        """Tell the child of the problem and of all trials so far; start one if need be."""
        if self._introduced_to is not None:
            self._restarts += 1
            if self._restarts > MOST_RESTARTS:
                raise PolicyError(f"the search worker ended {self._restarts} times; given up")
        if not self._worker.alive:
            self._worker.start()
        self._introduced_to = self._worker.pid
        self._question = None
        self._worker.send({"op": "start", "problem": encode_problem(self._problem)})
        for trial in self._told:
            self._worker.send({"op": "tell", "trial": encode_trial(trial)})


# The child's side -------------------------------------------------------------------------


def serve(policy_name: str) -> None:
    """Answer questions on standard input until it ends."""
    with suppress(Exception):  # imported while the baseline is measured; asked for again below
        load_policy(policy_name)
    policy: Policy | None = None
    error: str | None = "there is no problem to solve"
    while line := sys.stdin.buffer.readline(MOST_BYTES):
        message = _parse(line)
        operation = message["op"]
        if operation in ("ask", "choose"):
            sys.stdout.buffer.write(_reply(message, policy, error))
            sys.stdout.buffer.flush()
            continue
        try:
            if operation == "start":
                policy = load_policy(policy_name)(decode_problem(message["problem"]))
                error = None
            elif policy is not None:
                policy.tell(decode_trial(message["trial"]))
        except Exception as failure:
            error = repr(failure)


def _reply(message: Message, policy: Policy | None, error: str | None) -> bytes:
    reply: Message = {"v": VERSION, "op": message["op"], "told": message["told"]}
    try:
        if policy is None or error is not None:
            raise PolicyError(error)
        answer = policy.ask() if message["op"] == "ask" else policy.choose()
        reply["answer"] = _encode_answer(answer)
    except Exception as failure:
        reply["error"] = str(failure) or repr(failure)
    return json.dumps(reply).encode() + b"\n"


def _end_with(parent: int) -> None:
    """A pipe may stay open in a forked sibling; that the parent is gone, nothing hides."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(0)


def main(arguments: list[str]) -> None:
    """``python -m governor.search_worker PARENT POLICY``."""
    parent, policy_name = arguments
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    os.nice(19)
    serve(policy_name)


if __name__ == "__main__":
    main(sys.argv[1:])
