"""Zeus's own Jetson class, for comparison: released code, run unchanged beside ours.

It reads fixed paths in /sys. So it runs in a process with a mount namespace of its own, where
/sys is that of the board in question. Nothing outside that process sees it. One thing is told to
it: that this is a Jetson, which it would else conclude from the processor's name.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, cast

from governor.errors import DeviceError

INSTALL = "pip install zeus"
STOP_S = 10.0

_NAMESPACE = 'mount --rbind "$1" /sys && shift && exec "$@"'
_PROGRAM = """
import sys
from zeus.device.soc import jetson
jetson.jetson_is_available = lambda: True
board = jetson.Jetson()
board.get_total_energy_consumption()  # its process has started
print("ready", flush=True)
for line in sys.stdin:
    if line == "begin\\n":
        board.begin_window("burst")
        print("begun", flush=True)
    else:
        print(board.end_window("burst").total_energy_mj, flush=True)
"""


class Zeus:
    """A measurement window of Zeus on the board whose files are under a folder.

    Attributes:
        version: of the package.
    """

    def __init__(self, root: Path) -> None:
        """Start it.

        Raises:
            DeviceError: why it cannot run here.
        """
        try:
            self.version = version("zeus")
        except PackageNotFoundError:
            raise DeviceError(f"Zeus is not installed; run: {INSTALL}") from None
        self._process = subprocess.Popen(  # noqa: S603 - the system's tools and our own code
            [*_namespace(root), sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,  # Ctrl-C is ours; and it has a process of its own
        )  # fmt: skip
        self._commands = cast(IO[str], self._process.stdin)
        self._answers = cast(IO[str], self._process.stdout)
        try:
            self._answer()
        except DeviceError:
            self.close()
            raise

    def begin(self) -> None:
        """Begin a window."""
        self._ask("begin")

    def end(self) -> float | None:
        """Joules on the total rail since :meth:`begin`; None: it knows no total of this board."""
        millijoules = self._ask("end")
        return None if millijoules == "None" else float(millijoules) / 1e3

    def close(self) -> None:
        """End its processes."""
        try:
            self._process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()

    def _ask(self, command: str) -> str:
        try:
            print(command, file=self._commands, flush=True)
        except BrokenPipeError:
            raise DeviceError("Zeus has ended early") from None
        return self._answer()

    def _answer(self) -> str:
        line = self._answers.readline().strip()
        if not line:
            said = cast(IO[str], self._process.stderr).read().split("\n")
            raise DeviceError(f"Zeus cannot run here: {next(filter(None, reversed(said)), '')}")
        return line


def _namespace(root: Path) -> list[str]:
    """The command that runs what follows it with ``root``'s sys as its /sys."""
    unshare, shell = shutil.which("unshare"), shutil.which("sh")
    if unshare is None or shell is None:
        raise DeviceError("Zeus needs a /sys of its own: apt-get install -y util-linux")
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return [unshare, "--mount", *user, shell, "-c", _NAMESPACE, "sh", str(root / "sys")]
