"""The metrics of downstream tasks, as scikit-learn and SciPy compute them.

Both, and `vision`, load when they are used: they take a second, and the settings of a task need
none of them.
"""

from collections.abc import Callable

import numpy as np


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Share of correct predictions."""
    from sklearn import metrics

    return float(metrics.accuracy_score(labels, predictions))


def f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """F1 of class 1; 0 where it is neither predicted nor there."""
    from sklearn import metrics

    return float(metrics.f1_score(labels, predictions, zero_division=0))


def matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Matthews' correlation; 0 for a constant prediction."""
    if _is_constant(labels) or _is_constant(predictions):
        return 0.0
    from sklearn import metrics

    return float(metrics.matthews_corrcoef(labels, predictions))


def pearson(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Pearson's correlation; 0 for a constant prediction."""
    from scipy import stats

    return _correlation(stats.pearsonr, labels, predictions)


def spearman(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Spearman's rank correlation; 0 for a constant prediction."""
    from scipy import stats

    return _correlation(stats.spearmanr, labels, predictions)


def mean_iou(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean intersection over union of the classes that are labelled or predicted somewhere.

    Pixels with the label 255 count nowhere. Figures are of all pixels of all images together.
    """
    from keras_taskrobust.vision.image_source import IGNORE_LABEL

    known = labels != IGNORE_LABEL
    labels, predictions = labels[known].astype("int64"), predictions[known].astype("int64")
    if not len(labels):
        return 0.0
    size = int(max(labels.max(), predictions.max())) + 1
    confusion = np.bincount(labels * size + predictions, minlength=size**2).reshape(size, size)
    intersection = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    return float(np.mean(intersection[union > 0] / union[union > 0]))


def delta_1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Share of the valid pixels whose depth is off by a factor below 1.25.

    Labels are metres, NaN where missing; predictions that are not positive are wrong.
    """
    labels, predictions = _valid(labels, predictions)
    close = (predictions < 1.25 * labels) & (labels < 1.25 * predictions)
    return float(np.mean(close)) if len(labels) else 0.0


def root_mean_square(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Root of the mean squared error over the valid pixels, metres. 0 is its best value."""
    labels, predictions = _valid(labels, predictions)
    return float(np.sqrt(np.mean((predictions - labels) ** 2)))


def relative_error(labels: np.ndarray, predictions: np.ndarray) -> float:
    """REL: the mean of `|prediction - label| / label` over the valid pixels. 0 is its best."""
    labels, predictions = _valid(labels, predictions)
    return float(np.mean(np.abs(predictions - labels) / labels))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "mean_iou": mean_iou,
    "delta_1": delta_1,
    "pearson": pearson,
    "spearman": spearman,
}
"""The metrics by name. Each takes labels and predictions of one shape; 1 is its best value."""

ERRORS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "rmse": root_mean_square,
    "rel": relative_error,
}
"""Measures whose best value is 0. They are recorded beside the metrics and enter no score."""


def _is_constant(values):
    return np.ptp(values) == 0


def _valid(labels, predictions):
    known = np.isfinite(labels)
    return labels[known].astype("float64"), predictions[known].astype("float64")


def _correlation(function, labels, predictions):
    labels, predictions = (np.asarray(values, "float64") for values in (labels, predictions))
    if _is_constant(labels) or _is_constant(predictions):
        return 0.0
    return float(function(labels, predictions).statistic)
