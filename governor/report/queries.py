"""What the Grafana dashboard shows: panels and their PromQL, as plain data.

Apart from what draws them, so that a test asks a real Prometheus every query. Rails overlap,
so no query sums over them and no panel stacks them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Drawing = Literal["number", "lines", "states", "table"]

CHOSEN = 'instance=~"$instance",governor=~"$governor"'
"""A governor without a name has no such label; ``.*`` matches that, too."""
SAVED = f"sum(increase(governor_energy_saved_joules_total{{{CHOSEN}}}[$__range]))"
SPENT = f'sum(increase(governor_energy_joules_total{{{CHOSEN},rail="total"}}[$__range]))'
J_PER_KWH = "3.6e6"
BY_GOVERNOR = "{{instance}} {{governor}}"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query; ``legend`` is Grafana's template for a series' name."""

    promql: str
    legend: str = BY_GOVERNOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        unit: by Grafana's names.
        width: of the dashboard's 24 columns.
        good_from: numbers from here on are shown green, lower ones red.
    """

    title: str
    drawing: Drawing
    unit: str
    queries: tuple[Query, ...]
    width: int
    description: str = ""
    good_from: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels below it."""

    title: str
    panels: tuple[Panel, ...]


def _of(metric: str, *matchers: str) -> str:
    return f"{metric}{{{','.join((CHOSEN, *matchers))}}}"


def _rate(metric: str, *matchers: str) -> str:
    return f"rate({_of(metric, *matchers)}[$__rate_interval])"


def _quantile(quantile: str) -> str:
    rate = _rate("governor_inference_latency_seconds_bucket")
    return f"histogram_quantile({quantile}, sum by (le, instance, governor) ({rate}))"


_VIOLATIONS = f"sum(increase({_of('governor_slo_violations_total')}[$__range]))"
_INFERENCES = f"sum(increase({_of('governor_inferences_total')}[$__range]))"
_DEVICE = f"max by (instance, governor, device, emulated) ({_of('governor_device_info')})"


def _with_device(promql: str) -> str:
    """A column of the fleet's table: its value, with the board's name beside it."""
    info = f"max by (instance, governor, device) ({_of('governor_device_info')})"
    value = f"max by (instance, governor) ({promql})"
    return f"{value} * on (instance, governor) group_left (device) {info}"


