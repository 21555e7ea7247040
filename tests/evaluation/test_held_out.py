"""Held-out scores against Keras's own loss and plain counting."""

import keras
import numpy as np
import pytest
from scipy.special import log_softmax

from keras_taskrobust.evaluation import held_out
from keras_taskrobust.evaluation.held_out import score_groups
from keras_taskrobust.text import TargetCounts


@pytest.fixture
def small():
    """A model, its inputs, labels and groups, and these in batches."""
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, {"words": keras.layers.Dense(5)(inputs)})
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 3, 4)).astype("float32")
    labels = rng.integers(0, 5, (6, 3))
    groups = rng.integers(-1, 2, (6, 3))
    batches = [
        (x[i : i + 2], {"words": {"labels": labels[i : i + 2], "groups": groups[i : i + 2]}})
        for i in range(0, 6, 2)
    ]
    return model, x, labels, groups, batches


def test_scores_equal_plain_counting(small):
    model, x, labels, groups, batches = small
    scores = score_groups(model, batches, "words", ("a", "b"))
    logits = model.predict(x, verbose=0)["words"]
    losses = keras.ops.convert_to_numpy(
        keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    )
    for index in range(2):
        for row in range(6):
            inside = groups[row] == index
            assert scores.counts[row, index] == inside.sum()
            assert scores.totals[row, index] == pytest.approx(losses[row][inside].sum(), rel=1e-5)
            hits = (logits[row].argmax(-1) == labels[row])[inside].sum()
            assert scores.correct[row, index] == hits
    assert scores.trivial_totals is None
    assert not scores.parts


def test_the_parts_of_a_loss_equal_their_definitions(small, monkeypatch):
    monkeypatch.setattr(held_out, "_TARGETS_AT_ONCE", 3)
    model, x, labels, groups, batches = small
    counts = TargetCounts(np.array([[3, 0, 7, 2, 0], [5, 1, 0, 2, 0]]))
    q = np.exp(counts.log_task_shares.astype("float64"))
    scores = score_groups(model, batches, "words", ("a", "b"), counts)
    within, prior = scores.parts["within"], scores.parts["prior"]
    p = np.exp(log_softmax(model.predict(x, verbose=0)["words"].astype("float64"), axis=-1))
    mixture = np.exp(counts.log_frequencies).mean(0)
    for row in range(6):
        for task in range(2):
            words = labels[row][groups[row] == task]
            of_words = p[row][groups[row] == task]
            of_task = of_words @ q[task]
            in_task = of_words * q[task] / of_task[:, None]
            of_label = in_task[np.arange(len(words)), words]
            full, parts = scores.totals[row, task], (within.totals, prior.totals)
            expected = -np.log(of_label).sum(), -np.log(of_task).sum()
            assert [part[row, task] for part in parts] == pytest.approx(expected, abs=1e-5)
            assert full == pytest.approx(sum(expected) + np.log(q[task, words]).sum(), abs=1e-5)
            assert within.correct[row, task] == (in_task.argmax(-1) == words).sum()
            trivial = [
                -np.log(mixture[words]).sum(),
                -counts.log_frequencies[task, words].sum(),
                -len(words) * np.log(mixture @ q[task]),
            ]
            found = [part.trivial_totals[row, task] for part in (scores, within, prior)]
            assert found == pytest.approx(trivial)
    assert prior.correct is None
    assert np.array_equal(scores.totals, score_groups(model, batches, "words", ("a", "b")).totals)


def test_a_batch_without_targets_has_records_without(small):
    model, _, _, groups, batches = small
    batches[1][1]["words"]["groups"][:] = -1
    scores = score_groups(model, batches, "words", ("a", "b"))
    assert scores.counts.sum(1).tolist() == (groups >= 0).sum(1).tolist()
    assert not scores.totals[2:4].any()


def test_no_batches_are_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        score_groups(None, [], "words", ("a",))
