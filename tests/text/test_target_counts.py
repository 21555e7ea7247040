"""Counts of targets by piece and task against loops, and what follows from them in float64."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from synthetic_text import ENCODER, LENGTH, SyntheticText

from keras_taskrobust.text import PosMasking, TargetCounts, count_targets, target_counts

pytestmark = pytest.mark.backend_free

PIECES = ENCODER.vocabulary_size


@pytest.fixture(scope="module")
def text():
    return SyntheticText(300)


@pytest.fixture
def counts():
    """Counts of which some are 0: a piece, a piece in a task, and a whole task."""
    numbers = np.random.default_rng(0).integers(0, 30, (4, 7))
    numbers[:, 2], numbers[0, 4], numbers[3] = 0, 0, 0
    return TargetCounts(numbers)


@pytest.mark.parametrize("maskable", ["tasks", "all"])
def test_what_is_counted_is_what_is_masked_where_everything_is(text, maskable, monkeypatch):
    monkeypatch.setattr(target_counts, "_RECORDS_AT_ONCE", 64)
    masking = PosMasking(ENCODER, rate=1.0, max_predictions=LENGTH, maskable=maskable)
    masked = masking(text.everything())[1]["masked_lm"]
    expected = np.zeros((len(masking.group_names), PIECES), int)
    for group, piece in zip(masked["groups"].ravel(), masked["labels"].ravel(), strict=True):
        if group >= 0:
            expected[group, piece] += 1
    found = count_targets(text, PosMasking(ENCODER, rate=0.1, maskable=maskable)).counts
    assert np.array_equal(found, expected)
    assert expected.sum() > 5000
    assert not expected[:, :5].any(), "a special token was counted"


def test_task_shares_are_counted_with_one_more_occurrence(counts):
    numbers = counts.counts
    total = numbers.sum()
    for task in range(4):
        prior = (numbers[task].sum() + 1) / (total + 4)
        for piece in range(7):
            expected = (numbers[task, piece] + prior) / (numbers[:, piece].sum() + 1)
            np.testing.assert_allclose(np.exp(counts.log_task_shares[task, piece]), expected, 1e-6)
    np.testing.assert_allclose(np.exp(counts.log_task_shares).sum(0), 1.0, rtol=1e-6)
    assert counts.log_task_shares.dtype == np.float32


def test_frequencies_are_smoothed_and_mixed_over_the_tasks_that_are_seen(counts):
    numbers = counts.counts
    frequencies = np.exp(counts.log_frequencies)
    np.testing.assert_allclose(frequencies[1, 2], (1 / 7) / (numbers[1].sum() + 1))
    np.testing.assert_allclose(frequencies[1, 3], (numbers[1, 3] + 1 / 7) / (numbers[1].sum() + 1))
    np.testing.assert_allclose(frequencies.sum(1), 1.0)
    mixture = (frequencies[0] + frequencies[1] + frequencies[2]) / 3
    np.testing.assert_allclose(np.exp(counts.log_mixture), mixture)
    priors = [(mixture * np.exp(counts.log_task_shares[task])).sum() for task in range(4)]
    np.testing.assert_allclose(np.exp(counts.log_task_priors), priors)
    np.testing.assert_allclose(sum(priors), 1.0, rtol=1e-6)


def test_trivial_losses_are_means_over_the_targets(counts):
    for task_loss, log_p in (
        ("full", np.tile(counts.log_mixture, (4, 1))),
        ("within", counts.log_frequencies),
    ):
        found = counts.trivial_losses(task_loss)
        for task in range(4):
            targets = np.repeat(np.arange(7), counts.counts[task]) if task < 3 else np.arange(7)
            np.testing.assert_allclose(found[task], -log_p[task, targets].mean())
    with pytest.raises(ValueError, match="must be one of full, within. Received: task_loss=words"):
        counts.trivial_losses("words")


def test_the_loss_of_a_word_splits_exactly(counts):
    """By the definitions of the probabilities, in float64."""
    logits = np.random.default_rng(1).normal(scale=3.0, size=7)
    p = softmax(logits)
    q = np.exp(counts.log_task_shares.astype("float64"))
    for task in range(4):
        prior = (p * q[task]).sum()
        within = p * q[task] / prior
        np.testing.assert_allclose(within.sum(), 1.0)
        np.testing.assert_allclose(
            -np.log(p), -np.log(within) - np.log(prior) + np.log(q[task]), rtol=1e-13
        )
        # The loss within the task is the cross-entropy of shifted logits.
        shifted = logits + counts.log_task_shares[task]
        np.testing.assert_allclose(np.log(within), log_softmax(shifted), rtol=1e-12)


def test_pooled_frequencies_are_the_best_constant_within_every_task_at_once():
    """So that one constant output has the loss of K within-task frequencies."""
    numbers = np.random.default_rng(2).integers(1, 10**6, (3, 5)) * 10**4
    counts = TargetCounts(numbers)
    pooled = np.log(numbers.sum(0) / numbers.sum())
    for task in range(3):
        within = log_softmax(pooled + counts.log_task_shares[task])
        np.testing.assert_allclose(within, counts.log_frequencies[task], rtol=1e-4)
