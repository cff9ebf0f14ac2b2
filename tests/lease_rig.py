"""Real processes for the lease's tests: ``python lease_rig.py WHAT ...`` on a made-up machine.

``keeper ...``      the lease keeper, with the backend of lease_controls.py. With RIG_TEAR
                    it is killed when half of the journal has reached the disk; RIG_MESSAGE_S
                    is for how long it waits for the rest of a request.
``governor ...``    the command line, with that backend.
``app ROOT HOW``    an application that takes the lease, sets every knob low, says "set" and
                    then ends in the way that HOW names.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parent.parent))

from governor.lease import find

LOW = {"cpu_hz": 1e9, "gpu_hz": 6e8, "emc_hz": 2e9}
KEEPER = (sys.executable, "-I", "-S", __file__, "keeper")


def app(root: Path, how: str) -> None:
    from governor.lease.client import Lease

    socket = os.environ.get("RIG_SOCKET")
    with Lease.open(
        sysfs_root=root,
        socket_path=Path(socket) if socket else None,
        folder=root / "run",
        keeper=KEEPER,
    ) as lease:
        lease.set(LOW)
        if how == "fork-and-die":
            _leave_a_child_with_the_line(lease)
        print("set", flush=True)
        if how == "exception":
            raise RuntimeError("the application failed")
        if how in ("os._exit", "fork-and-die"):
            os._exit(3)
        if how == "fork":
            _fork_a_child_that_ends()
        if how == "stay":
            time.sleep(60)


def _fork_a_child_that_ends() -> None:
    """The child ends through every handler that it has inherited."""
    child = os.fork()
    if child == 0:
        sys.exit(0)
    os.waitpid(child, 0)
    print("forked", flush=True)
    sys.stdin.readline()


def _leave_a_child_with_the_line(lease: object) -> None:
    """As a fork in a C library does: no handler of Python runs in the child."""
    line = os.dup(lease._line._end.fileno())
    os.set_inheritable(line, True)
    if os.fork() == 0:
        os.setsid()
        for number in (0, 1, 2):
            os.close(number)
        signal.alarm(20)
        signal.pause()


def _tear(file: int) -> None:
    os.ftruncate(file, os.fstat(file).st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    find.BACKENDS = ("lease_controls",)  # here, for an import must not change other tests
    what, words = sys.argv[1], sys.argv[2:]
    if what == "keeper":
        from governor.lease import connection
        from governor.lease.keeper import main as keep

        connection.MESSAGE_S = float(os.environ.get("RIG_MESSAGE_S", connection.MESSAGE_S))
        if os.environ.get("RIG_TEAR"):
            os.fsync = _tear
        return keep(words)
    if what == "governor":
        from governor.cli.main import main as command

        return command(words)
    app(Path(words[0]), words[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
