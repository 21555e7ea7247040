"""What models are compared by: the loss of each task, or its share of the trivial loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from keras_taskrobust.evaluation.scores import TaskScores, ratio, share

#: Parts of a loss: what they are called, and what they are a loss of.
PARTS = {
    "within": ("within-task", "a target whose task is given"),
    "prior": ("prior", "the task itself"),
}


@dataclass(frozen=True)
class Measure:
    """A figure of each task by which one model is better than another.

    Args:
        name: "loss", the lower the better, or "share", the higher the better: `1 - L / T`, with
            the loss L and the trivial loss T.
        part: the part of the scores that it is of; "" for the scores themselves.

    Example:

    >>> scores = TaskScores(("a", "b"), [[2.0, 1.0]], [[1, 1]], trivial_totals=[[8.0, 2.0]])
    >>> LOSS.worst(scores), Measure("share").worst(scores)
    (('a', 2.0), ('b', 0.5))
    """

    name: Literal["loss", "share"]
    part: str = ""

    @property
    def is_share(self) -> bool:
        """Whether it is a share, so that the highest is the best."""
        return self.name == "share"

    @property
    def best(self) -> str:
        """How the best figure lies among all: "highest" or "lowest"."""
        return "highest" if self.is_share else "lowest"

    @property
    def words(self) -> str:
        """Its name in a sentence."""
        part = PARTS[self.part][0] if self.part in PARTS else self.part
        return f"{part} {self.name}".strip()

    def is_of(self, scores: TaskScores) -> bool:
        """Whether the scores have it; a share, if the trivial losses are above 0."""
        if self.part and self.part not in scores.parts:
            return False
        part = part_of(scores, self.part)
        return not self.is_share or bool((part.trivial_losses[part.targets > 0] > 0).all())

    def of(self, scores: TaskScores) -> np.ndarray:
        """`(K,)` float64. The figure of each task."""
        part = part_of(scores, self.part)
        return part.shares if self.is_share else part.losses

    def worst(self, scores: TaskScores, minimum_targets: int = 0) -> tuple[str, float]:
        """The task with the worst figure, and that figure, of those with enough targets."""
        part = part_of(scores, self.part)
        worst = part.worst_share if self.is_share else part.worst
        return worst(minimum_targets)

    def sums(self, scores: TaskScores) -> tuple[np.ndarray, np.ndarray]:
        """Twice `(N, K)`: what, summed over records, gives the tasks' `figures`.

        Raises:
            ValueError: the scores do not have it.
        """
        if not self.is_of(scores):
            raise ValueError(
                "`measure` must be one that the scores have; a share needs trivial losses above 0. "
                f"Received: measure={self}, of scores with the parts {tuple(scores.parts)} and the "
                f"trivial losses {scores.trivial_losses.tolist()}"
            )
        part = part_of(scores, self.part)
        if self.is_share and part.trivial_totals is not None:
            return part.totals, part.trivial_totals
        return part.totals, part.counts

    def figures(self, totals: np.ndarray, others: np.ndarray) -> np.ndarray:
        """What summed `sums` make; NaN where the second is 0, for want of targets."""
        return share(totals, others) if self.is_share else ratio(totals, others)


LOSS = Measure("loss")


def part_of(scores: TaskScores, name: str) -> TaskScores:
    """The part of that name; the scores themselves for ""."""
    return scores.parts[name] if name else scores


def common_measure(scores: Sequence[TaskScores]) -> Measure:
    """What all of the scores can be compared by.

    Returns:
        The share, of the part "within" where all have it; the loss if any lacks a trivial loss.
    """
    shares = (Measure("share", part) for part in ("within", ""))
    return next((one for one in shares if all(map(one.is_of, scores))), LOSS)
