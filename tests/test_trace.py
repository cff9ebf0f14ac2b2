from __future__ import annotations

import csv
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from analytic_sweep import analytic_sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.devices.trace import Sweep, read_traces, write_trace
from governor.errors import InputError
from governor.space import Knob, Space

HEADER = "device,workload,batch_size,cpu_cores,cpu_mhz,gpu_mhz,emc_mhz,latency_ms,power_w,energy_j"
ROW = "nano,net,8,,1479,921.6,1600,20,10,0.2"
SLOWER = "nano,net,8,,1479,460.8,1600,40,4,0.16"


def trace(folder: Path, *lines: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_units_become_si_and_energy_stays_that_of_a_batch(tmp_path: Path) -> None:
    (sweep,) = read_traces([trace(tmp_path, HEADER, ROW, SLOWER)])
    assert (sweep.device, sweep.workload, sweep.batch_size) == ("nano", "net", 8)
    assert sweep.latency_s == pytest.approx([0.020, 0.040])
    assert sweep.energy_j == pytest.approx([0.2, 0.16])
    assert sweep.power_w == pytest.approx([10, 4])
    assert sweep.space.settings.tolist() == [[921.6e6], [460.8e6]]


def test_only_knobs_that_vary_are_knobs(tmp_path: Path) -> None:
    (sweep,) = read_traces([trace(tmp_path, HEADER, ROW, SLOWER)])
    assert sweep.space.names == ("gpu_hz",)


def test_a_sweep_in_which_nothing_varies_keeps_one_knob(tmp_path: Path) -> None:
    (sweep,) = read_traces([trace(tmp_path, HEADER, ROW)])
    assert len(sweep.space) == 1
    assert len(sweep.space.knobs) == 1


def test_all_four_knobs_have_their_own_name(tmp_path: Path) -> None:
    other = "nano,net,8,2,1000,400,800,90,4,0.36"
    first = "nano,net,8,4,1479,921.6,1600,20,10,0.2"
    (sweep,) = read_traces([trace(tmp_path, HEADER, first, other)])
    assert sweep.space.names == ("cpu_cores", "cpu_hz", "gpu_hz", "emc_hz")
    assert sweep.space.point(1)["cpu_cores"] == 2


def test_device_workload_and_batch_size_name_a_sweep(tmp_path: Path) -> None:
    rows = [ROW, ROW.replace("nano", "tx2"), ROW.replace("net", "bert"), ROW.replace(",8,", ",1,")]
    sweeps = read_traces([trace(tmp_path, HEADER, *rows)])
    assert [str(sweep) for sweep in sweeps] == [
        "nano net batch 8",
        "tx2 net batch 8",
        "nano bert batch 8",
        "nano net batch 1",
    ]


def test_extra_columns_blank_lines_spaces_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    path = trace(tmp_path, "\ufeffnote," + HEADER, "hot day, " + ROW, "", "x," + SLOWER, "")
    (sweep,) = read_traces([path])
    assert len(sweep.space) == 2


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_ends_and_rows_of_blanks_as_spreadsheets_write_them_do_no_harm(
    end: str, tmp_path: Path
) -> None:
    path = tmp_path / "trace.csv"
    rows = [HEADER, ROW, ",,,,,,,,,", "  ", SLOWER, ",,,,,,,,,"]
    path.write_bytes(b"\xef\xbb\xbf" + "".join(row + end for row in rows).encode())
    (sweep,) = read_traces([path])
    assert len(sweep.space) == 2


def test_the_optimum_is_the_least_energy_within_the_bound() -> None:
    sweep = analytic_sweep()
    for slo_s in np.linspace(sweep.latency_s.min(), sweep.latency_s.max(), 9).tolist():
        kept = [row for row in range(len(sweep.space)) if sweep.latency_s[row] <= slo_s]
        assert sweep.optimum(slo_s) == min(kept, key=lambda row: sweep.energy_j[row])


def test_the_optimum_of_a_bound_that_nothing_keeps_is_the_fastest_setting() -> None:
    sweep = analytic_sweep()
    assert sweep.optimum(1e-9) == int(np.argmin(sweep.latency_s))


@pytest.mark.parametrize(
    ("lines", "where", "what"),
    [
        ([], "trace.csv", "is empty"),
        ([HEADER], "trace.csv", "no rows"),
        ([HEADER.replace(",energy_j", "")], "line 1, column energy_j", "missing from the header"),
        ([HEADER.replace("emc_mhz,", "")], "line 1, column emc_mhz", "leave it blank"),
        ([HEADER + ",energy_j", ROW + ",1"], "line 1, column energy_j", "occurs twice"),
        ([HEADER, ROW, SLOWER.replace(",40,", ",-40,")], "line 3, column latency_ms", "'-40'"),
        ([HEADER, ROW.replace(",20,", ",0,")], "line 2, column latency_ms", "'0'"),
        ([HEADER, ROW.replace(",20,", ",nan,")], "line 2, column latency_ms", "'nan'"),
        ([HEADER, ROW.replace(",20,", ",inf,")], "line 2, column latency_ms", "'inf'"),
        ([HEADER, ROW.replace(",20,", ",fast,")], "line 2, column latency_ms", "'fast'"),
        ([HEADER, ROW.replace(",20,", ",,")], "line 2, column latency_ms", "''"),
        ([HEADER, ROW.replace(",10,", ",1e300,")], "line 2, column power_w", "beyond all measure"),
        ([HEADER, ROW.replace(",20,", ",1e-30,")], "line 2, column latency_ms", "beyond all"),
        ([HEADER, ROW.replace(",20,", ",1e-999,")], "line 2, column latency_ms", "'1e-999'"),
        ([HEADER, ROW.replace(",10,", ",-1,")], "line 2, column power_w", "'-1'"),
        ([HEADER, ROW.replace("921.6", "1e308")], "line 2, column gpu_mhz", "'1e308'"),
        ([HEADER, ROW.replace("921.6", "1e-9")], "line 2, column gpu_mhz", "under one hertz"),
        ([HEADER, ROW.replace("921.6", "1_000")], "line 2, column gpu_mhz", "'1_000'"),
        ([HEADER, ROW.replace(",8,", ",8.5,")], "line 2, column batch_size", "whole number"),
        ([HEADER, ROW.replace("nano", "")], "line 2, column device", "is empty"),
        ([HEADER, ROW, ROW], "line 3, column emc_mhz", "on line 2 already"),
        ([HEADER, ROW, SLOWER.replace("460.8", "")], "line 3, column gpu_mhz", "is blank here"),
        ([HEADER, "nano,net,8,,,,,20,10,0.2"], "line 2, column gpu_mhz", "every knob is blank"),
        ([HEADER, ROW, "nano,net,8"], "line 3, column cpu_cores", "3 cells"),
        ([HEADER, ROW + ",7"], "line 2, column energy_j", "11 cells"),
        ([HEADER, '"nano,net'], "line 2", "is not CSV"),
        ([HEADER.replace(",", ";"), ROW.replace(",", ";")], "line 1", "separated by ';'"),
        ([HEADER.replace(",", "\t")], "line 1", "separated by a tab"),
    ],
)
def test_a_bad_trace_is_one_line_that_says_where_and_what(
    tmp_path: Path, lines: list[str], where: str, what: str
) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_traces([path])
    message = str(caught.value)
    assert message.startswith(str(path))
    assert where in message
    assert what in message
    assert "\n" not in message


def test_a_file_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(f"{HEADER}\n{ROW}\n".encode() + b"n\xe4no" + SLOWER[4:].encode())
    with pytest.raises(InputError, match=r"trace\.csv, line 3: byte 0xe4 is not UTF-8"):
        read_traces([path])


def test_a_file_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("governor.devices.trace.MOST_BYTES", 1 << 20)
    with pytest.raises(InputError, match="/dev/zero: is larger than any trace"):
        read_traces([Path("/dev/zero")])


SPOILT = st.sampled_from([*',;-\n\r"\0\u2028\ufeff ', "nan", "inf", "1e308", "9" * 400, ""])


@given(st.data())
@settings(max_examples=200)
def test_a_spoilt_trace_is_read_or_refused(data: st.DataObject) -> None:
    text = "\n".join([HEADER, ROW, SLOWER, ""])
    for _ in range(data.draw(st.integers(1, 5))):
        at, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 3))
        text = text[:at] + data.draw(SPOILT) + text[at + length :]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.csv"
        path.write_bytes(text.encode())
        sweeps: list[Sweep] = []
        with suppress(InputError):
            sweeps = read_traces([path])
    for sweep in sweeps:
        assert np.all(np.isfinite(sweep.mean_power_w))
        assert sweep.latency_s[sweep.optimum(0.03)] > 0


