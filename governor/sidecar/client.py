"""Show a pipeline's inferences to ``governor sidecar``, from any process on the machine.

One file for Python 3.6 and later that needs nothing but the standard library: copy it beside
your program, or import it from the package::

    from governor_client import frame       # or: from governor.sidecar.client import frame

    for image in camera:
        with frame():
            detections = model(image)

It never waits and never raises on account of the sidecar: where that is absent or busy, frames
are counted in ``Client.lost`` and the program runs on. The sidecar's socket is taken from the
environment variable GOVERNOR_SOCKET, the application's name from GOVERNOR_APP.
"""

import os
import socket
import struct
import time
from types import TracebackType
from typing import Optional, Type

SOCKET = "/run/energy-governor/sidecar.sock"
APP = "main"
PAUSE_S = 0.5
"""So long nothing is sent after the sidecar was found absent."""

_ANSWER = struct.Struct("<d")


class Client:
    """A way to the sidecar. Usable from several threads, and across a fork.

    Attributes:
        sent: frames handed to the sidecar.
        lost: frames that were not: it was absent, or it could not follow.
    """

    def __init__(
        self,
        app: Optional[str] = None,
        path: Optional[str] = None,
        emulated: Optional[bool] = None,
    ) -> None:
        """Nothing is opened before the first frame.

        Args:
            app: the name that the sidecar knows this application's latency bound by.
            path: of the sidecar's socket.
            emulated: whether to sleep after each frame for as long as the sidecar says that it
                would have taken longer on the board it emulates. For trials without a board;
                by default where GOVERNOR_EMULATED is set to 1.
        """
        self.sent = 0
        self.lost = 0
        self._app = app or os.environ.get("GOVERNOR_APP") or APP
        self._path = path or os.environ.get("GOVERNOR_SOCKET") or SOCKET
        if emulated is None:
            emulated = os.environ.get("GOVERNOR_EMULATED") == "1"
        self._slowdown: Optional[float] = 1.0 if emulated else None
        self._socket: Optional[socket.socket] = None
        self._quiet_until_s = 0.0
        self._ticked_s: Optional[float] = None

    def frame(self, items: int = 1) -> "Frame":
        """``with client.frame():`` around one inference; one that raises is not counted."""
        return Frame(self, items)

    def tick(self, items: int = 1) -> None:
        """Call once a turn of the loop: the time between two calls is one inference."""
        last_s = self._ticked_s
        now_s = time.monotonic()
        if last_s is not None:
            now_s = self.record(last_s, now_s, items, b"t")
        self._ticked_s = now_s

    def record(self, start_s: float, end_s: float, items: int = 1, kind: bytes = b"f") -> float:
        """An inference that was timed with ``time.monotonic()``; returns when it ended."""
        slept_s = 0.0
        if self._slowdown is not None:
            slept_s = (end_s - start_s) * (self._slowdown - 1.0)
            if slept_s > 0.0:
                time.sleep(slept_s)
            slept_s, end_s = max(time.monotonic() - end_s, 0.0), time.monotonic()
        if end_s >= self._quiet_until_s and self._send(kind, start_s, end_s, items, slept_s):
            self.sent += 1
        else:
            self.lost += 1
        return end_s

    def bound(self, latency_s: float) -> bool:
        """From now on, this application's latency bound is so many seconds.

        Returns False where the sidecar was absent or busy: say it again. A sidecar that is
        started anew knows only the bound of its command line.
        """
        return self._send(b"b", latency_s, 0.0, 1, 0.0)

    def close(self) -> None:
        """Let go of the socket; the next frame opens another one."""
        end, self._socket = self._socket, None
        if end is not None:
            end.close()

    def __del__(self) -> None:
        self.close()

    def _send(self, kind: bytes, start_s: float, end_s: float, items: int, slept_s: float) -> bool:
        """Returns whether the sidecar took it."""
        try:
            end = self._socket
            if end is None:
                end = self._open()
            end.sendto(
                b"1 %s %s %.9f %.9f %d %.9f"
                % (kind, self._app.encode("ascii", "replace"), start_s, end_s, items, slept_s),
                self._path,
            )
            if self._slowdown is not None:
                self._hear(end)
            return True
        except BlockingIOError:  # it is there, but cannot follow
            return False
        except (OSError, ValueError, TypeError):
            self._quiet_until_s = end_s + PAUSE_S
            return False

    def _open(self) -> socket.socket:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        end.setblocking(False)
        if self._slowdown is not None:
            end.bind("")  # Linux: an abstract address of its own, for the answers
        self._socket = end
        return end

    def _hear(self, end: socket.socket) -> None:
        """Of the answers that have come, the latest counts."""
        try:
            while True:
                self._slowdown = max(1.0, min(_ANSWER.unpack(end.recv(16))[0], 100.0))
        except (OSError, struct.error):
            pass


class Frame:
    """One inference."""

    __slots__ = ("_client", "_items", "_start_s")

    def __init__(self, client: Client, items: int) -> None:
        self._client = client
        self._items = items
        self._start_s = 0.0

    def __enter__(self) -> "Frame":
        self._start_s = time.monotonic()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if kind is None:
            self._client.record(self._start_s, time.monotonic(), self._items)


_shared = Client()
bound = _shared.bound
frame = _shared.frame
tick = _shared.tick
