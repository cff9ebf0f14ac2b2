"""A PostgreSQL server of the tests' own: real, in a folder of its own, on a Unix socket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import pytest

PASSWORD = "s3cret-of-the-test"
_USER = "nobody"  # a server refuses to run as root


def _program(name: str) -> str:
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr/pgsql").glob("bin")]
    found = shutil.which(name, path=os.pathsep.join([*map(str, places), os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"{name} is not installed; apt-get install postgresql")
    return found


class PostgresServer:
    """Started in a new folder; :meth:`kill` is as a power cut, :meth:`start` comes back."""

    def __init__(self) -> None:
        pytest.importorskip("psycopg", reason="psycopg is not installed; pip install psycopg")
        initdb, self._postgres = _program("initdb"), _program("postgres")
        self.folder = Path(mkdtemp(prefix="governor-pg-", dir="/tmp"))
        self._as_user = [] if os.geteuid() else ["setpriv", f"--reuid={_USER}", "--clear-groups"]
        if self._as_user:
            shutil.chown(self.folder, _USER)
        password = self.folder / "password"
        password.write_text(PASSWORD)
        subprocess.run(
            [*self._as_user, initdb, "-D", str(self.folder / "data"), "-U", "fleet", "-N",
             "--auth=scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--no-locale"],
            check=True, capture_output=True, cwd="/",
        )  # fmt: skip
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://fleet:{PASSWORD}@/postgres?host={self.folder}"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, self._postgres, "-D", str(self.folder / "data"), "-k",
                 str(self.folder), "-c", "listen_addresses=", "-c", "shared_buffers=16MB"],
                stdout=log, stderr=log, cwd="/", start_new_session=True,
            )  # fmt: skip
        until_s = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < until_s, (self.folder / "log").read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """Without any goodbye.

        Its processes lead groups of their own, and one that outlives it may answer once more.
        """
        server = self._process.pid
        others = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        for process in (server, *map(int, others)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
