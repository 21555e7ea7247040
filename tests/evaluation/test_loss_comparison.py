import numpy as np
import pytest

from keras_taskrobust.evaluation import Measure, Run, TaskScores, compare

pytestmark = pytest.mark.backend_free


def _run(
    weighting,
    seed,
    losses,
    names=("a", "b", "rare"),
    counts=((50, 40, 2),),
    history=None,
    trivial=None,
    parts=None,
):
    totals = np.array(counts) * np.array([losses])
    constant = None if trivial is None else np.array(counts) * np.array([trivial])
    scores = TaskScores(names, totals, counts, trivial_totals=constant, parts=parts or {})
    return Run(weighting, seed, scores, history or {}, seconds=float(10 * seed))


@pytest.fixture
def runs():
    return [
        _run("uniform", 1, (4.0, 2.0, 9.0)),
        _run("uniform", 2, (3.0, 5.0, 9.0)),
        _run("minimax", 1, (3.0, 3.5, 1.0)),
    ]


def test_averages_over_seeds(runs):
    comparison = compare(runs, minimum_targets=10, baseline="uniform")
    uniform, minimax = comparison.rows
    assert comparison.tasks == ("a", "b")
    assert comparison.apart == ("rare",)
    assert comparison.targets == {"a": 50, "b": 40, "rare": 2}
    assert not comparison.lowered
    assert uniform.losses.tasks["a"].estimate == 3.5
    assert uniform.losses.tasks["rare"].estimate == 9.0
    assert uniform.losses.worst.estimate == 4.5
    assert uniform.losses.mean.estimate == 3.5
    assert uniform.spread == 2.0
    assert uniform.pooled == pytest.approx(np.mean([298 / 92, 368 / 92]))
    assert uniform.worst_tasks == {"a": 1, "b": 1}
    assert uniform.seconds == 15.0
    assert minimax.worst_task == "b"
    assert not comparison.has_accuracies


def test_differences_are_over_the_seeds_that_both_have(runs):
    uniform, minimax = compare(runs, minimum_targets=10, baseline="uniform").rows
    assert uniform.difference is None
    assert minimax.paired_seeds == (1,)
    assert minimax.difference.worst.estimate == -0.5
    assert minimax.relative_worst == pytest.approx(-0.125)
    assert minimax.difference.tasks["b"].estimate == 1.5


def test_pairs_by_seed_and_not_by_place():
    runs = [
        _run("uniform", 1, (1.0, 1.0, 1.0)),
        _run("uniform", 2, (5.0, 5.0, 5.0)),
        _run("minimax", 2, (5.0, 5.0, 5.0)),
        _run("minimax", 1, (1.0, 1.0, 1.0)),
    ]
    difference = compare(runs, minimum_targets=10, baseline="uniform").row("minimax").difference
    assert difference.worst == (0.0, 0.0, 0.0)


def test_without_a_baseline_there_is_no_difference(runs):
    for baseline in (None, "pooled"):
        comparison = compare(runs, minimum_targets=10, baseline=baseline)
        assert comparison.baseline is None
        assert all(row.difference is None for row in comparison.rows)


def test_lowers_a_minimum_that_no_task_reaches(runs):
    comparison = compare(runs, minimum_targets=1000)
    assert comparison.lowered
    assert comparison.minimum_targets == 50
    assert comparison.tasks == ("a",)
    assert comparison.apart == ("b", "rare")


