"""What helps to read a report: what to do next, what changed, what is not counted, whole names."""

import dataclasses
import io
import math

import numpy as np
import pytest
from rich.console import Console

from keras_taskrobust.evaluation import Run, TaskScores, compare, drawing, heat_maps, write_report
from keras_taskrobust.evaluation.changes import changes_since_start
from keras_taskrobust.evaluation.downstream_comparison import DownstreamResult, compare_downstream
from keras_taskrobust.evaluation.downstream_report import (
    downstream_headline,
    downstream_next_step,
    downstream_notes,
)
from keras_taskrobust.evaluation.inheritance import Inheritance
from keras_taskrobust.evaluation.inheritance_report import write_inheritance_report
from keras_taskrobust.evaluation.loss_findings import headline, next_step
from keras_taskrobust.evaluation.loss_report import print_report
from keras_taskrobust.evaluation.rendering import broken, longest_part

pytestmark = pytest.mark.backend_free


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(drawing, "DOTS_PER_INCH", 20)


def run(row, losses, seed=0, history=None, trivial=None):
    """One of 20 records, each with 10, 10 and 1 targets of three tasks."""
    counts = np.tile([10, 10, 1], (20, 1))
    noise = np.random.default_rng(seed).normal(1, 0.01, counts.shape)
    constant = None if trivial is None else counts * np.array(trivial, "float64")
    scores = TaskScores(("a", "b", "few"), counts * losses * noise, counts, trivial_totals=constant)
    return Run(row, seed, scores, history or {}, 1.0)


def test_a_single_run_has_neither_a_highest_nor_empty_columns(tmp_path):
    one = run("minimax", [2.0, 1.0, 1.5], trivial=[4.0, 4.0, 4.0])
    write_report([one], tmp_path, "One", {}, minimum_targets=100, baseline="minimax")
    report = (tmp_path / "report.md").read_text()
    assert "highest" not in report
    assert "minus minimax" not in report
    assert "Next: set it beside other weightings" in report


def test_the_headline_names_what_is_worse_and_does_not_count():
    trivial = [4.0, 4.0, 4.0]
    alone = compare([run("minimax", [2.0, 1.0, 3.6], trivial=trivial)], 100)
    assert (
        "Worse under it, but not counted for want of held-out targets (fewer than 100): few (0.0"
        in (headline(alone))
    )
    assert "not counted" not in headline(compare([run("m", [2, 1, 1.9], trivial=trivial)], 100))
    assert "not counted" not in headline(compare([run("m", [2.0, 1.0, 1.9])], 100))
    assert "few (3.0" in headline(compare([run("m", [2.0, 1.0, 3.0])], 100))


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([("m", [5.0, 5.0, 1.0], 0)], "train for more steps"),
        ([("m", [2.0, 1.0, 1.0], 0)], "taskrobust compare"),
        ([("m", [math.inf, 1.0, 1.0], 0)], "lower the peak learning rate"),
        ([("m", [2.0, 1.0, 1.0], 0), ("uniform", [2.1, 1.0, 1.0], 0)], "compare and --seeds 0"),
        (
            [(row, [2.0, 1.0, 1.0], seed) for row in ("m", "uniform") for seed in (0, 1)],
            "more seeds",
        ),
        (
            [
                (row, [worst, 1.0, 1.0], s)
                for row, worst in (("m", 2), ("uniform", 3))
                for s in (0, 1)
            ],
            "taskrobust finetune",
        ),
    ],
)
def test_what_to_do_next(runs, said):
    made = [run(row, losses, seed, trivial=[4.0, 4.0, 4.0]) for row, losses, seed in runs]
    if said == "more seeds":  # the rows are the same
        assert not compare(made, 100, "uniform").row("m").difference.worst.excludes_zero
    assert said in next_step(compare(made, 100, "uniform"))


def test_one_task_that_counts_is_no_worst_task():
    def run_of_one(row):
        counts = np.tile([10, 1], (20, 1))
        return Run(row, 0, TaskScores(("a", "few"), counts * 2.0, counts), {}, 1.0)

    alone = next_step(compare([run_of_one("m")], 100))
    assert alone.startswith("Next: take more data, or hold out a larger share of them: a alone")
    assert "--minimum-targets" not in alone
    two = [run_of_one("m"), run_of_one("uniform")]
    assert "--minimum-targets 100" in next_step(compare(two, 100))
    assert "--seeds" in next_step(compare(two, 20))


