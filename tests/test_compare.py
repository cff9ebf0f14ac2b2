from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from analytic_sweep import analytic_sweep

from governor.comparison import Reference, curve, leave_alone, measure_everything, to_json
from governor.errors import InputError, MissingExtraError
from governor.replay import ReplayRun, Task, run
from governor.report.drawing import check_format
from governor.report.plots import FORMATS, draw_comparison
from governor.units import parse_bound

SWEEP = analytic_sweep()
TRIALS = 10


def tasks(policy: str, slo: str = "1.5x", noise: float = 0.02) -> list[Task]:
    bound = parse_bound(slo)
    return [Task(SWEEP, bound, policy, seed, TRIALS, noise, curve=True) for seed in range(4)]


def runs(policy: str, slo: str = "1.5x", noise: float = 0.02) -> list[ReplayRun]:
    return [run(task) for task in tasks(policy, slo, noise)]


def test_a_curve_is_the_mean_over_runs_after_each_trial() -> None:
    made = runs("random")
    found = curve("random", made, TRIALS)
    assert found is not None
    for k in range(TRIALS):
        excess = [one.excess(one.choices[k]) for one in made]
        assert found.excess_mean[k] == pytest.approx(np.mean(excess))
        assert found.excess_p95[k] == pytest.approx(np.percentile(excess, 95))
        assert found.slo_met_rate[k] == np.mean([one.keeps_slo(one.choices[k]) for one in made])


def test_violations_add_up_trial_by_trial() -> None:
    made = runs("random")
    found = curve("random", made, TRIALS)
    assert found is not None
    for k in range(TRIALS):
        missed = sum(
            not one.keeps_slo(trial.truth) for one in made for trial in one.trials[: k + 1]
        )
        assert found.violation_rate[k] == pytest.approx(missed / (len(made) * (k + 1)))
    assert found.violation_rate[-1] == pytest.approx(found.summary.trial_violation_rate)


def test_a_whole_run_pays_for_its_search_and_then_holds_the_choice() -> None:
    made = runs("random")
    found = curve("random", made, TRIALS, budgets=[3, TRIALS], windows=20)
    assert found is not None
    for whole in found.whole_runs:
        windows = [
            [trial.truth for trial in one.trials[: whole.budget]]
            + [one.choices[whole.budget - 1]] * (20 - whole.budget)
            for one in made
        ]
        excess = [one.excess(at) for one, row in zip(made, windows, strict=True) for at in row]
        missed = [
            not one.keeps_slo(at) for one, row in zip(made, windows, strict=True) for at in row
        ]
        assert whole.energy_excess == pytest.approx(np.mean(excess))
        assert whole.windows_missed == pytest.approx(20 * np.mean(missed))


def test_a_whole_run_without_a_search_is_what_is_held() -> None:
    found = curve("fixed", runs("fixed"), TRIALS, budgets=[TRIALS], windows=1000)
    assert found is not None
    assert found.whole_runs[0].energy_excess == pytest.approx(found.excess_mean[0])


def test_default_governors_are_judged_once_for_each_sweep_and_bound() -> None:
    row = SWEEP.optimum(1.5 * SWEEP.all_max_latency_s)
    best = float(SWEEP.latency_s[row]), float(SWEEP.energy_j[row])
    at_best = leave_alone(tasks("random") + tasks("coordinate"), {str(SWEEP): best})
    assert at_best == Reference(0.0, 0.0, 1.0)
    slow = leave_alone(tasks("random"), {str(SWEEP): (9 * best[0], 2 * best[1])})
    assert slow == Reference(pytest.approx(1.0), pytest.approx(1.0), 0.0)


def test_a_search_that_ended_early_keeps_its_last_choice() -> None:
    made = runs("fixed")
    assert {len(one.trials) for one in made} == {1}
    found = curve("fixed", made, TRIALS)
    assert found is not None
    assert found.excess_mean == pytest.approx(np.full(TRIALS, made[0].energy_excess))
    assert found.violation_rate == pytest.approx(np.zeros(TRIALS))


def test_a_policy_whose_slo_nothing_keeps_has_no_curve() -> None:
    assert curve("random", runs("random", "1us"), TRIALS) is None
    assert measure_everything(tasks("random", "1us")) is None


def test_measuring_everything_without_noise_finds_the_optimum() -> None:
    assert measure_everything(tasks("random", noise=0.0)) == Reference(0.0, 0.0, 1.0)


def test_measuring_everything_counts_a_case_once_for_all_policies() -> None:
    one, both = tasks("random"), tasks("random") + tasks("coordinate")
    assert measure_everything(one) == measure_everything(both)


def test_noise_costs_even_who_measures_everything() -> None:
    noisy = measure_everything(tasks("random", noise=0.2))
    assert noisy is not None
    assert noisy.excess_p95 > 0 or noisy.slo_met_rate < 1


def test_the_json_has_each_policys_curve_and_each_runs_choices() -> None:
    made = runs("coordinate")
    found = curve("coordinate", made, TRIALS)
    assert found is not None
    reference = measure_everything(tasks("coordinate"))
    assert reference is not None
    document = to_json(made, [found], {"every setting once": reference})
    (first, *_) = document["runs"]  # pyright: ignore
    assert len(first["choices"]) == len(first["trials"])
    summary = document["summary"]
    assert set(summary["every_setting_once"]) == {"excess_mean", "excess_p95", "slo_met_rate"}
    after = summary["policies"]["coordinate"]["after_each_trial"]
    assert {len(values) for values in after.values()} == {TRIALS}


def draw(path: Path) -> None:
    curves = [curve(name, runs(name), TRIALS) for name in ("coordinate", "random", "fixed")]
    reference = measure_everything(tasks("random"))
    assert reference is not None
    drawn = [one for one in curves if one is not None]
    draw_comparison(path, drawn, {"every setting once": reference}, "made <up>")


def test_a_png_is_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_an_html_page_stands_alone_and_carries_the_figures(tmp_path: Path) -> None:
    draw(tmp_path / "plot.html")
    page = (tmp_path / "plot.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "made &lt;up&gt;" in page
    assert page.count("<tr>") == TRIALS + 1
    assert "<script" not in page
    assert "<link" not in page


def test_the_same_runs_draw_the_same_svg(tmp_path: Path) -> None:
    draw(tmp_path / "one.svg")
    draw(tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_text() == (tmp_path / "two.svg").read_text()


def test_a_plot_without_trials_that_differ_still_draws(tmp_path: Path) -> None:
    made = [dataclasses.replace(one, chosen=one.oracle) for one in runs("fixed", "1x")]
    found = curve("fixed", made, 1)
    assert found is not None
    references = {"every setting once": Reference(0.0, 0.0, 1.0)}
    draw_comparison(tmp_path / "plot.png", [found], references, "one trial")
    assert (tmp_path / "plot.png").exists()


def test_a_plot_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r"\.png, \.svg, \.html"):
        check_format(Path("plot.gif"), FORMATS)


def test_a_missing_matplotlib_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"energy-governor\[report\]"):
        check_format(Path("plot.png"), FORMATS)
