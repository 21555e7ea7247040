"""The values of a Keras loss, one for each element, before any reduction.

An element that does not count (outside the groups, of sample weight 0, or masked) has no say,
whatever stands in its label. It enters the loss with a label and a prediction that are valid, and
its value is left out afterwards. A product with 0 would not do: that of NaN is NaN, and so is the
gradient where a derivative is infinite.
"""

import functools
from typing import Any

import keras
from keras import ops

from keras_taskrobust.training.backends import backend
from keras_taskrobust.training.gradients import is_float
from keras_taskrobust.training.keras_internals import (
    LossFunctionWrapper,
    arguments_of_loss,
    get_keras_mask,
    set_keras_mask,
    squeeze_or_expand_to_same_rank,
)
from keras_taskrobust.types import Tensor

# As a probability, a logit or a number it has finite logarithms, roots and quotients.
_VALID_PREDICTION = 0.5
_VALID_NUMBER = 1.0
_VALID_INDEX = 0


def resolve_loss(loss):
    """Resolves a loss to something with `call(y_true, y_pred)`, before any reduction."""
    if not (isinstance(loss, str) or callable(loss)):
        raise ValueError(f"A loss must be a Keras loss name, function or Loss. Received: {loss!r}")
    found = keras.losses.get(loss)
    base = keras.losses.Loss
    if isinstance(found, base) and type(found).__call__ is not base.__call__:
        raise ValueError(
            "The task losses are formed from the values that `call(y_true, y_pred)` of a Loss has "
            "for each element, so an overridden `__call__` would be passed over: move it into "
            f"`call`, or give a function instead. Received: {found!r}"
        )
    return found


def values_and_weights(loss, y_true, y_pred, sample_weight=None, inside=None):
    """The losses of the elements times their weights, and the weights.

    Args:
        loss: as from `resolve_loss`.
        y_true: the labels.
        y_pred: the output.
        sample_weight: `None`, or weights of the elements or of their leading axes.
        inside: `None`, or bools likewise. Where it is `False`, the value means nothing.

    Returns:
        `values` and `weights`, float32 of the elements' shape; `weights` is `None` if there is
        neither a sample weight nor a Keras mask. A loss of the whole batch is that of each sample.

    Raises:
        ValueError: if a loss of the whole batch meets elements that may not count.
    """
    y_pred = _cast_float(y_pred)
    mask = get_keras_mask(y_pred)
    has_weight = None if sample_weight is None else ops.not_equal(sample_weight, 0)
    is_masked_in = None if mask is None else ops.cast(mask, "bool")
    counts = _all_of([inside, has_weight, is_masked_in])
    y_true, y_pred = _valid_where_not(counts, loss, y_true, y_pred)
    values = _cast_float(_call(loss, y_true, y_pred))
    if counts is not None:
        _check_is_of_elements(loss, values, y_true, y_pred)
    elif _is_of_batch(values, y_true, y_pred):
        return ops.broadcast_to(ops.mean(values), ops.shape(y_pred)[:1]), None
    weights = None
    for name, share in (
        ("sample_weight", sample_weight),
        ("mask", mask),
        ("mask", get_keras_mask(values)),
    ):
        if share is not None:
            share = align(ops.cast(share, "float32"), values, name)
            weights = share if weights is None else weights * share
    if weights is None:
        return values, None
    return ops.where(weights != 0, values * weights, 0.0), weights


def align(x: Tensor, values: Tensor, name: str) -> Tensor:
    """Broadcasts `x` to the shape of `values` from the left: `(B,)` to `(B, T)`, for example."""
    x = ops.convert_to_tensor(x)
    if len(x.shape) == len(values.shape) + 1 and x.shape[-1] in (1, None):
        x = _without_last_axis(x)
    if len(x.shape) > len(values.shape):
        raise ValueError(
            f"`{name}` must have the shape {tuple(values.shape)} of the losses' elements, or of "
            f"their leading axes. Received: shape {tuple(x.shape)}"
        )
    # Sizes that are unknown here may differ.
    if tuple(x.shape) == tuple(values.shape) and None not in tuple(x.shape):
        return x
    return ops.broadcast_to(with_rank(x, len(values.shape)), ops.shape(values))


def _valid_where_not(counts, loss, y_true, y_pred):
    """Labels and predictions as the loss takes them, valid ones where `counts` is `False`."""
    y_true = ops.convert_to_tensor(y_true)
    is_number = is_float(y_true) and not takes_indices(loss)
    if not takes_indices(loss):
        y_true = _cast_float(y_true)
    if _has_spare_axis(loss, y_true, y_pred):
        y_true = _without_last_axis(y_true)
    if counts is None:
        return y_true, y_pred
    axis = _class_axis(loss)
    of_labels = _fitted(counts, y_true, axis if len(y_true.shape) == len(y_pred.shape) else -1)
    if of_labels is not None:
        y_true = ops.where(of_labels, y_true, _VALID_NUMBER if is_number else _VALID_INDEX)
    of_predictions = None if _bears_any_logits(loss) else _fitted(counts, y_pred, axis)
    if of_predictions is not None:
        mask = get_keras_mask(y_pred)
        y_pred = backend.select_predictions(of_predictions, y_pred, _VALID_PREDICTION)
        if mask is not None:
            set_keras_mask(y_pred, mask)
    return y_true, y_pred


