"""jetson-stats as a second source: over its API, and said clearly when it cannot serve."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any

import pytest
from sysfs_trees import Tree, kind

from governor.devices import diagnosis
from governor.devices.diagnosis import Problem
from governor.devices.jtop import JtopRails, read_jtop
from governor.errors import DeviceError, MissingExtraError
from governor.lease.jetson_board import Board, boards

AGX_ORIN = {
    "rail": {
        "VDD_GPU_SOC": {"power": 8000, "avg": 8100, "volt": 20000, "curr": 400},
        "VDD_CPU_CV": {"power": 3000, "avg": 3000},
        "VIN_SYS_5V0": {"power": 4000, "avg": 4000},
        "VDDQ_VDD2_1V8AO": {"power": 1500, "avg": 1500},
    },
    "tot": {"power": 16500, "avg": 16600},
}
ORIN_NX = {
    "rail": {"VDD_CPU_GPU_CV": {"power": 5000}, "VDD_SOC": {"power": 2000}},
    "tot": {"name": "VDD_IN", "power": 10000},
}
Install = Callable[..., None]

# The part of jetson-stats' public API that is used, answering as its documentation says.
PACKAGE = """
__version__ = {version!r}
class JtopException(Exception):
    pass
class Mode:
    name = {mode!r}
class jtop:
    def __init__(self, interval=1.0):
        self.closed = False
    def start(self):
        if {problem!r}:
            raise JtopException({problem!r})
    def ok(self, spin=False):
        if {lost!r}:
            raise JtopException("Lost connection with jtop server")
        return True
    def close(self):
        self.closed = True
    power = {power!r}
    nvpmodel = Mode()
    fan = {{"pwmfan": {{"speed": [35.0], "rpm": [1200], "profile": "quiet"}}}}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package that behaves as jetson-stats, or one that cannot be imported."""

    def put(present: bool = True, **traits: Any) -> None:
        text = PACKAGE.format(
            **{"version": "7.2.2", "mode": "MAXN", "problem": "", "power": {}, "lost": False}
            | traits
        )
        (tmp_path / "jtop.py").write_text(text if present else "raise ImportError\n")
        invalidate_caches()
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "jtop", raising=False)

    yield put
    sys.modules.pop("jtop", None)


def board(name: str) -> Board:
    return next(each for each in boards() if each.name == name)


def test_watts_come_from_its_milliwatts_and_the_total_rail_from_where_it_keeps_it(
    install: Install,
) -> None:
    install(power=ORIN_NX)
    reading = read_jtop()
    assert reading.power_w == {"VDD_CPU_GPU_CV": 5.0, "VDD_SOC": 2.0, "VDD_IN": 10.0}
    assert reading.total_w == 10.0
    assert (reading.version, reading.mode) == ("7.2.2", "MAXN")
    assert reading.fan_percent == {"pwmfan": 35.0}


def test_the_board_s_total_is_taken_not_jetson_stats_sum_of_all_rails(install: Install) -> None:
    install(power=AGX_ORIN)
    rails = JtopRails.open(board("agx-orin"))
    assert rails.total_rail == "total"
    assert rails.read()["total"] == pytest.approx(15.0)
    rails.close()


def test_a_board_whose_total_it_does_not_show_is_refused(install: Install) -> None:
    install(power=AGX_ORIN)
    with pytest.raises(DeviceError, match="shows no rail VDD_IN"):
        JtopRails.open(board("orin-nx"))


def test_a_lost_service_leaves_no_rails(install: Install) -> None:
    install(power=ORIN_NX, lost=True)
    session = import_module("jtop").jtop()
    assert JtopRails(session, board("orin-nx")).read() == {}


def test_an_absent_package_says_how_to_install_it(install: Install) -> None:
    install(present=False)
    with pytest.raises(MissingExtraError, match=r"energy-governor\[jetson\]"):
        read_jtop()


@pytest.mark.parametrize(
    "problem",
    [
        "The jtop.service is not active. Please run:\nsudo systemctl restart jtop.service",
        "Mismatch version jtop service: [4.3.2] and client: [7.2.2].",
    ],
)
def test_a_service_that_does_not_answer_is_one_line_with_what_to_do(
    install: Install, problem: str
) -> None:
    install(problem=problem)
    with pytest.raises(DeviceError) as caught:
        read_jtop()
    message = str(caught.value)
    assert "\n" not in message
    assert problem.split("\n")[0] in message
    assert "sudo systemctl restart jtop" in message


def cross_check(tmp_path: Path) -> tuple[list[str], list[Problem]]:
    root = Tree(tmp_path / "board", kind("orin-nx-r36")).root
    power_w = {"VDD_IN": 10.0, "VDD_CPU_GPU_CV": 5.0, "VDD_SOC": 2.0}
    return diagnosis.agreement(root, board("orin-nx"), read_jtop(), power_w)


def test_the_doctor_says_where_both_sources_agree(install: Install, tmp_path: Path) -> None:
    install(power=ORIN_NX)
    says, problems = cross_check(tmp_path)
    assert "VDD_IN 10.00 W, agrees with 10.00 W" in says
    assert problems == []


def test_the_doctor_says_where_they_do_not(install: Install, tmp_path: Path) -> None:
    install(power={**ORIN_NX, "tot": {"name": "VDD_IN", "power": 25000}}, mode="15W")
    _, problems = cross_check(tmp_path)
    text = "\n".join(problem.what for problem in problems)
    assert "VDD_IN: 10.00 W by the kernel's files, 25.00 W by jetson-stats" in text
    assert "nvpmodel's files say 0 (MAXN), jetson-stats 15W" in text


def test_the_doctor_names_a_total_that_counts_a_rail_twice(
    install: Install, tmp_path: Path
) -> None:
    install(power={**AGX_ORIN, "tot": {"power": 16500}})
    root = Tree(tmp_path / "board", kind("agx-orin-r36")).root
    says, _ = diagnosis.agreement(root, board("agx-orin"), read_jtop(), {})
    assert "its total of 16.50 W counts a rail twice, 15.00 W is right" in says
