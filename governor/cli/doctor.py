"""``governor doctor``: what there is to govern here, what is missing, and what mends it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from governor.cli.daemon import SysfsRoot
from governor.cli.replay import result_console, result_table
from governor.progress import progress
from governor.units import format_duration, format_knob_value, format_power

if TYPE_CHECKING:
    from rich.console import Console

    from governor.devices.diagnosis import Diagnosis, KnobState

NO_BREAK = "\u00a0"


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    sysfs_root: SysfsRoot = Path("/"),
) -> None:
    """Say what can be governed here, and how to get what is missing. Changes nothing."""
    from governor.devices.diagnosis import diagnose

    with progress("Looking", None):  # a sensor may take seconds to show how often it refreshes
        diagnosis = diagnose(sysfs_root.resolve())
    if as_json:
        typer.echo(json.dumps(_document(diagnosis), indent=1, allow_nan=False))
    else:
        _print(diagnosis)
    if not diagnosis.governable:
        raise typer.Exit(1)


def _document(diagnosis: Diagnosis) -> dict[str, object]:
    return {"governable": diagnosis.governable, **asdict(diagnosis)}


def _print(diagnosis: Diagnosis) -> None:
    console = result_console()
    for name, fact in diagnosis.machine.items():
        console.print(f"{name:14}{fact}", markup=False, highlight=False)
    _print_knobs(console, diagnosis)
    _print_rails(console, diagnosis)
    _print_heat(console, diagnosis)
    _print_list(console, "jetson-stats", diagnosis.jetson_stats)
    _print_list(
        console, "Looked for", [f"{name}: {why}" for name, why in diagnosis.looked_for.items()]
    )
    _print_list(
        console,
        "Problems",
        [each.what + (f"\n    fix: {each.fix}" if each.fix else "") for each in diagnosis.problems],
    )
    console.print(f"\n{_verdict(diagnosis)}", style="bold", markup=False, highlight=False)


def _print_knobs(console: Console, diagnosis: Diagnosis) -> None:
    if not diagnosis.knobs:
        return
    table = result_table("Knobs", "knob", "lowest", "highest", "levels", "now", "may be set by")
    for knob in diagnosis.knobs:
        table.add_row(*_knob_cells(knob))
    console.print(table)


def _knob_cells(knob: KnobState) -> list[str]:
    ends = [format_knob_value(knob.name, level) for level in (knob.levels[0], knob.levels[-1])]
    now = "not readable" if knob.now is None else format_knob_value(knob.name, knob.now)
    return [knob.name, *ends, str(len(knob.levels)), now, ", ".join(knob.writers)]


def _print_rails(console: Console, diagnosis: Diagnosis) -> None:
    if diagnosis.rails:
        table = result_table("Power rails", "rail", "chip", "now", "counted in")
        for rail in diagnosis.rails:
            now = "not readable" if rail.power_w is None else format_power(rail.power_w)
            counted_in = "total" if rail.in_total else rail.inside
            name = f"{rail.name}: {rail.feeds}" if rail.feeds else rail.name
            table.add_row(name, rail.chip, now, counted_in)
        console.print(table)
    if diagnosis.total_rail:
        now = "" if diagnosis.total_w is None else f" {format_power(diagnosis.total_w)},"
        is_rail = any(rail.name == diagnosis.total_rail for rail in diagnosis.rails)
        what = diagnosis.total_rail if is_rail else "their sum"
        text = f"Total: {what},{now} covers {diagnosis.total_covers}"
        console.print(text, markup=False, highlight=False)
        console.print(_refresh(diagnosis), markup=False, highlight=False)


def _refresh(diagnosis: Diagnosis) -> str:
    stated = diagnosis.stated_refresh_s
    stated_text = "" if stated is None else f" ({format_duration(stated)} stated or assumed)"
    measured = diagnosis.measured_refresh_s
    if measured is None:
        return f"Sensor refresh: no change was seen to measure it by{stated_text}"
    return f"Sensor refresh: {format_duration(measured)} measured here{stated_text}"


def _print_heat(console: Console, diagnosis: Diagnosis) -> None:
    zones = [f"{zone} {celsius:.1f} °C" for zone, celsius in diagnosis.temperature_c.items()]
    events = [f"{cause} {count}" for cause, count in diagnosis.throttle_events.items()]
    for title, parts in (("Temperatures", zones), ("Throttle events", events)):
        if parts:
            console.print(_wrapped(title, parts, console.width), markup=False, highlight=False)


def _wrapped(title: str, parts: Sequence[str], width: int) -> str:
    """A list that breaks between its parts only, further lines indented."""
    whole = [part.replace(" ", NO_BREAK) for part in parts]
    text = textwrap.fill(f"{title}: {', '.join(whole)}", width, subsequent_indent="  ",
                         break_on_hyphens=False)  # fmt: skip
    return text.replace(NO_BREAK, " ")


def _print_list(console: Console, title: str, lines: Sequence[str]) -> None:
    if not lines:
        return
    console.print(f"\n{title}", style="bold")
    for line in lines:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def _verdict(diagnosis: Diagnosis) -> str:
    if diagnosis.governable:
        names = ", ".join(knob.name for knob in diagnosis.knobs)
        return f"Governing is possible: {names}, by {diagnosis.access}."
    missing = {
        "no knob": diagnosis.knobs,
        "nobody here may set one": diagnosis.access,
        "no power reading": diagnosis.total_rail,
    }
    reasons = [what for what, there in missing.items() if not there]
    advice = "see Problems" if diagnosis.problems else "try governor demo on an emulated board"
    return f"Governing is not possible: {', '.join(reasons)}; {advice}."
