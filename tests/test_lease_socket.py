"""The daemon's socket: nothing that comes in shakes the keeper, or reaches the hardware."""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import lease_rig
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lease_controls import LEVELS, break_knob, make_machine, mend_knob
from lease_controls import settings as settings_of

from governor.errors import InputError
from governor.lease import connection, keeper
from governor.lease.client import CALL_S, Lease, ask_daemon
from governor.lease.errors import HardwareBusyError, LeaseError, ProtocolError
from governor.lease.listener import listen, watchdog_s
from governor.lease.protocol import MAX_REQUEST_BYTES, encode, parse_request

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


class Daemon:
    """A running daemon and what a test may ask of it."""

    def __init__(self, root: Path, log: Path) -> None:
        self.root, self.log = root, log
        self.path = root / "run" / "keeper.sock"
        with log.open("wb") as stderr:
            words = ["serve", str(self.path), "0", str(root), str(root / "run")]
            self.process = subprocess.Popen([*lease_rig.KEEPER, *words], stderr=stderr)
        while not self.path.is_socket():
            assert self.process.poll() is None, log.read_text()
            time.sleep(0.01)

    def connect(self) -> socket.socket:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.connect(str(self.path))
        end.settimeout(5)
        return end

    def lease(self) -> Lease:
        return Lease.open(sysfs_root=self.root, socket_path=self.path)

    def answer_to(self, sent: bytes) -> bytes:
        """Everything that comes back until the keeper hangs up."""
        with closing(self.connect()) as end:
            with suppress(BrokenPipeError, ConnectionResetError):
                end.sendall(sent)
                end.shutdown(socket.SHUT_WR)
            answer = b""
            with suppress(ConnectionResetError):
                while data := end.recv(65536):
                    answer += data
            return answer

    def serves(self) -> bool:
        return ask_daemon("status", self.path)["keeper"] == self.process.pid


