"""The HTML report: what it tells, that it needs nothing beside it, and how a browser shows it."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor import EnergyGovernor
from governor.cli.main import main
from governor.devices.emulated import EmulatedBoard
from governor.devices.trace import read_traces
from governor.records.reader import read_run
from governor.report.beside import beside
from governor.report.by_hand import recipes
from governor.report.ceilings import Ceilings, ceilings_of
from governor.report.document import Report, write_report
from governor.report.panels import Measured, curves, pareto, plane, thinned
from governor.report.sources import of_run, of_sweep
from governor.report.svg import LEFT, RIGHT, WIDTH, Axis, axis
from governor.roofline.work import Layer, Work
from governor.space import OperatingPoint

LEVELS = {"cpu_hz": [6e8, 12e8], "gpu_hz": [3e8, 6e8, 9e8]}


def measured(cpu_hz: float, gpu_hz: float, latency_s: float, energy_j: float) -> Measured:
    point = OperatingPoint({"cpu_hz": cpu_hz, "gpu_hz": gpu_hz})
    return Measured(point=point, latency_s=latency_s, energy_j=energy_j, power_w=10.0)


def small_report(**changes: object) -> Report:
    facts: dict = {
        "title": "a <network> on a board",
        "badge": "EMULATED",
        "real": False,
        "sources": [("everything", "made up for this test")],
        "device": "agx-orin",
        "slo": "p95 <= 50 ms",
        "slo_s": 0.05,
        "levels": LEVELS,
        "trials": [
            measured(12e8, 9e8, 0.02, 0.5),
            measured(6e8, 3e8, 0.06, 0.4),
            measured(6e8, 6e8, 0.04, 0.3),
        ],
        "baseline": Measured(point=None, latency_s=0.021, energy_j=0.6, power_w=20.0),
        "chosen": measured(6e8, 6e8, 0.04, 0.3),
    }
    return Report(**(facts | changes))


def written(path: Path, *reports: Report) -> str:
    write_report(path, "several", reports)
    return path.read_text(encoding="utf-8")


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
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a short run on an emulated board."""
    path = tmp_path_factory.mktemp("report") / "run.jsonl"
    board = EmulatedBoard("xavier-nx", "yolov8n-trt")
    with EnergyGovernor("1.5x", device=board, policy="coordinate", record=path) as gov:
        for _ in range(6000):
            with gov.inference():
                board.infer()
            if gov.phase == "hold" and board.clock.now() > 40:
                break
    return path


# what it tells


def test_the_page_needs_nothing_beside_it_and_runs_no_script(tmp_path: Path) -> None:
    page = written(tmp_path / "page.html", small_report())
    assert [link for link in Text(page).links if not link.startswith("#")] == []
    assert "<script" not in page
    assert "@import" not in page
    assert "url(http" not in page


def test_what_comes_from_outside_is_escaped(tmp_path: Path) -> None:
    page = written(tmp_path / "page.html", small_report())
    assert "<network>" not in page
    assert "a <network> on a board" in Text(page).words


def test_saving_latency_and_slo_stand_at_the_top(tmp_path: Path) -> None:
    page = written(tmp_path / "page.html", small_report())
    tiles = re.findall(r'<div class="tile"><b[^>]*>(.*?)</b><span>(.*?)</span>', page)
    shown = dict(tiles)
    assert "default governors" in shown["-50.0 %"]
    assert "is kept" in shown["40 ms"]
    assert "1 missed" in shown["3"]


def test_a_missed_slo_is_said_in_words(tmp_path: Path) -> None:
    page = written(tmp_path / "page.html", small_report(slo_s=0.03, slo="p95 <= 30 ms"))
    assert "is MISSED" in page


def test_every_mark_tells_its_figures_when_hovered_over(tmp_path: Path) -> None:
    tips = re.findall(r"<title>(Trial .*?)</title>", written(tmp_path / "p.html", small_report()))
    assert "Trial 2, CPU 600 MHz, GPU 300 MHz: 60 ms, 400 mJ an item" in tips


def test_a_point_left_before_a_sensor_reading_claims_no_energy(tmp_path: Path) -> None:
    early = Measured(
        point=OperatingPoint({"cpu_hz": 6e8, "gpu_hz": 3e8}),
        latency_s=0.06,
        energy_j=0.2,
        energy_se_j=0.1,
    )
    page = written(tmp_path / "page.html", small_report(trials=[*small_report().trials, early]))
    rows = re.findall(r"<tr><th>4</th>(.*?)</tr>", page)
    assert "left at once" in rows[0]
    assert "mJ" not in rows[0]


