"""One client's connection to the keeper: bounded in bytes and in time."""

from __future__ import annotations

import math
import os
import pwd
import socket
import struct
import time
from typing import NamedTuple

from governor.lease.errors import ProtocolError
from governor.lease.process import Process
from governor.lease.protocol import (
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    Message,
    Request,
    encode,
    parse_request,
)

MESSAGE_S = 5.0
"""From the first byte of a request to its last."""
IDLE_S = 30.0
"""Between two requests of a client that does not hold the lease."""
_SO_PEERGROUPS = 59
"""asm-generic/socket.h, Linux 4.13; not named by Python."""
_CREDENTIALS = struct.Struct("iII")


class Peer(NamedTuple):
    """Who is at the other end, as the kernel says (unix(7), SO_PEERCRED)."""

    process: Process
    user: int
    groups: frozenset[int]

    @classmethod
    def of(cls, end: socket.socket) -> Peer:
        """The peer of a connected Unix socket."""
        size = _CREDENTIALS.size
        pid, user, group = _CREDENTIALS.unpack(
            end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        )
        return cls(Process.of(pid), user, frozenset({group, *_more_groups(end, user, group)}))

    def __str__(self) -> str:
        return f"{self.process}, user {self.user}"

    def may_connect(self, group: int | None) -> bool:
        """Whether it may come in: root, the keeper's own user, or in ``group``."""
        return self.user in (0, os.geteuid()) or (group is not None and group in self.groups)


def _more_groups(end: socket.socket, user: int, group: int) -> list[int]:
    try:
        packed = end.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * 1024)
        return [number for (number,) in struct.iter_unpack("I", packed)]
    except OSError:
        # Before Linux 4.13: the groups that the user has by /etc/group.
        try:
            return os.getgrouplist(pwd.getpwuid(user).pw_name, group)
        except KeyError:
            return []


class Connection:
    """Whole requests in, replies out, without ever blocking.

    Attributes:
        peer: who it is.
        awaiting: whether a request is being worked on; the next one waits.
    """

    def __init__(self, end: socket.socket, peer: Peer) -> None:
        end.setblocking(False)
        self.end = end
        self.peer = peer
        self.awaiting = False
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._heard_s = time.monotonic()

    def receive(self) -> bool:
        """Take what has come; False when the client is gone.

        Raises:
            ProtocolError: more than a client may have under way.
        """
        try:
            data = self.end.recv(MAX_REQUEST_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not self._inbox:
            self._heard_s = time.monotonic()
        self._inbox += data
        if len(self._inbox) > 2 * MAX_REQUEST_BYTES:
            raise ProtocolError(f"a message longer than {MAX_REQUEST_BYTES} bytes")
        return bool(data)

    def next_request(self) -> Request | None:
        """The next whole request, when the one before is answered and its reply is taken.

        So a client that asks on and does not read costs the memory of one reply.

        Raises:
            ProtocolError: it is none.
        """
        if self.awaiting or self._outbox:
            return None
        line, found, rest = self._inbox.partition(b"\n")
        if not found:
            if len(line) > MAX_REQUEST_BYTES:
                raise ProtocolError(f"a message longer than {MAX_REQUEST_BYTES} bytes")
            return None
        self._inbox = rest
        self._heard_s = time.monotonic()
        return parse_request(bytes(line))

    def send(self, message: Message) -> bool:
        """Send now or as soon as it goes; False when the client does not read, or is gone."""
        self._outbox += encode(message)
        return len(self._outbox) <= 2 * MAX_REPLY_BYTES and self.flush()

    def flush(self) -> bool:
        """Send what waits; False when the client is gone."""
        try:
            while self._outbox:
                del self._outbox[: self.end.send(self._outbox)]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    @property
    def unsent(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._outbox)

    def deadline_s(self, holder: bool) -> float:
        """By when it must be heard of again; infinite: whenever it likes."""
        if self.awaiting:
            return math.inf
        if self._inbox:
            return self._heard_s + MESSAGE_S
        return math.inf if holder else self._heard_s + IDLE_S

    def close(self) -> None:
        """Hang up."""
        self.end.close()