@pytest.fixture(scope="module")
def running() -> Iterator[Daemon]:
    """In a folder that any user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        daemon = Daemon(make_machine(folder), folder / "log")
        yield daemon
        daemon.process.terminate()
        assert daemon.process.wait(10) == 0


@pytest.fixture
def untouched(running: Daemon) -> Iterator[Daemon]:
    """Whatever the test sends, the hardware and the lease of another stay as they are."""
    with running.lease() as lease:
        lease.set(lease_rig.LOW)
        before = settings_of(running.root)
        yield running
        assert settings_of(running.root) == before
        assert lease.read() == lease_rig.LOW
        assert running.serves()


def error_in(answer: bytes) -> str:
    return str(json.loads(answer.splitlines()[-1])["error"])


# Nonsense --------------------------------------------------------------------------------

REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "v": st.sampled_from([1, 1, 1, 0, 2, -1, "1", None, 1.5]),
        "id": st.one_of(st.integers(), st.text(max_size=5), st.none(), st.booleans()),
        "do": st.one_of(st.sampled_from(["set", "acquire", "read", "../x"]), st.integers()),
        "knobs": st.dictionaries(
            st.sampled_from([*LEVELS, "/sys/kernel", "../../etc/passwd", ""]),
            st.one_of(st.integers(), st.floats(), st.text(max_size=9), st.sampled_from([1e9])),
            max_size=4,
        ),
        "path": st.just("/etc/passwd"),
    },
).map(lambda message: json.dumps(message).encode() + b"\n")


@settings(max_examples=60)
@given(st.lists(st.one_of(st.binary(max_size=300), REQUESTS), min_size=1, max_size=4))
def test_random_bytes_and_requests_are_refused_and_the_keeper_serves_on(
    running: Daemon, messages: list[bytes]
) -> None:
    with running.lease() as lease:
        lease.set(lease_rig.LOW)
        running.answer_to(b"".join(messages))
        assert lease.read() == lease_rig.LOW
        assert running.serves()


@given(st.one_of(st.binary(max_size=300), REQUESTS))
def test_a_line_is_either_a_checked_request_or_a_protocol_error(line: bytes) -> None:
    try:
        request = parse_request(line)
    except ProtocolError:
        return
    assert request.do in {"hello", "acquire", "set", "read", "release", "status"}
    assert all(isinstance(level, float) for level in request.knobs.values())


@pytest.mark.parametrize(
    "line",
    [
        b"{" * 5000,
        b"[" * (MAX_REQUEST_BYTES - 1) + b"\n",
        b'"' + b"x" * 100_000 + b'"\n',
        b'{"v":1,"id":1,"do":"set","knobs":{"gpu_hz":1' + b"0" * 3000 + b"}}\n",
        b'{"v":1,"id":1,"do":"set","knobs":{"gpu_hz":NaN}}\n',
        b'{"v":1,"id":1,"do":"set","knobs":{"gpu_hz":1e999}}\n',
        b'{"v":1,"id":1,"do":"set","knobs":{"gpu_hz":true}}\n',
        b'{"v":1,"id":1,"do":"set","knobs":{}}\n',
        b'{"v":1,"id":1,"do":"open","path":"/etc/passwd"}\n',
        b'{"v":1,"id":1,"do":"status"}\x00\n',
        b"\xff\xfe\n",
    ],
    ids=lambda line: line[:40].decode(errors="replace"),
)
def test_what_is_no_message_gets_one_error_and_is_hung_up_on(
    untouched: Daemon, line: bytes
) -> None:
    assert error_in(untouched.answer_to(line)) == "protocol"


def test_another_version_is_told_what_to_install(untouched: Daemon) -> None:
    answer = json.loads(untouched.answer_to(b'{"v":2,"id":1,"do":"status"}\n'))
    assert "version 2, expected 1: install the same energy-governor" in answer["message"]


def test_a_truncated_message_changes_nothing(untouched: Daemon) -> None:
    whole = encode({"id": 1, "do": "acquire"})
    assert untouched.answer_to(whole[:-1]) == b""


def test_requests_sent_in_one_go_are_answered_in_order(untouched: Daemon) -> None:
    requests = b"".join(encode({"id": number, "do": "status"}) for number in range(20))
    with closing(untouched.connect()) as end:
        end.sendall(requests)
        with end.makefile("rb") as lines:
            replies = [json.loads(next(lines))["id"] for _ in range(20)]
    assert replies == list(range(20))


# What is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "problem"),
    [
        ({"gpu_hz": 6.1e8}, "610 MHz is no level of gpu_hz; its levels: 300 MHz to 1200 MHz in 4"),
        ({"gpu_hz": -1.0}, "-1 Hz is no level"),
        ({"/sys/class/x": 1.0}, "no knob '/sys/class/x' here; there are: cpu_hz, gpu_hz, emc_hz"),
        ({"../../etc/passwd": 1.0, "cpu_hz": 1e9}, "no knob"),
    ],
)
def test_what_is_off_the_lattice_is_refused_and_the_lease_lasts(
    running: Daemon, point: dict[str, float], problem: str
) -> None:
    before = settings_of(running.root)
    with running.lease() as lease:
        with pytest.raises(InputError, match=problem):
            lease.set(point)
        assert settings_of(running.root) == before
        assert lease.set(lease_rig.LOW) == lease_rig.LOW


def test_a_client_without_the_lease_may_read_and_not_set(untouched: Daemon) -> None:
    assert ask_daemon("read", untouched.path)["read"] == lease_rig.LOW
    with closing(untouched.connect()) as end:
        end.sendall(encode({"id": 1, "do": "set", "knobs": {"cpu_hz": 2e9}}))
        assert error_in(end.recv(65536)) == "refused"


def test_a_holder_that_breaks_the_protocol_loses_its_lease(running: Daemon) -> None:
    before = settings_of(running.root)
    with closing(running.connect()) as end:
        end.sendall(encode({"id": 1, "do": "acquire"}))
        assert b"knobs" in end.recv(65536)
        end.sendall(encode({"id": 2, "do": "set", "knobs": lease_rig.LOW}))
        assert b"read" in end.recv(65536)
        assert settings_of(running.root) != before
        end.sendall(b"nonsense\n")
        assert error_in(end.recv(65536)) == "protocol"
        with running.lease():
            assert settings_of(running.root) == before


@needs_root
def test_a_user_outside_the_group_is_told_how_to_join_it(untouched: Daemon) -> None:
    code = (
        f"import os, sys; sys.path[:0] = {[str(Path(keeper.__file__).parents[2])]!r}\n"
        f"from governor.lease.client import Lease; from pathlib import Path\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        f"Lease.open(sysfs_root=Path('/nothing'), socket_path=Path({str(untouched.path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'for the group root: sudo usermod -aG root "$USER"' in done.stderr.splitlines()[-1]


@needs_root
def test_a_user_outside_the_group_is_refused_even_where_the_file_lets_it_in(
    untouched: Daemon,
) -> None:
    untouched.path.chmod(0o666)
    code = (
        f"import os, socket; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        f"end = socket.socket(socket.AF_UNIX); end.connect({str(untouched.path)!r})\n"
        "print(end.recv(999).decode())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    untouched.path.chmod(0o660)
    assert "refused: not in the group" in json.loads(done.stdout)["message"]
    assert f"user {NOBODY}: not in the group of this socket" in untouched.log.read_text()


def test_the_socket_is_for_its_owner_and_group_alone(running: Daemon) -> None:
    assert running.path.stat().st_mode & 0o777 == 0o660


# Many and slow ---------------------------------------------------------------------------


def test_a_thousand_connections_one_after_another_are_served(untouched: Daemon) -> None:
    for number in range(1000):
        with closing(untouched.connect()) as end:
            if number % 3:
                end.sendall(b"garbage" if number % 2 else encode({"id": 1, "do": "status"}))


def test_of_hundreds_at_once_those_that_are_too_many_are_turned_away(untouched: Daemon) -> None:
    with ExitStack() as stack:
        ends = [stack.enter_context(closing(untouched.connect())) for _ in range(300)]
        refused = [end for end in ends if _is_refused(end)]
    assert len(refused) == 300 - (keeper.MAX_CONNECTIONS - 1)


def _is_refused(end: socket.socket) -> bool:
    """Turned away with a word, rather than served."""
    try:
        end.sendall(encode({"id": 7, "do": "status"}))
        return "error" in json.loads(end.recv(4096).splitlines()[0])
    except (BrokenPipeError, ConnectionResetError):
        return True


def test_slow_and_silent_clients_are_hung_up_on_in_time() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = connection.Connection(theirs, connection.Peer.of(theirs))
        now_s = time.monotonic()
        assert client.deadline_s(holder=False) - now_s <= connection.IDLE_S
        assert client.deadline_s(holder=True) == float("inf")
        ours.send(b'{"v"')
        client.receive()
        first_s = client.deadline_s(holder=True)
        assert first_s - time.monotonic() <= connection.MESSAGE_S
        ours.send(b":")
        client.receive()
        assert client.deadline_s(holder=True) == first_s


def test_a_client_that_does_not_read_its_replies_gets_no_more_of_them() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = connection.Connection(theirs, connection.Peer.of(theirs))
        while not client.unsent:
            assert client.send({"read": "x" * 10_000})
        ours.send(encode({"id": 1, "do": "hello"}))
        assert client.receive()
        assert client.next_request() is None
        while client.unsent:
            ours.recv(100_000)
            assert client.flush()
        assert client.next_request() is not None


def test_a_client_that_never_finishes_its_request_loses_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_machine(tmp_path)
    before = settings_of(root)
    monkeypatch.setenv("RIG_MESSAGE_S", "0.1")
    daemon = Daemon(root, tmp_path / "log")
    try:
        with closing(daemon.connect()) as end:
            for message in ({"do": "acquire"}, {"do": "set", "knobs": lease_rig.LOW}):
                end.sendall(encode({"id": 1, **message}))
                end.recv(65536)
            end.sendall(b"{")
            assert end.recv(1) == b""
        assert _soon(lambda: settings_of(root) == before)
        assert "it fell silent" in daemon.log.read_text()
    finally:
        daemon.process.terminate()
        daemon.process.wait(10)


def _soon(true: Callable[[], bool]) -> bool:
    for _ in range(500):
        if true():
            return True
        time.sleep(0.01)
    return False


# A kernel that hangs ---------------------------------------------------------------------


def test_a_write_that_hangs_is_answered_for_in_time_and_restored_after(tmp_path: Path) -> None:
    root = make_machine(tmp_path)
    before = settings_of(root)
    daemon = Daemon(root, tmp_path / "log")
    try:
        lease = daemon.lease()
        lease.set(lease_rig.LOW)
        break_knob(root, "gpu_hz", str(CALL_S))
        with pytest.raises(HardwareBusyError, match="no answer to 'set cpu_hz gpu_hz emc_hz'"):
            lease.set(lease_rig.LOW)
        assert daemon.serves()
        mend_knob(root, "gpu_hz")
        lease.release()
        assert settings_of(root) == before
    finally:
        daemon.process.terminate()
        assert daemon.process.wait(10) == 0


# No daemon -------------------------------------------------------------------------------


def test_without_a_daemon_the_message_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(LeaseError, match="sudo systemctl start energy-governor"):
        Lease.open(sysfs_root=tmp_path, socket_path=tmp_path / "none.sock")


def test_a_socket_that_a_killed_daemon_left_is_taken_over(tmp_path: Path) -> None:
    root = make_machine(tmp_path)
    first = Daemon(root, tmp_path / "log")
    first.process.kill()
    first.process.wait()
    with pytest.raises(LeaseError, match="systemctl start"):
        ask_daemon("status", first.path)
    words = ["serve", str(first.path), "0", str(root), str(root / "run")]
    with subprocess.Popen([*lease_rig.KEEPER, *words], stderr=subprocess.DEVNULL) as second:
        assert _soon(lambda: _answers(first.path))
        second.terminate()


def _answers(path: Path) -> bool:
    try:
        return "keeper" in ask_daemon("status", path)
    except LeaseError:
        return False


def test_a_second_daemon_at_one_socket_is_refused(running: Daemon) -> None:
    words = ["serve", str(running.path), "0", str(running.root), str(running.root / "run")]
    done = subprocess.run([*lease_rig.KEEPER, *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert "a daemon listens at" in done.stderr
    assert running.serves()


def test_a_file_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    words = ["serve", str(precious), "0", str(tmp_path), str(tmp_path)]
    done = subprocess.run([*lease_rig.KEEPER, *words], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert "is no socket" in done.stderr
    assert precious.read_text() == "data"


def test_a_socket_appears_only_when_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched(socket.socket):
        def listen(self, backlog: int) -> None:
            assert not path.exists()
            super().listen(backlog)

    path = tmp_path / "keeper.sock"
    monkeypatch.setattr(socket, "socket", Watched)
    listener, _group = listen(path, "0")
    with listener:
        assert path.is_socket()
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["chown", "rename"])
def test_a_socket_that_cannot_be_finished_leaves_nothing_behind(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(*((os, step) if step == "chown" else (Path, step)), refuse)
    with pytest.raises(InputError, match=r"no socket at .*: Operation not permitted; is this root"):
        listen(tmp_path / "keeper.sock", "0")
    assert not list(tmp_path.iterdir())


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no socket at .*too long"):
        listen(tmp_path / ("s" * 200), "0")
    assert not list(tmp_path.iterdir())


@needs_root
@pytest.mark.parametrize("how", ["of another user", "open to all"])
def test_a_socket_where_others_could_replace_it_is_refused(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    if how == "of another user":
        os.chown(folder, NOBODY, -1)
    else:
        folder.chmod(0o777)
    with pytest.raises(InputError, match=r"others may write in .*--socket"):
        listen(folder / "keeper.sock", "0")
    folder.chmod(0o1777)
    os.chown(folder, 0, -1)
    listen(folder / "keeper.sock", "0")[0].close()


def test_a_keeper_without_a_journals_folder_leaves_no_socket(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    words = ["serve", str(tmp_path / "s"), "0", str(tmp_path), str(blocked / "run")]
    done = subprocess.run([*lease_rig.KEEPER, *words], capture_output=True, text=True)
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [blocked])
    assert "no folder for the journal" in done.stderr


def test_the_service_manager_gets_signs_of_life_also_while_the_kernel_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_machine(tmp_path)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "300000")
        daemon = Daemon(root, tmp_path / "log")
        try:
            assert [manager.recv(99) for _ in range(3)] == [b"READY=1", *[b"WATCHDOG=1"] * 2]
            with daemon.lease() as lease:
                break_knob(root, "gpu_hz", "3")
                with pytest.raises(HardwareBusyError):
                    lease.set({"gpu_hz": 6e8})
                mend_knob(root, "gpu_hz")
                _drain(manager)
                assert manager.recv(99) == b"WATCHDOG=1"
        finally:
            daemon.process.terminate()
            daemon.process.wait()


def _drain(manager: socket.socket) -> None:
    manager.setblocking(False)
    with suppress(BlockingIOError):
        while manager.recv(99):
            pass
    manager.settimeout(20)


@pytest.mark.parametrize(
    ("said", "every_s"),
    [({}, math.inf), ({"WATCHDOG_USEC": "30000000"}, 10.0), ({"WATCHDOG_USEC": "soon"}, math.inf),
     ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, math.inf)],
)  # fmt: skip
def test_signs_of_life_come_thrice_as_often_as_asked_of_this_process(
    said: dict[str, str], every_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert watchdog_s() == every_s


def test_a_group_that_does_not_exist_is_named(tmp_path: Path) -> None:
    words = ["serve", str(tmp_path / "s"), "no-such-group", str(tmp_path), str(tmp_path)]
    done = subprocess.run([*lease_rig.KEEPER, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert "sudo groupadd --system no-such-group" in done.stderr