def test_the_same_run_gives_the_same_page(record: Path, tmp_path: Path) -> None:
    pages = [written(tmp_path / "page.html", of_run(read_run(record))) for _ in range(2)]
    assert pages[0] == pages[1]


def test_a_recorded_run_is_told_with_its_decisions_and_rails(record: Path, tmp_path: Path) -> None:
    run = read_run(record)
    text = unescape(" ".join(Text(written(tmp_path / "page.html", of_run(run))).words))
    assert "EMULATED" in text
    assert "yolov8n-trt on Jetson Xavier NX" in text
    assert "VDD_CPU_GPU_CV" in text
    for decision in run.decisions:
        assert decision.reason in text


def test_what_is_said_to_be_chosen_is_what_was_held(record: Path) -> None:
    run = read_run(record)
    report, end = of_run(run), run.end
    assert report.chosen is not None
    assert end is not None
    held = [decision for decision in run.decisions if decision.kind == "hold"][-1]
    assert report.chosen.point == OperatingPoint(held.point or {})
    assert report.chosen.energy_j == pytest.approx(end.held_energy_j, rel=0.03)


def test_a_run_that_crashed_is_told_as_far_as_it_was_written(record: Path, tmp_path: Path) -> None:
    path = tmp_path / "crashed.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    for cut in range(1, len(lines)):
        path.write_bytes(b"".join(lines[:cut]) + lines[cut][:10])
        page = written(tmp_path / "page.html", of_run(read_run(path)))
    assert "cut off, as by a crash" in page


