"""The downstream comparison against hand computations, and what its report says."""

import csv

import numpy as np
import pytest
from matplotlib.image import imread
from scipy import stats

from keras_taskrobust.evaluation import (
    DownstreamResult,
    compare_downstream,
    drawing,
    write_downstream_report,
    write_report,
)

pytestmark = pytest.mark.backend_free

SCORES = {  # row -> task -> seeds
    "uniform": {"easy": (0.9, 0.8, 0.85), "hard": (0.6, 0.62, 0.58), "floor": (0.5, 0.49, 0.51)},
    "pooled": {"easy": (0.8, 0.9, 0.85), "hard": (0.7, 0.72, 0.71), "floor": (0.5, 0.52, 0.47)},
    "minimax": {"easy": (0.7, 0.72, 0.74), "hard": (0.8, 0.82, 0.81), "floor": (0.5, 0.5, 0.5)},
}


def result(row, seed, task, score, **fields):
    return DownstreamResult(
        row, seed, task, {"accuracy": score}, {"accuracy": 0.5}, seconds=2.0, **fields
    )


@pytest.fixture
def results():
    return [
        result(row, seed, task, score, pretraining_seconds=10.0)
        for row, tasks in SCORES.items()
        for task, scores in tasks.items()
        for seed, score in enumerate(scores)
    ]


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(drawing, "DOTS_PER_INCH", 40)


def test_figures_are_those_computed_by_hand(results):
    comparison = compare_downstream(results)
    assert comparison.tasks == ("easy", "hard")
    assert comparison.floor == ("floor",)
    uniform, _, minimax = comparison.rows
    assert uniform.scores["easy"].estimate == pytest.approx(0.85)
    assert uniform.gains["easy"].estimate == pytest.approx(0.7)
    assert uniform.worst.estimate == pytest.approx(np.mean([0.2, 0.24, 0.16]))
    assert uniform.worst_tasks == {"hard": 3}
    assert minimax.worst_task == "easy"
    assert minimax.worst.estimate == pytest.approx(np.mean([0.4, 0.44, 0.48]))
    assert uniform.mean.estimate == pytest.approx((0.85 + 0.6) / 2)
    assert uniform.mean_gain == pytest.approx((0.7 + 0.2) / 2)
    assert [row.rank for row in comparison.rows] == [2.25, 1.75, 2.0]
    expected = np.mean([(0.72 - 0.85) / 0.85, (0.81 - 0.6) / 0.6])
    assert minimax.relative_change == pytest.approx(expected)
    assert np.isnan(uniform.relative_change)
    difference = minimax.differences["uniform"]
    assert difference.tasks["hard"].estimate == pytest.approx(0.21)
    assert difference.worst.estimate == pytest.approx(0.44 - 0.2)
    assert difference.mean.estimate == pytest.approx((-0.13 + 0.21) / 2)
    assert (difference.wins, difference.losses) == (("hard",), ())
    assert list(uniform.differences) == ["pooled"]
    assert (uniform.seconds, uniform.pretraining_seconds) == (6.0, 10.0)


def test_the_score_is_the_mean_of_the_metrics():
    results = [
        DownstreamResult(row, 0, "pairs", {"f1": f1, "acc": 0.8}, {"f1": 0.0, "acc": 0.6})
        for row, f1 in (("uniform", 0.6), ("minimax", 0.7))
    ]
    uniform, minimax = compare_downstream(results).rows
    assert uniform.gains["pairs"].estimate == pytest.approx((0.7 - 0.3) / 0.7)
    assert (uniform.rank, minimax.rank) == (2.0, 1.0)
    assert minimax.differences["uniform"].tasks["pairs"].estimate == pytest.approx(0.05)
    assert minimax.relative_change == pytest.approx(0.05 / 0.7)


def test_rows_with_other_seeds_are_compared_over_those_that_both_have(results):
    found = [one for one in results if (one.row, one.seed) != ("minimax", 0)]
    difference = compare_downstream(found[::-1]).row("minimax").differences["uniform"]
    assert sorted(difference.seeds) == [1, 2]
    assert difference.tasks["hard"].estimate == pytest.approx(np.mean([0.2, 0.23]))


def test_a_failed_cell_leaves_its_row_without_worst_and_the_rest_as_it_is(results, tmp_path):
    whole = compare_downstream(results)
    broken = [one for one in results if (one.row, one.task) != ("minimax", "hard")]
    broken += [
        DownstreamResult("minimax", seed, "hard", failure="dev.tsv | is missing")
        for seed in range(3)
    ]
    comparison = compare_downstream(broken)
    assert comparison.tasks == whole.tasks
    assert np.isnan(comparison.row("minimax").worst.estimate)
    assert np.isnan(comparison.row("minimax").rank)
    assert comparison.row("uniform").worst == whole.row("uniform").worst
    write_downstream_report(broken, tmp_path, "Title", {"steps": "3"})
    text = (tmp_path / "report.md").read_text()
    assert "## Failed" in text
    assert text.count("dev.tsv \\| is missing") == 3
    rows = list(csv.DictReader((tmp_path / "downstream.csv").read_text().splitlines()))
    assert [row["failure"] for row in rows if row["task"] == "hard" and not row["metric"]] == [
        "dev.tsv | is missing"
    ] * 3


