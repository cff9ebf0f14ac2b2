"""The real Jetson backend, unchanged, on virtual boards behind a FUSE mount."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from governor import EnergyGovernor
from governor.devices.emulated import ShadowBoard, board_names
from governor.devices.emulated.kernel import l4t_releases
from governor.devices.emulated.mount import mounted, why_not
from governor.devices.emulated.sysfs import VirtualJetson
from governor.devices.jetson import JetsonDevice
from governor.lease.client import Lease
from governor.space import OperatingPoint

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"no FUSE here: {why_not()}")

EVERY_RELEASE = [(board, l4t) for board in board_names() for l4t in l4t_releases(board)]
CONTROL = "run/virtual-jetson"
STEPS_W = 0.5
"""Two rails of AGX boards come in steps of 0.4 W (20 mA at 20 V), a third in 0.1 W; each is off
by half a step at most."""


@contextmanager
def opened(root: Path, folder: Path) -> Iterator[JetsonDevice]:
    """The backend with a private keeper of its own, as on a real board."""
    device = JetsonDevice.open(root, lambda: Lease.open(sysfs_root=root, folder=folder))
    try:
        yield device
    finally:
        device.close()


@pytest.fixture(params=EVERY_RELEASE, ids=lambda pair: f"{pair[0]}-L4T{pair[1]}")
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VirtualJetson]:
    """Each board under each release, mounted on ``tmp_path / 'root'``."""
    name, l4t = request.param
    jetson = VirtualJetson(name, l4t)
    (tmp_path / "root").mkdir()
    with mounted(jetson, tmp_path / "root"):
        yield jetson


def clock_files(jetson: VirtualJetson) -> dict[str, bytes]:
    """What the files say that a pin writes."""
    names = ("_min_freq", "_max_freq", "/min_freq", "/max_freq", "mrq_rate_locked", "clk_state",
             "bwmgr_halt", "iso_cap", "clk_cap/emc")  # fmt: skip
    return {path: jetson.tree.read(path) for path in jetson.tree.files() if path.endswith(names)}


def same(found: OperatingPoint, wanted: OperatingPoint) -> bool:
    """Equal but for what a release calls the highest memory clock (3199 or 3200 MHz)."""
    return all(found[knob] == pytest.approx(wanted[knob], rel=1e-3) for knob in wanted)


def total_power(device: JetsonDevice, jetson: VirtualJetson) -> tuple[float, float]:
    """What the backend reads of the total, and what the board says, between two refreshes."""
    total, live = device.info.total_rail, jetson.board
    while True:
        before_w = live.sample().power_w[total]
        seen_w = device.sample().power_w[total]
        if live.sample().power_w[total] == before_w:
            return seen_w, before_w


def test_the_backend_governs_every_board(board: VirtualJetson, tmp_path: Path) -> None:
    live, before = board.board, clock_files(board)
    with opened(tmp_path / "root", tmp_path) as device:
        assert device.info.name == live.info.name
        assert device.info.emulated
        assert device.info.total_rail == live.info.total_rail
        assert device.space.names == live.space.names
        assert len(device.space) == len(live.space)
        for index in (0, len(live.space) // 2, len(live.space) - 1):
            assert same(device.space.point(index), live.space.point(index))

        seen_w, true_w = total_power(device, board)
        assert seen_w == pytest.approx(true_w, abs=STEPS_W)

        for index in (len(live.space) // 2, 0, len(live.space) - 1):
            point = device.space.point(index)
            assert device.apply(point) == point
            assert same(live.read(), live.space.point(index))
    assert clock_files(board) == before


def test_a_power_mode_limits_the_space(tmp_path: Path) -> None:
    jetson = VirtualJetson("orin-nano", 36, mode=1)
    (tmp_path / "root").mkdir()
    with mounted(jetson, tmp_path / "root") as root, opened(root, tmp_path) as device:
        highest = {knob.name: knob.levels[-1] for knob in device.space.knobs}
    assert highest == {"cpu_hz": 1344e6, "gpu_hz": 918e6, "emc_hz": 3199e6}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    """A TX2 that runs YOLOv8n, served by ``governor emulate`` in a process of its own."""
    (tmp_path / "root").mkdir()
    entry = "import sys; from governor.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", entry, "emulate", "--mount", str(tmp_path / "root"),
         "--board", "tx2", "--workload", "yolov8n-trt"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    assert b"emulated" in process.stdout.readline()
    yield tmp_path / "root"
    process.terminate()
    process.communicate(timeout=20)


def test_the_governor_comes_near_the_boards_optimum_in_real_time(
    served: Path, tmp_path: Path
) -> None:
    truth = ShadowBoard("tx2", "yolov8n-trt")
    slo_s = 1.5 * truth.true_latency_s(truth.space.point(truth.space.fastest))
    least_j, default_j = truth.optimum(slo_s)[2], truth.true_default()[1]
    with opened(served, tmp_path) as device:
        deadline_s = time.monotonic() + 90.0
        with EnergyGovernor(latency_slo=slo_s, device=device, trials=8) as gov:
            while gov.phase != "hold" and time.monotonic() < deadline_s:
                # Timed on the board, as GPU events are: how busy this machine is stays out of it.
                start_s = device.clock.now()
                (served / CONTROL / "infer").write_text("1")
                gov.record(start_s, start_s + float((served / CONTROL / "infer").read_text()))
            held = gov.operating_point
            assert gov.phase == "hold"
    assert held is not None
    assert truth.true_latency_s(held) <= slo_s
    assert truth.true_energy_j(held) <= 1.04 * least_j < 0.9 * default_j
