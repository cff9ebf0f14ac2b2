"""The journal: whole before the first write, void after a reboot, refused when damaged."""

from __future__ import annotations

import binascii
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lease_rig
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lease_controls import LEVELS, UNTOUCHED, break_knob, make_machine, mend_knob, settings

from governor.errors import InputError
from governor.lease import custody as custody_module
from governor.lease import find
from governor.lease.client import Lease
from governor.lease.custody import Custody
from governor.lease.errors import HardwareError, JournalDamagedError, LeaseError, RestoreError
from governor.lease.journal import Journal, Record, boot_id, default_folder, make_folder
from governor.lease.lock import LeaseLock
from governor.lease.process import Process

US = Process.of(os.getpid())
RECORD = Record(boot_id(), "/", ["board"], "pid 1 (init)", {"gpu_hz": {"/sys/x": "306000000\n"}})


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(find, "BACKENDS", ("lease_controls",))
    return make_machine(tmp_path)


@pytest.fixture
def custody(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Custody:
    """In our hands, with the lease taken."""
    monkeypatch.setattr(custody_module, "RESTORE_PAUSES_S", (0.0,))
    custody = Custody(machine, machine / "run")
    custody.take(US)
    return custody


# The file --------------------------------------------------------------------------------


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.read() is None
    journal.write(RECORD)
    assert journal.read() == RECORD
    journal.clear()
    assert journal.read() is None


@given(data=st.data())
def test_a_journal_with_any_part_lost_or_changed_is_damaged_or_whole(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Never a record other than the one that was written."""
    journal = Journal(tmp_path_factory.getbasetemp())
    journal.write(RECORD)
    content = bytearray(journal.path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    journal.path.write_bytes(content)
    with suppress(JournalDamagedError):
        assert journal.read() == RECORD


@pytest.mark.parametrize(
    "odd",
    [{"snapshots": []}, {"snapshots": {"cpu_hz": "x"}}, {"snapshots": {"cpu_hz": {"a": 1}}},
     {"root": None}, {"written": 3}, {"written": [3]}, {"holder": {}}, {"more": ""}],
)  # fmt: skip
def test_a_journal_of_another_shape_is_damaged_whatever_its_checksum(
    odd: dict[str, object], tmp_path: Path
) -> None:
    body = json.dumps({**RECORD._asdict(), **odd}).encode()
    head = json.dumps({"format": 1, "crc32": binascii.crc32(body)}).encode()
    journal = Journal(tmp_path)
    journal.path.write_bytes(head + b"\n" + body + b"\n")
    with pytest.raises(JournalDamagedError):
        journal.read()


def test_a_journal_of_brackets_is_damaged(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.path.write_bytes(b"[" * 100_000)
    with pytest.raises(JournalDamagedError):
        journal.read()


def test_a_folder_in_which_others_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(LeaseError, match=f"chmod 755 {tmp_path}"):
        make_folder(tmp_path)


def test_each_root_has_its_own_folder(tmp_path: Path) -> None:
    live, one, two = (default_folder(Path(name)) for name in ("/", tmp_path, tmp_path / "other"))
    assert len({live, one, two}) == 3
    assert one.parent == live


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_nobody_from_the_lease_and_so_from_putting_back(tmp_path: Path) -> None:
    lock = LeaseLock(tmp_path)
    with full_disk():
        lock.take(US)
        lock.drop()
    lock.take(US)
    assert lock.tenure() is not None


def test_on_a_full_disk_nothing_is_set_until_there_is_room(machine: Path, custody: Custody) -> None:
    before = settings(machine)
    with full_disk(), pytest.raises(HardwareError, match="nothing is set"):
        custody.set({"gpu_hz": 9e8})
    assert settings(machine) == before
    assert custody.set({"gpu_hz": 9e8}) == {"gpu_hz": 9e8}


# Before the first write ------------------------------------------------------------------


def test_the_journal_holds_every_knob_before_the_first_write(custody: Custody) -> None:
    assert custody.journal.read() is None
    custody.set({"gpu_hz": 9e8})
    record = custody.journal.read()
    assert record is not None
    assert record.of_this_boot
    assert set(record.snapshots) == set(LEVELS)
    assert "1200000000\n" in record.snapshots["gpu_hz"].values()


def test_the_snapshot_of_a_lease_is_not_overwritten_by_its_later_sets(custody: Custody) -> None:
    custody.set({"gpu_hz": 9e8})
    first = custody.journal.read()
    custody.set({"gpu_hz": 6e8})
    assert custody.journal.read() == first


def test_nothing_is_written_when_a_knob_cannot_be_saved(machine: Path, custody: Custody) -> None:
    (machine / "sys" / "knobs" / "emc_hz_min").unlink()
    before = settings(machine)
    with pytest.raises(HardwareError, match="emc_hz cannot be saved, so nothing is set"):
        custody.set({"gpu_hz": 9e8})
    assert settings(machine) == before


def test_nothing_is_written_when_the_journal_cannot_be_kept(
    machine: Path, custody: Custody
) -> None:
    before = settings(machine)
    (machine / "run" / "journal.json.new").mkdir()
    with pytest.raises(HardwareError, match="journal cannot be kept, so nothing is set"):
        custody.set({"gpu_hz": 9e8})
    assert settings(machine) == before


def test_nothing_is_written_when_one_level_of_several_is_refused(
    machine: Path, custody: Custody
) -> None:
    before = settings(machine)
    with pytest.raises(InputError, match="7 Hz is no level of emc_hz"):
        custody.set({"cpu_hz": 1e9, "emc_hz": 7.0})
    assert settings(machine) == before
    assert custody.journal.read() is None


def test_nothing_is_set_without_the_lease(machine: Path) -> None:
    idle = Custody(machine, machine / "run")
    idle.find()
    with pytest.raises(InputError, match="without the lease"):
        idle.set({"cpu_hz": 1e9})


def test_a_keeper_killed_while_it_wrote_the_journal_had_set_nothing(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIG_TEAR", "yes")
    before = settings(machine)
    lease = Lease.open(sysfs_root=machine, folder=machine / "run", keeper=lease_rig.KEEPER)
    with pytest.raises(LeaseError, match="gone"):
        lease.set(lease_rig.LOW)
    assert (machine / "run" / "journal.json.new").stat().st_size > 0
    assert settings(machine) == before
    assert Journal(machine / "run").read() is None
    monkeypatch.delenv("RIG_TEAR")
    assert lease.set(lease_rig.LOW) == lease_rig.LOW
    lease.release()
    assert settings(machine) == before


# Setting and putting back ----------------------------------------------------------------


def test_set_reads_back_what_the_kernel_really_took(custody: Custody) -> None:
    assert custody.set({"gpu_hz": 3e8, "cpu_hz": 1e9}) == {"cpu_hz": 1e9, "gpu_hz": 6e8}


def test_a_level_that_was_rounded_is_reported(
    machine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Lease.open(sysfs_root=machine, folder=machine / "run", keeper=lease_rig.KEEPER) as lease:
        lease.set({"gpu_hz": 3e8})
    assert "GPU: asked for 300 MHz, the kernel set 600 MHz" in caplog.text


def test_a_write_that_fails_names_knob_and_file(machine: Path, custody: Custody) -> None:
    break_knob(machine, "gpu_hz", "EINVAL")
    with pytest.raises(HardwareError, match=r"gpu_hz cannot be set to 900 MHz: .*knobs/gpu_hz"):
        custody.set({"gpu_hz": 9e8})


def test_give_back_restores_and_forgets(machine: Path, custody: Custody) -> None:
    before = settings(machine)
    custody.set(lease_rig.LOW)
    custody.give_back()
    assert settings(machine) == before
    assert custody.journal.read() is None
    assert custody.lock.tenure() is None


def test_all_but_the_faulty_knob_go_back(machine: Path, custody: Custody) -> None:
    custody.set(lease_rig.LOW)
    break_knob(machine, "cpu_hz", "EIO")
    with pytest.raises(RestoreError, match=r"not put back: cpu_hz: .*Input/output error"):
        custody.give_back()
    assert settings(machine)["gpu_hz"] == UNTOUCHED["gpu_hz"]
    with pytest.raises(RestoreError):
        custody.take(US)
    mend_knob(machine, "cpu_hz")
    custody.take(US)
    assert settings(machine)["cpu_hz"] == UNTOUCHED["cpu_hz"]


@pytest.mark.parametrize("harm", ["deleted", "damaged", "with its folder"])
def test_all_goes_back_without_the_journal_while_the_keeper_lives(
    harm: str, machine: Path, custody: Custody
) -> None:
    before = settings(machine)
    custody.set(lease_rig.LOW)
    if harm == "deleted":
        custody.journal.path.unlink()
    elif harm == "damaged":
        custody.journal.path.write_bytes(b"{")
    else:
        shutil.rmtree(machine / "run")
    custody.give_back()
    assert settings(machine) == before
    assert not custody.journal.path.exists()


def test_what_will_not_go_back_is_in_the_journal_again(machine: Path, custody: Custody) -> None:
    custody.set(lease_rig.LOW)
    custody.journal.path.unlink()
    break_knob(machine, "cpu_hz", "EIO")
    with pytest.raises(RestoreError, match="not put back: cpu_hz"):
        custody.give_back()
    mend_knob(machine, "cpu_hz")
    custody.put_back(US)
    assert settings(machine)["cpu_hz"] == UNTOUCHED["cpu_hz"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_knob_that_the_lease_never_set_stays_as_others_set_it(
    killed: bool, machine: Path, custody: Custody
) -> None:
    custody.set({"gpu_hz": 6e8})
    (machine / "sys/knobs/cpu_hz").write_text("1500000000\n")
    if killed:
        custody.lock.drop()
        custody.put_back(US)
    else:
        custody.give_back()
    assert settings(machine)["cpu_hz"] == "1500000000\n"
    assert settings(machine)["gpu_hz"] == UNTOUCHED["gpu_hz"]


def test_a_knob_set_later_in_the_lease_goes_back_too(machine: Path, custody: Custody) -> None:
    before = settings(machine)
    custody.set({"gpu_hz": 6e8})
    custody.set({"cpu_hz": 1e9})
    custody.lock.drop()
    custody.put_back(US)
    assert settings(machine) == before


def test_the_journal_of_an_earlier_version_is_put_back_whole(
    machine: Path, custody: Custody
) -> None:
    before = settings(machine)
    custody.set(lease_rig.LOW)
    record = custody.journal.read()
    assert record is not None
    older = {key: value for key, value in record._asdict().items() if key != "written"}
    body = json.dumps(older).encode()
    head = json.dumps({"format": 1, "crc32": binascii.crc32(body)}).encode()
    custody.journal.path.write_bytes(head + b"\n" + body + b"\n")
    custody.lock.drop()
    custody.put_back(US)
    assert settings(machine) == before


def test_a_journal_of_an_earlier_boot_is_void(machine: Path, custody: Custody) -> None:
    custody.set(lease_rig.LOW)
    record = custody.journal.read()
    assert record is not None
    custody.lock.drop()
    custody.journal.write(record._replace(boot_id="of another boot"))
    assert custody.put_back(US) is None
    assert settings(machine)["cpu_hz"] != UNTOUCHED["cpu_hz"]
    assert not custody.journal.path.exists()


def test_a_damaged_journal_stops_the_next_lease_rather_than_being_forgotten(
    custody: Custody,
) -> None:
    """What is set then would otherwise be taken for the machine's own settings."""
    custody.set(lease_rig.LOW)
    custody.lock.drop()
    custody.journal.path.write_bytes(custody.journal.path.read_bytes()[:-20])
    with pytest.raises(JournalDamagedError, match="restart the machine"):
        custody.take(US)


def test_a_knob_that_is_gone_is_said_to_be_not_put_back(machine: Path, custody: Custody) -> None:
    record = RECORD._replace(root=str(machine), snapshots={"vic_hz": {"x": "1"}})
    custody.journal.write(record)
    custody.lock.drop()
    with pytest.raises(RestoreError, match="vic_hz: it is not found any more"):
        custody.put_back(US)


def test_a_journal_of_other_files_is_not_applied(custody: Custody) -> None:
    custody.journal.write(RECORD._replace(root="/elsewhere"))
    custody.lock.drop()
    with pytest.raises(RestoreError, match="files under /elsewhere"):
        custody.put_back(US)


# Who it is -------------------------------------------------------------------------------


def test_a_process_is_not_taken_for_one_that_has_its_pid_later() -> None:
    assert US.alive()
    assert not US._replace(started=US.started - 1).alive()


def test_a_zombie_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = Process.of(child.pid)
        assert process.alive()
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not process.alive()


def test_a_name_shows_the_program_and_its_script_and_no_other_argument() -> None:
    words = [sys.executable, "-c", "input(1)", "--token=secret"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        assert Process.of(child.pid).name.endswith("-c input(1)")


# Commands --------------------------------------------------------------------------------


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, lease_rig.__file__, "governor", *words], capture_output=True, text=True
    )


def test_restore_without_a_journal_has_nothing_to_do(machine: Path) -> None:
    done = command("restore", "--sysfs-root", str(machine), "--state-dir", str(machine / "run"))
    assert done.returncode == 0
    assert "Nothing to restore" in done.stdout


def test_restore_of_a_damaged_journal_fails_in_one_line(machine: Path) -> None:
    (machine / "run").mkdir()
    Journal(machine / "run").path.write_text("{torn")
    done = command("restore", "--sysfs-root", str(machine), "--state-dir", str(machine / "run"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "restart the machine" in done.stderr


def test_status_shows_holder_knobs_and_journal(machine: Path) -> None:
    options = ["--sysfs-root", str(machine), "--state-dir", str(machine / "run")]
    with Lease.open(sysfs_root=machine, folder=machine / "run", keeper=lease_rig.KEEPER) as lease:
        lease.set({"gpu_hz": 9e8})
        told = json.loads(command("status", "--json", *options).stdout)
    assert told["holder"] == str(US)
    assert told["knobs"] == {"cpu_hz": 1.9e9, "gpu_hz": 9e8, "emc_hz": 0.0}
    assert told["journal_state"] == "valid"
    assert told["saved_knobs"] == list(LEVELS)
    assert not told["restore_needed"]
    text = command("status", *options).stdout
    assert "GPU: 1200 MHz" in text
    assert "Lease:     free" in text
    assert "Restore:   not needed" in text


def test_governor_daemon_becomes_the_keeper(machine: Path) -> None:
    done = command("daemon", "--group", "no-such-group", "--socket", str(machine / "s"))
    assert done.returncode == 2
    assert "governor keeper: there is no group 'no-such-group'" in done.stderr
