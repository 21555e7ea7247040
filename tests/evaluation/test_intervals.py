"""Intervals against slow loops, normal theory and scipy."""

import dataclasses
import re

import numpy as np
import pytest
from scipy import stats

from keras_taskrobust.evaluation import (
    Interval,
    Measure,
    TaskScores,
    bootstrap_difference,
    bootstrap_intervals,
    intervals,
)
from keras_taskrobust.evaluation.intervals import (
    interval_over_seeds,
    task_difference,
    task_intervals,
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


def _per_seed(scores, minimum_targets=0):
    """`(S, K + 2)`: the losses of the tasks, the worst and the mean of each seed."""
    return np.array(
        [[*one.losses, one.worst(minimum_targets)[1], one.mean(minimum_targets)] for one in scores]
    )


def _with_trivial(scores, generator):
    trivial = scores.counts * generator.uniform(1, 4, scores.counts.shape)
    return dataclasses.replace(scores, trivial_totals=trivial)


def _slow_shares(seeds, chosen, resamples, seed):
    """As `_slow_bootstrap`, of shares."""
    record_generator, seed_generator = np.random.default_rng(seed).spawn(2)
    records = seeds[0].totals.shape[0]
    rows = []
    for _ in range(resamples):
        drawn_records = record_generator.integers(records, size=records)
        drawn_seeds = seed_generator.integers(len(seeds), size=len(seeds))
        figures = []
        for one in (seeds[index] for index in drawn_seeds):
            loss, trivial = (
                [sum(array[record, k] for record in drawn_records) for k in range(3)]
                for array in (one.totals, one.trivial_totals)
            )
            shares = [(t - n) / t for n, t in zip(loss, trivial, strict=True)]
            among = [shares[k] for k in chosen]
            figures.append([*shares, min(among), sum(among) / len(among)])
        rows.append(np.mean(figures, axis=0))
    return np.array(rows)


def _all(found):
    return [*found.tasks.values(), found.worst, found.mean]


class TestStudentT:
    @pytest.mark.parametrize("seeds", [2, 3, 7])
    def test_equals_scipy(self, seeds):
        values = np.random.default_rng(0).normal(3, 2, seeds)
        expected = stats.t.interval(0.95, seeds - 1, values.mean(), stats.sem(values))
        assert interval_over_seeds(values) == pytest.approx((values.mean(), *expected))
        assert interval_over_seeds([*values, np.nan]) == interval_over_seeds(values)
        wide = stats.t.interval(0.99, seeds - 1, values.mean(), stats.sem(values))
        assert interval_over_seeds(values, 0.99)[1:] == pytest.approx(wide)

    def test_losses_are_those_of_scipy(self):
        generator = np.random.default_rng(1)
        counts = generator.integers(1, 4, (30, 3))
        seeds = [_random_scores(generator, counts=counts) for _ in range(4)]
        values = _per_seed(seeds)
        expected = stats.t.interval(0.95, 3, values.mean(axis=0), stats.sem(values))
        found = _all(task_intervals(seeds))
        np.testing.assert_allclose([one.estimate for one in found], values.mean(axis=0))
        np.testing.assert_allclose([one[1:] for one in found], np.transpose(expected))

    def test_differences_are_those_of_the_paired_t_test(self):
        generator = np.random.default_rng(2)
        counts = generator.integers(1, 4, (30, 3))
        ours = [_random_scores(generator, counts=counts) for _ in range(3)]
        theirs = [_random_scores(generator, counts=counts) for _ in range(3)]
        test = stats.ttest_rel(_per_seed(ours), _per_seed(theirs))
        expected = test.confidence_interval(0.95)
        found = _all(task_difference(ours, theirs))
        np.testing.assert_allclose([one.lower for one in found], expected.low)
        np.testing.assert_allclose([one.upper for one in found], expected.high)
        assert [one.excludes_zero for one in found] == (test.pvalue < 0.05).tolist()

    @pytest.mark.parametrize("seeds", [2, 3])
    def test_holds_the_mean_of_normal_figures_as_often_as_it_says(self, seeds):
        drawn = np.random.default_rng(3).normal(size=(3000, seeds))
        holds = np.mean([one.lower <= 0 <= one.upper for one in map(interval_over_seeds, drawn)])
        assert holds == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / len(drawn)))

    @pytest.mark.parametrize("value", [0.0, 0.1, -1.7])
    def test_equal_figures_have_an_interval_without_width(self, value):
        found = interval_over_seeds([value] * 3)
        assert found.lower == found.upper == found.estimate == pytest.approx(value)
        assert found.excludes_zero == (value != 0)

    def test_one_seed_has_no_interval_over_seeds_but_one_over_records(self):
        assert interval_over_seeds([2.0])[0] == 2.0
        assert all(map(np.isnan, interval_over_seeds([2.0])[1:]))
        assert all(map(np.isnan, interval_over_seeds([np.nan])))
        generator = np.random.default_rng(4)
        counts = generator.integers(1, 4, (30, 3))
        one, other = (_random_scores(generator, counts=counts) for _ in range(2))
        assert task_intervals([one]) == bootstrap_intervals([one])
        assert task_difference([one], [other]) == bootstrap_difference([one], [other])

    def test_minimum_targets_leaves_tasks_out_of_worst_and_mean(self):
        counts = np.array([[1, 1, 0], [1, 1, 1]])
        seeds = [
            TaskScores(("a", "b", "rare"), counts * np.array(losses), counts)
            for losses in ([1.0, 2.0, 9.0], [1.5, 2.5, 8.0])
        ]
        found = task_intervals(seeds, minimum_targets=2)
        assert (found.worst.estimate, found.mean.estimate) == (2.25, 1.75)
        assert found.tasks["rare"].estimate == 8.5

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_seed_that_diverged_leaves_no_interval(self, value):
        ones = np.ones((2, 2), dtype=int)
        seeds = [
            TaskScores(("a", "b"), [[1.0, 1.0], [shift, last]], ones)
            for shift, last in ((1.0, 2.0), (2.0, value))
        ]
        for found in (task_intervals(seeds), task_difference(seeds, seeds)):
            assert np.isfinite(found.tasks["a"]).all()
            for interval in (found.tasks["b"], found.worst, found.mean):
                assert not np.isfinite(interval.estimate)
                assert np.isnan(interval.lower)

    def test_refuses(self):
        one = TaskScores(("a",), [[1.0]], [[1]])
        other = TaskScores(("b",), [[1.0]], [[1]])
        more = TaskScores(("a",), [[1.0]], [[2]])
        for call, message in (
            (lambda: task_intervals([]), "must hold the scores of at least one seed"),
            (lambda: task_intervals([one, other]), "same records and tasks"),
            (lambda: task_difference([one], [one, one]), "1 seeds and 2 seeds"),
            (lambda: task_difference([one, one], [one, more]), "same held-out records and targets"),
        ):
            with pytest.raises(ValueError, match=re.escape(message)):
                call()


