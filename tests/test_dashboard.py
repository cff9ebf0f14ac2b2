"""The Grafana dashboard: what is shipped is what the code builds, by Grafana's own SDK."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from governor.cli.main import main
from governor.metrics import FAMILIES
from governor.report.queries import ROWS

DEPLOY = Path(__file__).parent.parent / "deploy"
SHIPPED = DEPLOY / "grafana" / "dashboards" / "energy-governor.json"
PANELS = [panel for row in ROWS for panel in row.panels]


@pytest.fixture
def shipped() -> dict[str, Any]:
    return json.loads(SHIPPED.read_text(encoding="utf-8"))


@pytest.mark.skipif(
    importlib.util.find_spec("grafana_foundation_sdk") is None,
    reason="Grafana's SDK is not installed; python -m pip install 'energy-governor[grafana]'",
)
def test_the_shipped_dashboard_is_what_the_code_builds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dashboard", "-o", str(tmp_path / "built.json")]) == 0
    built = (tmp_path / "built.json").read_text(encoding="utf-8")
    assert built == SHIPPED.read_text(encoding="utf-8")
    assert main(["dashboard"]) == 0
    assert capsys.readouterr().out == built


def test_without_the_sdk_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "grafana_foundation_sdk", None)
    monkeypatch.delitem(sys.modules, "governor.report.grafana", raising=False)
    assert main(["dashboard"]) == 1
    assert "energy-governor[grafana]" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dashboard", "-o", str(tmp_path / "gone" / "x.json")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_no_panel_stacks_or_adds_rails_that_overlap(shipped: dict[str, Any]) -> None:
    for panel in shipped["panels"]:
        custom = panel.get("fieldConfig", {}).get("defaults", {}).get("custom", {})
        assert "stacking" not in custom
    for panel in PANELS:
        for query in panel.queries:
            summed = re.findall(
                r"sum[^(]*\(.*?governor_(?:power|energy_joules)\w*\{[^}]*\}", query.promql
            )
            assert all('rail="total"' in one for one in summed)


def test_the_user_sets_tariff_and_carbon_and_chooses_a_board(shipped: dict[str, Any]) -> None:
    variables = {one["name"]: one["type"] for one in shipped["templating"]["list"]}
    assert variables == {
        "datasource": "datasource",
        "board": "query",
        "instance": "query",
        "governor": "query",
        "tariff": "textbox",
        "carbon": "textbox",
    }


def test_every_panel_has_an_id_of_its_own_and_none_overlaps_another(
    shipped: dict[str, Any],
) -> None:
    ids = [panel["id"] for panel in shipped["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in shipped["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_every_metric_that_is_asked_for_exists() -> None:
    known = {family.exposed_name for family in FAMILIES} | {
        f"{family.name}_bucket" for family in FAMILIES if family.kind == "histogram"
    }
    for panel in PANELS:
        for query in panel.queries:
            assert set(re.findall(r"governor_\w+(?=\{)", query.promql)) <= known


def test_the_provisioning_reads_the_folder_that_compose_mounts() -> None:
    compose = (DEPLOY / "compose.yml").read_text(encoding="utf-8")
    provider = (DEPLOY / "grafana/provisioning/dashboards/energy-governor.yml").read_text(
        encoding="utf-8"
    )
    for inside, outside in re.findall(r"- \./(\S+):(\S+):ro", compose):
        assert (DEPLOY / inside).is_dir(), outside
    folder = re.search(r"path: (\S+)", provider)
    assert folder is not None
    assert f"./grafana/dashboards:{folder[1]}:ro" in compose


def test_every_metric_that_a_rule_asks_for_exists() -> None:
    rules = (DEPLOY / "prometheus" / "governor.rules.yml").read_text(encoding="utf-8")
    asked = set(re.findall(r"\bgovernor_\w+", rules))
    assert len(asked) > 8
    assert asked <= {family.exposed_name for family in FAMILIES}