def test_the_report_says_what_was_found(results, tmp_path):
    write_downstream_report(results, tmp_path, "Which pre-training?", {"steps": "3"}, "Intro.")
    text = (tmp_path / "report.md").read_text()
    assert '"minimax" has the best worst downstream task: a gain of 0.440 (easy)' in text
    assert (
        "Not counted, since under no row the score lies clear of the trivial baseline (above it "
        "with every seed): floor." in text
    )
    assert "| trivial baseline | 0.500 | 0.500 | 0.500 |" in text
    assert (tmp_path / "report.html").read_text().count("<img") == 1
    assert imread(tmp_path / "downstream.png")[..., :3].std() > 0.05
    rows = list(csv.DictReader((tmp_path / "downstream.csv").read_text().splitlines()))
    assert len(rows) == len(results)
    assert float(rows[0]["value"]) == results[0].score
    assert float(rows[0]["gain"]) == results[0].gain


def test_one_row_and_one_seed_claim_nothing_more(tmp_path):
    write_downstream_report([result("mine", 0, "RTE", 0.75)], tmp_path, "Mine", {})
    text = (tmp_path / "report.md").read_text()
    assert 'The smallest gain of "mine" on a downstream task is 0.500 (RTE).' in text
    assert "One seed" in text
    assert "minus" not in text


def test_tasks_that_nobody_learns_order_no_rows(tmp_path):
    rows = {"uniform": (0.5, 0.49), "minimax": (0.5, 0.51)}
    results = [
        result(row, seed, "RTE", score)
        for row, scores in rows.items()
        for seed, score in enumerate(scores)
    ]
    assert compare_downstream(results).nothing_clear
    write_downstream_report(results, tmp_path, "Nothing", {})
    text = (tmp_path / "report.md").read_text()
    assert "Under no row does any task lie clear of the trivial baseline" in text
    assert "has the best worst" not in text


def test_a_task_without_anything_to_gain_hides_no_others(results, tmp_path):
    constant = [
        DownstreamResult(row, seed, "one class", {"accuracy": 1.0}, {"accuracy": 1.0})
        for row in SCORES
        for seed in range(3)
    ]
    comparison = compare_downstream([*results, *constant])
    assert comparison.tasks == ("easy", "hard")
    write_downstream_report([*results, *constant], tmp_path, "Title", {})
    rows = list(csv.DictReader((tmp_path / "downstream.csv").read_text().splitlines()))
    assert {row["gain"] for row in rows if row["task"] == "one class"} == {"nan"}


def test_seeds_without_figures_are_not_counted(results, tmp_path):
    broken = [
        DownstreamResult("minimax", one.seed, one.task, failure="killed", seconds=50.0)
        if one.row == "minimax" and one.task == "hard" and one.seed < 2
        else one
        for one in results
    ]
    row = compare_downstream(broken).row("minimax")
    assert (row.complete_seeds, len(row.seeds), row.seconds) == (1, 3, 6.0)
    write_downstream_report(broken, tmp_path, "Title", {})
    text = (tmp_path / "report.md").read_text()
    assert "a gain of 0.480 (easy), over 1 of 3 seeds; " in text
    assert "| 1 of 3 |" in text


@pytest.mark.parametrize(("last", "differ"), [(0.67, True), (0.9, False)])
def test_wins_and_losses_rest_on_the_paired_t_test(last, differ):
    scores = {"uniform": (0.60, 0.70, 0.65), "minimax": (0.62, 0.71, last)}
    results = [
        result(row, seed, "RTE", score)
        for row, values in scores.items()
        for seed, score in enumerate(values)
    ]
    test = stats.ttest_rel(scores["minimax"], scores["uniform"])
    assert (test.pvalue < 0.05) == differ
    comparison = compare_downstream(results, tuple(scores))
    better = comparison.row("minimax").differences["uniform"]
    worse = comparison.row("uniform").differences["minimax"]
    assert better.wins == worse.losses == (("RTE",) if differ else ())
    assert better.losses == worse.wins == ()
    assert better.tasks["RTE"][1:] == pytest.approx(tuple(test.confidence_interval(0.95)))


@pytest.mark.parametrize(("last", "clear"), [(0.51, True), (0.49, False)])
def test_a_task_counts_if_some_row_lies_above_the_trivial_baseline_with_every_seed(last, clear):
    scores = {"uniform": (0.4, 0.9, 0.9), "minimax": (0.52, 0.9, last)}
    found = [
        result(row, seed, "RTE", score)
        for row, values in scores.items()
        for seed, score in enumerate(values)
    ]
    assert compare_downstream(found).nothing_clear is not clear


def test_both_stages_are_one_report(results, make_runs, tmp_path):
    runs = make_runs({"uniform": 0.0, "minimax": -0.2}, records=50, steps=3)
    write_report(runs, tmp_path, "Both", {}, downstream=results)
    text = (tmp_path / "report.md").read_text()
    assert text.index("Downstream: summary") < text.index("Held-out loss of each task")
    assert (tmp_path / "report.html").read_text().count("<img") == 6


def test_refuses(results):
    with pytest.raises(ValueError, match="at least one result. Received: none"):
        compare_downstream([])
    with pytest.raises(ValueError, match="Received: 2 of 'uniform', seed 0, easy"):
        compare_downstream([*results, results[0]])
