"""Where inferences of another process are seen: its datagrams, its metrics, its log."""

from __future__ import annotations

import logging
import math
import os
import select
import socket
import stat
import struct
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import IO, Protocol

from governor.errors import InputError
from governor.sidecar.feed import Feed
from governor.sidecar.histogram import Edges, Reading, latencies
from governor.sidecar.spec import LOG_UNITS, SourceSpec
from governor.units import format_duration

WAKE_S = 0.25
"""How long a source may sleep before it looks whether it shall end."""
MOST_DATAGRAM = 256
KINDS = ("f", "t", "b")
"""A frame, a tick, a bound."""
MOST_PAGE = 8 * 1024 * 1024
MOST_LINE = 16 * 1024
CHUNK = 64 * 1024
STDIN = 0
_PEER = struct.Struct("=iII")
_CREDENTIALS = socket.SCM_CREDENTIALS
_ANSWER = struct.Struct("<d")
logger = logging.getLogger("governor")


class Source(Protocol):
    """Something that is listened to, in a thread of its own.

    Attributes:
        counts: what could not be understood, by cause.
    """

    counts: Counter[str]

    def run(self, ending: threading.Event) -> None:
        """Listen until ``ending`` is set."""
        ...


class Datagrams:
    """The client's frames and bounds, at a Unix socket.

    An application's name belongs to the user who first speaks for it.
    """

    def __init__(self, path: Path, feeds: Mapping[str, Feed], mode: int = 0o660) -> None:
        """Listen at ``path``.

        Raises:
            InputError: there can be no socket.
        """
        self.counts: Counter[str] = Counter()
        self.path = path
        self._feeds = feeds
        self._users: dict[str, int] = {}
        self._socket = _bind(path, mode)
        self._inode = path.stat().st_ino

    def run(self, ending: threading.Event) -> None:
        """Listen until ``ending`` is set; then nothing listens any more."""
        try:
            while not ending.is_set():
                with suppress(TimeoutError):
                    self._receive()
        finally:
            self._socket.close()
            with suppress(OSError):
                if self.path.stat().st_ino == self._inode:  # not another sidecar's by now
                    self.path.unlink()

    def _receive(self) -> None:
        space = socket.CMSG_SPACE(_PEER.size)
        message, ancillary, flags, sender = self._socket.recvmsg(MOST_DATAGRAM, space)
        user = next(
            (_PEER.unpack(data)[1] for _, kind, data in ancillary if kind == _CREDENTIALS),
            -1,
        )
        if flags & socket.MSG_TRUNC:
            self.counts["malformed"] += 1
            return
        feed = self._take(message, user)
        if feed is not None and sender:
            with suppress(OSError):  # whoever asks and does not listen
                self._socket.sendto(_ANSWER.pack(feed.slowdown), socket.MSG_DONTWAIT, sender)

    def _take(self, message: bytes, user: int) -> Feed | None:
        try:
            version, kind, name, start, end, items, slept = message.decode("ascii").split(" ")
            times_s = float(start), float(end), float(slept)
            count = int(items)
            if (
                version != "1"
                or kind not in ("f", "t", "b")
                or not all(map(math.isfinite, times_s))
            ):
                raise ValueError
        except ValueError:
            self.counts["malformed"] += 1
            return None
        feed = self._feeds.get(name)
        if feed is None:
            self.counts["unknown app"] += 1
            return None
        if self._users.setdefault(name, user) != user:
            self.counts["spoofed"] += 1
            return None
        start_s, end_s, slept_s = times_s
        if kind == "b":
            feed.bound(start_s)
            return None
        feed.inference(start_s, end_s, count, slept_s, ticked=kind == "t")
        return feed


