"""The metrics of downstream tasks, as scikit-learn and SciPy compute them."""

from collections.abc import Callable

import numpy as np
from scipy import stats
from sklearn import metrics


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Share of correct predictions."""
    return float(metrics.accuracy_score(labels, predictions))


def f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """F1 of class 1; 0 where it is neither predicted nor there."""
    return float(metrics.f1_score(labels, predictions, zero_division=0))


def matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Matthews' correlation; 0 for a constant prediction."""
    if _is_constant(labels) or _is_constant(predictions):
        return 0.0
    return float(metrics.matthews_corrcoef(labels, predictions))


def pearson(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Pearson's correlation; 0 for a constant prediction."""
    return _correlation(stats.pearsonr, labels, predictions)


def spearman(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Spearman's rank correlation; 0 for a constant prediction."""
    return _correlation(stats.spearmanr, labels, predictions)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
"""The metrics by name. Each takes labels and predictions `(N,)`; 1 is its best value."""


def _is_constant(values):
    return np.ptp(values) == 0


def _correlation(function, labels, predictions):
    labels, predictions = (np.asarray(values, "float64") for values in (labels, predictions))
    if _is_constant(labels) or _is_constant(predictions):
        return 0.0
    return float(function(labels, predictions).statistic)
