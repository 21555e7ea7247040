"""The loss of one output: one task, or one for each group of its elements."""

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.training.backends import backend
from keras_taskrobust.training.loss_values import (
    align,
    is_of_keras,
    resolve_loss,
    values_and_weights,
)
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting.base import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class GroupedLoss:
    """One loss over one output, split into K tasks by a group id per element.

    The output's `y_true` is `{"labels": ..., "groups": ...}`: `groups` are integers with the shape
    of the loss's elements, or of its leading axes. Elements of group -1 belong to no task. An id
    outside `-1 ... K-1` is an error where `fit` receives arrays, and makes the losses NaN where it
    arrives inside a data set.

    Args:
        loss: a Keras loss: name, function or instance. Its own reduction is ignored.
        groups: the K group names, distinct strings; or integers, which stand for their numerals.

    Example:

    >>> import keras, numpy as np
    >>> loss = GroupedLoss("sparse_categorical_crossentropy", groups=("noun", "verb"))
    >>> loss.task_names
    ('noun', 'verb')
    """

    def __init__(self, loss, groups):
        is_many = isinstance(groups, Iterable) and not isinstance(groups, str)
        names = tuple(str(n) if checks.is_integer(n) else n for n in groups) if is_many else ()
        if not names or len(set(names)) != len(names):
            raise ValueError(
                "`groups` must be a tuple of at least one name, all distinct. "
                f"Received: groups={groups!r}"
            )
        _check_names(names)
        self.loss = resolve_loss(loss)
        self.task_names = names

    def totals_and_counts(self, y_true, y_pred, sample_weight=None):
        """Sums the loss over each group's elements.

        Args:
            y_true: `{"labels": ..., "groups": ...}`.
            y_pred: the output.
            sample_weight: `None`, or weights that broadcast to the elements from the left.

        Returns:
            `totals` and `counts`, each `(K,)` float32.
        """
        groups = ops.cast(y_true["groups"], "int32")
        values, weights = values_and_weights(
            self.loss, y_true["labels"], y_pred, sample_weight, inside=groups >= 0
        )
        groups = align(groups, values, "groups")
        number = len(self.task_names)
        member = ops.expand_dims(groups, -1) == ops.arange(number, dtype="int32")
        shares = ops.cast(member, "float32")
        if weights is not None:
            shares = ops.where(member, ops.expand_dims(weights, -1), 0.0)
        counts = ops.sum(shares, axis=tuple(range(len(values.shape))))
        in_range = ops.all(ops.logical_and(groups >= -1, groups < number))
        totals = backend.sum_by_group(values, member)
        return totals + ops.where(in_range, 0.0, float("nan")), counts

    def check_groups(self, groups: Tensor) -> None:
        """Raises a `ValueError` if an id in the array `groups` is outside `-1 ... K-1`."""
        kind = getattr(getattr(groups, "dtype", None), "kind", "i")
        if kind in "OSUT":
            raise ValueError(
                f"`groups` must be integers that count the groups {self.task_names}: "
                "`[names.index(group) for group in groups]` in an array. "
                f"Received: an array of {groups.dtype}"
            )
        number = len(self.task_names)
        smallest, largest = int(ops.min(groups)), int(ops.max(groups))
        if smallest < -1 or largest >= number:
            raise ValueError(
                f"`groups` must lie between -1 (no task) and {number - 1} for the groups "
                f"{self.task_names}. Received: values from {smallest} to {largest}"
            )

    def get_config(self):
        return {
            "loss": keras.saving.serialize_keras_object(self.loss),
            "groups": list(self.task_names),
        }

    @classmethod
    def from_config(cls, config):
        loss = keras.saving.deserialize_keras_object(copy.deepcopy(config["loss"]))
        return cls(loss, config["groups"])


class OutputLoss:
    """One task: one loss over one output."""

    def __init__(self, loss: Any, name: str):
        _check_names((name,))
        self.loss = resolve_loss(loss)
        self.task_names = (name,)

    def totals_and_counts(self, y_true, y_pred, sample_weight=None):
        """The summed loss and the summed weight, each `(1,)` float32."""
        values, weights = values_and_weights(self.loss, y_true, y_pred, sample_weight)
        weights = ops.ones_like(values) if weights is None else weights
        return ops.reshape(ops.sum(values), (1,)), ops.reshape(ops.sum(weights), (1,))


@contextlib.contextmanager
def in_output(name: str) -> Iterator[None]:
    """Adds to what a loss raises whose it is."""
    try:
        yield
    except Exception as error:
        error.add_note(f"In the loss of the output {name!r}.")
        raise


def check_known(name: str, loss: Any, labels: Any, weight: Any) -> None:
    """Raises a `ValueError` for labels that make a loss of Keras NaN.

    Of arrays with one label a sample: what a mask leaves out of longer ones is not known here.

    Args:
        name: str, the output.
        loss: as from `resolve_loss`.
        labels: array.
        weight: array of sample weights, or `None`.
    """
    labels = ops.convert_to_numpy(labels) if hasattr(labels, "shape") else np.zeros(0)
    if labels.dtype.kind != "f" or labels.ndim == 0 or labels.size != len(labels):
        return
    missing = np.isnan(labels).reshape(-1)
    if weight is not None and len(weight) == len(labels):
        missing &= (ops.convert_to_numpy(weight) != 0).reshape(len(labels), -1).any(axis=1)
    if missing.any() and is_of_keras(loss):
        raise ValueError(
            f"A label must be a number where its sample weight is not 0. Received: {missing.sum()} "
            f"of the {len(labels)} labels of {name!r} are NaN. If they are missing, give them the "
            f"weight 0: `sample_weight={{{name!r}: ~np.isnan(labels)}}`, other outputs left out"
        )


def _check_names(names: Iterable[str]) -> None:
    bad = [n for n in names if not isinstance(n, str) or not n]
    if bad:
        raise ValueError(f"Task names must be non-empty strings. Received: {bad}")
