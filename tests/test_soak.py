"""A short soak: a real sidecar on a mounted board, and trouble all around it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from governor.cli.bench.soak import Footprint, Life, Outcome, measurements
from governor.cli.main import main
from governor.devices.emulated.mount import why_not
from governor.errors import GovernorError

needs_mount = pytest.mark.skipif(
    why_not() is not None or os.geteuid() != 0,
    reason=f"needs root and FUSE: {why_not() or 'not root'}",
)


@needs_mount
def test_nothing_grows_and_the_clocks_end_as_they_were_found(tmp_path):
    path = tmp_path / "soak.json"
    assert main(["bench", "soak", "--minutes", "0.12", "--json", str(path)]) == 0
    told = {one["what"]: one for one in json.loads(path.read_text())}
    assert all(one["met"] is not False for one in told.values())
    assert told["troubles"]["value"] >= 4
    assert told["inferences seen"]["value"] > 0


def outcome(**kwargs):
    same = (Footprint(50_000, 20, 7), Footprint(50_100, 20, 7))
    return Outcome(**{
        "minutes": 1.0, "sidecar": same, "app": same, "clocks_wrong": (), "left": (),
        "inferences": 10, "troubles": {"rest": 1}, "counts": {}, **kwargs,
    })  # fmt: skip


@pytest.mark.parametrize(
    "trouble",
    [
        {"clocks_wrong": ("sys/a",)},
        {"left": ("process 1",)},
        {"sidecar": (Footprint(50_000, 20, 7), Footprint(60_000, 20, 7))},
        {"sidecar": (Footprint(50_000, 20, 7), Footprint(50_000, 21, 7))},
        {"app": (Footprint(50_000, 20, 7), Footprint(50_000, 20, 8))},
    ],
)
def test_a_leak_or_a_wrong_clock_misses_the_budget(trouble):
    assert all(one.met is not False for one in measurements(outcome()))
    assert any(one.met is False for one in measurements(outcome(**trouble)))


def test_a_footprint_is_what_the_kernel_says():
    found = Footprint.of(os.getpid())
    assert found is not None
    assert found.resident_kb > 5000
    assert found.descriptors >= 3
    assert found.threads >= 1


def test_a_process_that_is_gone_has_none():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert Footprint.of(child.pid) is None


def test_a_soak_that_was_too_short_says_so():
    with pytest.raises(GovernorError, match="too short"):
        Life().before_and_after()