def test_where_there_was_nothing_to_govern_only_latency_is_told(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    board = EmulatedBoard("nano", "yolov8n-trt")
    with EnergyGovernor("50ms", device=board, record=path) as gov, gov.inference():
        board.infer()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line |= {"power_w": {}} if line["record"] == "window" else {}
        line |= {"levels": {}} if line["record"] == "header" else {}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = written(tmp_path / "page.html", of_run(read_run(path)))
    assert "Latency over time" in page
    assert "none was read" in page
    for words in ("Settings compared", "Power by rail", "Operating point over", "by hand"):
        assert words not in page


def test_a_run_on_one_knob_has_no_heat_map(tmp_path: Path) -> None:
    one = Measured(point=OperatingPoint({"gpu_hz": 9e8}), latency_s=0.02, energy_j=0.5)
    levels = {"gpu_hz": [3e8, 9e8]}
    page = written(tmp_path / "p.html", small_report(levels=levels, trials=[one], chosen=one))
    assert "Energy over" not in page


def test_an_slo_that_was_never_resolved_draws_none(tmp_path: Path) -> None:
    page = written(tmp_path / "page.html", small_report(slo_s=None, chosen=None, baseline=None))
    assert 'class="over"' not in page


# the figures of the charts


@given(
    st.lists(
        st.tuples(st.floats(1e-3, 10.0), st.floats(1e-3, 10.0)).map(
            lambda pair: Measured(point=None, latency_s=pair[0], energy_j=pair[1])
        ),
        min_size=1,
        max_size=40,
    )
)
def test_nothing_beats_the_pareto_front_and_all_else_is_beaten(settings: list[Measured]) -> None:
    front = pareto(settings)
    for each in settings:
        beaten = any(
            other.latency_s <= each.latency_s and other.energy_j <= each.energy_j for other in front
        )
        assert beaten
    for one, following in pairwise(front):
        assert one.latency_s < following.latency_s
        assert one.energy_j > following.energy_j


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_an_axis_holds_all_its_values_between_round_ticks(values: list[float]) -> None:
    found = axis("", values)
    assert all(0.0 <= found.share(value) <= 1.0 for value in values)
    assert 1 <= len(found.marks(6)) <= 8


def test_a_logarithmic_axis_marks_powers_of_ten() -> None:
    assert [text for _, text in Axis("", 0.5, 2000.0, log=True).marks(6)] == [
        *("1", "10", "100", "1000")
    ]


def test_weeks_of_windows_are_thinned_without_smoothing_a_miss_away(record: Path) -> None:
    run = read_run(record)
    last = run.windows[-1]
    many = [
        replace(last, start_s=5.0 * n, end_s=5.0 * n + 5.0, violations=0) for n in range(20_000)
    ]
    many[777] = replace(many[777], latency_s=9.0, violations=5)
    thin = thinned(many)
    assert len(thin) <= 600
    assert max(each.latency_s or 0.0 for each in thin) == 9.0
    assert sum(each.violations for each in thin) == 5
    assert (thin[0].start_s, thin[-1].end_s) == (many[0].start_s, many[-1].end_s)
    assert sum(each.inferences for each in thin) == sum(each.inferences for each in many)
    assert thin[0].power_w == pytest.approx(last.power_w)


# the roofline


def ceilings(record: Path, **changes: object) -> Ceilings:
    found = ceilings_of(replace(read_run(record).header, **changes))
    assert found is not None
    return found


def test_nothing_is_reached_above_the_roof(record: Path) -> None:
    run, roofs = read_run(record), ceilings(record)
    for line in run.searched:
        point = line.point or {}
        roof = min(
            roofs.flop_per_s(point["gpu_hz"]),
            roofs.flop / roofs.moved * roofs.bytes_per_s(point["gpu_hz"], point["emc_hz"]),
        )
        assert 0 < roofs.flop / line.mean_latency_s < roof


def test_a_real_boards_roofs_are_drawn_where_the_model_was_counted(record: Path) -> None:
    counted = {"workload": "", "emulated": False, "device": "agx-orin", "precision": "fp16"}
    roofs = ceilings(record, **counted, model="yolov8n", flop=8.7e9, bytes_moved=60e6)
    assert roofs.flop_per_s(1300.5e6) == pytest.approx(32768 * 1300.5e6)
    assert roofs.bytes_per_s(1300.5e6, 3199e6) < 204.8e9
    assert ceilings_of(replace(read_run(record).header, **counted)) is None


def test_a_model_that_was_counted_is_in_the_record(tmp_path: Path) -> None:
    layer = Layer(name="a", operator="matmul", flop=4e9, bytes_read=2e6, bytes_written=2e6)
    work = Work(name="toynet", layers=(layer,), batch_size=2, precision="fp16")
    board = EmulatedBoard("agx-orin", "yolov8n-trt")
    path = tmp_path / "run.jsonl"
    with EnergyGovernor("1.5x", device=board, model=work, record=path) as gov, gov.inference():
        board.infer()
    header = read_run(path).header
    assert (header.model, header.flop, header.bytes_moved) == ("toynet", 2e9, 2e6)


def test_another_objective_than_energy_is_told(record: Path, tmp_path: Path) -> None:
    run = read_run(record)
    other = replace(run, header=replace(run.header, objective="edp"))
    assert "edp, instead of the least energy" in written(tmp_path / "edp.html", of_run(other))
    assert "instead of the least energy" not in written(tmp_path / "energy.html", of_run(run))


# by hand


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("nano", "57000000.gpu"),
        ("tx2", "17000000.gp10b"),
        ("agx-orin", "mrq_rate_locked"),
        ("agx-thor", "gpu-gpc-0"),
    ],
)
def test_each_boards_own_files_are_written(device: str, says: str) -> None:
    point = OperatingPoint({"cpu_hz": 12e8, "gpu_hz": 6e8, "emc_hz": 16e8})
    shell, mode = recipes(device, point, LEVELS | {"emc_hz": [8e8, 16e8]})
    assert says in shell.text
    assert "echo 1200000 > $policy/scaling_max_freq" in shell.text
    assert "GPU MAX_FREQ 600000000" in mode.text
    assert "EMC MAX_FREQ 1600000000" in mode.text


def test_the_shell_commands_set_the_point_whatever_was_set_before(tmp_path: Path) -> None:
    """Run by a real shell on files, from both ends."""
    point = OperatingPoint({"cpu_cores": 2, "cpu_hz": 12e8, "gpu_hz": 6e8, "batch_size": 4})
    (shell, _) = recipes("agx-orin", point, LEVELS)
    cores = [tmp_path / f"sys/devices/system/cpu/cpu{core}" for core in range(12)]
    for core in cores:
        core.mkdir(parents=True)
    policy = tmp_path / "sys/devices/system/cpu/cpufreq/policy0"
    gpu = tmp_path / "sys/class/devfreq/17000000.ga10b"
    for folder in (policy, gpu):
        folder.mkdir(parents=True)
    (policy / "cpuinfo_min_freq").write_text("600000\n")
    script = shell.text.replace("/sys/", f"{tmp_path}/sys/")
    subprocess.run(["bash", "-euc", script], check=True)
    assert [(core / "online").exists() for core in cores] == [False] + 11 * [True]
    assert [(core / "online").read_text() for core in cores[1:]] == ["1\n"] + 10 * ["0\n"]
    assert "batches of 4" in shell.words
    assert (policy / "scaling_min_freq").read_text() == "1200000\n"
    assert (policy / "scaling_max_freq").read_text() == "1200000\n"
    assert (gpu / "min_freq").read_text() == (gpu / "max_freq").read_text() == "600000000\n"