@pytest.mark.parametrize("name", ["", "missing.csv"])
def test_a_folder_or_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_traces([tmp_path / name])


def test_a_sweep_in_two_files_is_refused(tmp_path: Path) -> None:
    one = trace(tmp_path, HEADER, ROW, name="one.csv")
    two = trace(tmp_path, HEADER, SLOWER, name="two.csv")
    with pytest.raises(InputError, match=r"two\.csv: .* is in .*one\.csv too"):
        read_traces([one, two])


def test_a_knob_without_a_column_cannot_be_written(tmp_path: Path) -> None:
    one = np.ones(1)
    sweep = Sweep("d", "w", 1, Space([Knob("power_limit_w", (15.0,))]), one, one, one)
    path = tmp_path / "t.csv"
    path.write_text("an earlier trace")
    with pytest.raises(InputError, match="no column for power_limit_w"):
        write_trace(path, [analytic_sweep(), sweep])
    assert path.read_text() == "an earlier trace"
    with pytest.raises(InputError, match="no column for power_limit_w"):
        write_trace(tmp_path / "trace.csv", [sweep])


names = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=12)
figures = st.floats(1e-6, 1e6)


@st.composite
def sweeps(draw: st.DrawFn) -> Sweep:
    knobs = draw(
        st.lists(
            st.sampled_from(["cpu_cores", "cpu_hz", "gpu_hz", "emc_hz"]), min_size=1, unique=True
        )
    )
    space = Space(
        [
            Knob(
                name,
                tuple(
                    level * (1.0 if name == "cpu_cores" else 1e3)
                    for level in sorted(
                        draw(st.sets(st.integers(1, 4_000_000), min_size=2, max_size=3))
                    )
                ),
            )
            for name in sorted(knobs, key=["cpu_cores", "cpu_hz", "gpu_hz", "emc_hz"].index)
        ]
    )
    count = len(space)
    columns = [draw(st.lists(figures, min_size=count, max_size=count)) for _ in range(3)]
    latency_s, energy_j, power_w = (np.array(column) for column in columns)
    return Sweep(
        draw(names), draw(names), draw(st.integers(1, 512)), space, latency_s, energy_j, power_w
    )


@given(sweeps())
@settings(max_examples=60, deadline=None)
def test_what_is_written_reads_back(tmp_path_factory: pytest.TempPathFactory, sweep: Sweep) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.csv"
    write_trace(path, [sweep])
    (back,) = read_traces([path])
    assert str(back) == str(sweep)
    assert back.space.names == sweep.space.names
    assert np.array_equal(back.space.settings, sweep.space.settings)
    assert np.allclose(back.latency_s, sweep.latency_s, rtol=1e-11, atol=0)
    assert np.allclose(back.energy_j, sweep.energy_j, rtol=1e-11, atol=0)
    assert np.allclose(back.power_w, sweep.power_w, rtol=1e-11, atol=0)


def test_a_written_trace_leaves_knobs_that_did_not_vary_blank(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    write_trace(path, [analytic_sweep()])
    with path.open(newline="", encoding="utf-8") as file:
        assert {row["cpu_cores"] for row in csv.DictReader(file)} == {""}