def _bind(path: Path, mode: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if path.exists():
            _remove_stale(path)
        before = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        listener.settimeout(WAKE_S)
    except (OSError, InputError) as error:
        listener.close()
        if isinstance(error, InputError):
            raise
        raise InputError(f"no socket at {path}: {error.strerror or error}") from None
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket of a sidecar that is gone.

    Raises:
        InputError: it is not gone, or that is no socket.
    """
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise InputError(f"{path} is there and is no socket; name another path by --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise InputError(f"a sidecar listens at {path} already; name another path by --socket")


class Scrape:
    """An application's own metrics: a histogram or summary of seconds, or Triton's counters.

    Attributes:
        edges: of the histogram's buckets, once one was read.
    """

    def __init__(self, spec: SourceSpec, feed: Feed, interval_s: float, tail: float) -> None:
        """``tail``: the percentile over the mean, where only the mean is known."""
        self.counts: Counter[str] = Counter()
        self.edges = Edges()
        self._spec = spec
        self._feed = feed
        self._interval_s = interval_s
        self._tail = tail
        self._before: tuple[float, Reading] | None = None
        self._read = _triton if spec.kind == "triton" else _series
        self._troubled = False

    def run(self, ending: threading.Event) -> None:
        """Scrape every so often until ``ending`` is set."""
        while not ending.wait(self._interval_s):
            self.look()

    def look(self) -> None:
        """Scrape once."""
        try:
            reading = self._read(_fetch(self._spec.where, self._interval_s), self._spec)
        except (OSError, ValueError, HTTPException) as error:
            cause = "unreachable" if isinstance(error, OSError) else "malformed"
            self._trouble(cause, str(error) or repr(error))
            self._before = None
            return
        if reading is None:
            self._trouble("no such metric", f"no {self._spec.name or 'inference counters'} there")
            return
        self._troubled = False
        before, self._before = self._before, (time.perf_counter(), reading)
        if before is None:
            self.edges.learn(reading)
            return
        new = reading.since(before[1])
        if new is None:
            self.counts["began anew"] += 1
            self.edges.learn(reading)
            return
        self._feed.batch(before[0], self._before[0], latencies(new, self._tail))

    def _trouble(self, cause: str, problem: str) -> None:
        """Count it; say it once."""
        self.counts[cause] += 1
        if not self._troubled:
            self._troubled = True
            logger.warning("%s: %s; trying on", self._spec.where, problem)


def _fetch(url: str, patience_s: float) -> str:
    """The page, of which no more than so much is read."""
    with urllib.request.urlopen(url, timeout=max(patience_s, 1.0)) as page:  # noqa: S310 - checked
        text = page.read(MOST_PAGE + 1)
    if len(text) > MOST_PAGE:
        raise ValueError(f"more than {MOST_PAGE} bytes")
    return text.decode("utf-8", "replace")


def _samples(text: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"no Prometheus text: {error!r}") from None


def _series(text: str, spec: SourceSpec) -> Reading | None:
    """All series of the metric that have the labels, added up."""
    buckets: defaultdict[float, float] = defaultdict(float)
    count = sum_s = 0.0
    found = False
    for name, labels, value in _samples(text):
        if any(labels.get(key) != wanted for key, wanted in spec.labels) or math.isnan(value):
            continue
        if name == f"{spec.name}_bucket" and "le" in labels:
            buckets[float(labels["le"])] += value
        elif name == f"{spec.name}_count":
            count, found = count + value, True
        elif name == f"{spec.name}_sum":
            sum_s += value
    scale = _scale(spec.name)
    edges = {edge * scale: number for edge, number in buckets.items()}
    return Reading(count, sum_s * scale, edges) if found else None


def _scale(name: str) -> float:
    """Seconds a unit of the metric, told by the last word of its name."""
    unit = name.rpartition("_")[2].lower()
    return {"ms": 1e-3, "milliseconds": 1e-3, "us": 1e-6, "microseconds": 1e-6}.get(unit, 1.0)


def _triton(text: str, spec: SourceSpec) -> Reading | None:
    """Triton's cumulative counters: successful requests, and microseconds in them, queue included.

    https://docs.nvidia.com/deeplearning/triton-inference-server (metrics)
    """
    count = sum_s = 0.0
    found = False
    for name, labels, value in _samples(text):
        if spec.name and labels.get("model") != spec.name:
            continue
        name = name.removesuffix("_total")  # the parser's own, of a counter
        if name == "nv_inference_request_success":
            count, found = count + value, True
        elif name == "nv_inference_request_duration_us":
            sum_s += value * 1e-6
    return Reading(count, sum_s, {}) if found else None


class LogLines:
    """Lines of a log that name a latency: of standard input, or of a file that is followed."""

    def __init__(self, spec: SourceSpec, feed: Feed, stdin: int = STDIN) -> None:
        """``stdin``: a descriptor."""
        self.counts: Counter[str] = Counter()
        self._pattern = spec.pattern
        self._feed = feed
        self._path = None if spec.where == "-" else Path(spec.where)
        self._stdin = stdin
        self._partial = b""

    def run(self, ending: threading.Event) -> None:
        """Follow until ``ending`` is set, or standard input ends."""
        if self._path is None:
            self._read_stdin(ending)
        else:
            self._follow(self._path, ending)

    def _read_stdin(self, ending: threading.Event) -> None:
        """Not through ``sys.stdin``: Python aborts at its end if a thread still waits in there."""
        while not ending.is_set():
            if select.select((self._stdin,), (), (), WAKE_S)[0]:
                chunk = os.read(self._stdin, CHUNK)
                self._take(chunk or b"\n")  # the last line may lack its end
                if not chunk:
                    return

    def _follow(self, path: Path, ending: threading.Event) -> None:
        """From its present end on; through rotation and truncation."""
        file, new = self._open(path), False
        if file is not None:
            file.seek(0, os.SEEK_END)
        while not ending.is_set():
            if file is None:
                file, new = self._open(path), True
            elif not self._read(file) and self._replaced(file, path):
                self._read(file)  # what was written between the two looks
                file.close()
                file = self._open(path)
                self._partial = b""
                self.counts["rotated"] += 1
            if file is None or new or not self._read(file):
                new = False
                ending.wait(WAKE_S / 5.0)
        if file is not None:
            file.close()

    def _open(self, path: Path) -> IO[bytes] | None:
        try:
            return path.open("rb")
        except OSError:
            self.counts["absent"] = 1
            return None

    def _replaced(self, file: IO[bytes], path: Path) -> bool:
        """Whether another file has its name, or it was cut."""
        try:
            named, held = path.stat(), os.fstat(file.fileno())
        except OSError:
            return False  # moved away, and not yet there again
        return named.st_ino != held.st_ino or held.st_size < file.tell()

    def _read(self, file: IO[bytes]) -> bool:
        """Take what is there; returns whether anything was."""
        chunk = file.read(CHUNK)
        self._take(chunk)
        return bool(chunk)

    def _take(self, chunk: bytes) -> None:
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        if len(self._partial) > MOST_LINE:
            self._partial = b""
            self.counts["too long"] += 1
        for line in lines:
            self._line(line)

    def _line(self, line: bytes) -> None:
        found = self._pattern.search(line[:MOST_LINE].decode("utf-8", "replace"))
        if found is None:
            self.counts["other line"] += 1
            return
        unit = next(name for name in self._pattern.groupindex if name in LOG_UNITS)
        try:
            self._feed.just_ended(float(found[unit]) * LOG_UNITS[unit])
        except (TypeError, ValueError):
            self.counts["malformed"] += 1


def describe(sources: Iterable[SourceSpec], tail: float, interval_s: float) -> Iterator[str]:
    """What a user should know of these sources' precision, a sentence each."""
    kinds = {spec.kind for spec in sources}
    if "prometheus" in kinds:
        yield (
            f"a histogram tells a percentile to the nearest bucket, every "
            f"{format_duration(interval_s)}; give it a bucket that ends at the bound"
        )
    if "triton" in kinds:
        yield (
            f"Triton counts only the mean: its percentile is taken to be {tail:g} times that "
            "(--tail)"
        )