def test_a_machine_with_a_card_is_set_by_nvidia_smi() -> None:
    (shell,) = recipes("linux", OperatingPoint({"gpu_hz": 15e8, "power_limit_w": 150.0}), {})
    assert shell.text.splitlines() == [
        "nvidia-smi --lock-gpu-clocks=1500,1500",
        "nvidia-smi --power-limit=150",
    ]


# in a browser


PROBE = """
<body>{frames}<pre id="found"></pre><script>
window.onload = () => {{ document.getElementById("found").textContent = JSON.stringify(
  [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, style = frame.contentWindow.getComputedStyle(page.body);
    const charts = [...page.querySelectorAll("figure > svg")];
    const texts = charts.flatMap(chart => [...chart.querySelectorAll("text")]);
    return {{
      wide: page.documentElement.scrollWidth, room: frame.clientWidth,
      charts: charts.length,
      drawn: charts.filter(chart => {{
        const box = chart.getBoundingClientRect(), g = chart.getBBox();
        return box.height > 100 && g.width > 300 && g.height > 200 }}).length,
      smallest: Math.min(...texts.map(text => text.getBoundingClientRect().height)),
      outside: texts.filter(text => {{ const a = text.getBoundingClientRect(),
        b = text.ownerSVGElement.getBoundingClientRect();
        return a.left < b.left - 1 || a.right > b.right + 6 || a.bottom > b.bottom + 1 }}).map(
          text => text.textContent),
      covered: charts.flatMap(chart => {{ const marks = [...chart.querySelectorAll("text.mark")];
        const boxes = marks.map(text => text.getBoundingClientRect());
        const shared = (a, b) =>
          Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left))
          * Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
        return marks.flatMap((text, n) => boxes.slice(n + 1).filter(box =>
          shared(boxes[n], box) > 0.3 * boxes[n].width * boxes[n].height).map(
            box => text.textContent)) }}),
      paper: style.backgroundColor, ink: style.color }} }})) }}
</script></body>
"""


