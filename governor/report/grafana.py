"""The Grafana dashboard, built with Grafana's own SDK from :mod:`governor.report.queries`."""

from __future__ import annotations

import importlib.util
from itertools import count

from governor.errors import MissingExtraError

if importlib.util.find_spec("grafana_foundation_sdk") is None:
    raise MissingExtraError("grafana-foundation-sdk", "grafana")

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from governor.report.queries import ROWS, Panel, Query

UID = "energy-governor"
TITLE = "Energy governor"
HEIGHT = 8
SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
TARIFF_EUR_PER_KWH = "0.30"
CARBON_G_PER_KWH = "300"
"""Only where to start from: whoever looks enters their own."""
GOOD, BAD = "green", "red"

PanelBuilder = stat.Panel | timeseries.Panel | statetimeline.Panel | table.Panel


def dashboard_json() -> str:
    """The dashboard as Grafana imports and provisions it."""
    return JSONEncoder(sort_keys=True, indent=2).encode(_dashboard().build()) + "\n"


def _dashboard() -> builders.Dashboard:
    built = (
        builders.Dashboard(TITLE)
        .uid(UID)
        .description("Latency SLO, savings and operating point of governed inference loops.")
        .tags(["energy-governor", "jetson"])
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .editable()
    )
    for variable in _variables():
        built = built.with_variable(variable)
    ids = count(1)
    for row in ROWS:
        built = built.with_row(builders.Row(row.title).id(next(ids)))
        for panel in row.panels:
            built = built.with_panel(_panel(panel).id(next(ids)))
    return built


def _variables() -> list[
    builders.DatasourceVariable | builders.QueryVariable | builders.TextBoxVariable
]:
    return [
        builders.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        _choice("board", "Board", "label_values(governor_device_info, device)"),
        _choice(
            "instance",
            "Instance",
            'label_values(governor_device_info{device=~"$board"}, instance)',
        ),
        _choice(
            "governor",
            "Governor",
            'label_values(governor_device_info{device=~"$board",instance=~"$instance"}, governor)',
        ),
        _entry("tariff", "Tariff (€/kWh)", TARIFF_EUR_PER_KWH),
        _entry("carbon", "Carbon (gCO2/kWh)", CARBON_G_PER_KWH),
    ]


def _choice(name: str, label: str, query: str) -> builders.QueryVariable:
    everything = dashboard.VariableOption(selected=True, text=["All"], value=["$__all"])
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(everything)
    )


def _entry(name: str, label: str, value: str) -> builders.TextBoxVariable:
    option = dashboard.VariableOption(selected=True, text=value, value=value)
    return (
        builders.TextBoxVariable(name)
        .label(label)
        .default_value(value)
        .current(option)
        .options([option])
    )


def _panel(panel: Panel) -> PanelBuilder:
    built = _drawing(panel)
    built = built.title(panel.title).description(panel.description).datasource(SOURCE)
    built = built.unit(panel.unit).height(HEIGHT).span(panel.width)
    once = panel.drawing in ("number", "table")
    for number, query in enumerate(panel.queries):
        built = built.with_target(_target(query, chr(ord("A") + number), once, panel))
    return built


def _drawing(panel: Panel) -> PanelBuilder:
    if panel.drawing == "number":
        return _number(panel)
    if panel.drawing == "states":
        return _states()
    if panel.drawing == "table":
        return _table(panel)
    return (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(0)
        .min(0)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )


def _target(query: Query, ref_id: str, once: bool, panel: Panel) -> prometheus.Dataquery:
    built = prometheus.Dataquery().expr(query.promql).legend_format(query.legend).ref_id(ref_id)
    built = built.instant() if once else built.range()
    return built.format(PromQueryFormat.TABLE) if panel.drawing == "table" else built


def _number(panel: Panel) -> stat.Panel:
    reduce = common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    built = stat.Panel().reduce_options(reduce).graph_mode(common.BigValueGraphMode.NONE)
    if panel.good_from is None:
        return built.color_mode(common.BigValueColorMode.NONE)
    steps = [dashboard.Threshold(None, BAD), dashboard.Threshold(panel.good_from, GOOD)]
    return built.color_mode(common.BigValueColorMode.VALUE).thresholds(_steps(steps))


def _states() -> statetimeline.Panel:
    steps = [dashboard.Threshold(None, "transparent"), dashboard.Threshold(1.0, GOOD)]
    return (
        statetimeline.Panel()
        .show_value(common.VisibilityMode.NEVER)
        .thresholds(_steps(steps))
        .color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    )


def _steps(steps: list[dashboard.Threshold]) -> builders.ThresholdsConfig:
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def _table(panel: Panel) -> table.Panel:
    """One line a governor: the queries' frames joined, the first one's values left out."""
    names = {
        f"Value #{chr(ord('A') + number)}": query.legend
        for number, query in enumerate(panel.queries)
    }
    return (
        table.Panel()
        .with_transformation(dashboard.DataTransformerConfig("merge", options={}))
        .with_transformation(
            dashboard.DataTransformerConfig(
                "organize",
                options={
                    "excludeByName": {"Time": True, "Value #A": True},
                    "renameByName": names,
                },
            )
        )
        .override_by_regexp(
            "saving|within the bound", [dashboard.DynamicConfigValue("unit", "percentunit")]
        )
    )
