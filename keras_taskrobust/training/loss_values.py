"""The values of a Keras loss, one for each element, before any reduction."""

import keras
from keras import ops
from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.losses.loss import squeeze_or_expand_to_same_rank


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


def values_and_weights(loss, y_true, y_pred, sample_weight):
    """Per-element losses times their weights, and the weights or `None`; float32, same shape."""
    y_pred = _cast_float(y_pred)
    if sample_weight is not None:
        y_true = finite_where(ops.equal(sample_weight, 0), y_true)
    y_true = ops.convert_to_tensor(y_true) if takes_indices(loss) else _cast_float(y_true)
    if isinstance(loss, keras.losses.Loss):
        values = _cast_float(loss.call(y_true, y_pred))
    else:
        values = _cast_float(loss(*squeeze_or_expand_to_same_rank(y_true, y_pred)))
    masks = [mask for mask in map(get_keras_mask, (y_pred, values)) if mask is not None]
    if len(values.shape) == 0:
        values = ops.broadcast_to(values, ops.shape(y_pred)[:1])
    weights = (
        None
        if sample_weight is None
        else align(ops.cast(sample_weight, "float32"), values, "sample_weight")
    )
    for mask in masks:
        mask = align(ops.cast(mask, "float32"), values, "mask")
        weights = mask if weights is None else weights * mask
    if weights is None:
        return values, None
    return ops.where(weights != 0, values * weights, 0.0), weights


def finite_where(excluded, labels):
    """Labels with 0 for what is not finite at `excluded` elements, or elements of leading axes.

    To leave out the loss of such an element is not enough: its gradient would be 0 * NaN.
    """
    labels = ops.convert_to_tensor(labels)
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(labels.dtype)):
        return labels
    rank = len(labels.shape)
    if len(excluded.shape) == rank + 1 and excluded.shape[-1] == 1:
        excluded = ops.squeeze(excluded, axis=-1)
    excluded = ops.reshape(excluded, (*ops.shape(excluded), *[1] * (rank - len(excluded.shape))))
    sizes = zip(excluded.shape, labels.shape, strict=False)
    if len(excluded.shape) > rank or any(e not in (1, n) and n is not None for e, n in sizes):
        return labels  # A loss whose elements are not those of the labels.
    broken = ops.logical_and(excluded, ops.logical_not(ops.isfinite(labels)))
    return ops.where(broken, ops.zeros_like(labels), labels)


def takes_indices(loss) -> bool:
    """Whether class indices may stay integers; all other losses get floats, as from Keras."""
    return (
        type(loss) is keras.losses.SparseCategoricalCrossentropy
        or loss is keras.losses.sparse_categorical_crossentropy
    )


def _cast_float(x):
    """Casts to float32, keeping a Keras mask."""
    cast, mask = ops.cast(x, "float32"), get_keras_mask(x)
    if mask is not None and cast is not x:
        set_keras_mask(cast, mask)
    return cast


def align(x, values, name: str):
    """Broadcasts `x` to the shape of `values` from the left: `(B,)` to `(B, T)`, for example."""
    x = ops.convert_to_tensor(x)
    if len(x.shape) == len(values.shape) + 1 and x.shape[-1] == 1:
        x = ops.squeeze(x, axis=-1)
    if len(x.shape) > len(values.shape):
        raise ValueError(
            f"`{name}` must have the shape {tuple(values.shape)} of the losses' elements, or of "
            f"their leading axes. Received: shape {tuple(x.shape)}"
        )
    if tuple(x.shape) == tuple(values.shape):
        return x
    while len(x.shape) < len(values.shape):
        x = ops.expand_dims(x, -1)
    return ops.broadcast_to(x, ops.shape(values))
