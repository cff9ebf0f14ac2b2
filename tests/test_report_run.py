"""The report of one governed run."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from governor.report.run import Run, Setting, write_run
from governor.space import OperatingPoint
from governor.trial import Trial

pytest.importorskip("matplotlib", reason="pip install 'energy-governor[report]'")

FAST = OperatingPoint({"gpu_hz": 900e6})
SLOW = OperatingPoint({"gpu_hz": 300e6})


def trial(point: OperatingPoint, latency_s: float, energy_j: float, energy_se_j: float) -> Trial:
    return Trial(
        point=point,
        latency_s=latency_s,
        latency_se_s=1e-4,
        mean_latency_s=latency_s,
        mean_latency_se_s=1e-4,
        energy_j=energy_j,
        energy_se_j=energy_se_j,
        power_w=energy_j / latency_s,
        inferences=10,
        items=10,
        duration_s=10 * latency_s,
    )


def setting(name: str, point: OperatingPoint | None, latency_s: float, energy_j: float) -> Setting:
    return Setting(
        name=name, point=point, latency_s=latency_s, power_w=energy_j / latency_s, energy_j=energy_j
    )


RUN = Run(
    title="a <network> on a board",
    origin="Every figure is emulated.",
    slo="p95 <= 50 ms",
    slo_s=0.05,
    trials=[trial(FAST, 0.02, 0.5, 0.005), trial(SLOW, 0.06, 0.4, 0.2)],
    default=setting("default governors", None, 0.025, 0.45),
    held=setting("held", FAST, 0.02, 0.5),
    others=[],
    remarks=["one remark"],
)


class Text(HTMLParser):
    """The words of a page, and its links to anything else."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("report") / "run.html"
    write_run(path, RUN)
    return path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_beside_it(page: str) -> None:
    assert [link for link in Text(page).links if not link.startswith("#")] == []
    assert "<script" not in page


def test_what_comes_from_outside_is_escaped(page: str) -> None:
    assert "<network>" not in page
    assert "a <network> on a board" in Text(page).words


def test_it_says_that_figures_are_emulated(page: str) -> None:
    assert "Every figure is emulated." in Text(page).words


def test_every_trial_is_in_the_table_with_its_verdict(page: str) -> None:
    rows = re.findall(r"<tr><th>(\d)</th>(.*?)</tr>", page)
    assert [number for number, _ in rows] == ["1", "2"]
    assert "900 MHz" in rows[0][1]
    assert "kept" in rows[0][1]
    assert "missed" in rows[1][1]


def test_a_point_left_before_a_sensor_reading_claims_no_energy(page: str) -> None:
    second = re.findall(r"<tr><th>2</th>(.*?)</tr>", page)[0]
    assert "left at once" in second
    assert "mJ" not in second


def test_the_same_run_gives_the_same_page(page: str, tmp_path: Path) -> None:
    write_run(tmp_path / "again.html", RUN)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page
