"""The sidecar for a long time, in real time, while everything around it fails in turn.

On a mounted virtual board runs the real Jetson backend with its lease keeper, in a real sidecar;
three applications show it their inferences: by the client, by a histogram, by a log. In the first
half, the sidecar is killed and started again and again, and the client's application lives. In
the second half the sidecar lives, and the application is killed, stopped, and floods; metrics go
away and turn to garbage; the log is rotated and cut. Whoever lives may not grow.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from governor.errors import DeviceError, GovernorError
from governor.exits import ended_in_order, interrupts_later
from governor.progress import Tell, progress
from governor.sidecar.client import Client

if TYPE_CHECKING:
    from governor.cli.bench import Measurement
    from governor.devices.emulated.sysfs import VirtualJetson

BOARD = "orin-nano"
PERIOD_S = 1.0 / 30.0
LOOK_S = 0.25
STEP_S = 6.0
"""Between two troubles; a short soak has them in quicker succession."""
STEPS_AT_LEAST = 6
START_S = 30.0
GROWTH_KB = 4096.0
"""Of resident memory that is no leak: pages that Python's allocator keeps."""
_CLOCK_FILES = ("_min_freq", "_max_freq", "/min_freq", "/max_freq", "mrq_rate_locked", "clk_state",
                "bwmgr_halt", "iso_cap", "clk_cap/emc")  # fmt: skip
_COMMAND = "from governor.cli.main import main; raise SystemExit(main())"
_APP = """
import random, sys, time
from governor.sidecar.client import Client
client, next_s = Client("main", sys.argv[1]), time.monotonic()
while True:
    with client.frame():
        time.sleep(0.008 * random.gauss(1.0, 0.03))
    next_s += float(sys.argv[2])
    time.sleep(max(0.0, next_s - time.monotonic()))
"""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds: resident kB, open descriptors, threads."""

    resident_kb: float
    descriptors: float
    threads: float

    @classmethod
    def of(cls, pid: int) -> Footprint | None:
        """Of a process now; None: it is gone."""
        try:
            words = Path(f"/proc/{pid}/status").read_text().split()
            held = len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            return None
        if "VmRSS:" not in words:  # a zombie
            return None
        resident_kb = float(words[words.index("VmRSS:") + 1])
        return cls(resident_kb, held, float(words[words.index("Threads:") + 1]))

    @classmethod
    def usual(cls, seen: list[Footprint]) -> Footprint:
        """The median of memory, and the least of what comes and goes with a search."""
        return cls(
            statistics.median(one.resident_kb for one in seen),
            min(one.descriptors for one in seen),
            min(one.threads for one in seen),
        )


@dataclass(slots=True)
class Life:
    """The footprints of a process that lives through half of the soak."""

    seen: list[Footprint] = field(default_factory=list[Footprint])

    def look(self, pid: int) -> None:
        """Take note."""
        found = Footprint.of(pid)
        if found is not None:
            self.seen.append(found)

    def before_and_after(self) -> tuple[Footprint, Footprint]:
        """The second fifth, when all is loaded, and the last one.

        Raises:
            GovernorError: it did not live for long enough.
        """
        fifth = len(self.seen) // 5
        if not fifth:
            raise GovernorError(
                "the soak was too short to compare anything; give it more --minutes"
            )
        return Footprint.usual(self.seen[fifth : 2 * fifth]), Footprint.usual(self.seen[-fifth:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the soak came to.

    Attributes:
        clocks_wrong: files of clocks that are not as they were found.
        left: processes and sockets that outlived the sidecar.
        troubles: by kind, how often.
        counts: of the last sidecar's sources.
    """

    minutes: float
    sidecar: tuple[Footprint, Footprint]
    app: tuple[Footprint, Footprint]
    clocks_wrong: tuple[str, ...]
    left: tuple[str, ...]
    inferences: int
    troubles: Mapping[str, int]
    counts: Mapping[str, Mapping[str, int]]


def soak(minutes: float, board: str = BOARD, seed: int = 0) -> Outcome:
    """Soak for so long.

    Raises:
        InputError: no such board, or nothing can be mounted here.
        GovernorError: a sidecar did not start, or ended by itself.
    """
    from governor.devices.emulated.mount import mounted
    from governor.devices.emulated.sysfs import VirtualJetson

    with ExitStack() as stack:
        stack.enter_context(ended_in_order())
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="governor-soak-")))
        (folder / "root").mkdir()
        jetson = VirtualJetson(board, workload="yolov8n")
        root = stack.enter_context(mounted(jetson, folder / "root"))
        stage = stack.enter_context(_stage(folder, root, jetson, seed))
        stage.tell = stack.enter_context(progress("Soaking", 60.0 * minutes))
        return stage.play(60.0 * minutes)


