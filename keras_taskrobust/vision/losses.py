"""Masked reconstruction losses, as totals and counts."""

from keras import ops

from keras_taskrobust.types import Tensor
from keras_taskrobust.vision.embeddings import Patches
from keras_taskrobust.vision.modalities import Task

#: What is added to the variance of a patch before its root is taken.
PATCH_VARIANCE_FLOOR = 1e-6


def reconstruction_total(
    task: Task,
    predictions: Tensor,
    targets: Patches,
    masked: Tensor | None,
    weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The sum over samples of the mean loss of the masked valid pixels.

    Args:
        task: `Task`.
        predictions: `(B, N, C * P)`, channel first inside a patch; C logits for labels.
        targets: `Patches`.
        masked: `(B, N)`, 1 for the patches that count. `None`: all of them.
        weights: `(B,)` sample weights. `None`: 1.

    Returns:
        `total` and `count`, float32 scalars: the weighted sum of the per-sample means, and the
        weight of the samples that have one. The total is NaN if a label is outside the classes.
    """
    means, occurs = reconstruction_means(task, predictions, targets, masked)
    weights = ops.ones_like(means) if weights is None else ops.cast(weights, "float32")
    used = ops.logical_and(occurs, weights != 0)
    total = ops.sum(ops.where(used, means * weights, 0.0))
    return total, ops.sum(ops.where(used, weights, 0.0))


def reconstruction_means(
    task: Task, predictions: Tensor, targets: Patches, masked: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The mean loss of the masked valid pixels of each sample.

    Args:
        task, predictions, targets, masked: as in `reconstruction_total`.

    Returns:
        `(B,)` float32, NaN for a sample with a label outside the classes, and `(B,)` bool: which
        samples have a mean.
    """
    targets = normalize_patches(targets) if task.normalized else targets
    pixels = _pixel_losses(task, predictions, targets)
    shares = targets.valid
    if masked is not None:
        shares = shares * ops.expand_dims(ops.cast(masked, "float32"), -1)
    number = ops.sum(shares, axis=(1, 2))
    occurs = number > 0
    # Selected, not multiplied: the square of a large number may be infinite.
    total = ops.sum(ops.where(shares > 0, pixels, 0.0), axis=(1, 2))
    means = total / ops.where(occurs, number, 1.0)
    if task.modality.is_labels:
        means = ops.where(targets.in_range > 0, means, float("nan"))
        occurs = ops.logical_or(occurs, targets.in_range == 0)
    return means, occurs


def normalize_patches(targets: Patches) -> Patches:
    """Normalises each patch by the mean and unbiased variance of its valid numbers."""
    valid = _per_channel(targets)
    number = ops.sum(valid, axis=-1, keepdims=True)
    values = ops.cast(targets.values, "float32")
    mean = ops.sum(values * valid, axis=-1, keepdims=True) / ops.maximum(number, 1.0)
    centred = (values - mean) * valid
    variance = ops.sum(ops.square(centred), axis=-1, keepdims=True)
    variance = variance / ops.maximum(number - 1.0, 1.0)
    return targets._replace(values=centred / ops.sqrt(variance + PATCH_VARIANCE_FLOOR))


def _per_channel(targets):
    """`(B, N, C * P)` validity: that of the pixel, for each of its channels."""
    channels = targets.values.shape[-1] // targets.valid.shape[-1]
    return ops.tile(targets.valid, (1, 1, channels))


def _pixel_losses(task, predictions, targets):
    """`(B, N, P)` float32 losses."""
    _, patches, pixels = targets.valid.shape
    shape = (-1, patches, task.modality.output_channels, pixels)
    predictions = ops.reshape(ops.cast(predictions, "float32"), shape)
    if task.loss == "cross_entropy":
        return _cross_entropy(predictions, targets.values)
    difference = predictions - ops.reshape(ops.cast(targets.values, "float32"), shape)
    losses = ops.square(difference) if task.loss == "mse" else ops.abs(difference)
    return ops.mean(losses, axis=2)


def _cross_entropy(logits, labels):
    """`(B, N, C, P)` logits and `(B, N, P)` labels give `(B, N, P)`; label C, something finite."""
    known = ops.expand_dims(ops.minimum(labels, logits.shape[2] - 1), 2)
    chosen = ops.take_along_axis(ops.log_softmax(logits, axis=2), known, axis=2)
    return -ops.squeeze(chosen, 2)