def _call(loss, y_true, y_pred):
    """The loss before its reduction; of flat predictions too, if it is one of Keras's own."""
    if len(y_pred.shape) == len(y_true.shape) == 1 and is_of_keras(loss):
        y_true, y_pred = ops.expand_dims(y_true, -1), ops.expand_dims(y_pred, -1)
    if isinstance(loss, keras.losses.Loss):
        return loss.call(y_true, y_pred)
    return loss(*squeeze_or_expand_to_same_rank(y_true, y_pred))


def _check_is_of_elements(loss: Any, values: Tensor, y_true: Tensor, y_pred: Tensor) -> None:
    compares_samples = isinstance(loss, keras.losses.Circle) or loss is keras.losses.circle
    if compares_samples or _is_of_batch(values, y_true, y_pred):
        raise ValueError(
            "With groups, sample weights or masks, a loss must give a value for each element, "
            "which no other element enters: its first axis must be the batch. Received: "
            f"{getattr(loss, 'name', None) or getattr(loss, '__name__', loss)}, which gives the "
            f"shape {tuple(values.shape)} for predictions of shape {tuple(y_pred.shape)}. Reduce "
            "over the other axes only, as `keras.losses.Dice(axis=(1, 2, 3))` does, or give this "
            "output neither groups, sample weights nor masks."
        )


def _is_of_batch(values: Tensor, y_true: Tensor, y_pred: Tensor) -> bool:
    """Whether the values lack the axis of the batch."""
    if len(values.shape) == 0:
        return True
    batch = {tuple(tensor.shape)[:1] for tensor in (y_true, y_pred)}
    return values.shape[0] is not None and (values.shape[0],) not in batch


def _all_of(conditions):
    """Where all of the conditions hold that are not `None`, aligned from the left."""
    given = [each for each in conditions if each is not None]
    if len(given) < 2:
        return given[0] if given else None
    rank = max(len(each.shape) for each in given)
    return functools.reduce(ops.logical_and, [with_rank(each, rank) for each in given])


def _fitted(counts: Tensor, tensor: Tensor, axis: int) -> Tensor | None:
    """`counts` such that it broadcasts to `tensor`, or `None` if its axes are others.

    Args:
        counts: bools of the elements, or of their leading axes.
        tensor: labels or predictions.
        axis: which of its axes the elements lack.
    """
    rank = len(tensor.shape)
    if axis in (-1, rank - 1):
        counts = with_rank(counts, rank)
    else:
        counts = ops.expand_dims(with_rank(counts, rank - 1), axis)
    sizes = zip(tuple(counts.shape), tuple(tensor.shape), strict=True)
    fits = all(e == n or None in (e, n) or 1 in (e, n) for e, n in sizes)
    return counts if fits else None


def with_rank(x: Tensor, rank: int) -> Tensor:
    """`x` with axes of size 1 at its end, or true where any is of those that are too many."""
    while len(x.shape) > rank:
        x = ops.any(x, axis=-1)
    missing = rank - len(x.shape)
    return ops.reshape(x, (*ops.shape(x), *[1] * missing)) if missing else x


def _without_last_axis(x):
    return ops.reshape(x, ops.shape(x)[:-1])


def _has_spare_axis(loss: Any, y_true: Tensor, y_pred: Tensor) -> bool:
    """Whether the labels end in an axis that Keras would drop if it knew its size to be 1."""
    spare = len(y_true.shape) - len(y_pred.shape)
    may_drop = isinstance(loss, LossFunctionWrapper) or not isinstance(loss, keras.losses.Loss)
    is_unknown = may_drop and spare >= 0 and len(y_true.shape) > 0 and y_true.shape[-1] is None
    return is_unknown and spare == (0 if takes_indices(loss) else 1)


def _class_axis(loss: Any) -> int:
    """The axis of the predictions that the elements of a Keras loss lack."""
    axis = arguments_of_loss(loss).get("axis", -1)
    return axis if isinstance(axis, int) else -1


def takes_indices(loss: Any) -> bool:
    """Whether class indices may stay integers; all other losses get floats, as from Keras."""
    return (
        type(loss) is keras.losses.SparseCategoricalCrossentropy
        or loss is keras.losses.sparse_categorical_crossentropy
    )


def _bears_any_logits(loss: Any) -> bool:
    """Whether valid labels are enough: a pass over the logits of a vocabulary takes its time."""
    return type(loss) is keras.losses.SparseCategoricalCrossentropy and loss.from_logits


def is_of_keras(loss: Any) -> bool:
    """Whether a loss is one of Keras's own."""
    return getattr(loss, "fn", loss).__module__.startswith("keras.")


def _cast_float(x):
    """Casts to float32, keeping a Keras mask."""
    cast, mask = ops.cast(x, "float32"), get_keras_mask(x)
    if mask is not None and cast is not x:
        set_keras_mask(cast, mask)
    return cast