class TestShares:
    """a 4 of 8, b 6 of 8; a 6 of 8, b 2 of 8; rare far below the constant."""

    def _runs(self, **changes):
        losses = {("uniform", 1): (4.0, 6.0, 9.0), ("uniform", 2): (6.0, 2.0, 9.0)}
        losses |= {("minimax", 1): (3.0, 9.0, 1.0), ("minimax", 2): (5.0, 5.0, 1.0)}
        return [
            _run(*key, of_tasks, trivial=(8.0, 8.0, 4.5), **changes)
            for key, of_tasks in losses.items()
        ]

    def test_by_hand(self):
        comparison = compare(self._runs(), minimum_targets=10, baseline="uniform")
        uniform, minimax = comparison.rows
        assert comparison.measure == Measure("share")
        assert comparison.trivial == {"": {"a": 8.0, "b": 8.0, "rare": 4.5}}
        assert uniform.figures.tasks["a"].estimate == 0.375
        assert uniform.figures.tasks["b"].estimate == 0.5
        assert uniform.figures.tasks["rare"].estimate == -1.0
        assert uniform.figures.worst.estimate == 0.25
        assert uniform.figures.mean.estimate == 0.4375
        assert uniform.spread == 0.375
        assert uniform.worst_task == "a"
        assert uniform.worst_tasks == {"b": 1, "a": 1}
        assert uniform.losses.tasks["a"].estimate == 5.0
        assert uniform.losses.worst.estimate == 6.0
        assert minimax.figures.worst.estimate == pytest.approx((-1 / 8 + 3 / 8) / 2)
        assert minimax.difference.worst.estimate == pytest.approx(0.125 - 0.25)
        assert minimax.difference.tasks["a"].estimate == 0.125
        assert minimax.worst_task == "b"
        assert np.isnan(minimax.relative_worst)
        assert comparison.best_row is uniform
        assert comparison.below_trivial == {}

    def test_names_the_tasks_that_a_constant_beats(self):
        runs = [*self._runs(), _run("hard_max", 1, (8.1, 3.0, 1.0), trivial=(8.0, 8.0, 4.5))]
        comparison = compare(runs, minimum_targets=10)
        assert comparison.below_trivial == {"hard_max": ("a",)}

    def test_the_part_within_comes_first(self):
        names, counts = ("a", "b", "rare"), np.array([[50, 40, 2]])
        within = TaskScores(names, counts * 1.0, counts, trivial_totals=counts * [4.0, 2.0, 4.0])
        prior = TaskScores(names, counts * 0.5, counts)
        runs = self._runs(parts={"within": within, "prior": prior})
        comparison = compare(runs, minimum_targets=10)
        assert comparison.measure == Measure("share", "within")
        assert comparison.parts == ("within", "prior")
        assert comparison.trivial["within"] == {"a": 4.0, "b": 2.0, "rare": 4.0}
        assert set(comparison.trivial) == {"", "within"}
        row = comparison.row("uniform")
        assert row.figures.tasks["b"].estimate == row.figures.worst.estimate == 0.5
        assert row.losses_of("").tasks["b"].estimate == 4.0
        assert row.losses_of("within").tasks["b"].estimate == 1.0
        assert row.losses_of("prior").tasks["b"].estimate == 0.5

    def test_one_run_without_trivial_losses_makes_it_a_comparison_of_losses(self):
        comparison = compare([*self._runs(), _run("old", 1, (1.0, 1.0, 1.0))], 10)
        assert comparison.measure == Measure("loss")
        assert comparison.trivial == {}
        assert comparison.below_trivial == {}
        assert comparison.best_row.name == "old"
        assert all(row.figures is row.losses for row in comparison.rows)


def test_refuses(runs):
    with pytest.raises(ValueError, match="`runs` must hold at least one run. Received: none"):
        compare([])
    other_names = _run("minimax", 3, (1.0, 1.0, 1.0), names=("a", "b", "c"))
    with pytest.raises(ValueError, match=r"same tasks, .*'rare'.*'c'\) under 'minimax', seed 3"):
        compare([*runs, other_names])
    other_counts = _run("minimax", 3, (1.0, 1.0, 1.0), counts=((50, 40, 3),))
    with pytest.raises(ValueError, match=r"same held-out records .*\[50, 40, 3\] targets"):
        compare([*runs, other_counts])
    with pytest.raises(ValueError, match="Received: 2 runs of 'uniform' with seed 2"):
        compare([*runs, runs[1]])


def test_refuses_a_history_of_uneven_series():
    for history in ({"step": [1, 2], "a_loss": [1.0]}, {"a_loss": [1.0]}):
        with pytest.raises(ValueError, match="`history` must hold 'step' and other series"):
            _run("uniform", 0, (1.0, 1.0, 1.0), history=history)
