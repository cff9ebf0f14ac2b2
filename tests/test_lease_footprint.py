"""What the keeper is made of, and the units that run it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lease_controls import make_machine

from governor.lease.client import KEEPER, Lease
from governor.lease.lock import LeaseLock

UNITS = Path(__file__).parent.parent / "deploy" / "systemd"
BUDGET_KB = 15 * 1000


def test_the_keeper_imports_the_standard_library_and_itself_alone() -> None:
    code = (
        "import sys; import governor.lease.keeper; import governor.lease.find as find\n"
        "from pathlib import Path; find.find_hardware(Path('/nothing'))\n"
        "print(*{name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    path = f"import sys; sys.path.append({KEEPER[-1]!r})\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", path + code], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == {"governor", "__main__"}


def test_the_keeper_stays_within_its_memory(tmp_path: Path) -> None:
    root = make_machine(tmp_path)
    with Lease.open(sysfs_root=root, folder=root / "run") as lease:
        lease.read()
        tenure = LeaseLock(root / "run").tenure()
        assert tenure is not None
        assert _resident_kb(tenure.keeper.pid) < BUDGET_KB


def _resident_kb(pid: int) -> int:
    """Its share of memory: pages of the interpreter's file are shared with the application."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError("the kernel tells no share")


@pytest.fixture
def verified(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """What systemd says of the units, with a program that exists."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in UNITS.glob("*.service"):
        text = unit.read_text().replace("/opt/energy-governor/bin/governor", sys.executable)
        (tmp_path / unit.name).write_text(text)
    units = [str(path) for path in tmp_path.glob("*.service")]
    return subprocess.run([tool, "verify", *units], capture_output=True, text=True)


def test_systemd_finds_no_fault_in_the_units(verified: subprocess.CompletedProcess[str]) -> None:
    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeDirectoryPreserve=yes",  # the journal must outlive the keeper
        "ExecStopPost=-/opt/energy-governor/bin/governor restore",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectKernelTunables=yes",
        "PrivateNetwork=yes",
    ],
)
def test_the_daemons_unit_has(line: str) -> None:
    assert line in (UNITS / "energy-governor.service").read_text().splitlines()