def measurements(outcome: Outcome) -> list[Measurement]:
    """The figures, each against its budget."""
    from governor.cli.bench import Measurement

    found: list[Measurement] = []
    for who, (before, after) in (("sidecar", outcome.sidecar), ("application", outcome.app)):
        grown_kb = after.resident_kb - before.resident_kb
        note = f"{before.resident_kb:.0f} kB before, {after.resident_kb:.0f} kB after"
        found += [
            Measurement(f"{who}: memory grown", max(grown_kb, 0.0), "kB", GROWTH_KB, note),
            Measurement(f"{who}: descriptors", after.descriptors - before.descriptors, "", 1.0,
                        f"{before.descriptors:.0f} before, {after.descriptors:.0f} after"),
            Measurement(f"{who}: threads", after.threads - before.threads, "", 1.0,
                        f"{before.threads:.0f} before, {after.threads:.0f} after"),
        ]  # fmt: skip
    wrong, left = outcome.clocks_wrong, outcome.left
    return [
        *found,
        Measurement("clocks not as found", len(wrong), "", 1.0, ", ".join(wrong[:3])),
        Measurement("left behind", len(left), "", 1.0, ", ".join(left[:3])),
        Measurement(
            "troubles", sum(outcome.troubles.values()), "", None, _listed(outcome.troubles)
        ),
        Measurement("inferences seen", outcome.inferences, "", None, "by the last sidecar"),
    ]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


@contextmanager
def _stage(folder: Path, root: Path, jetson: VirtualJetson, seed: int) -> Generator[_Stage]:
    stage = _Stage(folder, root, jetson, seed)
    try:
        yield stage
    finally:
        stage.clear()


class _Stage:
    """The processes, and what is done to them."""

    def __init__(self, folder: Path, root: Path, jetson: VirtualJetson, seed: int) -> None:
        self._folder = folder
        self._root = root
        self._jetson = jetson
        self._random = random.Random(seed)
        self._socket = folder / "sidecar.sock"
        self._status = folder / "status.json"
        self._web = _Web()
        self._log = _Log(folder / "app.log")
        self._sidecar: subprocess.Popen[bytes] | None = None
        self._app: subprocess.Popen[bytes] | None = None
        self._troubles: Counter[str] = Counter()
        self._began_s = 0.0
        self.tell: Tell = lambda _done_s: None

    def play(self, seconds: float) -> Outcome:
        before, self._began_s = _clocks(self._jetson), time.monotonic()
        step_s = min(STEP_S, seconds / 2.0 / STEPS_AT_LEAST)
        self._start_app()
        self._start_sidecar()
        app, sidecar = Life(), Life()
        self._half(seconds / 2.0, step_s, [self._kill_sidecar, self._end_sidecar], app, "_app")
        self._half(
            seconds / 2.0,
            step_s,
            [self._kill_app, self._hang_app, self._flood, self._web.fail, self._log.rotate,
             self._log.truncate, self._rest],
            sidecar, "_sidecar",
        )  # fmt: skip
        status = json.loads(self._status.read_text())
        pids = _descendants(cast(Any, self._sidecar).pid)
        self._end(self._sidecar)
        self._sidecar = None
        return Outcome(
            minutes=seconds / 60.0,
            sidecar=sidecar.before_and_after(),
            app=app.before_and_after(),
            clocks_wrong=tuple(p for p, was in _clocks(self._jetson).items() if before[p] != was),
            left=tuple(self._left(pids)),
            inferences=status["inferences"],
            troubles=dict(self._troubles),
            counts=status["sources"],
        )

    def _half(
        self,
        seconds: float,
        step_s: float,
        troubles: list[Callable[[], None]],
        life: Life,
        who: str,
    ) -> None:
        """Trouble after trouble, each kind in turn and in a new order; who lives is looked at."""
        until_s = time.monotonic() + seconds
        kinds: list[Callable[[], None]] = []
        while time.monotonic() < until_s:
            kinds = kinds or self._random.sample(troubles, len(troubles))
            trouble = kinds.pop()
            self._troubles[trouble.__name__.strip("_").replace("_", " ")] += 1
            trouble()
            next_s, look_s = time.monotonic() + step_s, min(LOOK_S, step_s / 8.0)
            while time.monotonic() < next_s:
                child = getattr(self, who)
                life.look(child.pid)
                self._check_sidecar()
                self.tell(time.monotonic() - self._began_s)
                time.sleep(look_s)

    def _check_sidecar(self) -> None:
        child = self._sidecar
        if child is not None and child.poll() is not None:
            raise GovernorError(
                f"the sidecar ended by itself ({child.returncode}); "
                f"{self._folder / 'sidecar.log'} ends: {_tail(self._folder / 'sidecar.log')}"
            )

    # The sidecar -------------------------------------------------------------------------

    def _start_sidecar(self) -> None:
        self._status.unlink(missing_ok=True)
        words = [
            "sidecar", "--latency-slo", "30ms", "--device", f"jetson:{self._root}",
            "--socket", str(self._socket), "--status-file", str(self._status),
            "--app", "web=50ms", "--app", "logger=1s",
            "--source", f"web=prometheus:{self._web.url}#infer_seconds",
            "--source", f"logger=log:{self._log.path}#took (?P<ms>[0-9.]+) ms",
        ]  # fmt: skip
        with (self._folder / "sidecar.log").open("ab") as log, interrupts_later():
            self._sidecar = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
                [sys.executable, "-c", _COMMAND, *words], stderr=log, stdin=subprocess.DEVNULL
            )
        until_s = time.monotonic() + START_S
        while not self._status.exists():
            self._check_sidecar()
            if time.monotonic() > until_s:
                raise GovernorError(f"the sidecar did not start within {START_S:g} s")
            time.sleep(0.05)

    def _kill_sidecar(self) -> None:
        child = cast(Any, self._sidecar)
        child.kill()
        child.wait()
        self._start_sidecar()

    def _end_sidecar(self) -> None:
        self._end(self._sidecar)
        self._start_sidecar()

    def _end(self, child: subprocess.Popen[bytes] | None) -> None:
        if child is None:
            return
        child.terminate()
        try:
            child.wait(START_S)
        except subprocess.TimeoutExpired:
            child.kill()
            raise GovernorError(f"the sidecar did not end within {START_S:g} s") from None

    # The applications --------------------------------------------------------------------

    def _start_app(self) -> None:
        with interrupts_later():
            self._app = subprocess.Popen(  # noqa: S603 - our own interpreter
                [sys.executable, "-c", _APP, str(self._socket), str(PERIOD_S)]
            )

    def _kill_app(self) -> None:
        self._stop_app()
        self._start_app()

    def _stop_app(self) -> None:
        child, self._app = self._app, None
        if child is not None:
            child.kill()
            child.wait()

    def _hang_app(self) -> None:
        child = cast(Any, self._app)
        child.send_signal(signal.SIGSTOP)
        time.sleep(3.0 * LOOK_S)
        child.send_signal(signal.SIGCONT)

    def _flood(self) -> None:
        """Frames and garbage, as fast as the socket takes them."""
        client = Client("main", str(self._socket))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.setblocking(False)
            for _ in range(5000):
                with client.frame():
                    pass
                with suppress(OSError):
                    end.sendto(self._random.randbytes(300), str(self._socket))
        client.close()

    def _rest(self) -> None:
        """No trouble, for once."""

    # The end -----------------------------------------------------------------------------

    def _left(self, pids: list[int]) -> list[str]:
        until_s = time.monotonic() + 5.0  # the keeper ends after its client
        while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until_s:
            time.sleep(0.05)
        left = [f"process {pid}" for pid in pids if Path(f"/proc/{pid}").exists()]
        return left + ([str(self._socket)] if self._socket.exists() else [])

    def clear(self) -> None:
        """End all that is left, whatever happened."""
        child, self._sidecar = self._sidecar, None
        if child is not None:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(START_S)
            child.kill()
            child.wait()
        self._stop_app()
        self._web.close()
        self._log.close()


