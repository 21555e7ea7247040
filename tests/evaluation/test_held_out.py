"""Held-out scores against Keras's own loss and plain counting."""

import keras
import numpy as np
import pytest

from keras_taskrobust.evaluation.held_out import score_groups


def test_scores_equal_plain_counting():
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


def test_no_batches_are_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        score_groups(None, [], "words", ("a",))
