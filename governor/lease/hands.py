"""The one thread that touches hardware, so that a write that hangs hangs nothing else."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from governor.lease.errors import HardwareBusyError, HardwareError, LeaseError

Answer = dict[str, object]
Outcome = Answer | LeaseError


class Job:
    """One piece of work on the hardware.

    Attributes:
        what: it is, for people.
        work: done in the hands' thread; its answer, or a LeaseError raised.
        report: called once in the loop's thread with the outcome, or with a
            HardwareBusyError when ``timeout_s`` is over first.
        timeout_s: infinite: it must be done, however long that takes.
    """

    def __init__(
        self,
        what: str,
        work: Callable[[], Answer],
        report: Callable[[Outcome], None],
        timeout_s: float,
    ) -> None:
        self.what = what
        self.work = work
        self.report = report
        self.timeout_s = timeout_s
        self.deadline_s = math.inf
        self.started = False
        self.reported = False


class Hands:
    """Does jobs in order. All methods belong to the loop's thread.

    A write into sysfs cannot be taken back or interrupted while the kernel sleeps on it.
    So a job that is not done in time is answered for, and what has not begun by then never
    begins; the loop goes on serving, and what must be done (putting back) waits its turn.

    Attributes:
        wakeup: readable when there is an outcome to collect.
    """

    def __init__(self) -> None:
        self.wakeup, self._waker = socket.socketpair()
        self.wakeup.setblocking(False)
        self._jobs: deque[Job] = deque()
        self._done: deque[tuple[Job, Outcome]] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="hands", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a job is waiting, in work or not yet collected."""
        return bool(self._jobs or self._done)

    def submit(self, job: Job) -> Job:
        """Have it done, after all that was asked before."""
        job.deadline_s = time.monotonic() + job.timeout_s
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Forget a job whose outcome nobody wants; one that has begun ends by itself."""
        job.reported = True
        with self._changed:
            if not job.started and job in self._jobs:
                self._jobs.remove(job)

    def collect(self) -> None:
        """Report what is done, and what is not done in time."""
        with suppress(BlockingIOError):
            self.wakeup.recv(4096)
        while self._done:
            job, outcome = self._done.popleft()
            if not job.reported:
                job.reported = True
                job.report(outcome)
        for job in self._overdue():
            self.cancel(job)
            job.report(HardwareBusyError(f"no answer to '{job.what}' in {job.timeout_s:g} s"))

    def next_deadline_s(self) -> float:
        """When :meth:`collect` must be called at the latest, by ``time.monotonic``."""
        with self._changed:
            waiting = (each.deadline_s for each in self._jobs if not each.reported)
            return min(waiting, default=math.inf)

    def _overdue(self) -> list[Job]:
        now_s = time.monotonic()
        with self._changed:
            return [each for each in self._jobs if not each.reported and now_s >= each.deadline_s]

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs:
                    self._changed.wait()
                job = self._jobs[0]
                job.started = True
            outcome = _outcome_of(job)
            with self._changed:
                self._done.append((job, outcome))
                self._jobs.popleft()
            self._waker.send(b"\0")


def _outcome_of(job: Job) -> Outcome:
    try:
        return job.work()
    except LeaseError as error:
        return error
    except Exception as error:
        # A fault of a backend: it must not cost the keeper, who is to put things back.
        return HardwareError(f"{job.what} failed: {type(error).__name__}: {error}")