def _clocks(jetson: VirtualJetson) -> dict[str, bytes]:
    """The files that say which clocks may be used."""
    found: dict[str, bytes] = {}
    for path in jetson.tree.files():
        if path.endswith(_CLOCK_FILES):
            with suppress(OSError, DeviceError):
                found[path] = jetson.tree.read(path)
    return found


def _descendants(pid: int) -> list[int]:
    """The process and those that it started."""
    found = [pid]
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            children = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
            for child in children:
                found += _descendants(int(child))
    return found


def _tail(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")[-300:]
    return ""


class _Web:
    """An application with a histogram; at times, its page is gone, or garbage."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Histogram, generate_latest

        registry = CollectorRegistry()
        seconds = Histogram(
            "infer_seconds", "x", registry=registry, buckets=(0.005, 0.01, 0.02, 0.05, 0.1)
        )
        web = self
        self._bad = ""
        self._ending = threading.Event()

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if web._bad == "gone":
                    self.send_error(503)
                    return
                page = generate_latest(registry) if not web._bad else os.urandom(2000)
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(page)

            def log_message(self, format: str, *args: object) -> None:
                pass

        def work() -> None:
            while not self._ending.wait(0.02):
                seconds.observe(0.012)

        self._server = ThreadingHTTPServer(("localhost", 0), Page)
        self.url = f"http://localhost:{self._server.server_port}/metrics"
        self._threads = [threading.Thread(target=self._server.serve_forever, daemon=True),
                         threading.Thread(target=work, daemon=True)]  # fmt: skip
        for thread in self._threads:
            thread.start()

    def fail(self) -> None:
        """The page is gone, then garbage, then well again."""
        for bad in ("gone", "garbage", ""):
            self._bad = bad
            time.sleep(1.2 if bad else 0.0)

    def close(self) -> None:
        self._ending.set()
        self._server.shutdown()
        self._server.server_close()


class _Log:
    """An application that says in a log how long its inferences took."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = path.open("a")
        self._ending = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while not self._ending.wait(0.05):
            with self._lock:
                self._file.write("frame took 20.5 ms\n")
                self._file.flush()

    def rotate(self) -> None:
        with self._lock:
            self._file.close()
            self.path.replace(self.path.with_suffix(".log.1"))
            self._file = self.path.open("a")

    def truncate(self) -> None:
        with self._lock:
            os.truncate(self.path, 0)

    def close(self) -> None:
        self._ending.set()
        with self._lock:
            self._file.close()
