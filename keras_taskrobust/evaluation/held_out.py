"""Held-out scores of a trained model, per record."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from keras_taskrobust.evaluation.scores import TaskScores

if TYPE_CHECKING:
    import keras

    from keras_taskrobust.text import TargetCounts
    from keras_taskrobust.training.tasks import ConstantPredictor
    from keras_taskrobust.vision import MultiModalMAE

#: So many rows of logits are copied at once: 64 MB for a vocabulary of 30,000.
_TARGETS_AT_ONCE = 512


def score_groups(
    model: "keras.Model",
    batches: Iterable,
    output: str,
    groups: tuple[str, ...],
    counts: "TargetCounts | None" = None,
) -> TaskScores:
    """Scores the groups of one classification output.

    With counts of the training targets, `-log p(w | context)` of the target `w` of group `k` is
    scored in two parts as well, which differ from it by `log q_k(w)`, `q_k(w) = P(k | w)`:

        within: -log p(w | context, k),   p(w | context, k) = p(w | context) q_k(w) / P(k | context)
        prior:  -log P(k | context),      P(k | context) = sum_v p(v | context) q_k(v)

    Their constant predictions are the frequencies of the targets, mixed evenly over the groups;
    those of each group; and what the first say of the groups.

    Args:
        model: a Keras model whose `output` is logits `(B, P, classes)`.
        batches: finite iterable of `(x, y)`, with `y[output] = {"labels", "groups"}`, `(B, P)`.
        output: the name of the output.
        groups: the K names of the group ids.
        counts: `keras_taskrobust.text.TargetCounts` of the training data, or `None`.

    Returns:
        `TaskScores` with a row for each record, in the order of the batches; with counts also
        their trivial losses and the parts `"within"` and `"prior"`.

    Raises:
        ValueError: there is no batch.
    """
    found = []
    for x, y in batches:
        prediction = model.predict_on_batch(x)
        logits = prediction[output] if isinstance(prediction, dict) else prediction
        found.append(_sums_by_record(np.asarray(logits), y[output], len(groups), counts))
    if not found:
        raise ValueError("`batches` must hold at least one batch. Received: none")
    sums = {name: np.concatenate([batch[name] for batch in found]) for name in found[0]}

    def scores(loss: str, parts: Mapping[str, TaskScores]) -> TaskScores:
        hits, trivial = sums.get(f"{loss} hits"), sums.get(f"{loss} trivial losses")
        return TaskScores(groups, sums[f"{loss} losses"], sums["number"], hits, trivial, parts)

    parts = () if counts is None else ("within", "prior")
    return scores("full", {name: scores(name, {}) for name in parts})


def _sums_by_record(logits, y, num_groups, counts):
    """The figures of the targets, each summed by record and group: `(B, K)`."""
    groups, labels = np.asarray(y["groups"]), np.asarray(y["labels"])
    records, slots = np.nonzero(groups >= 0)
    groups, labels = groups[records, slots], labels[records, slots]
    figures = []
    for start in range(0, max(len(records), 1), _TARGETS_AT_ONCE):
        some = slice(start, start + _TARGETS_AT_ONCE)
        of_some = logits[records[some], slots[some]].astype("float32")
        figures.append(_figures(of_some, labels[some], groups[some], counts))
    shape = len(logits), num_groups
    cells = records * num_groups + groups
    return {
        name: np.bincount(
            cells, np.concatenate([each[name] for each in figures]), shape[0] * shape[1]
        ).reshape(shape)
        for name in figures[0]
    }


def _figures(logits, labels, groups, counts):
    """What is known of each of n targets, by name, from `(n, classes)` logits."""
    rows = np.arange(len(labels))
    normalizers = _log_sum_exp(logits)
    figures = {
        "number": np.ones(len(labels)),
        "full losses": normalizers - logits[rows, labels],
        "full hits": logits.argmax(-1) == labels,
    }
    if counts is None:
        return figures
    within = logits + counts.log_task_shares[groups]
    normalizers_within = _log_sum_exp(within)
    return figures | {
        "full trivial losses": -counts.log_mixture[labels],
        "within losses": normalizers_within - within[rows, labels],
        "within hits": within.argmax(-1) == labels,
        "within trivial losses": -counts.log_frequencies[groups, labels],
        "prior losses": normalizers - normalizers_within,
        "prior trivial losses": -counts.log_task_priors[groups],
    }


def _log_sum_exp(logits):
    """Over the classes, summed in float64."""
    largest = logits.max(-1)
    return largest + np.log(np.exp(logits - largest[:, None]).sum(-1, dtype="float64"))


def score_reconstructions(
    model: "MultiModalMAE",
    batches: Iterable,
    seed: int,
    constants: "ConstantPredictor | None" = None,
) -> TaskScores:
    """Scores a masked autoencoder; each sample is a record with one target a task.

    Args:
        model: `keras_taskrobust.vision.MultiModalMAE`.
        batches: finite iterable of `{modality: maps}`.
        seed: int. Fixes which patches are masked.
        constants: `model.fit_constants` of the training data: their losses are the trivial ones.

    Returns:
        `TaskScores` with a row for each sample, in the order of the batches.

    Raises:
        ValueError: there is no batch.
    """
    losses, trivial = [], []
    for number, batch in enumerate(batches):
        masks = model.draw_masks(batch, seed + number)
        losses.append(_side_by_side(model.sample_losses(batch, masks)))
        if constants is not None:
            trivial.append(_side_by_side(model.sample_losses(batch, masks, constants)))
    if not losses:
        raise ValueError("`batches` must hold at least one batch. Received: none")
    means = np.concatenate(losses)
    counts = (~np.isnan(means)).astype(int)
    totals = np.nan_to_num(np.concatenate(trivial)) if trivial else None
    return TaskScores(model.task_names, np.nan_to_num(means), counts, trivial_totals=totals)


def _side_by_side(of_tasks):
    """`(B, K)` of `{task: (B,)}`."""
    return np.stack(list(of_tasks.values()), axis=1)
