"""The lease keeper: the process that sets the knobs and puts them back.

Standard library only. It runs as

``python -m governor.lease.keeper private FD ROOT FOLDER``
    for one client, at the other end of the socket FD; ends with it.
``python -m governor.lease.keeper serve SOCKET GROUP ROOT FOLDER``
    for one client after another, at a Unix socket that GROUP may open.

ROOT is where the kernel's files lie (``/``), FOLDER that of journal and lock. Everything is
put back when the holder's connection ends or its process dies (a forked child may hold the
connection open), when it breaks the protocol, on ``release``, and on SIGTERM, SIGINT and
SIGHUP. If the keeper is killed, the journal lets the next one, or ``governor restore``, do it.
"""

from __future__ import annotations

import math
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType

from governor.errors import GovernorError, InputError
from governor.lease.connection import Connection, Peer
from governor.lease.custody import Custody
from governor.lease.errors import (
    LeaseEndedError,
    LeaseError,
    LeaseHeldError,
    ProtocolError,
    RefusedError,
    RestoreError,
)
from governor.lease.hands import Answer, Hands, Job, Outcome
from governor.lease.listener import listen, tell_systemd, watchdog_s
from governor.lease.lock import Tenure, held_message
from governor.lease.process import Process
from governor.lease.protocol import Request, failure

HARDWARE_S = 2.0
"""The longest that a client waits for the kernel, where a write to sysfs can block for 5 s."""
TAKE_S = 10.0
"""The same for taking the lease: a look for hardware, and what an earlier lease left."""
STOP_S = 20.0
"""The longest that a keeper told to stop waits for the kernel; the unit's limit is 30 s."""
LOOK_S = 0.5
"""How often it is checked that the holder lives."""
MAX_CONNECTIONS = 64


def log(text: str) -> None:
    """A line to stderr, which is the journal of a systemd unit."""
    with suppress(OSError):  # The terminal may be gone; what is to be done remains.
        print(f"governor keeper: {text}", file=sys.stderr, flush=True)


