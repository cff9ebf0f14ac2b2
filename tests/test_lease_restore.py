"""The restore matrix: however an application or its keeper ends, every file is as before."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import lease_rig
import pytest
from lease_controls import UNTOUCHED, break_knob, make_machine, mend_knob, settings

from governor.lease import client
from governor.lease.client import Lease
from governor.lease.custody import Custody
from governor.lease.errors import (
    HardwareBusyError,
    LeaseError,
    LeaseHeldError,
    LeaseLostError,
    RestoreError,
)
from governor.lease.journal import Journal
from governor.lease.lock import LeaseLock
from governor.lease.process import Process

RIG = (sys.executable, lease_rig.__file__)
PROGRAM = Path(sys.executable).name
SOON_S = 10.0


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    return make_machine(tmp_path)


def soon(true: Callable[[], bool]) -> bool:
    """Whether it becomes true before long."""
    give_up_s = time.monotonic() + SOON_S
    while not true():
        if time.monotonic() > give_up_s:
            return False
        time.sleep(0.01)
    return True


def is_restored(root: Path) -> bool:
    return settings(root) == {
        **UNTOUCHED,
        **{f"{name}_min": "1\n" for name in UNTOUCHED},
    }


def nobody_holds_it(root: Path) -> bool:
    return LeaseLock(root / "run").tenure() is None


def keeper_of(root: Path) -> int:
    tenure = LeaseLock(root / "run").tenure()
    assert tenure is not None
    return tenure.keeper.pid


@contextmanager
def app(
    root: Path, how: str, socket: Path | None = None, new_session: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """An application that has set every knob low."""
    environment = {**os.environ, **({"RIG_SOCKET": str(socket)} if socket else {})}
    with subprocess.Popen(
        [*RIG, "app", str(root), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=new_session,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "set\n"
            yield process
        finally:
            process.kill()


@contextmanager
def daemon(root: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A keeper for all, as root would run it."""
    socket = root / "run" / "keeper.sock"
    words = ["serve", str(socket), str(os.getgid()), str(root), str(root / "run")]
    with subprocess.Popen(
        [*lease_rig.KEEPER, *words], stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            assert soon(socket.is_socket)
            yield process, socket
        finally:
            process.kill()


def command(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``governor`` on that machine."""
    options = ["--sysfs-root", str(root), "--state-dir", str(root / "run")]
    return subprocess.run(
        [*RIG, "governor", *words, *options], capture_output=True, text=True, timeout=60
    )


# How the application ends ----------------------------------------------------------------


@pytest.mark.parametrize("how", ["return", "exception", "os._exit"])
def test_everything_is_back_when_the_application_ends_by(how: str, machine: Path) -> None:
    with app(machine, how) as process:
        process.wait(SOON_S)
    assert soon(lambda: is_restored(machine) and nobody_holds_it(machine))
    assert not Journal(machine / "run").path.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_everything_is_back_after(number: signal.Signals, machine: Path) -> None:
    with app(machine, "stay") as process:
        assert not is_restored(machine)
        process.send_signal(number)
        process.wait(SOON_S)
    assert soon(lambda: is_restored(machine) and nobody_holds_it(machine))


def test_everything_is_back_when_a_forked_child_still_holds_the_line(machine: Path) -> None:
    with app(machine, "fork-and-die") as process:
        process.wait(SOON_S)
        assert soon(lambda: is_restored(machine) and nobody_holds_it(machine))


def test_a_forked_child_that_ends_does_not_end_its_parents_lease(machine: Path) -> None:
    with app(machine, "fork") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "forked\n"
        assert not is_restored(machine)
        process.stdin.close()
        process.wait(SOON_S)
    assert soon(lambda: is_restored(machine))


def test_ctrl_c_at_the_terminal_ends_the_application_and_not_its_keeper(machine: Path) -> None:
    """A child of an interactive shell with job control: the terminal's foreground group."""
    shell, terminal = pty.fork()
    if shell == 0:
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    try:
        line = f"{' '.join(RIG)} app {machine} stay\n"
        os.write(terminal, line.encode())
        assert soon(lambda: not is_restored(machine) and not nobody_holds_it(machine))
        holder = LeaseLock(machine / "run").tenure()
        assert holder is not None
        assert os.getpgid(holder.holder.pid) not in (os.getpgid(holder.keeper.pid), shell)
        os.write(terminal, b"\x03")
        assert soon(lambda: is_restored(machine) and nobody_holds_it(machine))
        os.write(terminal, b"exit\n")
    finally:
        os.close(terminal)
        os.kill(shell, signal.SIGKILL)
        os.waitpid(shell, 0)


# How the keeper ends ---------------------------------------------------------------------


def test_a_killed_keeper_is_replaced_and_everything_is_back_at_the_end(machine: Path) -> None:
    with Lease.open(sysfs_root=machine, folder=machine / "run", keeper=lease_rig.KEEPER) as lease:
        lease.set(lease_rig.LOW)
        os.kill(keeper_of(machine), signal.SIGKILL)
        with pytest.raises(LeaseLostError, match="gone"):
            lease.set(lease_rig.LOW)
        assert lease.set(lease_rig.LOW) == lease_rig.LOW
        os.kill(keeper_of(machine), signal.SIGKILL)
    assert is_restored(machine)


def test_a_keeper_that_does_not_answer_is_waited_for_in_vain_and_not_for_ever(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CALL_S", 0.2)
    with Lease.open(sysfs_root=machine, folder=machine / "run", keeper=lease_rig.KEEPER) as lease:
        lease.set(lease_rig.LOW)
        os.kill(keeper_of(machine), signal.SIGSTOP)
        with pytest.raises(HardwareBusyError, match=r"no answer in 0\.2 s"):
            lease.set({**lease_rig.LOW, "gpu_hz": 9e8})
        os.kill(keeper_of(machine), signal.SIGCONT)
        monkeypatch.setattr(client, "CALL_S", SOON_S)
        assert lease.set(lease_rig.LOW) == lease_rig.LOW
    assert is_restored(machine)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_keeper_told_to_stop_restores_first(number: signal.Signals, machine: Path) -> None:
    with app(machine, "stay"):
        os.kill(keeper_of(machine), number)
        assert soon(lambda: is_restored(machine) and nobody_holds_it(machine))


def test_when_both_are_killed_status_says_so_and_restore_puts_back(machine: Path) -> None:
    with app(machine, "stay") as process:
        os.kill(keeper_of(machine), signal.SIGKILL)
        process.kill()
    assert not is_restored(machine)
    told = json.loads(command(machine, "status", "--json").stdout)
    assert told["restore_needed"]
    assert told["left_by"] == f"pid {process.pid} ({PROGRAM} lease_rig.py)"

    done = command(machine, "restore")

    assert done.returncode == 0
    assert is_restored(machine)
    assert "NEEDED" not in command(machine, "status").stdout


def test_the_next_lease_first_puts_back_what_killed_ones_left(machine: Path) -> None:
    with app(machine, "stay") as process:
        os.kill(keeper_of(machine), signal.SIGKILL)
        process.kill()
    with Lease.open(sysfs_root=machine, folder=machine / "run", keeper=lease_rig.KEEPER):
        assert is_restored(machine)


def test_a_restarted_daemon_puts_back_before_anyone_asks(machine: Path) -> None:
    with daemon(machine) as (first, socket), app(machine, "stay", socket) as process:
        first.kill()
        process.kill()
    assert not is_restored(machine)
    with daemon(machine):
        assert soon(lambda: is_restored(machine))


def test_a_daemon_that_is_stopped_restores_and_tells_its_client(machine: Path) -> None:
    with daemon(machine) as (keeper, socket):
        lease = Lease.open(sysfs_root=machine, socket_path=socket)
        lease.set(lease_rig.LOW)
        keeper.terminate()
        assert keeper.wait(SOON_S) == 0
    assert is_restored(machine)
    with pytest.raises(LeaseLostError, match="stopped: SIGTERM"):
        lease.read()
    lease.release()


def test_a_daemon_serves_the_next_after_a_client_was_killed(machine: Path) -> None:
    with daemon(machine) as (_keeper, socket):
        with app(machine, "stay", socket) as process:
            process.kill()
        with Lease.open(sysfs_root=machine, socket_path=socket) as lease:
            assert is_restored(machine)
            lease.set(lease_rig.LOW)
        assert is_restored(machine)


def test_a_release_in_the_middle_of_a_call_of_the_same_thread_still_restores(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal's handler may end the lease while the main thread waits for the keeper."""
    monkeypatch.setattr(client, "CALL_S", 0.5)
    lease = Lease.open(sysfs_root=machine, folder=machine / "run", keeper=lease_rig.KEEPER)
    lease.set(lease_rig.LOW)
    break_knob(machine, "gpu_hz", "1")
    before = signal.signal(signal.SIGALRM, lambda *_: lease.release())
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with pytest.raises(LeaseError):
        lease.set(lease_rig.LOW)
    signal.signal(signal.SIGALRM, before)
    assert is_restored(machine)


def test_others_may_read_the_journal_and_not_write_it(machine: Path) -> None:
    before = os.umask(0)
    try:
        with Lease.open(
            sysfs_root=machine, folder=machine / "run", keeper=lease_rig.KEEPER
        ) as lease:
            lease.set(lease_rig.LOW)
            modes = {path.name: path.stat().st_mode & 0o777 for path in (machine / "run").iterdir()}
    finally:
        os.umask(before)
    assert modes == {"journal.json": 0o644, "lease.json": 0o644, "lease": 0o600}


# What will not go back -------------------------------------------------------------------


def test_a_file_that_will_not_go_back_is_named_and_the_journal_stays(machine: Path) -> None:
    with app(machine, "stay") as process:
        os.kill(keeper_of(machine), signal.SIGKILL)
        process.kill()
    break_knob(machine, "gpu_hz", "EIO")

    failed = command(machine, "restore")

    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert f"{machine}/sys/knobs/gpu_hz" in failed.stderr
    assert settings(machine)["cpu_hz"] == UNTOUCHED["cpu_hz"]
    mend_knob(machine, "gpu_hz")
    assert command(machine, "restore").returncode == 0
    assert is_restored(machine)


def test_a_fault_that_passes_does_not_keep_a_knob_from_going_back(machine: Path) -> None:
    with app(machine, "stay") as process:
        break_knob(machine, "gpu_hz", "EIO")
        process.kill()
        process.wait()
        assert soon(lambda: settings(machine)["cpu_hz"] == UNTOUCHED["cpu_hz"])
        mend_knob(machine, "gpu_hz")
    assert soon(lambda: is_restored(machine) and nobody_holds_it(machine))


def test_a_release_that_fails_says_what_is_not_back(machine: Path) -> None:
    lease = Lease.open(sysfs_root=machine, folder=machine / "run", keeper=lease_rig.KEEPER)
    lease.set(lease_rig.LOW)
    break_knob(machine, "emc_hz", "EINVAL")
    with pytest.raises(RestoreError, match=r"emc_hz: .*Invalid argument.*governor restore"):
        lease.release()


# Two governors ---------------------------------------------------------------------------


def test_a_keeper_that_cannot_be_started_is_an_error_of_the_lease(machine: Path) -> None:
    """As when the application's Python was replaced under it, or memory is short."""
    missing = (str(machine / "python"),)
    with pytest.raises(LeaseError, match=r"keeper cannot be started: .*No such file"):
        Lease.open(sysfs_root=machine, folder=machine / "run", keeper=missing)


def test_a_second_application_is_told_who_holds_the_lease(machine: Path) -> None:
    with app(machine, "stay") as process, pytest.raises(LeaseHeldError) as refused:
        Lease.open(sysfs_root=machine, folder=machine / "run", keeper=lease_rig.KEEPER)
    assert f"pid {process.pid} ({PROGRAM} lease_rig.py)" in str(refused.value)


@pytest.mark.parametrize("killed", [False, True])
def test_another_state_folder_is_no_way_to_a_second_lease_on_the_same_machine(
    killed: bool, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("governor.lease.lock.ENDING_S", 0.5)
    monkeypatch.setattr("governor.lease.find.BACKENDS", ("lease_controls",))
    first, second = (Custody(machine, machine / name) for name in ("run", "other"))
    us = Process.of(os.getpid())
    with app(machine, "stay") as process:
        with pytest.raises(LeaseHeldError, match="with another --state-dir"):
            second.take(us)
        if killed:
            os.kill(keeper_of(machine), signal.SIGKILL)
        process.kill()
        process.wait()
        assert soon(lambda: killed or is_restored(machine))
        assert soon(lambda: nobody_holds_it(machine))
    first.take(us)
    with pytest.raises(LeaseHeldError, match="with another --state-dir"):
        second.take(us)
    first.give_back()
    second.take(us)
    second.give_back()


def test_of_two_daemons_that_begin_together_at_one_socket_one_goes_on(machine: Path) -> None:
    socket = machine / "run" / "keeper.sock"
    words = [sys.executable, "-c", SLOW_TO_BEGIN, str(socket), str(os.getgid()), str(machine)]
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        both = [
            stack.enter_context(
                subprocess.Popen([*words, str(machine / name)], stderr=pipe, text=True)
            )
            for name in ("run", "other")
        ]
        for each in both:
            stack.callback(each.kill)
        assert soon(lambda: any(each.poll() is not None for each in both))
        ended = [each for each in both if each.poll() is not None]
        assert [each.returncode for each in ended] == [1]
        assert ended[0].stderr is not None
        assert "a daemon listens at" in ended[0].stderr.read()
        assert client.ask_daemon("status", socket)["holder"] is None


SLOW_TO_BEGIN = """
import sys, time
from governor.lease import keeper, listener

look = listener._remove_stale

def look_and_wait(path):
    look(path)
    time.sleep(1.0)

listener._remove_stale = look_and_wait
sys.exit(keeper.main(["serve", *sys.argv[1:]]))
"""


def test_a_second_client_of_the_daemon_is_told_who_holds_the_lease(machine: Path) -> None:
    with (
        daemon(machine) as (_keeper, socket),
        app(machine, "stay", socket) as process,
        pytest.raises(LeaseHeldError, match=f"pid {process.pid} "),
    ):
        Lease.open(sysfs_root=machine, socket_path=socket)


def test_a_private_keeper_respects_a_lease_of_the_daemon(machine: Path) -> None:
    with ExitStack() as stack:
        _keeper, socket = stack.enter_context(daemon(machine))
        process = stack.enter_context(app(machine, "stay", socket))
        with pytest.raises(LeaseHeldError, match=f"pid {process.pid} "):
            Lease.open(sysfs_root=machine, folder=machine / "run", keeper=lease_rig.KEEPER)
        assert not is_restored(machine)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user; run as root")
def test_another_user_cannot_keep_the_lease_from_being_taken(machine: Path) -> None:
    """A lock needs no more than a file that is open for reading."""
    lock_all = (
        "import fcntl, os, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for entry in os.scandir():\n"
        "    try: fcntl.flock(os.open(entry.name, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    except PermissionError: pass\n"
        "print('tried', flush=True); sys.stdin.readline()"
    )
    options = {"sysfs_root": machine, "folder": machine / "run", "keeper": lease_rig.KEEPER}
    Lease.open(**options).release()
    (machine / "run" / "lease").chmod(0o644)  # as versions up to 0.3 made it
    Lease.open(**options).release()
    with subprocess.Popen(
        [sys.executable, "-c", lock_all],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=machine / "run",
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"tried\n"
        Lease.open(**options).release()


def test_restore_leaves_a_lease_that_is_held_alone(machine: Path) -> None:
    with app(machine, "stay") as process:
        refused = command(machine, "restore")
        assert refused.returncode == 1
        assert f"pid {process.pid}" in refused.stderr
        assert not is_restored(machine)
