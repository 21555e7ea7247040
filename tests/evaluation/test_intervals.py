"""Intervals against slow loops, normal theory and scipy."""

import re

import numpy as np
import pytest

from keras_taskrobust.evaluation import (
    Interval,
    TaskScores,
    bootstrap_difference,
    bootstrap_intervals,
    intervals,
)

pytestmark = pytest.mark.backend_free


def _random_scores(generator, records=30, tasks=3, counts=None):
    counts = generator.integers(0, 4, (records, tasks)) if counts is None else counts
    totals = counts * generator.uniform(1, 2, counts.shape) * np.arange(1, counts.shape[1] + 1)
    return TaskScores(tuple("abcdefgh"[: counts.shape[1]]), totals, counts)


def _slow_bootstrap(seeds, chosen, resamples, seed):
    """One resample, one seed and one task after the other, from the same draws."""
    record_generator, seed_generator = np.random.default_rng(seed).spawn(2)
    records, tasks = seeds[0].totals.shape
    rows = []
    for _ in range(resamples):
        drawn_records = record_generator.integers(records, size=records)
        drawn_seeds = seed_generator.integers(len(seeds), size=len(seeds))
        figures = []
        for index in drawn_seeds:
            totals = sum(seeds[index].totals[record] for record in drawn_records)
            counts = sum(seeds[index].counts[record] for record in drawn_records)
            losses = [totals[k] / counts[k] for k in range(tasks)]
            among = [losses[k] for k in chosen]
            figures.append([*losses, max(among), sum(among) / len(among)])
        rows.append(np.mean(figures, axis=0))
    return np.array(rows)


