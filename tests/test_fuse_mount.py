"""A virtual Jetson behind a FUSE mount: real files, real processes, real permissions."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from governor.cli.main import main
from governor.devices.emulated import mount
from governor.devices.emulated.mount import check_mount_point, mounted, why_not
from governor.devices.emulated.sysfs import VirtualJetson
from governor.devices.emulated.tree import Fault
from governor.errors import InputError

needs_fuse = pytest.mark.skipif(why_not() is not None, reason=f"no FUSE here: {why_not()}")
GPU = "sys/class/devfreq/17000000.gpu"
ZONES = "sys/class/thermal"
CONTROL = "run/virtual-jetson"


@pytest.fixture(scope="module")
def jetson() -> VirtualJetson:
    return VirtualJetson("orin-nano", 36)


@pytest.fixture(scope="module")
def shared(jetson: VirtualJetson, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    # Not below pytest's own folder: only its owner may look into that.
    with mounted(jetson, tmp_path_factory.mktemp("jetson")) as root:
        yield root


@pytest.fixture
def root(jetson: VirtualJetson, shared: Path) -> Iterator[Path]:
    """The mounted board, as it was mounted."""
    yield shared
    jetson.tree.faults = ()
    jetson.clocks.set_mode(jetson.kernel.uncapped_mode)


@needs_fuse
def test_files_read_as_the_tree_says(jetson: VirtualJetson, root: Path) -> None:
    for path in ("etc/nvpmodel.conf", "proc/device-tree/compatible", f"{GPU}/max_freq"):
        assert (root / path).read_bytes() == jetson.tree.read(f"/{path}")


@needs_fuse
def test_links_lead_to_files_inside_the_mount(root: Path) -> None:
    for path in (GPU, "sys/bus/i2c/drivers/ina3221/1-0040", "proc/device-tree"):
        assert (root / path).resolve().is_relative_to(root.resolve())
        assert (root / path).resolve().is_dir()


@needs_fuse
def test_a_write_is_in_force_for_the_next_read(root: Path) -> None:
    (root / GPU / "max_freq").write_text("510000000")
    assert (root / GPU / "cur_freq").read_text() <= "510000000\n"
    assert (root / GPU / "max_freq").read_text() == "510000000\n"


@needs_fuse
def test_one_open_file_gives_fresh_readings_from_its_start(root: Path) -> None:
    with (root / GPU / "max_freq").open("rb", buffering=0) as file:
        before = file.read()
        (root / GPU / "max_freq").write_text("510000000")
        file.seek(0)
        assert file.read() == b"510000000\n" != before


@needs_fuse
def test_a_shell_can_write_and_is_told_of_refusals(root: Path) -> None:
    ok = subprocess.run(
        ["sh", "-c", f"echo 408000000 > {root}/{GPU}/max_freq && cat {root}/{GPU}/max_freq"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ok.stdout == "408000000\n"
    refused = subprocess.run(["sh", "-c", f"echo warp > {root}/{GPU}/governor"], check=False)
    assert refused.returncode != 0


@needs_fuse
def test_a_read_only_file_cannot_be_opened_for_writing_even_by_root(root: Path) -> None:
    with pytest.raises(PermissionError):
        (root / GPU / "cur_freq").write_text("1")


@needs_fuse
def test_a_zone_that_is_off_answers_eagain(root: Path) -> None:
    zone = next(
        zone for zone in (root / ZONES).iterdir()
        if zone.name.startswith("thermal_zone") and (zone / "type").read_text() == "cv0-thermal\n"
    )  # fmt: skip
    with (zone / "temp").open("rb", buffering=0) as file, pytest.raises(OSError) as caught:  # noqa: PT011
        os.read(file.fileno(), 64)
    assert caught.value.errno == errno.EAGAIN


@needs_fuse
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_ordinary_users_may_read_clocks_but_not_set_them_nor_see_debugfs(
    jetson: VirtualJetson, tmp_path: Path
) -> None:
    point = Path("/tmp") / f"virtual-jetson-{os.getpid()}"  # where all may look
    point.mkdir()
    script = (
        "import os, sys; root = sys.argv[1]; os.setgid(65534); os.setuid(65534)\n"
        "def attempt(path, mode):\n"
        "    try: open(root + path, mode).close(); return 'yes'\n"
        "    except OSError as error: return type(error).__name__\n"
        f"print(attempt('/{GPU}/max_freq', 'r'), attempt('/{GPU}/max_freq', 'w'),\n"
        "      attempt('/sys/kernel/debug/bpmp/debug/clk/emc/rate', 'r'),\n"
        "      attempt('/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_cur_freq', 'r'))"
    )
    try:
        with mounted(jetson, point):
            done = subprocess.run(
                [sys.executable, "-c", script, str(point)], capture_output=True, text=True
            )
    finally:
        point.rmdir()
    assert done.stdout.split() == ["yes"] + 3 * ["PermissionError"]


@needs_fuse
def test_an_inference_takes_real_time(jetson: VirtualJetson, root: Path) -> None:
    # Where nothing is faster than the physics say, however slow this machine is.
    (root / GPU / "max_freq").write_text("306000000")
    time.sleep(0.05)
    expected_s = float((root / CONTROL / "latency_s").read_text())
    start_s = time.perf_counter()
    (root / CONTROL / "infer").write_text("1")
    assert time.perf_counter() - start_s > 0.8 * expected_s


@needs_fuse
def test_faults_come_through(jetson: VirtualJetson, root: Path) -> None:
    (root / CONTROL / "faults").write_text(f"/{GPU}/cur_freq read ENODEV")
    with pytest.raises(OSError, match="No such device"):
        (root / GPU / "cur_freq").read_text()
    assert jetson.tree.faults == (Fault(f"/{GPU}/cur_freq", "read", "ENODEV"),)


@needs_fuse
def test_a_file_that_hangs_keeps_no_other_from_answering(
    jetson: VirtualJetson, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("governor.devices.emulated.tree.HANG_S", 1.0)
    jetson.tree.faults = (Fault(f"/{GPU}/cur_freq", "read", "hang"),)
    ended: list[str] = []
    hung = [
        threading.Thread(target=lambda: ended.append((root / GPU / "cur_freq").read_text()))
        for _ in range(12)
    ]
    for thread in hung:
        thread.start()
    assert (root / GPU / "max_freq").read_text()
    assert not ended
    for thread in hung:
        thread.join()
    assert len(ended) == len(hung)


@needs_fuse
def test_the_working_directory_stays(jetson: VirtualJetson, root: Path) -> None:
    assert Path.cwd() != Path("/")


# The command -------------------------------------------------------------------------------


def start(directory: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """``governor emulate --mount`` in a process of its own, once it serves; what it says then."""
    entry = "import sys; from governor.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", entry, "emulate", "--mount", str(directory), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout is not None
    return process, process.stdout.readline()


@needs_fuse
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_unmounts(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process, said = start(tmp_path, "--board", "nano")
    try:
        assert (tmp_path / "proc/device-tree/model").read_bytes().endswith(b"Developer Kit\0")
        assert "emulated" in said
    finally:
        process.send_signal(number)
        process.communicate(timeout=20)
    assert process.returncode == code
    assert not os.path.ismount(tmp_path)
    assert list(tmp_path.iterdir()) == []


@needs_fuse
def test_a_directory_that_is_no_place_to_mount_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for place, why in ((tmp_path, "not empty"), (tmp_path / "file", "not a directory"),
                       (tmp_path / "none", "does not exist")):  # fmt: skip
        assert main(["emulate", "--mount", str(place)]) == 2
        assert why in capsys.readouterr().err


@needs_fuse
@pytest.mark.parametrize(
    "options", [["--board", "toaster"], ["--board", "nano", "--l4t", "36"], ["--nvpmodel", "77"],
                ["--workload", "doom"]]
)  # fmt: skip
def test_what_cannot_be_emulated_is_refused_before_anything_is_mounted(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["emulate", "--mount", str(tmp_path), *options]) == 2
    assert capsys.readouterr().err.startswith("governor: ")
    assert not os.path.ismount(tmp_path)


def test_a_release_is_only_for_a_mount(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulate", "--board", "nano", "--l4t", "32"]) == 2
    assert "add --mount DIR" in capsys.readouterr().err


def test_without_the_fuse_device_the_refusal_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount, "FUSE", tmp_path / "fuse")
    with pytest.raises(InputError, match="fuse does not exist; load the kernel module"):
        check_mount_point(tmp_path)


@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="no FUSE here: /dev/fuse is missing")
def test_without_fuse3_the_refusal_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt-get install -y fuse3"):
        check_mount_point(tmp_path)


@needs_fuse
def test_without_mfusepy_the_refusal_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    with pytest.raises(InputError, match=r"pip install 'energy-governor\[emulator\]'"):
        check_mount_point(tmp_path)
