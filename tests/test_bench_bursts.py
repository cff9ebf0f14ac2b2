"""Bursts on a mounted virtual board: ours keeps its stated error, Zeus runs beside it unchanged.

How often the stated error holds is in test_bursts.py, in virtual time; here are real files.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from governor.cli.bench.bursts import LENGTHS_S, Burst, Outcome, document, show
from governor.cli.bench.zeus import INSTALL, Zeus
from governor.cli.main import main
from governor.devices.emulated.mount import why_not
from governor.errors import DeviceError
from governor.slo import Estimate

needs_fuse = pytest.mark.skipif(why_not() is not None, reason=f"no FUSE here: {why_not()}")


def namespace_refusal() -> str:
    """Why no process here may have a /sys of its own; empty: it may."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = "mount --bind /sys /sys"
    try:
        done = subprocess.run(
            ["unshare", "--mount", *user, "sh", "-c", script], capture_output=True, text=True
        )
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


needs_namespace = pytest.mark.skipif(
    bool(namespace_refusal()), reason=f"no mount namespaces here: {namespace_refusal()}"
)


def installed_zeus() -> str | None:
    try:
        return version("zeus")
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Run:
    """What ``governor bench bursts`` printed and wrote."""

    printed: str
    written: dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    file = tmp_path_factory.mktemp("bursts") / "bursts.json"
    with redirect_stdout(StringIO()) as printed:
        assert main(["bench", "bursts", "--repeats", "1", "--json", str(file)]) == 0
    return Run(printed.getvalue(), json.loads(file.read_text(encoding="utf-8")))


@needs_fuse
def test_every_length_is_a_row_and_the_emulation_is_named(run: Run) -> None:
    assert "(emulated)" in run.printed
    assert "Figures of an emulation, not of hardware." in run.printed
    for length in ("20 ms", "50 ms", "200 ms", "1 s"):
        assert any(line.startswith(f" {length} ") for line in run.printed.splitlines())


@needs_fuse
def test_our_stated_error_covers_the_truth_on_the_mounted_board(run: Run) -> None:
    assert [burst["nominal_s"] for burst in run.written["bursts"]] == list(LENGTHS_S)
    for burst in run.written["bursts"]:
        if burst["resolved"]:
            # Four bursts: three standard errors, of which a normal one leaves 0.3 % outside.
            assert abs(burst["energy_j"] - burst["truth_j"]) <= 3 * burst["energy_se_j"]


@needs_fuse
def test_a_second_of_work_is_resolved_to_a_few_percent_on_the_mounted_board(run: Run) -> None:
    longest = run.written["bursts"][-1]
    assert longest["resolved"]
    assert longest["energy_j"] == pytest.approx(longest["truth_j"], rel=0.1)


@needs_fuse
@pytest.mark.skipif(installed_zeus() is not None, reason="Zeus is installed here")
def test_without_zeus_the_table_says_how_to_get_it(run: Run) -> None:
    assert run.written["zeus"] is None
    assert INSTALL in run.printed


@needs_fuse
@needs_namespace
@pytest.mark.skipif(installed_zeus() is None, reason=f"Zeus is not installed; run: {INSTALL}")
def test_zeus_reads_the_mounted_board(run: Run) -> None:
    assert run.written["zeus"] == installed_zeus()
    assert all(burst["zeus_j"] >= 0 for burst in run.written["bursts"])
    assert run.written["bursts"][-1]["zeus_j"] > 0


# Zeus's process ----------------------------------------------------------------------------

STAND_IN = """
from pathlib import Path
from types import SimpleNamespace

def jetson_is_available():
    return False

class Jetson:
    def __init__(self):
        if not jetson_is_available():
            raise RuntimeError("No Jetson was detected")
        self.millijoules = float(Path("/sys/millijoules").read_text())

    def get_total_energy_consumption(self):
        pass

    def begin_window(self, key):
        pass

    def end_window(self, key):
        return SimpleNamespace(total_energy_mj=self.millijoules or None)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that calls itself zeus, first on the path; and a root folder with a sys."""
    packages = tmp_path / "packages"
    soc = packages / "zeus/device/soc"
    soc.mkdir(parents=True)
    for package in (soc, soc.parent, soc.parent.parent):
        (package / "__init__.py").touch()
    (soc / "jetson.py").write_text(STAND_IN)
    described = packages / "zeus-9.9.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: zeus\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    (tmp_path / "root/sys").mkdir(parents=True)
    return tmp_path / "root"


@needs_namespace
@pytest.mark.parametrize(("millijoules", "joules"), [(1500.0, 1.5), (0.0, None)])
def test_zeus_sees_the_boards_sys_as_its_own(
    stand_in: Path, millijoules: float, joules: float | None
) -> None:
    (stand_in / "sys/millijoules").write_text(str(millijoules))
    zeus = Zeus(stand_in)
    zeus.begin()
    assert zeus.end() == joules
    assert zeus.version == "9.9"
    zeus.close()
    assert not Path("/sys/millijoules").exists()


@needs_namespace
def test_a_zeus_that_fails_is_quoted(stand_in: Path) -> None:
    with pytest.raises(DeviceError, match=r"Zeus cannot run here: FileNotFoundError.*millijoules"):
        Zeus(stand_in)


# The table ---------------------------------------------------------------------------------

DROWNED = Burst(0.05, 0.048, 0.2, Estimate(0.1, 0.1), 0.05)
UNSEEN = Burst(0.05, 0.048, 0.2, Estimate(float("nan"), float("inf")), None)
SEEN = Burst(0.2, 0.2, 1.0, Estimate(1.2, 0.05), None)


def shown(*bursts: Burst) -> str:
    with redirect_stdout(StringIO()) as printed:
        show(Outcome("a board (emulated)", bursts, "9.9", ""))
    return printed.getvalue()


def test_bursts_that_are_not_resolved_are_called_so() -> None:
    assert "not resolvable" in shown(DROWNED, UNSEEN)
    assert "± " not in shown(DROWNED, UNSEEN).replace("ours ± 1 se", "")


def test_a_truth_outside_two_standard_errors_is_counted_as_such() -> None:
    assert "0 of 1" in shown(SEEN)
    assert "1 of 1" in shown(Burst(0.2, 0.2, 1.0, Estimate(1.09, 0.05), None))


def test_a_zeus_without_a_total_says_nothing() -> None:
    assert "no rail that it takes for this board's total" in shown(SEEN)


def test_what_was_not_said_is_null_in_json() -> None:
    (burst,) = json.loads(json.dumps(document(Outcome("a", (UNSEEN,), None, "x"))))["bursts"]
    assert burst["energy_j"] is None
    assert burst["zeus_j"] is None
    assert not burst["resolved"]