class TestShares:
    SHARE = Measure("share")

    def _seeds(self, generator, number):
        counts = generator.integers(1, 4, (30, 3))
        return [
            [
                _with_trivial(_random_scores(generator, counts=counts), generator)
                for _ in range(number)
            ]
            for _ in range(2)
        ]

    def _per_seed(self, seeds):
        shares = [1 - one.totals.sum(axis=0) / one.trivial_totals.sum(axis=0) for one in seeds]
        return np.array([[*one, one.min(), one.mean()] for one in shares])

    def test_over_seeds_equals_scipy(self):
        ours, theirs = self._seeds(np.random.default_rng(0), 4)
        values = self._per_seed(ours)
        expected = stats.t.interval(0.95, 3, values.mean(axis=0), stats.sem(values))
        found = _all(task_intervals(ours, measure=self.SHARE))
        np.testing.assert_allclose([one.estimate for one in found], values.mean(axis=0))
        np.testing.assert_allclose([one[1:] for one in found], np.transpose(expected))
        test = stats.ttest_rel(values, self._per_seed(theirs)).confidence_interval(0.95)
        found = _all(task_difference(ours, theirs, measure=self.SHARE))
        np.testing.assert_allclose([one.lower for one in found], test.low)
        np.testing.assert_allclose([one.upper for one in found], test.high)

    def test_bootstrap_equals_a_slow_loop(self):
        generator = np.random.default_rng(1)
        ours, theirs = self._seeds(generator, 2)
        arguments = {"resamples": 40, "seed": 3, "minimum_targets": 1, "measure": self.SHARE}
        slow = [_slow_shares(seeds, range(3), 40, 3) for seeds in (ours, theirs)]
        for found, resampled in (
            (bootstrap_intervals(ours, **arguments), slow[0]),
            (bootstrap_difference(ours, theirs, **arguments), slow[0] - slow[1]),
        ):
            lower, upper = np.quantile(resampled, [0.025, 0.975], axis=0)
            np.testing.assert_allclose([one.lower for one in _all(found)], lower, atol=1e-12)
            np.testing.assert_allclose([one.upper for one in _all(found)], upper, atol=1e-12)

    def test_one_seed_has_the_bootstrap_and_a_part_its_own_figures(self):
        (one,), (other,) = self._seeds(np.random.default_rng(2), 1)
        assert task_intervals([one], 0, self.SHARE) == bootstrap_intervals(
            [one], measure=self.SHARE
        )
        other = dataclasses.replace(other, counts=one.counts)
        whole = dataclasses.replace(other, parts={"within": one})
        within = Measure("share", "within")
        assert task_intervals([whole], 0, within) == task_intervals([one], 0, self.SHARE)
        assert task_difference([whole], [whole], 0, within).worst == Interval(0.0, 0.0, 0.0)

    def test_tasks_with_few_targets_are_not_the_worst(self):
        counts = np.array([[1, 1, 0], [1, 1, 1]])
        seeds = [
            TaskScores(("a", "b", "rare"), counts * losses, counts, trivial_totals=counts * 4.0)
            for losses in (np.array([1.0, 2.0, 9.0]), np.array([3.0, 1.0, 8.0]))
        ]
        found = task_intervals(seeds, 2, self.SHARE)
        assert (found.worst.estimate, found.mean.estimate) == (0.375, 0.5625)
        assert found.tasks["rare"].estimate == -1.125

    def test_refuses_scores_without_trivial_losses(self):
        (one,), _ = self._seeds(np.random.default_rng(3), 1)
        plain = dataclasses.replace(one, trivial_totals=None)
        zero = dataclasses.replace(one, trivial_totals=0.0 * one.totals)
        for wrong in (plain, zero):
            for call in (
                lambda wrong=wrong: task_intervals([one, wrong], measure=self.SHARE),
                lambda wrong=wrong: task_difference([one], [wrong], measure=self.SHARE),
                lambda: task_intervals([one], measure=Measure("loss", "within")),
            ):
                with pytest.raises(ValueError, match=r"`measure` must be one .* have.* Received"):
                    call()


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