class TestBootstrap:
    def test_equals_a_slow_loop(self):
        generator = np.random.default_rng(0)
        seeds = [_random_scores(generator) for _ in range(3)]
        seeds[0].counts[:, 0] = seeds[1].counts[:, 0] = seeds[2].counts[:, 0] = 0
        seeds[0].counts[:10, 0] = seeds[1].counts[:10, 0] = seeds[2].counts[:10, 0] = 1
        result = bootstrap_intervals(seeds, resamples=50, seed=4, level=0.8, minimum_targets=20)
        slow = _slow_bootstrap(seeds, (1, 2), 50, seed=4)
        lower, upper = np.quantile(slow, [0.1, 0.9], axis=0)
        found = [*result.tasks.values(), result.worst, result.mean]
        np.testing.assert_allclose([interval.lower for interval in found], lower, rtol=1e-12)
        np.testing.assert_allclose([interval.upper for interval in found], upper, rtol=1e-12)

    def test_difference_equals_a_slow_loop(self):
        generator = np.random.default_rng(1)
        counts = generator.integers(1, 4, (30, 3))
        ours = [_random_scores(generator, counts=counts) for _ in range(2)]
        theirs = [_random_scores(generator, counts=counts) for _ in range(2)]
        result = bootstrap_difference(ours, theirs, resamples=50, seed=9)
        slow = _slow_bootstrap(ours, range(3), 50, 9) - _slow_bootstrap(theirs, range(3), 50, 9)
        lower, upper = np.quantile(slow, [0.025, 0.975], axis=0)
        found = [*result.tasks.values(), result.worst, result.mean]
        np.testing.assert_allclose([interval.lower for interval in found], lower, atol=1e-12)
        np.testing.assert_allclose([interval.upper for interval in found], upper, atol=1e-12)
        expected = np.mean([a.losses - b.losses for a, b in zip(ours, theirs, strict=True)], axis=0)
        estimates = [interval.estimate for interval in result.tasks.values()]
        np.testing.assert_allclose(estimates, expected)

    def test_does_not_depend_on_the_memory_bound(self, monkeypatch):
        generator = np.random.default_rng(2)
        seeds = [_random_scores(generator) for _ in range(2)]
        whole = bootstrap_intervals(seeds, resamples=101)
        monkeypatch.setattr(intervals, "_DRAWS_AT_ONCE", 7 * 30)
        parts = bootstrap_intervals(seeds, resamples=101)
        np.testing.assert_allclose(parts.worst, whole.worst, rtol=1e-12)
        np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
        for name, interval in whole.tasks.items():
            np.testing.assert_allclose(parts.tasks[name], interval, rtol=1e-12)

    def test_a_seed_gives_the_same_intervals_and_another_gives_others(self):
        scores = [_random_scores(np.random.default_rng(3))]
        first = bootstrap_intervals(scores, resamples=100, seed=1)
        assert bootstrap_intervals(scores, resamples=100, seed=1) == first
        assert bootstrap_intervals(scores, resamples=100, seed=2) != first

    def test_mean_of_records_agrees_with_normal_theory(self):
        values = np.random.default_rng(4).normal(5, 1, (2000, 1))
        scores = TaskScores(("a",), values, np.ones_like(values))
        interval = bootstrap_intervals([scores], resamples=4000).tasks["a"]
        margin = 1.96 * values.std() / np.sqrt(2000)
        assert interval.estimate == pytest.approx(values.mean())
        assert interval.lower == pytest.approx(values.mean() - margin, abs=0.08 * margin)
        assert interval.upper == pytest.approx(values.mean() + margin, abs=0.08 * margin)

    def test_ratio_agrees_with_the_delta_method(self):
        generator = np.random.default_rng(5)
        counts = generator.poisson(3, (2000, 1))
        totals = counts * 2.0 + generator.normal(0, 1, counts.shape)
        scores = TaskScores(("a",), totals, counts)
        interval = bootstrap_intervals([scores], resamples=4000).tasks["a"]
        residuals = totals - scores.losses * counts
        margin = 1.96 * residuals.std() / counts.mean() / np.sqrt(2000)
        assert (interval.upper - interval.lower) / 2 == pytest.approx(margin, rel=0.06)

    def test_seeds_agree_with_normal_theory(self):
        losses = np.random.default_rng(6).normal(5, 0.1, 40)
        seeds = [TaskScores(("a",), [[loss]], [[1]]) for loss in losses]
        interval = bootstrap_intervals(seeds, resamples=4000).mean
        margin = 1.96 * losses.std() / np.sqrt(40)
        assert (interval.upper - interval.lower) / 2 == pytest.approx(margin, rel=0.06)

    def test_covers_the_truth_as_often_as_it_says(self):
        generator = np.random.default_rng(7)
        covered = 0
        for _ in range(300):
            counts = generator.integers(1, 5, (150, 1))
            scores = TaskScores(("a",), counts * generator.normal(3, 1, counts.shape), counts)
            interval = bootstrap_intervals([scores], resamples=300).tasks["a"]
            covered += interval.lower <= 3 <= interval.upper
        assert 0.90 <= covered / 300 <= 0.985

    def test_what_two_weightings_share_cancels_in_the_difference(self):
        generator = np.random.default_rng(8)
        shared = generator.normal(5, 2, (500, 2))
        ones = np.ones_like(shared)
        ours = TaskScores(("a", "b"), shared - 0.1 + generator.normal(0, 0.01, shared.shape), ones)
        theirs = TaskScores(("a", "b"), shared, ones)
        difference = bootstrap_difference([ours], [theirs]).tasks["a"]
        assert difference.excludes_zero
        assert difference.upper - difference.lower < 0.01
        own = bootstrap_intervals([ours]).tasks["a"]
        assert own.upper - own.lower > 0.2

    def test_a_rare_task_is_missing_from_some_resamples_and_an_unseen_one_from_all(self):
        counts = np.array([[1, 1, 0]] + [[1, 0, 0]] * 4)
        scores = TaskScores(("a", "rare", "unseen"), counts * 2.0, counts)
        result = bootstrap_intervals([scores], resamples=200)
        assert result.tasks["rare"] == Interval(2.0, 2.0, 2.0)
        assert all(np.isnan(result.tasks["unseen"]))
        assert result.worst == result.mean == Interval(2.0, 2.0, 2.0)

    def test_worst_is_that_of_each_seed(self):
        first = TaskScores(("a", "b"), [[1.0, 3.0]], [[1, 1]])
        second = TaskScores(("a", "b"), [[5.0, 3.0]], [[1, 1]])
        result = bootstrap_intervals([first, second], resamples=500)
        assert result.worst == Interval(4.0, 3.0, 5.0)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_diverged_run_has_no_interval(self, value):
        scores = TaskScores(("a", "b"), [[1.0, 1.0], [1.0, value]], [[1, 1], [1, 1]])
        result = bootstrap_intervals([scores], resamples=20)
        assert result.tasks["a"] == Interval(1.0, 1.0, 1.0)
        assert not np.isfinite(result.worst.estimate)
        assert np.isnan(result.worst.lower)

    def test_refuses(self):
        one = TaskScores(("a",), [[1.0]], [[1]])
        other = TaskScores(("b",), [[1.0]], [[1]])
        more = TaskScores(("a",), [[1.0]], [[2]])
        for call, message in (
            (lambda: bootstrap_intervals([]), "`scores_of_seeds` must hold the scores of at least"),
            (lambda: bootstrap_intervals([one, other]), "same records and tasks"),
            (lambda: bootstrap_intervals([one], resamples=0), "`resamples` must be an integer"),
            (lambda: bootstrap_intervals([one], level=1.0), "`level` must lie strictly between"),
            (lambda: bootstrap_intervals([one], minimum_targets=2), "the largest has 1 targets"),
            (lambda: bootstrap_difference([one], [one, one]), "1 seeds and 2 seeds"),
            (lambda: bootstrap_difference([one], [more]), "same held-out records and targets"),
            (lambda: bootstrap_difference([one], [other]), "same held-out records and targets"),
        ):
            with pytest.raises(ValueError, match=re.escape(message)):
                call()
