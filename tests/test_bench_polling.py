"""What polling costs is measured on a real loop, beside what the study saw."""

from __future__ import annotations

from types import ModuleType

import pytest

from governor.cli.bench.polling import PERIODS_S, Polled, measure, measurements
from governor.cli.main import main
from governor.devices.emulated import mount

needs_fuse = pytest.mark.skipif(
    mount.why_not() is not None, reason=f"no FUSE here: {mount.why_not()}"
)


@needs_fuse
def test_a_real_loop_is_timed_while_a_mounted_board_is_polled(torch: ModuleType) -> None:
    threads = torch.get_num_threads()
    polled = measure("orin-nano", rounds=2, block_s=0.3)
    assert [each.period_s for each in polled] == list(PERIODS_S)
    assert all(len(each.slower) == len(each.dearer) == 2 for each in polled)
    assert all(each.polls > 0 and each.cpu_s > 0 for each in polled)
    assert polled[2].polls > 2 * polled[0].polls, "the sensors are read more often"
    assert torch.get_num_threads() == threads


def test_each_period_stands_beside_what_the_study_saw_and_100_ms_has_a_budget() -> None:
    polled = [
        Polled(period_s, [0.01, 0.03, 0.02], [0.0, 0.0, 0.0], cpu_s=0.02, elapsed_s=4.0, polls=40)
        for period_s in PERIODS_S
    ]
    cpu, slower, *rest = measurements(polled)
    assert (cpu.value, cpu.met) == (0.5, False)
    assert slower.value == pytest.approx(2.0)
    assert "study: < 0.5 %" in slower.note
    assert "study: > 2 %" in rest[2].note
    assert all(one.budget is None for one in rest)


@pytest.mark.parametrize("lacking", ["", "fuse3 is not installed"])
def test_what_cannot_be_mounted_is_said_in_one_line(
    lacking: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mount, "why_not", lambda: lacking or None)
    assert main(["bench", "polling", "--board", "orin-nano" if lacking else "pi"]) == 2
    error = capsys.readouterr().err
    assert (lacking or "unknown board 'pi'") in error
    assert error.count("\n") == 1
