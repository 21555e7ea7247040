"""Held-out scores of a trained model, per record."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from keras_taskrobust.evaluation.scores import TaskScores

if TYPE_CHECKING:
    import keras

    from keras_taskrobust.vision import MultiModalMAE


def score_groups(
    model: "keras.Model", batches: Iterable, output: str, groups: tuple[str, ...]
) -> TaskScores:
    """Scores the groups of one classification output.

    Args:
        model: a Keras model whose `output` is logits `(B, P, classes)`.
        batches: finite iterable of `(x, y)`, with `y[output] = {"labels", "groups"}`, `(B, P)`.
        output: the name of the output.
        groups: the K names of the group ids.

    Returns:
        `TaskScores` with a row for each record, in the order of the batches.

    Raises:
        ValueError: there is no batch.
    """
    totals, counts, correct = [], [], []
    for x, y in batches:
        prediction = model.predict_on_batch(x)
        logits = prediction[output] if isinstance(prediction, dict) else prediction
        losses, hits = _losses_and_hits(np.asarray(logits, "float32"), y[output]["labels"])
        member = np.asarray(y[output]["groups"])[..., None] == np.arange(len(groups))
        totals.append(np.where(member, losses[..., None], 0.0).sum(1))
        counts.append(member.sum(1))
        correct.append(np.logical_and(member, hits[..., None]).sum(1))
    if not totals:
        raise ValueError("`batches` must hold at least one batch. Received: none")
    return TaskScores(
        groups,
        totals=np.concatenate(totals),
        counts=np.concatenate(counts),
        correct=np.concatenate(correct),
    )


def _losses_and_hits(logits, labels):
    shifted = logits - logits.max(-1, keepdims=True)
    of_label = np.take_along_axis(shifted, labels[..., None], -1)[..., 0]
    losses = np.log(np.exp(shifted).sum(-1)) - of_label
    return losses.astype("float64"), shifted.argmax(-1) == labels


def score_reconstructions(model: "MultiModalMAE", batches: Iterable, seed: int) -> TaskScores:
    """Scores a masked autoencoder; each sample is a record with one target a task.

    Args:
        model: `keras_taskrobust.vision.MultiModalMAE`.
        batches: finite iterable of `{modality: maps}`.
        seed: int. Fixes which patches are masked.

    Returns:
        `TaskScores` with a row for each sample, in the order of the batches.

    Raises:
        ValueError: there is no batch.
    """
    losses = []
    for number, batch in enumerate(batches):
        masks = model.draw_masks(batch, seed + number)
        of_tasks = model.sample_losses(batch, masks)
        losses.append(np.stack([of_tasks[name] for name in model.task_names], axis=1))
    if not losses:
        raise ValueError("`batches` must hold at least one batch. Received: none")
    means = np.concatenate(losses)
    return TaskScores(model.task_names, np.nan_to_num(means), (~np.isnan(means)).astype(int))
