"""The lease's messages: JSON, one a line, versioned and bounded. Standard library only.

A request is ``{"v": 1, "id": 7, "do": "set", "knobs": {"gpu_hz": 306000000.0}}``; its reply
carries the same id and either what was asked for or ``error`` (a code) and ``message``. A
client names knobs and levels; no path and no file's content crosses the socket.

========  ==================================================================
hello     what there is to set: ``hardware``, ``knobs`` with their levels
acquire   the lease, for as long as this connection and its process last
set       set ``knobs``; answers ``read``, what the kernel then says of them
read      ``read``: every knob
release   put everything back and end the lease
status    ``keeper`` and ``holder``; never touches the hardware
========  ==================================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, cast

from governor.lease.errors import ERRORS, LeaseError, ProtocolError

VERSION = 1
VERBS = frozenset({"hello", "acquire", "set", "read", "release", "status"})
MAX_REQUEST_BYTES = 4096
"""A request for thirty knobs is under 1 kB."""
MAX_REPLY_BYTES = 1 << 20
"""``hello`` lists every level of every knob: a few kB on a Jetson, more with watt limits."""
MAX_KNOBS = 64

Message = Mapping[str, object]


class Request(NamedTuple):
    """One checked request.

    Attributes:
        id: the client's own number for it.
        do: one of ``VERBS``.
        knobs: levels by knob, finite; only of ``set``.
    """

    id: int
    do: str
    knobs: Mapping[str, float] = MappingProxyType({})


def encode(message: Message) -> bytes:
    """A message as one line."""
    line = json.dumps({"v": VERSION, **message}, allow_nan=False, separators=(",", ":"))
    return line.encode() + b"\n"


def failure(error: LeaseError) -> dict[str, object]:
    """An error as the part of a reply that says so."""
    return {"error": error.code, "message": str(error)}


def parse_request(line: bytes) -> Request:
    """Check one line of a client, of whom nothing is believed.

    Raises:
        ProtocolError: not a request of this version.
    """
    message = _parse(line, MAX_REQUEST_BYTES)
    unknown = message.keys() - {"v", "id", "do", "knobs"}
    number, do, knobs = message.get("id"), message.get("do"), message.get("knobs")
    if unknown:
        raise ProtocolError(f"a request has no {min(unknown)[:20]!r}")
    if type(number) is not int or not 0 <= number < 2**53:
        raise ProtocolError("a request needs an id: a whole number from 0")
    if not isinstance(do, str) or do not in VERBS:
        raise ProtocolError(f"a request needs a do: one of {', '.join(sorted(VERBS))}")
    if (knobs is not None) != (do == "set"):
        raise ProtocolError("knobs belong to set, and to nothing else")
    return Request(number, do, {} if knobs is None else _levels(knobs))


def parse_reply(line: bytes) -> dict[str, object]:
    """The keeper's answer, which may be that there is an error.

    Raises:
        ProtocolError: not a reply of this version.
    """
    return _parse(line, MAX_REPLY_BYTES)


def checked(reply: dict[str, object]) -> dict[str, object]:
    """The reply, if it is no error.

    Raises:
        LeaseError: it is; of the class that the keeper's code names.
    """
    if "error" in reply:
        kind = ERRORS.get(str(reply["error"]), LeaseError)
        raise kind(str(reply.get("message", "the keeper gave no reason")))
    return reply


def _parse(line: bytes, limit: int) -> dict[str, object]:
    if len(line) > limit:
        raise ProtocolError(f"a message longer than {limit} bytes")
    try:
        message: object = json.loads(line.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ProtocolError("a message that is not one line of JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError("a message that is not a JSON object")
    fields = cast(dict[str, object], message)
    if fields.get("v") != VERSION:
        raise ProtocolError(
            f"protocol version {str(fields.get('v'))[:20]}, expected {VERSION}: install the "
            "same energy-governor for the application and for the daemon"
        )
    return fields


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _levels(knobs: object) -> dict[str, float]:
    if not isinstance(knobs, dict) or not 0 < len(cast(dict[str, object], knobs)) <= MAX_KNOBS:
        raise ProtocolError(f"knobs must be an object of 1 to {MAX_KNOBS} knobs")
    levels: dict[str, float] = {}
    for name, level in cast(dict[str, object], knobs).items():
        if isinstance(level, bool) or not isinstance(level, int | float):
            raise ProtocolError("a level that is not a number")
        # An integer of JSON may be too large for a float.
        if abs(level) > 1e300 or not math.isfinite(level):
            raise ProtocolError("a level that is not a finite number")
        levels[name] = float(level)
    return levels
