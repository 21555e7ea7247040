"""How much robustness fine-tuning leaves: the protocol of ImageNet-RIB."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from keras_taskrobust.evaluation.rendering import to_csv

Evaluate = Callable[[str], float]


@dataclass(frozen=True, eq=False)
class Inheritance:
    """The metric of each task before fine-tuning, and after fine-tuning on each task.

    With `A_j` the metric of task j before and `A_ij` that after fine-tuning on task i, both
    higher for better,

        RI_i = mean over j != i of (A_ij - A_j),    mRI = mean over i of RI_i.

    Args:
        tasks: the names of K >= 2 tasks that share a label space.
        before: `(K,)`. The metric of each task, with a head trained beforehand.
        after: `(K, K)`. Row i: the metric of each task after fine-tuning on task i.

    Example:

    >>> result = Inheritance(("a", "b", "c"), [0.5, 0.5, 0.5],
    ...     [[0.9, 0.4, 0.6], [0.5, 0.8, 0.3], [0.6, 0.6, 0.7]])
    >>> result.robustness_improvement.round(3).tolist()
    [0.0, -0.1, 0.1]
    >>> round(abs(result.mean_robustness_improvement), 3), result.worst("b")
    (0.0, ('c', -0.2))

    Reference:
        [ImageNet-RIB Benchmark](https://arxiv.org/abs/2410.21582).
    """

    tasks: tuple[str, ...]
    before: np.ndarray
    after: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "tasks", tuple(self.tasks))
        object.__setattr__(self, "before", np.asarray(self.before, "float64"))
        object.__setattr__(self, "after", np.asarray(self.after, "float64"))
        number = len(self.tasks)
        if number < 2 or self.before.shape != (number,) or self.after.shape != (number, number):
            raise ValueError(
                "`tasks` must be K >= 2 names, `before` (K,) and `after` (K, K). Received: "
                f"{number} tasks, shapes {self.before.shape} and {self.after.shape}"
            )

    @property
    def changes(self) -> np.ndarray:
        """`(K, K)`. Row i: what fine-tuning on task i did to each task's metric."""
        return self.after - self.before

    @property
    def robustness_improvement(self) -> np.ndarray:
        """`(K,)`. RI: mean change of the other tasks, for each task fine-tuned on."""
        number = len(self.tasks)
        return (self.changes.sum(axis=1) - np.diag(self.changes)) / (number - 1)

    @property
    def mean_robustness_improvement(self) -> float:
        """mRI: the mean of RI over the tasks."""
        return float(self.robustness_improvement.mean())

    def worst(self, task: str) -> tuple[str, float]:
        """The other task that fine-tuning on `task` harmed most.

        Args:
            task: string. The task fine-tuned on.

        Returns:
            Its name and the change of its metric.
        """
        row = self.tasks.index(task)
        others = np.where(np.arange(len(self.tasks)) == row, np.inf, self.changes[row])
        index = int(others.argmin())
        return self.tasks[index], round(float(others[index]), 12)

    def to_csv(self) -> str:
        """The matrix as CSV: a row for each task fine-tuned on, the metrics of all tasks, RI."""
        return to_csv(self.rows())

    def rows(self) -> list[list[str]]:
        """The cells of `to_csv`, header first, numbers in full."""
        rows = [["fine-tuned on", *self.tasks, "RI"]]
        rows.append(["nothing", *map(repr, self.before.tolist()), ""])
        for name, row, improvement in zip(
            self.tasks, self.after.tolist(), self.robustness_improvement.tolist(), strict=True
        ):
            rows.append([name, *map(repr, row), repr(improvement)])
        return rows


def mean_inheritance(results: Sequence[Inheritance]) -> Inheritance:
    """The mean over runs, such as those of several seeds.

    Args:
        results: at least one `Inheritance`, all of the same tasks.

    Returns:
        `Inheritance` of the mean metrics. Its RI and mRI are the means of theirs.

    Raises:
        ValueError: there is none, or the tasks differ.
    """
    tasks = {one.tasks for one in results}
    if len(tasks) != 1:
        raise ValueError(
            f"`results` must be of the same tasks. Received: {sorted(tasks) or 'none'}"
        )
    return Inheritance(
        results[0].tasks,
        np.mean([one.before for one in results], axis=0),
        np.mean([one.after for one in results], axis=0),
    )


def measure_inheritance(
    tasks: Sequence[str],
    evaluate_start: Evaluate,
    finetune: Callable[[str], Evaluate],
) -> Inheritance:
    """Runs the protocol: scores the start on all tasks, fine-tunes on each and scores again.

    Args:
        tasks: the names of tasks that share a label space.
        evaluate_start: from a task's name to the metric of the model before fine-tuning, with a
            head trained beforehand (on the pre-training data, or by a linear probe).
        finetune: from a task's name to the evaluation of the model fine-tuned on it. Called once
            a task, always from the same start.

    Returns:
        `Inheritance`.

    Raises:
        ValueError: a metric is not finite.
    """
    before = _scores(tasks, evaluate_start, "before fine-tuning")
    after = [_scores(tasks, finetune(task), f"after fine-tuning on {task!r}") for task in tasks]
    return Inheritance(
        tuple(tasks),
        np.array([before[task] for task in tasks]),
        np.array([[row[task] for task in tasks] for row in after]),
    )


def _scores(tasks: Sequence[str], evaluate: Evaluate, when: str) -> dict[str, float]:
    scores = {task: float(evaluate(task)) for task in tasks}
    broken = [task for task, score in scores.items() if not math.isfinite(score)]
    if broken:
        raise ValueError(f"The metric of a task must be finite. Received: {broken} are not, {when}")
    return scores
