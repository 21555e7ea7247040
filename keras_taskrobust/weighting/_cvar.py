"""Conditional value at risk: the mean of the worst tasks."""

from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import TaskBatch, TaskWeighting
from keras_taskrobust.weighting.registry import register


@register("cvar")
class ConditionalValueAtRisk(TaskWeighting):
    """The mean loss of the worst `fraction` of the present tasks.

    The worst case over `{w: sum_k w_k = 1, 0 <= w_k <= 1 / (fraction n)}`, `n` tasks being
    present: the `fraction * n` largest losses have the same weight, the last of them a part of it.
    `fraction=1` is the mean, `fraction <= 1 / n` the maximum. Tied tasks share.

    Args:
        fraction: float above 0 and at most 1. 0.5, the worse half of the tasks, is ours; the
            paper's experiments on CVaR over samples use 0.02 to 0.1.

    Example:

    >>> import numpy as np
    >>> layer = ConditionalValueAtRisk(fraction=0.5)
    >>> print(np.asarray(layer.compute_weights(np.array([1.0, 5.0, 3.0]))).round(4))
    [0.     0.6667 0.3333]

    Reference:
        Rockafellar and Uryasev, Optimization of conditional value-at-risk, 2000;
        [Large-Scale Methods for Distributionally Robust Optimization]
        (https://arxiv.org/abs/2010.05893), NeurIPS 2020.
    """

    facts = MethodFacts(
        "mean of the worst fraction of the tasks",
        "Rockafellar and Uryasev 2000",
        2000,
        balances_learning=True,
        scale="same",
    )

    def __init__(self, fraction: float = 0.5, **kwargs: Any):
        super().__init__(**kwargs)
        self.fraction = checks.fraction("fraction", fraction)

    def weigh(self, tasks: TaskBatch) -> Tensor:
        present = ops.cast(tasks.present, "float32")
        size = ops.maximum(self.fraction * ops.sum(present), 1e-6)
        losses = ops.where(tasks.present, tasks.losses, -float("inf"))
        column, row = losses[:, None], losses[None]
        worse = ops.sum(ops.cast(row > column, "float32"), axis=1)
        tied = ops.sum(ops.cast(ops.equal(row, column), "float32"), axis=1)
        taken = ops.clip(size - worse, 0.0, tied)
        return taken / (tied * size)

    def get_config(self):
        return {**super().get_config(), "fraction": self.fraction}
