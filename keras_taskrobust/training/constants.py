"""The best constant predictions under Keras losses, from batches of labels and weights.

An element has a position and a group. The constant may depend on the position, not on the group:
the groups of one output share it, each counting the same however many elements it has.
"""

from collections.abc import Callable
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from keras_taskrobust.training.keras_internals import arguments_of_loss

#: The most values kept for a median: 64 MB in float32.
_MOST_VALUES = 2**24
#: The golden sections of a search: they leave 1e-8 of the range.
_SECTIONS = 40
#: The samples that are summed at a time, which bounds the memory for large images.
_SAMPLES = 256

_SQUARED, _ABSOLUTE = keras.losses.mean_squared_error, keras.losses.mean_absolute_error
_BINARY = keras.losses.binary_crossentropy
_CATEGORICAL = keras.losses.categorical_crossentropy
_SPARSE = keras.losses.sparse_categorical_crossentropy
_FOCAL = keras.losses.binary_focal_crossentropy
#: Those whose best constant has no closed form: with one number they fall, and then rise.
_SEARCHED = {
    keras.losses.huber,
    keras.losses.log_cosh,
    keras.losses.mean_absolute_percentage_error,
    keras.losses.mean_squared_logarithmic_error,
    _FOCAL,
}
_FUNCTIONS = {
    keras.losses.Huber: keras.losses.huber,
    keras.losses.LogCosh: keras.losses.log_cosh,
    keras.losses.MeanAbsolutePercentageError: keras.losses.mean_absolute_percentage_error,
    keras.losses.MeanSquaredLogarithmicError: keras.losses.mean_squared_logarithmic_error,
    keras.losses.BinaryFocalCrossentropy: _FOCAL,
    keras.losses.MeanSquaredError: _SQUARED,
    keras.losses.MeanAbsoluteError: _ABSOLUTE,
    keras.losses.BinaryCrossentropy: _BINARY,
    keras.losses.CategoricalCrossentropy: _CATEGORICAL,
    keras.losses.SparseCategoricalCrossentropy: _SPARSE,
}


