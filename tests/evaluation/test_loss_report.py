import base64
import csv
import dataclasses
import html.parser
import io
import re

import numpy as np
import pytest
from rich.console import Console

from keras_taskrobust.evaluation import (
    Run,
    TaskScores,
    compare,
    drawing,
    print_report,
    write_report,
)
from keras_taskrobust.evaluation.loss_findings import headline

pytestmark = pytest.mark.backend_free

THREE = {"pooled": 0.05, "uniform": 0.0, "minimax": -0.3}
SETTINGS = {"keras": "3.15.1", "backend": "jax", "odd | name": "<b> & `c`"}


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    """Pictures are looked at in `test_plots`; here they need only be there."""
    monkeypatch.setattr(drawing, "DOTS_PER_INCH", 20)


class _Page(html.parser.HTMLParser):
    """The pictures and the rows of the tables of a page; checks that tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.pictures, self.rows = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "img":
            self.pictures.append(dict(attributes)["src"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def _section(text, heading):
    return text.split(f"## {heading}\n")[1].split("\n## ")[0]


def _table(text):
    """First column to the rest, of the first Markdown table in the text."""
    lines = [line for line in re.search(r"(\|.*\n?)+", text).group().splitlines() if line]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return rows[0], {row[0]: row[1:] for row in rows[2:]}


def _first_number(cell):
    return float(re.search(r"[-−]?\d+\.\d+", cell)[0].replace("−", "-"))  # noqa: RUF001


def _simple_runs(losses_by_weighting, seeds=(0,), records=20):
    """Every record has one target of each of two tasks, and a little noise."""
    noise = np.random.default_rng(0).normal(0, 0.05, (records, 2))
    counts = np.ones((records, 2), dtype=int)
    return [
        Run(name, seed, TaskScores(("a", "b"), noise + losses, counts), {}, 2.0)
        for name, losses in losses_by_weighting.items()
        for seed in seeds
    ]


def _print(runs, width=100, encoding=None, **arguments):
    file = io.StringIO() if encoding is None else io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_report(runs, Console(file=file, width=width, force_terminal=False), **arguments)
    file.seek(0)
    return file.read()


class TestWriteReport:
    def test_writes_all_files_and_nothing_else(self, make_runs, tmp_path):
        paths = write_report(make_runs(THREE), tmp_path / "out", "Three", SETTINGS)
        assert [path.name for path in paths] == [
            "final_losses.png",
            "task_losses.png",
            "task_weights.png",
            "gradient_norms.png",
            "gradient_conflicts.png",
            "metrics.csv",
            "report.html",
            "report.md",
        ]
        assert sorted(paths) == sorted((tmp_path / "out").iterdir())

    def test_markdown_marks_the_worst_task_of_each_row(self, make_runs, tmp_path):
        runs = make_runs(THREE, seeds=(0, 1))
        write_report(runs, tmp_path, "Three", SETTINGS, minimum_targets=150)
        text = (tmp_path / "report.md").read_text("utf-8")
        comparison = compare(runs, 150, "uniform")
        header, rows = _table(_section(text, "Held-out loss of each task"))
        assert tuple(header[1:]) == comparison.tasks
        assert tuple(rows) == tuple(THREE)
        for row in comparison.rows:
            cells = dict(zip(header[1:], rows[row.name], strict=True))
            assert [name for name, cell in cells.items() if "worst" in cell] == [row.worst_task]
            for name, cell in cells.items():
                estimate, lower, upper = row.losses.tasks[name]
                assert re.findall(r"\d+\.\d+", cell) == [
                    f"{value:.3f}" for value in (estimate, lower, upper)
                ]

    def test_tasks_with_few_targets_are_apart_and_named(self, make_runs, tmp_path):
        runs = make_runs(THREE)
        write_report(runs, tmp_path, "Three", SETTINGS, minimum_targets=150)
        text = (tmp_path / "report.md").read_text("utf-8")
        assert "Shown apart for want of targets: interjection (40)." in text
        assert "interjection" not in _section(text, "Held-out loss of each task")
        _, rows = _table(_section(text, "Shown apart: interjection"))
        assert set(rows) == set(THREE)
        header, rows = _table(_section(text, "Held-out targets of each task"))
        targets = dict(zip(header[1:], rows["targets"], strict=True))
        assert targets["interjection"] == "40"
        assert targets["all"] == f"{runs[0].scores.counts.sum():,}"

    def test_html_holds_every_picture_and_the_same_tables(self, make_runs, tmp_path):
        paths = write_report(make_runs(THREE), tmp_path, "A < B", SETTINGS, "One.\n\nTwo & three.")
        text = (tmp_path / "report.html").read_text("utf-8")
        page = _Page(text)
        pictures = [path.read_bytes() for path in paths if path.suffix == ".png"]
        prefix = "data:image/png;base64,"
        assert [base64.b64decode(src.removeprefix(prefix)) for src in page.pictures] == pictures
        assert "http" not in text
        assert "<h1>A &lt; B</h1>" in text
        assert "<p>One.</p>\n<p>Two &amp; three.</p>" in text
        assert ["odd | name", "<b> & `c`"] in page.rows
        assert "prefers-color-scheme: dark" in text
        markdown = (tmp_path / "report.md").read_text("utf-8")
        assert len(page.rows) == len(re.findall(r"^\| (?!:--)", markdown, re.MULTILINE))
        assert "| odd \\| name | \\<b> & \\`c\\` |" in markdown

    def test_csv_parses_back_equal(self, make_runs, tmp_path):
        runs = make_runs(THREE, seeds=(0, 3))
        write_report(runs, tmp_path, "Three", SETTINGS, minimum_targets=150)
        with open(tmp_path / "metrics.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(runs) * 13
        for run in runs:
            mine = [r for r in rows if (r["weighting"], r["seed"]) == (run.row, str(run.seed))]
            tasks = {row["task"]: row for row in mine if row["kind"] in ("task", "apart")}
            assert [row["task"] for row in mine if row["kind"] == "apart"] == ["interjection"]
            scores = run.scores
            assert tuple(tasks) == scores.task_names
            assert [float(row["loss"]) for row in tasks.values()] == scores.losses.tolist()
            assert [float(row["accuracy"]) for row in tasks.values()] == scores.accuracies.tolist()
            assert [int(row["targets"]) for row in tasks.values()] == scores.targets.tolist()
            over = {row["kind"]: row for row in mine if row["kind"] not in ("task", "apart")}
            assert (over["worst"]["task"], float(over["worst"]["loss"])) == scores.worst(150)
            assert float(over["mean"]["loss"]) == scores.mean(150)
            assert float(over["pooled"]["loss"]) == scores.pooled
            assert float(over["pooled"]["accuracy"]) == scores.pooled_accuracy

    def test_without_histories_and_accuracies(self, make_runs, tmp_path):
        runs = make_runs(THREE, steps=0, correct=False)
        paths = write_report(runs, tmp_path, "Three", SETTINGS)
        text = (tmp_path / "report.md").read_text("utf-8")
        assert [path.name for path in paths if path.suffix == ".png"] == ["final_losses.png"]
        assert "accuracy" not in text
        assert "## Training" not in text
        with open(tmp_path / "metrics.csv", newline="", encoding="utf-8") as file:
            assert {row["accuracy"] for row in csv.DictReader(file)} == {""}

    def test_says_that_a_baseline_is_missing(self, make_runs, tmp_path):
        write_report(make_runs({"minimax": 0.0, "pooled": 1.0}), tmp_path, "Two", SETTINGS)
        text = (tmp_path / "report.md").read_text("utf-8")
        assert 'No run of the baseline, "uniform": there are no differences to it.' in text
        assert "minus uniform" not in text

    def test_says_that_seeds_differ(self, make_runs, tmp_path):
        runs = [
            run
            for run in make_runs(THREE, seeds=(0, 1))
            if (run.row, run.seed) not in (("pooled", 0), ("minimax", 0), ("uniform", 1))
        ]
        runs += make_runs({"group_dro": 0.1}, seeds=(0, 1))
        write_report(runs, tmp_path, "Four", SETTINGS)
        text = (tmp_path / "report.md").read_text("utf-8")
        assert '"minimax" has no seed in common with "uniform": no difference is given.' in text
        assert 'The differences of "group_dro" are over the seeds both have: 0.' in text
        assert "Brackets: 95% intervals of Student's t over 2 seeds." in text
        assert "Brackets of one seed: 95% percentile bootstrap intervals, 1,000 resamples" in text

    def test_lowers_the_minimum_with_a_note(self, tmp_path):
        runs = _simple_runs({"uniform": (1.0, 2.0), "minimax": (1.5, 1.5)})
        write_report(runs, tmp_path, "Two", SETTINGS, minimum_targets=1000)
        text = (tmp_path / "report.md").read_text("utf-8")
        assert "those with the most, 20, count instead." in text

    def test_refuses_before_it_writes(self, make_runs, tmp_path):
        runs = make_runs(THREE, records=20)
        for wrong in ([], [*runs, runs[0]]):
            with pytest.raises(ValueError, match="`runs` must"):
                write_report(wrong, tmp_path / "out", "Wrong", SETTINGS)
        assert not (tmp_path / "out").exists()


class TestHeadline:
    def _of(self, runs, tmp_path, **arguments):
        write_report(runs, tmp_path, "Title", {}, minimum_targets=1, **arguments)
        return (tmp_path / "report.md").read_text("utf-8").split("\n\n")[1].strip("*")

    def test_clear_difference_of_one_seed(self, tmp_path):
        runs = _simple_runs({"uniform": (1.0, 4.0), "minimax": (2.0, 3.0)})
        text = self._of(runs, tmp_path)
        assert text.startswith('"minimax" has the lowest worst task loss, ')
        assert '(b), 1.000 (25.0%) below the baseline, "uniform". The 95% interval' in text
        assert "[−1.000, −1.000], excludes 0; with one seed, it covers" in text  # noqa: RUF001
        assert text.endswith("the choice of held-out records but not that of the seed.")

    def test_clear_difference_of_three_seeds(self, tmp_path):
        runs = _simple_runs({"uniform": (1.0, 4.0), "minimax": (2.0, 3.0)}, seeds=(0, 1, 2))
        text = self._of(runs, tmp_path)
        assert "excludes 0; with 3 seeds, it covers their choice but not that of held-out" in text

    def test_difference_that_may_be_chance(self, tmp_path):
        uniform, minimax = _simple_runs({"uniform": (1.0, 4.0), "minimax": (1.0, 3.999)})
        noisy = minimax.scores.totals + np.tile([[0.5], [-0.5]], (10, 1))
        scores = TaskScores(("a", "b"), noisy, minimax.scores.counts)
        text = self._of([uniform, Run("minimax", 0, scores, {}, 1.0)], tmp_path)
        assert text.startswith('"minimax" has the lowest')
        assert "includes 0, so that these runs do not tell the two apart" in text

    def test_the_baseline_is_the_best(self, tmp_path):
        runs = _simple_runs({"uniform": (1.0, 2.0), "minimax": (2.0, 3.0)})
        text = self._of(runs, tmp_path)
        assert text.startswith('The baseline, "uniform", has the lowest worst task loss, ')

    def test_one_weighting_or_no_baseline(self, tmp_path):
        runs = _simple_runs({"pooled": (1.0, 2.0), "minimax": (2.0, 3.0)})
        assert self._of(runs[:1], tmp_path).startswith('The worst task loss under "pooled" is')
        assert self._of(runs, tmp_path).endswith("It was not compared with a baseline.")

    def test_diverged_runs_are_never_the_best(self, tmp_path):
        nan = float("nan")
        runs = _simple_runs({"uniform": (nan, 2.0), "minimax": (2.0, 3.0)})
        assert self._of(runs, tmp_path).startswith('"minimax" has the lowest')
        assert self._of(runs[:1], tmp_path) == "No weighting has a finite worst loss."


class TestShares:
    def test_marks_the_lowest_share_of_each_row_and_the_highest_of_the_worst(
        self, make_runs, tmp_path
    ):
        runs = make_runs(THREE, seeds=(0, 1), trivial=0.5, steps=0)
        write_report(runs, tmp_path, "Three", SETTINGS, minimum_targets=150)
        text = (tmp_path / "report.md").read_text("utf-8")
        header, rows = _table(_section(text, "Held-out share of each task"))
        for name in THREE:
            own = [run.scores.with_targets(150) for run in runs if run.row == name]
            shares = np.mean([1 - one.losses / one.trivial_losses for one in own], axis=0)
            cells = dict(zip(header[1:], rows[name], strict=True))
            marked = [task for task, cell in cells.items() if "worst" in cell]
            assert marked == [own[0].task_names[shares.argmin()]]
            for cell, share in zip(cells.values(), shares, strict=True):
                assert _first_number(cell) == pytest.approx(share, abs=0.0006)
        header, rows = _table(_section(text, "Summary"))
        worst = {name: _first_number(cells[0]) for name, cells in rows.items()}
        assert [name for name, cells in rows.items() if "highest" in cells[0]] == ["minimax"]
        assert max(worst, key=worst.get) == "minimax"
        assert "lowest" not in text
        difference = dict(zip(header[1:], rows["minimax"], strict=True))["worst, minus uniform"]
        assert _first_number(difference) > 0
        assert "*" in difference
        assert "above 0, the weighting has the higher share." in text

    def test_shows_the_losses_and_the_constants_beside(self, make_runs, tmp_path):
        runs = make_runs(THREE, trivial=0.5, steps=0)
        paths = write_report(runs, tmp_path, "Three", SETTINGS, minimum_targets=150)
        assert [path.name for path in paths[:2]] == ["final_shares.png", "final_losses.png"]
        text = (tmp_path / "report.md").read_text("utf-8")
        _, rows = _table(_section(text, "Held-out loss of each task"))
        assert tuple(rows) == (*THREE, "best constant")
        scores = runs[0].scores.with_targets(150)
        for name, expected in (("pooled", scores.losses), ("best constant", scores.trivial_losses)):
            found = [_first_number(cell) for cell in rows[name]]
            np.testing.assert_allclose(found, expected, atol=0.0006)
        assert not any("worst" in cell for cells in rows.values() for cell in cells)
        _, rows = _table(_section(text, "Shown apart: interjection"))
        assert _first_number(rows["pooled"][0]) == pytest.approx(
            runs[0].scores.shares[8], abs=0.0006
        )

    def test_shows_the_parts_apart(self, make_runs, tmp_path):
        runs = make_runs(THREE, trivial=0.5, parts=True, steps=0)
        write_report(runs, tmp_path, "Three", SETTINGS, minimum_targets=150)
        text = (tmp_path / "report.md").read_text("utf-8")
        assert "has the highest worst within-task share, " in text
        assert "L is its within-task loss, T that of the best constant" in text
        assert "the prior loss is that of the task itself." in text
        whole, within, prior = (
            np.array([[_first_number(cell) for cell in cells] for cells in rows.values()])
            for _, rows in (
                _table(_section(text, f"Held-out {name}loss of each task"))
                for name in ("", "within-task ", "prior ")
            )
        )
        np.testing.assert_allclose(within, 2 / 3 * whole, atol=0.001)
        np.testing.assert_allclose(prior, 1 / 3 * whole, atol=0.001)
        printed = _print(runs, minimum_targets=150)
        assert re.findall(r"Held-out ([-a-z ]+?)  ", printed) == [
            "within-task share",
            "loss",
            "within-task loss",
            "prior loss",
        ]

    def test_csv_has_the_share_and_the_trivial_loss(self, make_runs, tmp_path):
        runs = make_runs(THREE, trivial=0.5, parts=True, steps=0)
        write_report(runs, tmp_path, "Three", SETTINGS, minimum_targets=150)
        with open(tmp_path / "metrics.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(runs) * 14 * 3
        for run in runs:
            for part, scores in (("", run.scores), *run.scores.parts.items()):
                mine = [row for row in rows if (row["weighting"], row["part"]) == (run.row, part)]
                tasks = [row for row in mine if row["kind"] in ("task", "apart")]
                assert [float(row["share"]) for row in tasks] == scores.shares.tolist()
                found = [float(row["trivial_loss"]) for row in tasks]
                assert found == scores.trivial_losses.tolist()
                (worst,) = (row for row in mine if row["kind"] == "worst_share")
                assert (worst["task"], float(worst["share"])) == scores.worst_share(150)
                (mean,) = (row for row in mine if row["kind"] == "mean")
                assert float(mean["share"]) == scores.mean_share(150)

    @pytest.mark.parametrize("parts", [False, True])
    def test_a_run_without_trivial_losses_makes_the_report_one_of_losses(
        self, make_runs, tmp_path, parts
    ):
        """To the byte, whatever the other runs have."""
        old, new = make_runs(THREE, steps=0), make_runs(THREE, steps=0, trivial=0.5, parts=parts)
        paths = write_report(old, tmp_path / "old", "Three", SETTINGS)
        mixed = write_report([old[0], *new[1:]], tmp_path / "mixed", "Three", SETTINGS)
        assert [path.name for path in mixed] == [path.name for path in paths]
        for one, other in zip(paths, mixed, strict=True):
            assert one.read_bytes() == other.read_bytes()
        assert _print(old) == _print([old[0], *new[1:]])
        assert "share" not in (tmp_path / "old" / "metrics.csv").read_text("utf-8")

    def _headline(self, losses, trivial=(4.0, 4.0)):
        runs = [
            dataclasses.replace(
                run,
                scores=dataclasses.replace(
                    run.scores, trivial_totals=run.scores.counts * np.array(trivial)
                ),
            )
            for run in _simple_runs(losses)
        ]
        return headline(compare(runs, 1, "uniform"))

    def test_headline_is_about_the_worst_share(self):
        losses = {"uniform": (1.0, 3.0), "minimax": (2.0, 2.0), "other": (3.0, 1.0)}
        text = self._headline(losses)
        assert text.startswith('"minimax" has the highest worst share, 0.498 (b), 0.250 ')
        assert 'above the baseline, "uniform". The 95% interval of this difference, [+0.2' in text
        assert "constant" not in text

    def test_a_larger_loss_may_be_the_better_share(self):
        """b has the larger losses, and a is the worst task."""
        losses = {"uniform": (0.9, 30.0), "minimax": (0.5, 40.0)}
        text = self._headline(losses, trivial=(1.0, 100.0))
        assert text.startswith('"minimax" has the highest worst share, 0.')
        assert "(a), 0.4" in text

    def test_the_baseline_is_the_best(self):
        text = self._headline({"uniform": (1.0, 2.0), "minimax": (2.0, 3.0)})
        assert text.startswith('The baseline, "uniform", has the highest worst share, 0.')

    def test_headline_names_what_a_constant_beats(self):
        losses = {"uniform": (1.0, 3.0), "minimax": (2.0, 5.0), "hard_max": (5.0, 6.0)}
        text = self._headline(losses)
        assert text.endswith(
            ". Worse than the best constant (share below 0): b under "
            '"minimax"; a, b under "hard_max".'
        )
        text = self._headline({"pooled": (2.0, 5.0)})
        assert text.startswith('The worst share under "pooled" is −0.2')  # noqa: RUF001
        assert text.endswith(
            ' (b). Worse than the best constant (share below 0): b under "pooled".'
        )

    def test_headline_counts_many_tasks(self, make_runs):
        """Nine of the ten tasks have enough targets."""
        trivial = np.where(np.arange(10) < 5, -0.3, 1.0)
        runs = make_runs({"uniform": 0.0, "minimax": 4.0}, steps=0, trivial=trivial)
        assert headline(compare(runs, 150, "uniform")).endswith(
            '(share below 0): 5 of 9 tasks under "uniform"; all 9 tasks under "minimax".'
        )

    def test_diverged_runs_are_never_the_best(self):
        for value in (float("nan"), float("inf")):
            losses = {"uniform": (value, 2.0), "minimax": (2.0, 5.0)}
            assert self._headline(losses).startswith('"minimax" has the highest')
            assert self._headline({"uniform": (value, 2.0)}).startswith(
                "No weighting has a finite worst share."
            )


class TestPrintReport:
    def test_prints_shares_above_losses(self, make_runs):
        runs = make_runs(THREE, trivial=0.5)
        text = _print(runs, minimum_targets=150)
        comparison = compare(runs, 150, "uniform")
        lines = [line for line in text.splitlines() if line.split()[:1] == ["noun"]]
        shares, losses = (re.findall(r"\d+\.\d+", line) for line in lines)
        expected = [f"{row.figures.tasks['noun'].estimate:.3f}" for row in comparison.rows]
        assert shares == expected
        expected = [f"{row.losses.tasks['noun'].estimate:.3f}" for row in comparison.rows]
        assert losses == [f"{comparison.trivial['']['noun']:.3f}", *expected]
        assert text.count("◀") == len(THREE) + 1
        assert max(map(len, text.splitlines())) <= 100

    @pytest.mark.parametrize("weightings", [1, 3, 6, 8])
    def test_fits_the_width_and_marks_each_worst_task(self, make_runs, weightings):
        names = [*THREE, "minimax alpha=3 momentum=0.9", "hard_max", "group_dro", "dwa", "x"]
        runs = make_runs({name: 0.1 * i for i, name in enumerate(names[:weightings])}, (0, 1))
        text = _print(runs, width=140, minimum_targets=150)
        assert max(map(len, text.splitlines())) <= 100
        assert text.count("◀") == weightings + 1
        assert len(re.findall(r"Held-out loss\b", text)) == (1 if weightings <= 6 else 2)

    def test_figures_are_those_of_the_report(self, make_runs):
        runs = make_runs(THREE)
        text = _print(runs, minimum_targets=150)
        comparison = compare(runs, 150, "uniform")
        for name in comparison.tasks:
            line = next(line for line in text.splitlines() if line.split()[:1] == [name])
            expected = [f"{row.losses.tasks[name].estimate:.3f}" for row in comparison.rows]
            assert re.findall(r"\d+\.\d+", line) == expected
        worst = next(line for line in text.splitlines() if line.split()[:1] == ["worst"])
        assert f"{comparison.row('minimax').losses.worst.estimate:.3f}" in worst
        assert "(interjection)" in text

    def test_prints_where_only_ascii_can_be(self, make_runs):
        text = _print(make_runs(THREE), encoding="ascii", minimum_targets=150)
        assert text.isascii()
        assert "worst - uniform" in text

    def test_prints_to_the_standard_output(self, make_runs, capsys):
        print_report(make_runs(THREE, steps=0), minimum_targets=150)
        assert '"minimax" has the lowest worst task loss' in capsys.readouterr().out
