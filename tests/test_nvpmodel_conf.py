"""A tuned power mode in an nvpmodel.conf: one block more, and every line as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.devices.emulated.kernel import load_kernel
from governor.devices.emulated.nvpmodel import configuration
from governor.devices.nvpmodel import PowerMode, present_mode
from governor.devices.nvpmodel_conf import Caps, add_mode
from governor.errors import InputError

CAPS = Caps(cpu_hz=1036.8e6, gpu_hz=714e6, emc_hz=2133e6)

CONF = b"""\
# a comment of the maker
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_1 /sys/devices/system/cpu/cpu1/online
< PARAM TYPE=CLOCK NAME=CPU_A78_0 >
FREQ_TABLE /sys/devices/system/cpu/cpu0/cpufreq/scaling_available_frequencies
MAX_FREQ /sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq
MIN_FREQ /sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq
MAX_FREQ_KNEXT /sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq
< PARAM TYPE=CLOCK NAME=GPU >
MAX_FREQ /sys/devices/platform/17000000.gpu/devfreq/17000000.gpu/max_freq
MIN_FREQ /sys/devices/platform/17000000.gpu/devfreq/17000000.gpu/min_freq
<PARAM TYPE=CLOCK NAME=EMC >
MAX_FREQ /sys/kernel/nvpmodel_clk_cap/emc
< PARAM TYPE=CLOCK NAME=DLA0_CORE >
MAX_FREQ /sys/kernel/nvpmodel_emc_cap/nafll_dla0_core

< POWER_MODEL ID=0 NAME=MAXN >
CPU_ONLINE CORE_1 1
CPU_A78_0 MIN_FREQ 1190400
CPU_A78_0 MAX_FREQ -1
CPU_A78_0 MAX_FREQ_KNEXT -1
GPU MIN_FREQ 0
GPU MAX_FREQ -1
EMC MAX_FREQ 0
DLA0_CORE MAX_FREQ -1
<POWER_MODEL ID=5 NAME=MODE_15W >
CPU_A78_0 MAX_FREQ 1113600
GPU MAX_FREQ 408000000
EMC MAX_FREQ 2133000000

# which mode the board boots with
< PM_CONFIG DEFAULT=5 >
"""


def tuned(conf: bytes = CONF, base: str = "MAXN", name: str = "TUNED") -> tuple[bytes, int]:
    return add_mode(conf, base, name, CAPS, "predicted")


def added_lines(before: bytes, after: bytes) -> list[bytes]:
    """What is new, after asserting that all of ``before`` is there in one or two pieces."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    start = next((i for i, line in enumerate(old) if new[i] != line), len(old))
    tail = len(old) - start
    assert old[:start] == new[:start]
    assert old[start:] == new[len(new) - tail :]
    return new[start : len(new) - tail]


def test_the_new_mode_is_its_base_with_other_caps() -> None:
    conf, number = tuned()
    assert number == 6
    assert (
        b"".join(added_lines(CONF, conf)).decode().split()
        == " ".join(
            [
                "# predicted",
                "< POWER_MODEL ID=6 NAME=TUNED >",
                "CPU_ONLINE CORE_1 1",
                "CPU_A78_0 MIN_FREQ 1036800",
                "CPU_A78_0 MAX_FREQ 1036800",
                "CPU_A78_0 MAX_FREQ_KNEXT 1036800",
                "GPU MIN_FREQ 0",
                "GPU MAX_FREQ 714000000",
                "EMC MAX_FREQ 2133000000",
                "DLA0_CORE MAX_FREQ -1",
            ]
        ).split()
    )


def test_the_mode_stands_among_the_modes_and_before_the_configuration() -> None:
    conf, _ = tuned()
    assert conf.index(b"MODE_15W") < conf.index(b"TUNED") < conf.index(b"# which mode")


def test_a_second_mode_can_be_added_to_what_the_first_made() -> None:
    first, _ = tuned()
    second, number = add_mode(first, "TUNED", "TUNED_2", CAPS, "again")
    assert number == 7
    added_lines(first, second)


def test_the_backend_finds_the_new_mode_by_its_number(tmp_path: Path) -> None:
    conf, number = tuned()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nvpmodel.conf").write_bytes(conf)
    (tmp_path / "var/lib/nvpmodel").mkdir(parents=True)
    (tmp_path / "var/lib/nvpmodel/status").write_text(f"pmode:{number:04}\n")
    assert present_mode(tmp_path) == PowerMode(6, "TUNED")


@pytest.mark.parametrize(
    "board", ["nano", "tx2", "xavier-nx", "agx-xavier", "orin-nano", "agx-orin"]
)
def test_configurations_of_all_boards_are_understood(board: str) -> None:
    kernel = load_kernel(board)
    conf = configuration(kernel, "/sys/class/devfreq/17000000.ga10b").encode()
    base = next(iter(kernel.modes.values())).name
    new = b"".join(added_lines(conf, add_mode(conf, base, "TUNED", CAPS, "x")[0])).decode()
    assert "GPU MAX_FREQ 714000000" in new
    assert "EMC MAX_FREQ 2133000000" in new
    assert f"CPU_{kernel.policies[0][0]} MAX_FREQ 1036800" in new


@given(
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
    st.lists(st.sampled_from([b"# caf\xc3\xa9", b"", b"# \xff\xfe", b"   "]), max_size=4),
)
def test_every_line_is_kept_byte_for_byte(ending: bytes, cut: bool, tail: list[bytes]) -> None:
    conf = ending.join([*CONF.splitlines(), *tail]) + ending
    conf = conf.removesuffix(ending) if cut else conf
    new = added_lines(conf, tuned(conf)[0])
    assert all(line.endswith(ending) for line in new)


def test_a_file_that_ends_in_its_last_mode_keeps_that_line_whole() -> None:
    conf = CONF[: CONF.index(b"\n\n# which mode")]
    new, _ = tuned(conf)
    assert new.startswith(conf + b"\n\n# predicted\n")


@pytest.mark.parametrize(
    ("conf", "base", "name", "said"),
    [
        (b"hello", "MAXN", "TUNED", "no < POWER_MODEL"),
        (b"\xff\x00\x01", "MAXN", "TUNED", "no < POWER_MODEL"),
        (CONF, "MAXQ", "TUNED", "no power mode 'MAXQ'; choose one of MAXN, MODE_15W"),
        (CONF, "MAXN", "MODE_15W", "already has a power mode 'MODE_15W'"),
        (CONF, "MAXN", "a b", "letters, digits and _ only"),
        (CONF.replace(b"EMC MAX_FREQ 0\n", b""), "MAXN", "TUNED", "caps no clock of emc"),
        (CONF.replace(b"nvpmodel_clk_cap/emc", b"x/y"), "MAXN", "TUNED", "caps no clock of emc"),
    ],
)
def test_what_cannot_be_used_is_said(conf: bytes, base: str, name: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        tuned(conf, base, name)
    assert said in str(error.value)
