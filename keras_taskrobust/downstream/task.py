"""What every downstream task has: metrics, a score and a trivial baseline."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from keras_taskrobust.downstream.metrics import METRICS


@dataclasses.dataclass(frozen=True)
class DownstreamTask:
    """A task that a pre-trained model is fine-tuned on.

    Args:
        name: string. What reports and files call it.
        metrics: tuple of strings, keys of `METRICS`. The score of the task is their mean.
        label_names: tuple of strings, the classes in the order of their ids; none for a
            regression.

    Example:

    >>> task = DownstreamTask("animals", ("accuracy",), ("cat", "dog"))
    >>> task.evaluate(np.array([0, 1, 1, 1]), np.array([0, 1, 0, 1]))
    {'accuracy': 0.75}
    >>> task.evaluate_trivial(np.array([1, 1, 0]), np.array([0, 1, 1, 1]))
    {'accuracy': 0.75}
    """

    name: str
    metrics: tuple[str, ...]
    label_names: tuple[str, ...] = ()

    @property
    def is_regression(self) -> bool:
        """Whether the labels are numbers, not classes."""
        return not self.label_names

    @property
    def num_outputs(self) -> int:
        """Units of the head: one a class, or one for a regression."""
        return max(len(self.label_names), 1)

    def evaluate(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Scores predictions.

        Args:
            labels: `(N,)` class ids, or numbers for a regression.
            predictions: `(N,)` of the same kind.

        Returns:
            dict of metric names to values.
        """
        return {name: METRICS[name](labels, predictions) for name in self.metrics}

    def evaluate_trivial(self, train_labels: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Scores the best constant prediction: what a model has before it has learned anything.

        For classes it is the one that scores best on the training labels (under accuracy the
        majority class, under F1 class 1 even where it is rarer); for numbers their mean.

        Args:
            train_labels: `(M,)` labels of the training split.
            labels: `(N,)` labels to be scored on.

        Returns:
            dict of metric names to values.
        """
        if self.is_regression:
            return self.evaluate(labels, np.full(len(labels), np.mean(train_labels)))
        constants = [np.full(len(train_labels), index) for index in range(self.num_outputs)]
        scores = [mean_score(self.evaluate(train_labels, constant)) for constant in constants]
        return self.evaluate(labels, np.full(len(labels), np.argmax(scores)))


def mean_score(scores: Mapping[str, float]) -> float:
    """The score of a task: the mean of its metrics."""
    return float(np.mean(list(scores.values())))