def in_a_browser(folder: Path, pages: list[tuple[str, int]], dark: bool = False) -> list[dict]:
    """What a headless Chromium makes of pages at these widths."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("needs a browser; install it with: sudo apt-get install chromium")
    frames = "".join(
        f'<iframe width="{width}" height="900" style="border:0" srcdoc="{escape(page)}"></iframe>'
        for page, width in pages
    )
    probe = folder / "probe.html"
    probe.write_text(PROBE.format(frames=frames), encoding="utf-8")
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            f"--user-data-dir={folder / 'profile'}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            *("--window-size=1400,1000", "--dump-dom", probe.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None
    return json.loads(unescape(found[1]))


@pytest.fixture(scope="module")
def demo_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("demo") / "demo.html"
    assert main(["demo", "--policy", "coordinate", "--report", str(path)]) == 0
    return path.read_text(encoding="utf-8")


def test_a_browser_draws_every_chart_readably_on_a_desk_and_on_a_phone(
    demo_page: str, tmp_path: Path
) -> None:
    few = written(tmp_path / "page.html", small_report())
    wide, phone, small = in_a_browser(tmp_path, [(demo_page, 1200), (demo_page, 390), (few, 390)])
    for seen in (wide, phone, small):
        assert seen["drawn"] == seen["charts"] > 2
        assert seen["wide"] <= seen["room"]
        assert seen["outside"] == []
        assert seen["covered"] == []
        assert seen["smallest"] >= 10
    assert wide["charts"] >= 6


def test_a_browser_in_dark_mode_shows_light_ink_on_dark_paper(
    demo_page: str, tmp_path: Path
) -> None:
    light, dark = (
        in_a_browser(folder, [(demo_page, 600)], dark)[0]
        for folder, dark in ((tmp_path, False), (tmp_path / "dark", True))
        if folder.mkdir(exist_ok=True) is None
    )
    assert light["paper"] == "rgb(255, 255, 255)"
    assert max(map(int, re.findall(r"\d+", dark["paper"]))) < 60
    assert min(map(int, re.findall(r"\d+", dark["ink"]))) > 200


# the command


def test_the_command_draws_a_record_and_a_trace(
    record: Path, tmp_path: Path, traces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(record), "-o", str(page)]) == 0
    assert "yolov8n-trt" in page.read_text()
    trace = next(traces.glob("bofl-tx2.csv"), None)
    if trace is None:
        pytest.skip("GOVERNOR_TRACES has no bofl-tx2.csv")
    assert main(["report", str(trace), "-o", str(page), "--latency-slo", "1.3x"]) == 0
    assert "MEASURED SWEEP" in page.read_text()
    assert capsys.readouterr().out == f"wrote {page}\n" * 2


def toy_trace(path: Path, device: str = "toy") -> Path:
    rows = [
        f"{device},net,1,,{cpu},{gpu},,{1e5 / (cpu + gpu):.3f},{gpu / 100},{gpu / (cpu + gpu):.4f}"
        for cpu in (600, 900, 1200)
        for gpu in (300, 600, 900)
    ]
    head = (
        "device,workload,batch_size,cpu_cores,cpu_mhz,gpu_mhz,emc_mhz,latency_ms,power_w,energy_j"
    )
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_replay_draws_each_search(tmp_path: Path) -> None:
    trace, page = toy_trace(tmp_path / "trace.csv"), tmp_path / "page.html"
    slos = ["--latency-slo", "1.3x", "--latency-slo", "2x"]
    policy = ["--policy", "coordinate", "--seeds", "1"]
    assert main(["replay", str(trace), *slos, *policy, "--report", str(page)]) == 0
    text = page.read_text()
    assert text.count("<section") == 2
    assert '<span class="badge real">REPLAYED by coordinate' in text
    assert "against default" not in text


@pytest.mark.parametrize("command", ["report", "replay"])
def test_a_trace_of_an_emulated_board_is_never_shown_as_measured(
    command: str, tmp_path: Path
) -> None:
    trace, page = toy_trace(tmp_path / "trace.csv", "nano (emulated)"), tmp_path / "page.html"
    where = {"report": ["-o"], "replay": ["--policy", "coordinate", "--seeds", "1", "--report"]}
    assert main([command, str(trace), "--latency-slo", "2x", *where[command], str(page)]) == 0
    text = page.read_text()
    assert '<span class="badge">EMULATED' in text
    assert "57000000.gpu" in text  # the commands are the board's own


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("report", "/no/such/run.jsonl"), "cannot be read"),
        (("report", "RECORD", "-o", "page.pdf"), "end it in .html"),
        (("report", "RECORD", "-o", "/no/such/folder/page.html"), "cannot be written"),
        (("report", "RECORD", "--latency-slo", "50ms"), "for a trace"),
        (("report", "RECORD", "--workload", "yolo"), "for a trace"),
        (("demo", "--report", "page.pdf"), "end it in .html"),
    ],
)
def test_bad_input_is_one_line(
    record: Path,
    arguments: tuple[str, ...],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [str(record) if word == "RECORD" else word for word in arguments]
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert says in said.err


def test_a_sweep_of_an_emulated_board_is_told_as_such(tmp_path: Path) -> None:
    trace, pages = tmp_path / "sweep.csv", [tmp_path / "a.html", tmp_path / "b.html"]
    where = ["--device", "emulated:nano/yolov8n-trt", "--sample", "12", "--repeats", "1"]
    assert main(["sweep", "-o", str(trace), *where, "--report", str(pages[0])]) == 0
    assert main(["report", str(trace), "-o", str(pages[1])]) == 0
    for page in pages:
        assert "EMULATED: nothing was measured" in page.read_text()
    assert "all 12 settings" in pages[0].read_text()


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    """Four GPU clocks of an emulated Nano, each measured three times."""
    trace = tmp_path / "sweep.csv"
    words = ["--device", "emulated:nano/resnet-18", "--knob", "gpu_hz=4", "--repeats", "3"]
    assert main(["sweep", "-o", str(trace), *words, "--inferences", "5"]) == 0
    return trace


def test_a_sweep_s_page_has_curves_with_bands_its_minimum_the_defaults_and_a_power_mode(
    swept: Path,
) -> None:
    page = swept.with_suffix(".html")
    assert main(["report", str(swept), "-o", str(page)]) == 0
    text = page.read_text()
    assert "Energy over GPU" in text
    assert "95 % confidence of the mean, by its repeats" in text
    assert 'class="area chosen"' in text
    assert ">least<" in text
    assert "against the default governors" in text
    assert "LEAST_ENERGY" in text, "the entry for nvpmodel.conf"


def test_the_band_is_student_s_interval_of_the_mean(swept: Path) -> None:
    repeats = list(csv.DictReader(swept.with_suffix(".repeats.csv").read_text().splitlines()))
    known = beside(swept)
    assert len(known.spread) == 4
    for point, half_j in known.spread.items():
        same = [
            float(row["energy_j"])
            for row in repeats
            if row["gpu_hz"] and float(row["gpu_hz"]) == point["gpu_hz"]
        ]
        assert len(same) == 3
        # 4.303: Student's t for two degrees of freedom at 97.5 %.
        assert half_j == pytest.approx(4.303 * stdev(same) / 3**0.5, rel=1e-3)


def test_the_defaults_latency_is_a_mean_as_all_others_of_a_sweep(swept: Path) -> None:
    repeats = list(csv.DictReader(swept.with_suffix(".repeats.csv").read_text().splitlines()))
    means = [float(row["mean_latency_s"]) for row in repeats if not row["gpu_hz"]]
    default = beside(swept).default
    assert default is not None
    assert default.latency_s == pytest.approx(fmean(means), rel=1e-6)
    (report,) = (of_sweep(sweep, known=beside(swept)) for sweep in read_traces([swept]))
    page = written(swept.with_suffix(".html"), report)
    assert "Latency: the mean<" in page
    assert "none" not in re.findall(r"<b>(Energy against latency.*?)</b>", page)[0]


def test_a_broken_repeat_is_named(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repeats = swept.with_suffix(".repeats.csv")
    repeats.write_text(repeats.read_text().replace("\n1,", "\n1,x", 1))
    assert main(["report", str(swept), "-o", str(swept.with_suffix(".html"))]) == 2
    error = capsys.readouterr().err
    assert "sweep.repeats.csv, line 2: is no measurement" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("spread", "caption"),
    [
        (0.0, "In mJ an item, at CPU 900 MHz."),
        (0.002, "; 95 % confidence of the mean, by its repeats, at most ±0.2 %, lies within the"),
        (0.08, "; shaded: 95 % confidence of the mean, by its repeats, at most ±8.0 %."),
    ],
)
def test_the_caption_says_shaded_only_of_a_band_that_can_be_seen(
    spread: float, caption: str
) -> None:
    along = [
        Measured(
            point=OperatingPoint({"gpu_hz": n * 1e8, "cpu_hz": 9e8}),
            latency_s=0.1 / n,
            energy_j=energy_j,
            energy_interval_j=spread * energy_j,
        )
        for n, energy_j in enumerate((1.4, 1.0, 1.2), 3)
    ]
    (drawn,) = curves(along, {"gpu_hz": [3e8, 4e8, 5e8], "cpu_hz": [9e8]}, along[1])
    assert caption in drawn
    corners = re.findall(r'class="area chosen" points="([^"]*)"', drawn)[0].split()
    heights = [float(corner.split(",")[1]) for corner in corners]
    thickest = max(abs(low - high) for low, high in zip(heights, heights[::-1], strict=True))
    assert (thickest > 6.0) == ("shaded" in caption), "wider than the line and its spots"


@pytest.mark.parametrize(("widest_s", "share"), [(0.15, 0.5), (0.102, 0.07)])
def test_a_sweep_s_pareto_front_takes_half_the_width_unless_it_is_very_narrow(
    widest_s: float, share: float
) -> None:
    front = [
        Measured(point=None, latency_s=latency_s, energy_j=energy_j)
        for latency_s, energy_j in ((0.1, 3.0), (0.5 * (0.1 + widest_s), 2.5), (widest_s, 2.0))
    ]
    slow = [Measured(point=None, latency_s=0.1 + n / 500, energy_j=4.0) for n in range(500)]
    drawn = plane([], [*front, *slow], None, None, None, "")
    spots = [float(cx) for cx in re.findall(r'class="spot" cx="([0-9.]+)"', drawn)]
    axis = WIDTH - LEFT - RIGHT
    assert len(spots) == 3
    assert (spots[-1] - spots[0]) / axis == pytest.approx(share, rel=0.2)
    assert (spots[0] - LEFT) / axis < 0.1


def test_a_trace_of_others_has_curves_without_bands(swept: Path) -> None:
    for kind in (".json", ".repeats.csv"):
        swept.with_suffix(kind).unlink()
    page = swept.with_suffix(".html")
    assert main(["report", str(swept), "-o", str(page)]) == 0
    assert "Energy over GPU" in page.read_text()
    assert "95 %" not in page.read_text()