class Constant(Protocol):
    """A best constant, made of what it is given."""

    def add(self, labels: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> None:
        """Takes n samples of P positions.

        Args:
            labels: `(n, P, D)` numbers, or `(n, P)` class indices.
            weights: `(n, P)`.
            groups: `(n, P)` int, -1 for elements that do not count.
        """

    def value(self) -> np.ndarray:
        """`(P, D)` float64."""


class Mean:
    """The weighted mean, best under squared errors; smoothed, the frequency of each class.

        sum_i w_i y_i / sum_i w_i,   or with a prior   (sum_i w_i y_i + prior) / (sum_i w_i + 1).

    Args:
        groups: int, G.
        classes: int, D, if the labels are class indices.
        prior: float, or `None` for no smoothing.
    """

    def __init__(self, groups: int = 1, classes: int | None = None, prior: float | None = None):
        self._groups = groups
        self._classes = classes
        self._prior = prior
        self._sums: Any = 0.0  # (G, P, D)
        self._weights: Any = 0.0  # (G, P, 1)

    def add(self, labels, weights, groups):
        parts = range(_SAMPLES, len(labels), _SAMPLES)
        for each in zip(*(np.split(one, parts) for one in (labels, weights, groups)), strict=True):
            self._add(*each)

    def of_groups(self) -> np.ndarray:
        """`(G, P, D)`: what would be the constants if each group had one of its own."""
        added = self._sums if self._prior is None else self._sums + self._prior
        weights = self._weights if self._prior is None else self._weights + 1.0
        return added / np.where(weights > 0, weights, 1.0)

    def value(self):
        means = self.of_groups()
        totals = self._weights.sum(1, keepdims=True)
        parts = self._weights / np.where(totals > 0, totals, 1.0)
        at_position = parts.sum(0)
        mixed = (parts * means).sum(0) / np.where(at_position > 0, at_position, 1.0)
        elsewhere = (
            (parts * means).sum((0, 1)) / parts.sum() if self._prior is None else self._prior
        )
        return np.where(at_position > 0, mixed, elsewhere)

    def _add(self, labels, weights, groups):
        shares = _shares(weights, groups, self._groups)
        self._weights = self._weights + shares.sum(1)[..., None]
        if self._classes is None:
            sums = np.einsum("gnp,npd->gpd", shares, labels.astype("float64"))
        else:
            sums = _weights_of_classes(labels, shares, self._classes)
        self._sums = self._sums + sums


class _OfSamples:
    """A constant that is made of the samples: of as many as memory is spent on.

    Args:
        groups: int, G.
    """

    def __init__(self, groups: int = 1):
        self._groups = groups
        self._kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._number = 0

    def add(self, labels, weights, groups):
        if self._number < _MOST_VALUES:
            self._kept.append((np.asarray(labels, "float32"), weights, groups))
            self._number += labels.size

    def _labels_and_shares(self):
        """`(n, P, D)` labels and `(n, P, 1)` weights, of which each group has as much."""
        labels, weights, groups = map(np.concatenate, zip(*self._kept, strict=True))
        shares = _shares(weights, groups, self._groups)
        totals = shares.sum((1, 2), keepdims=True)
        return labels, (shares / np.where(totals > 0, totals, 1.0)).sum(0)[..., None]


class Median(_OfSamples):
    """The weighted median, best under absolute errors."""

    def value(self):
        labels, shares = self._labels_and_shares()
        order = np.argsort(labels, axis=0, kind="stable")
        below = np.cumsum(np.take_along_axis(shares, order, axis=0), axis=0)
        middle = np.argmax(below >= below[-1:] / 2, axis=0)[None]
        chosen = np.take_along_axis(order, middle, axis=0)
        return np.take_along_axis(labels, chosen, axis=0)[0].astype("float64")


class Minimum(_OfSamples):
    """The number of the least mean loss, by golden sections from the least label to the largest.

    Args:
        groups: int, G.
        function: function of labels and predictions `(n, P, D)` to the loss of each number.
    """

    def __init__(self, groups: int, function: Callable[[np.ndarray, np.ndarray], np.ndarray]):
        super().__init__(groups)
        self._function = function

    def value(self):
        labels, shares = self._labels_and_shares()

        def mean_loss(constant):
            return (shares * self._function(labels, np.broadcast_to(constant, labels.shape))).sum(0)

        counted = np.broadcast_to(shares > 0, labels.shape)
        low = labels.min(0, where=counted, initial=np.inf)
        high = labels.max(0, where=counted, initial=-np.inf)
        low, high = (np.where(counted.any(0), end, 0.0).astype("float64") for end in (low, high))
        for _ in range(_SECTIONS):
            kept = (high - low) * (np.sqrt(5.0) - 1.0) / 2.0
            left, right = high - kept, low + kept
            is_left = mean_loss(left) <= mean_loss(right)
            low, high = np.where(is_left, low, left), np.where(is_left, right, high)
        return (low + high) / 2.0


class KerasConstant:
    """The best constant output under a Keras loss.

    The weighted mean for squared errors, the weighted median for absolute ones; for cross-entropies
    the frequencies of the labels, smoothed by one label that is evenly spread over the classes; for
    other errors of numbers, and the focal cross-entropy of two classes, the `Minimum`.

    Args:
        loss: as from `resolve_loss`, one that `has_best_constant` knows.
        groups: int, G.
        units: int, D, the size of the last axis of the output.
    """

    def __init__(self, loss: Any, groups: int, units: int):
        self._function = _function(loss)
        self._largest = {_BINARY: 1, _FOCAL: 1, _SPARSE: units - 1}
        self._arguments = arguments_of_loss(loss)
        even = 0.5 if self._is_binary else 1.0 / units
        smoothing = self._arguments.get("label_smoothing") or 0.0
        self._kept, self._added = 1.0 - smoothing, smoothing * even
        self._constant: Constant = Median(groups)
        if self._function in _SEARCHED:
            self._constant = Minimum(groups, self._of_numbers)
        elif self._function is not _ABSOLUTE:
            classes = units if self._function is _SPARSE else None
            self._constant = Mean(groups, classes, None if self._function is _SQUARED else even)

    def add(self, labels: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> None:
        """As `Constant.add`.

        Raises:
            ValueError: for labels that the loss does not take.
        """
        if self._function in self._largest and labels.size:
            least, most = labels.min(), labels.max()
            if least < 0 or most > self._largest[self._function]:
                raise ValueError(
                    f"Labels must lie between 0 and {self._largest[self._function]} under this "
                    f"loss. Received: labels from {least} to {most}"
                )
        if self._added:
            labels = labels * self._kept + self._added
        self._constant.add(labels, weights, groups)

    def of_groups(self) -> np.ndarray:
        """`(G, P, D)` float64: the mean, or the frequencies, of each group by itself."""
        if not isinstance(self._constant, Mean):
            raise TypeError("The median of each group by itself is not kept.")
        return self._constant.of_groups()

    def value(self) -> np.ndarray:
        """`(P, D)` float64: logits if the loss takes them, else probabilities or numbers."""
        value = self._constant.value()
        if not self._arguments.get("from_logits"):
            return value
        return np.log(value) - (np.log1p(-value) if self._is_binary else 0.0)

    @property
    def _is_binary(self) -> bool:
        return self._function in (_BINARY, _FOCAL)

    def _of_numbers(self, labels, predictions):
        # Logits are searched for as probabilities, and the labels are smoothed already.
        left_out = ("from_logits", "label_smoothing", "axis")
        arguments = {n: value for n, value in self._arguments.items() if n not in left_out}
        pair = (np.asarray(each, "float32")[..., None] for each in (labels, predictions))
        return ops.convert_to_numpy(self._function(*pair, **arguments))


def has_best_constant(loss: Any) -> bool:
    """Whether `KerasConstant` is for a loss: errors of numbers, and cross-entropies."""
    return _function(loss) is not None and arguments_of_loss(loss).get("axis", -1) == -1


def may_be_negative(loss: Any) -> bool:
    """Whether it is a loss of Keras that has values below 0."""
    classes = (keras.losses.CosineSimilarity, keras.losses.Poisson)
    return isinstance(loss, classes) or loss in (
        keras.losses.cosine_similarity,
        keras.losses.poisson,
    )


def _function(loss: Any) -> Any:
    """The function of a loss, if there is a best constant for it."""
    if isinstance(loss, keras.losses.Loss):
        return _FUNCTIONS.get(type(loss))
    return loss if loss in _FUNCTIONS.values() else None


def _shares(weights, groups, number):
    """`(G, n, P)`: the weights, each in its group."""
    member = groups[None] == np.arange(number)[:, None, None]
    return np.where(member, weights[None], 0.0)


def _weights_of_classes(labels, shares, classes):
    """`(G, P, C)`: the weight of each class, for `(n, P)` indices and `(G, n, P)` weights."""
    groups, _, positions = shares.shape
    rows = np.arange(groups)[:, None, None] * positions + np.arange(positions)
    cells = np.broadcast_to(rows * classes + labels, shares.shape)
    sums = np.bincount(cells.ravel(), shares.ravel(), groups * positions * classes)
    return sums.reshape(groups, positions, classes)
