"""Quantities as people write them."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import InputError
from governor.units import (
    format_duration,
    format_energy,
    format_knob_value,
    parse_bound,
    parse_duration,
    parse_knob_value,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("50ms", 0.05),
        ("50 ms", 0.05),
        ("0.05s", 0.05),
        ("5e1ms", 0.05),
        ("50000us", 0.05),
        ("50000µs", 0.05),
        ("20fps", 0.05),
        ("20 Hz", 0.05),
        (0.05, 0.05),
        (2, 2.0),
        (timedelta(milliseconds=50), 0.05),
    ],
)
def test_a_duration_is_read(written: str | float | timedelta, seconds: float) -> None:
    assert parse_duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written",
    ["", "50", "ms", "-50ms", "0ms", "0", 0, -1, math.nan, math.inf, "50 parsecs", "1e400ms", True],
)
def test_what_is_no_duration_is_refused_with_an_example(written: str | float) -> None:
    with pytest.raises(InputError, match="write it like"):
        parse_duration(written)


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(written: str) -> None:
    try:
        seconds = parse_duration(written)
    except InputError as refused:
        said = str(refused)
    else:
        said = ""
        assert seconds > 0
    assert "\n" not in said


def test_a_bound_is_seconds_or_a_multiple() -> None:
    assert parse_bound("1.3x").seconds(0.02) == pytest.approx(0.026)
    assert parse_bound("50ms").seconds(0.02) == 0.05


@pytest.mark.parametrize("written", ["0x", "-1x", "x", "nanx"])
def test_a_multiple_must_be_positive(written: str) -> None:
    with pytest.raises(InputError):
        parse_bound(written)


@pytest.mark.parametrize(
    ("knob", "written", "level"),
    [
        ("gpu_hz", "1.3GHz", 1.3e9),
        ("gpu_hz", "918 MHz", 918e6),
        ("gpu_hz", 918e6, 918e6),
        ("power_limit_w", "15W", 15.0),
        ("batch_size", "8", 8.0),
    ],
)
def test_a_level_is_read_in_its_knobs_unit(knob: str, written: str | float, level: float) -> None:
    assert parse_knob_value(knob, written) == pytest.approx(level)


@pytest.mark.parametrize(
    ("knob", "written"), [("gpu_hz", "918"), ("gpu_hz", "15W"), ("batch_size", "8MHz")]
)
def test_a_level_in_no_unit_or_another_is_refused(knob: str, written: str) -> None:
    with pytest.raises(InputError, match=knob):
        parse_knob_value(knob, written)


def test_figures_are_short() -> None:
    assert format_duration(0.0123456) == "12.3 ms"
    assert format_duration(123.4) == "123 s"
    assert format_duration(0.9996) == "1 s"
    assert format_energy(1234.5) == "1.23 kJ"
    assert format_knob_value("cpu_hz", 2201.6e6) == "2201.6 MHz"