ROWS: tuple[Row, ...] = (
    Row(
        "Is the SLO kept?",
        (
            Panel(
                title="Inferences within the bound",
                drawing="number",
                unit="percentunit",
                queries=(Query(f"1 - {_VIOLATIONS} / {_INFERENCES}"),),
                width=5,
                description="Of all in the time range, searches included.",
                good_from=0.95,
            ),
            Panel(
                title="Error budget left",
                drawing="number",
                unit="percentunit",
                queries=(
                    Query(
                        f"1 - {_VIOLATIONS} / {_INFERENCES} / "
                        f"(1 - min({_of('governor_slo_objective_ratio')}))"
                    ),
                ),
                width=4,
                description="Share of the violations that the SLO allows in the time range.",
                good_from=0.0,
            ),
            Panel(
                title="Latency against the bound",
                drawing="lines",
                unit="s",
                queries=(
                    Query(_quantile("0.5"), f"p50 {BY_GOVERNOR}"),
                    Query(
                        _quantile(f"scalar(max({_of('governor_slo_objective_ratio')}))"),
                        f"at the SLO's percentile {BY_GOVERNOR}",
                    ),
                    Query(_of("governor_slo_seconds"), f"bound {BY_GOVERNOR}"),
                ),
                width=9,
            ),
            Panel(
                title="Inferences and violations",
                drawing="lines",
                unit="reqps",
                queries=(
                    Query(_rate("governor_inferences_total"), f"inferences {BY_GOVERNOR}"),
                    Query(_rate("governor_slo_violations_total"), f"violations {BY_GOVERNOR}"),
                ),
                width=6,
            ),
        ),
    ),
    Row(
        "What is saved",
        (
            Panel(
                title="Energy saved",
                drawing="number",
                unit="joule",
                queries=(Query(SAVED),),
                width=4,
                description="Against the baseline, what the search cost included.",
            ),
            Panel(
                title="Share saved",
                drawing="number",
                unit="percentunit",
                queries=(Query(f"{SAVED} / ({SAVED} + {SPENT})"),),
                width=4,
                description="Of what the same work would have taken.",
            ),
            Panel(
                title="Money saved",
                drawing="number",
                unit="currencyEUR",
                queries=(Query(f"{SAVED} / {J_PER_KWH} * $tariff"),),
                width=4,
                description="At the tariff above, in euros a kWh.",
            ),
            Panel(
                title="CO2 saved",
                drawing="number",
                unit="massg",
                queries=(Query(f"{SAVED} / {J_PER_KWH} * $carbon"),),
                width=4,
                description="At the carbon intensity above, in grams a kWh.",
            ),
            Panel(
                title="Energy an item",
                drawing="lines",
                unit="joule",
                queries=(
                    Query(_of("governor_energy_per_item_joules"), f"{{{{state}}}} {BY_GOVERNOR}"),
                ),
                width=8,
            ),
        ),
    ),
    Row(
        "Operating point",
        (
            Panel(
                title="Clocks",
                drawing="lines",
                unit="hertz",
                queries=(
                    Query(
                        _of("governor_knob_target", 'knob=~".*_hz"'),
                        f"{{{{knob}}}} target {BY_GOVERNOR}",
                    ),
                    Query(
                        _of("governor_knob_value", 'knob=~".*_hz"'),
                        f"{{{{knob}}}} read {BY_GOVERNOR}",
                    ),
                ),
                width=10,
                description="Nothing is shown while the system's own governors have them.",
            ),
            Panel(
                title="Other knobs",
                drawing="lines",
                unit="short",
                queries=(
                    Query(
                        _of("governor_knob_target", 'knob!~".*_hz"'),
                        f"{{{{knob}}}} {BY_GOVERNOR}",
                    ),
                ),
                width=5,
            ),
            Panel(
                title="Phase",
                drawing="states",
                unit="short",
                queries=(Query(_of("governor_phase"), f"{{{{phase}}}} {BY_GOVERNOR}"),),
                width=9,
            ),
        ),
    ),
    Row(
        "Power and heat",
        (
            Panel(
                title="Power by rail (rails overlap)",
                drawing="lines",
                unit="watt",
                queries=(Query(_of("governor_power_watts"), f"{{{{rail}}}} {BY_GOVERNOR}"),),
                width=10,
                description="Never add rails up: total is all that is drawn.",
            ),
            Panel(
                title="Temperature",
                drawing="lines",
                unit="celsius",
                queries=(
                    Query(_of("governor_temperature_celsius"), f"{{{{zone}}}} {BY_GOVERNOR}"),
                    Query(
                        _of("governor_thermal_limit_celsius"),
                        f"limit of {{{{zone}}}} {BY_GOVERNOR}",
                    ),
                ),
                width=8,
            ),
            Panel(
                title="Throttling and sensor errors",
                drawing="lines",
                unit="short",
                queries=(
                    Query(
                        f"increase({_of('governor_throttle_events_total')}[$__rate_interval])",
                        f"throttled: {{{{cause}}}} {BY_GOVERNOR}",
                    ),
                    Query(
                        f"increase({_of('governor_sensor_errors_total')}[$__rate_interval])",
                        f"cannot read {{{{sensor}}}} {BY_GOVERNOR}",
                    ),
                ),
                width=6,
            ),
        ),
    ),
    Row(
        "The search",
        (
            Panel(
                title="Trials",
                drawing="lines",
                unit="short",
                queries=(Query(_of("governor_trials_total"), f"{{{{outcome}}}} {BY_GOVERNOR}"),),
                width=7,
            ),
            Panel(
                title="Predicted, measured, best",
                drawing="lines",
                unit="joule",
                queries=(
                    Query(
                        _of("governor_predicted_energy_per_item_joules"),
                        f"predicted {BY_GOVERNOR}",
                    ),
                    Query(
                        _of("governor_energy_per_item_joules", 'state="now"'),
                        f"measured {BY_GOVERNOR}",
                    ),
                    Query(_of("governor_best_energy_per_item_joules"), f"best {BY_GOVERNOR}"),
                ),
                width=10,
                description="Joules an item.",
            ),
            Panel(
                title="Fallbacks, drifts, disturbances",
                drawing="lines",
                unit="short",
                queries=(
                    Query(_of("governor_fallbacks_total"), f"fallbacks {BY_GOVERNOR}"),
                    Query(_of("governor_drifts_total"), f"drifts {BY_GOVERNOR}"),
                    Query(_of("governor_disturbances_total"), f"{{{{cause}}}} {BY_GOVERNOR}"),
                    Query(
                        _of("governor_restores_total"), f"restored: {{{{reason}}}} {BY_GOVERNOR}"
                    ),
                ),
                width=7,
            ),
        ),
    ),
    Row(
        "Streams, where there are several",
        (
            Panel(
                title="Latency of each stream",
                drawing="lines",
                unit="s",
                queries=(
                    Query(_of("governor_stream_latency_seconds"), f"{{{{stream}}}} {BY_GOVERNOR}"),
                    Query(
                        _of("governor_stream_slo_seconds"), f"bound of {{{{stream}}}} {BY_GOVERNOR}"
                    ),
                ),
                width=12,
                description="At its own SLO's percentile, beside its own bound.",
            ),
            Panel(
                title="Violations of each stream",
                drawing="lines",
                unit="percentunit",
                queries=(
                    Query(
                        f"{_rate('governor_stream_slo_violations_total')}"
                        f" / {_rate('governor_stream_inferences_total')}",
                        f"{{{{stream}}}} {BY_GOVERNOR}",
                    ),
                ),
                width=12,
                description="Share of its inferences that took longer than its bound.",
            ),
        ),
    ),
    Row(
        "Fleet",
        (
            Panel(
                title="Boards",
                drawing="table",
                unit="short",
                queries=(
                    Query(_DEVICE, "board"),
                    Query(_with_device(_of("governor_power_watts", 'rail="total"')), "W"),
                    Query(
                        _with_device(_of("governor_energy_per_item_joules", 'state="now"')),
                        "J an item",
                    ),
                    Query(_with_device(_of("governor_saving_ratio")), "saving"),
                    Query(
                        _with_device(
                            f"1 - increase({_of('governor_slo_violations_total')}[$__range])"
                            f" / increase({_of('governor_inferences_total')}[$__range])"
                        ),
                        "within the bound",
                    ),
                    Query(_with_device(_of("governor_phase", 'phase="hold"')), "in hold"),
                ),
                width=24,
            ),
        ),
    ),
)