def test_changes_are_between_the_first_and_the_last_tenth(tmp_path):
    losses = [math.nan, 9.0, 7.0, *[5.0] * 15, 2.0, 4.0]
    history = {"step": list(range(20)), "a_loss": losses, "few_loss": [math.nan] * 20}
    history["b_loss"] = [math.nan] * 19 + [1.0]
    runs = [run("m", [2.0, 1.0, 1.0], history=history)]
    assert changes_since_start(runs) == {"m": {"a": (9.0, 3.0)}}
    of_other = {"step": [0, 1], **{f"{name}_loss": [5.0, 5.0] for name in ("a", "b", "few")}}
    other = dataclasses.replace(runs[0], seed=1, history=of_other)
    assert changes_since_start([*runs, other])["m"]["a"] == (7.0, 4.0)
    assert changes_since_start([run("m", [2.0, 1.0, 1.0])]) == {}
    write_report(runs, tmp_path, "One", {}, minimum_targets=100)
    (line,) = (
        line
        for line in (tmp_path / "report.md").read_text().splitlines()
        if "9.000 to 3.000" in line
    )
    assert "−6.000" in line  # noqa: RUF001


def downstream(task, row, seed, score, trivial=0.5):
    return DownstreamResult(row, seed, task, {"accuracy": score}, {"accuracy": trivial})


def test_downstream_says_what_is_left_out_and_what_is_next():
    results = [
        downstream(task, row, seed, score + 0.1 * (seed == 1 and task == "CoLA"))
        for row in ("uniform", "m")
        for seed in (0, 1)
        for task, score in (("CoLA", 0.55), ("RTE", 0.6), ("WNLI", 0.4))
    ]
    comparison = compare_downstream(results)
    assert "Not counted, since no row lies clear of the trivial baseline there: WNLI." in (
        downstream_headline(comparison)
    )
    assert any('"CoLA 1x" in the column' in note for note in downstream_notes(comparison))
    assert "more seeds: these do not tell" in downstream_next_step(comparison)
    one_seed = [one for one in results if one.seed == 0]
    assert "--seeds 0 1 2" in downstream_next_step(compare_downstream(one_seed))
    assert "1x" not in "".join(downstream_notes(compare_downstream(one_seed)))
    alone = [one for one in results if one.row == "m"]
    assert "--from-scratch" in downstream_next_step(compare_downstream(alone))
    unclear = [one for one in results if one.task == "WNLI"]
    assert "longer fine-tuning" in downstream_next_step(compare_downstream(unclear))
    failed = [*results[:-1], dataclasses.replace(results[-1], scores={}, trivial={}, failure="It.")]
    assert "run the same command again" in downstream_next_step(compare_downstream(failed))


def test_a_heat_map_shows_the_changes(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(heat_maps, "save_figure", lambda figure, path: figures.append(figure))
    result = Inheritance(("x", "y"), [0.5, 0.5], [[0.75, 0.25], [0.5, 0.625]])
    heat_maps.draw_changes({"uniform": result, "m": result}, tmp_path / "unused.png")
    (figure,) = figures
    for axes, name in zip(figure.axes, ("uniform", "m"), strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), result.changes)
        assert axes.get_title(loc="left") == name
        texts = [text.get_text() for text in axes.texts]
        assert texts == ["(+0.250)", "−0.250", "0.000", "(+0.125)"]  # noqa: RUF001


def test_inheritance_has_its_picture_and_says_what_is_next(tmp_path):
    result = Inheritance(("x", "y"), [0.5, 0.5], [[0.75, 0.25], [0.5, 0.625]])
    written = write_inheritance_report({"m": {0: result}}, tmp_path, "Inherited", {})
    assert tmp_path / "inheritance.png" in written
    report = (tmp_path / "report.md").read_text()
    assert "(inheritance.png)" in report
    assert "Next: more seeds, --seeds 0 1 2" in report


def test_names_break_between_their_words():
    assert broken("scale_free_minimax", 11).split("\n") == ["scale_free_", "minimax"]
    assert broken("minimax alpha=3", 9).split("\n") == ["minimax", "alpha=3"]
    assert longest_part("scale_free_minimax alpha=3") == len("minimax")
    file = io.StringIO()
    rows = ("uncertainty", "scale_free_minimax", "scale_free_minimax alpha=3", "uniform", "m")
    print_report([run(row, [2.0, 1.0, 1.0]) for row in rows], Console(file=file, width=80))
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    table = text.split("◀ The worst")[0]
    for word in ("uncertainty", "scale_", "minimax", "alpha=3", "uniform"):
        assert word in table
    words = {word for line in table.splitlines() for word in line.split()}
    assert not {"uncertaint", "minima", "scale_free_m"} & words
