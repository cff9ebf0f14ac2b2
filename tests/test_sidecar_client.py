"""The one-file client: harmless to its program whatever the sidecar does."""

from __future__ import annotations

import ast
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from governor.sidecar import client as module
from governor.sidecar.client import PAUSE_S, Client

FILE = Path(module.__file__)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sidecar.sock"


@pytest.fixture
def listener(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(path))
        end.settimeout(5.0)
        yield end


def fields(listener):
    return listener.recv(256).decode().split(" ")


# one file, copyable


def test_it_is_valid_python_36_and_needs_only_the_standard_library():
    tree = ast.parse(FILE.read_text(), feature_version=(3, 6))
    imported = {
        name.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for name in node.names
    } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= set(sys.stdlib_module_names)


def test_a_copy_of_it_runs_under_another_python_without_the_package(path, listener, tmp_path):
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("no /usr/bin/python3; install python3 from the distribution")
    shutil.copy(FILE, tmp_path / "governor_client.py")
    program = "from governor_client import frame, tick\nwith frame(): pass\ntick(); tick()"
    subprocess.run(
        [python, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{program}"],
        env={"GOVERNOR_SOCKET": str(path), "GOVERNOR_APP": "cam"},
        check=True,
        timeout=60,
    )
    assert [fields(listener)[1:3] for _ in range(2)] == [["f", "cam"], ["t", "cam"]]


# what it sends


def test_a_frame_is_sent_with_its_time_and_items(path, listener):
    client = Client("detector", str(path))
    before_s = time.monotonic()
    with client.frame(items=4):
        time.sleep(0.01)
    version, kind, app, start, end, items, slept = fields(listener)
    assert (version, kind, app, items, float(slept)) == ("1", "f", "detector", "4", 0.0)
    assert before_s - 1e-5 <= float(start) <= float(end) - 0.01
    assert client.sent == 1


def test_another_bound_is_sent_and_is_no_frame(path, listener):
    client = Client("detector", str(path))
    assert client.bound(0.7)
    assert fields(listener)[1:4] == ["b", "detector", "0.700000000"]
    assert (client.sent, client.lost) == (0, 0)


def test_a_bound_that_nobody_took_is_said(path):
    client = Client(path=str(path))
    assert not client.bound(0.7)
    assert client.lost == 0


def test_a_frame_that_raises_is_not_sent_and_the_exception_goes_through(path, listener):
    client = Client(path=str(path))
    with pytest.raises(KeyError), client.frame():
        raise KeyError("model")
    with client.frame(items=2):
        pass
    assert fields(listener)[5] == "2"


def test_the_time_between_two_ticks_is_a_frame(path, listener):
    client = Client(path=str(path))
    client.tick()
    time.sleep(0.02)
    client.tick()
    _, kind, _, start, end, _, _ = fields(listener)
    assert kind == "t"
    assert float(end) - float(start) >= 0.02


# whatever the sidecar does


def test_an_absent_sidecar_is_no_trouble_and_is_found_when_it_comes(path, monkeypatch):
    client = Client(path=str(path))
    for _ in range(100):
        with client.frame():
            pass
    assert (client.sent, client.lost) == (0, 100)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(path))
        time.sleep(PAUSE_S)
        with client.frame():
            pass
        assert client.sent == 1


def test_a_restarted_sidecar_is_found_again(path):
    client = Client(path=str(path))
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.bind(str(path))
            with client.frame():
                pass
            end.settimeout(1.0)
            assert end.recv(256)
        path.unlink()
    assert client.sent == 2


def test_a_sidecar_that_hangs_does_not_hold_up_its_program(path, listener):
    client = Client(path=str(path))
    for _ in range(5000):  # more than any socket queues
        with client.frame():
            pass
    assert client.lost > 0
    assert client.sent + client.lost == 5000


@pytest.mark.parametrize("items", ["four", None, 1.5])
def test_nonsense_from_its_own_program_raises_nothing(path, listener, items):
    client = Client("n\u00e4me", str(path))
    with client.frame(items=items):
        pass
    assert client.sent + client.lost == 1


def test_a_socket_that_cannot_be_named_raises_nothing(tmp_path):
    client = Client(path=str(tmp_path / ("x" * 200)))
    with client.frame():
        pass
    assert client.lost == 1


def test_it_can_be_used_after_it_was_closed(path, listener):
    client = Client(path=str(path))
    for _ in range(2):
        with client.frame():
            pass
        client.close()
    assert client.sent == 2


# emulation


def test_on_an_emulated_board_it_sleeps_as_long_as_the_sidecar_says(path, listener):
    client = Client(path=str(path), emulated=True)
    with client.frame():
        pass
    _, _, _, sender = listener.recvmsg(256)
    listener.sendto(module._ANSWER.pack(3.0), sender)
    with client.frame():  # hears the answer at its end
        pass
    fields(listener)
    with client.frame():
        time.sleep(0.01)
    _, _, _, start, end, _, slept = fields(listener)
    assert float(slept) >= 0.02
    assert float(end) - float(start) >= 0.03


@pytest.mark.parametrize("answer", [b"", b"x", b"\xff" * 8, module._ANSWER.pack(-5.0)])
def test_a_nonsensical_answer_slows_nothing_down(path, listener, answer):
    client = Client(path=str(path), emulated=True)
    with client.frame():
        pass
    _, _, _, sender = listener.recvmsg(256)
    listener.sendto(answer, sender)
    for _ in range(2):
        with client.frame():
            pass
    assert client._slowdown == 1.0