class Keeper:
    """Serves clients in one thread; hardware is the business of the :class:`Hands`."""

    def __init__(self, custody: Custody, group: int | None = None) -> None:
        """
        Args:
            group: that may connect, besides root and this process's own user.
        """
        self._custody = custody
        self._group = group
        self._hands = Hands()
        self._selector = selectors.DefaultSelector()
        self._on_readable(self._hands.wakeup, lambda _events: self._hands.collect())
        self._listener: socket.socket | None = None
        self._path = Path()
        self._connections: dict[Connection, Job | None] = {}
        self._holder: Connection | None = None
        self._looked_s = 0.0
        self._sign_every_s = math.inf
        self._sign_s = time.monotonic()
        self._stop_s = math.inf
        self._unrestored = False
        self._signal = ""
        self._watch_signals()
        self._hands.submit(Job("find knobs", self._begin, self._note, math.inf))

    def listen(self, listener: socket.socket, path: Path) -> None:
        """Take clients from this socket, which lies at ``path``."""
        self._listener, self._path = listener, path
        self._sign_every_s = watchdog_s()  # that of a private keeper's client is not its own
        self._on_readable(listener, lambda _events: self._accept(listener))

    def adopt(self, end: socket.socket) -> None:
        """Serve the client at the other end of this socket."""
        self._take_in(Connection(end, Peer.of(end)))

    def run(self) -> bool:
        """Serve until told to stop, or until the private client is gone.

        Returns:
            whether everything is as it was found.
        """
        while not self._finished():
            for key, events in self._selector.select(self._wait_s()):
                key.data(events)
            self._look()
        if self._hands.busy:
            log("the kernel did not come back in time; needed: sudo governor restore")
        return not (self._unrestored or self._hands.busy)

    # Time --------------------------------------------------------------------------------

    def _finished(self) -> bool:
        if self._signal or (self._listener is None and not self._connections):
            self._stop(self._signal or "the client is gone")
        if math.isinf(self._stop_s):
            return False
        return not self._hands.busy or time.monotonic() > self._stop_s

    def _wait_s(self) -> float | None:
        deadline_s = min(
            self._hands.next_deadline_s(),
            self._stop_s,
            self._sign_s + self._sign_every_s,
            math.inf if self._holder is None else self._looked_s + LOOK_S,
            *(each.deadline_s(each is self._holder) for each in self._connections),
        )
        return None if math.isinf(deadline_s) else max(0.0, deadline_s - time.monotonic())

    def _look(self) -> None:
        """Everything that time brings: a late kernel, a dead holder, silent clients."""
        self._hands.collect()
        now_s = time.monotonic()
        if now_s >= self._sign_s + self._sign_every_s:
            self._sign_s = now_s
            tell_systemd("WATCHDOG=1")
        if self._holder is not None and now_s >= self._looked_s + LOOK_S:
            self._looked_s = now_s
            if not self._holder.peer.process.alive():
                self._drop(self._holder, "it died")
        for connection in list(self._connections):
            if now_s >= connection.deadline_s(connection is self._holder):
                self._drop(connection, "it fell silent")

    def _watch_signals(self) -> None:
        """Let SIGTERM, SIGINT and SIGHUP wake the loop, and stop it in order."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._wakeup, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._on_readable(self._wakeup, lambda _events: self._wakeup.recv(4096))

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # Only a mark: a signal may come in the middle of anything.
        self._signal = signal.Signals(number).name

    def _stop(self, reason: str) -> None:
        if not math.isinf(self._stop_s):
            return
        self._stop_s = time.monotonic() + STOP_S
        if self._listener is not None:
            self._selector.unregister(self._listener)
            with suppress(OSError):
                self._path.unlink()
            self._listener.close()
        for connection in list(self._connections):
            connection.send(failure(LeaseEndedError(f"the lease keeper was stopped: {reason}")))
            self._drop(connection, reason)

    # Clients -----------------------------------------------------------------------------

    def _on_readable(self, end: socket.socket, call: Callable[[int], object]) -> None:
        self._selector.register(end, selectors.EVENT_READ, call)

    def _accept(self, listener: socket.socket) -> None:
        try:
            end, _address = listener.accept()
        except OSError as error:
            log(f"a client could not be taken: {error}")
            return
        connection = Connection(end, Peer.of(end))
        if not connection.peer.may_connect(self._group):
            self._turn_away(connection, "not in the group of this socket")
        elif len(self._connections) >= MAX_CONNECTIONS:
            self._turn_away(connection, f"{MAX_CONNECTIONS} clients are connected already")
        else:
            self._take_in(connection)

    def _take_in(self, connection: Connection) -> None:
        self._connections[connection] = None
        self._on_readable(connection.end, partial(self._on_ready, connection))

    def _turn_away(self, connection: Connection, reason: str) -> None:
        log(f"refused {connection.peer}: {reason}")
        connection.send(failure(LeaseError(f"refused: {reason}")))
        connection.close()

    def _on_ready(self, connection: Connection, events: int) -> None:
        if connection not in self._connections:
            return
        try:
            alive = connection.flush() if events & selectors.EVENT_WRITE else True
            if alive and events & selectors.EVENT_READ:
                alive = connection.receive()
            if alive:
                self._serve(connection)
            else:
                self._drop(connection, "its connection ended")
        except ProtocolError as error:
            self._expel(connection, error)

    def _serve(self, connection: Connection) -> None:
        """Begin to answer what has come whole, one request at a time."""
        while request := connection.next_request():
            connection.awaiting = True
            try:
                self._begin_answer(connection, request)
            except LeaseError as error:
                self._reply(connection, request, error)
            if connection not in self._connections:
                return
        self._selector.modify(
            connection.end,
            selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0),
            partial(self._on_ready, connection),
        )

    def _reply(self, connection: Connection, request: Request, outcome: Outcome) -> None:
        if connection not in self._connections:
            return
        connection.awaiting = False
        self._connections[connection] = None
        answer = failure(outcome) if isinstance(outcome, LeaseError) else outcome
        if not connection.send({"id": request.id, **answer}):
            self._drop(connection, "it does not read its replies")

    def _expel(self, connection: Connection, error: ProtocolError) -> None:
        log(f"refused {connection.peer}: {error}")
        connection.send(failure(error))
        self._drop(connection, "it broke the protocol")

    def _drop(self, connection: Connection, reason: str) -> None:
        """Hang up; if it holds the lease, put everything back."""
        job = self._connections.pop(connection)
        if job is not None:
            self._hands.cancel(job)
        if connection is self._holder:
            self._inform(f"restoring what {connection.peer} has set: {reason}")
            self._end_lease(self._note)
        self._selector.unregister(connection.end)
        connection.close()

    # Requests ----------------------------------------------------------------------------

    def _begin_answer(self, connection: Connection, request: Request) -> None:
        custody = self._custody
        if request.do == "status":
            self._reply(connection, request, self._status())
        elif request.do == "hello":
            self._ask(connection, request, custody.describe)
        elif request.do == "read":
            self._ask(connection, request, lambda: {"read": custody.read()})
        elif request.do == "acquire":
            self._acquire(connection, request)
        elif self._holder is not connection:
            raise RefusedError(f"{request.do} without the lease: acquire it first")
        elif request.do == "set":
            self._ask(connection, request, lambda: {"read": custody.set(request.knobs)})
        else:
            self._end_lease(partial(self._released, connection, request))

    def _ask(self, connection: Connection, request: Request, work: Callable[[], Answer]) -> None:
        what = " ".join((request.do, *request.knobs))
        job = Job(what, work, partial(self._answered, connection, request), HARDWARE_S)
        self._connections[connection] = self._hands.submit(job)

    def _answered(self, connection: Connection, request: Request, outcome: Outcome) -> None:
        """Reply, and go on to what the client has asked for meanwhile."""
        self._reply(connection, request, outcome)
        if connection in self._connections:
            try:
                self._serve(connection)
            except ProtocolError as error:
                self._expel(connection, error)

    def _acquire(self, connection: Connection, request: Request) -> None:
        if self._holder is not None:
            holder = self._holder.peer.process
            if holder.alive():
                raise LeaseHeldError(held_message(Tenure(holder, Process.of(os.getpid()))))
            self._drop(self._holder, "it died")
        self._holder = connection

        def taken(outcome: Outcome) -> None:
            if isinstance(outcome, LeaseError):
                self._end_lease(lambda _nothing: self._note(outcome))
            else:
                self._inform(f"lease for {connection.peer}")
            self._answered(connection, request, outcome)

        def take() -> Answer:
            self._custody.take(connection.peer.process)
            return self._custody.describe()

        self._connections[connection] = self._hands.submit(Job("acquire", take, taken, TAKE_S))

    def _released(self, connection: Connection, request: Request, outcome: Outcome) -> None:
        self._note(outcome)
        self._answered(connection, request, outcome)

    def _end_lease(self, report: Callable[[Outcome], None]) -> None:
        self._holder = None
        self._hands.submit(Job("put everything back", self._give_back, report, math.inf))

    def _status(self) -> Answer:
        tenure = self._custody.lock.tenure()
        return {
            "keeper": os.getpid(),
            "holder": None if tenure is None else str(tenure.holder),
        }

    # In the hands' thread ----------------------------------------------------------------

    def _begin(self) -> Answer:
        """Look what there is, and put back what a keeper before this one could not."""
        with suppress(LeaseHeldError):
            left = self._custody.put_back(Process.of(os.getpid()))
            if left is not None:
                log(f"restored what {left.holder} had left set: {', '.join(left.snapshots)}")
        return {}

    def _give_back(self) -> Answer:
        self._custody.give_back()
        return {}

    def _inform(self, text: str) -> None:
        """Log the course of things; a private keeper's stderr is that of the application."""
        if self._listener is not None:
            log(text)

    def _note(self, outcome: Outcome) -> None:
        """Keep in mind and in the log whether all went back."""
        self._unrestored = isinstance(outcome, RestoreError)
        if isinstance(outcome, LeaseError):
            log(str(outcome))


def main(words: Sequence[str]) -> int:
    """Run a keeper; returns its exit code: 0 all is as found, 1 it is not, 2 bad usage."""
    os.umask(0o022)
    try:
        if len(words) == 4 and words[0] == "private":
            keeper = Keeper(Custody(Path(words[2]), Path(words[3])))
            keeper.adopt(socket.socket(fileno=int(words[1])))
        elif len(words) == 5 and words[0] == "serve":
            path = Path(words[1])
            custody = Custody(Path(words[3]), Path(words[4]))
            listener, group = listen(path, words[2])
            keeper = Keeper(custody, group)
            keeper.listen(listener, path)
            log(f"serving at {words[1]}")
            tell_systemd("READY=1")
        else:
            raise InputError("usage: private FD ROOT FOLDER | serve SOCKET GROUP ROOT FOLDER")
    except GovernorError as error:
        log(str(error))
        return 2 if isinstance(error, InputError) else 1
    return 0 if keeper.run() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
