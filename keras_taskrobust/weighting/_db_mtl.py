"""DB-MTL: gradients of the losses' logarithms, averaged over time, at one length."""

from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._gradient_based import GradientWeighting
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate
from keras_taskrobust.weighting.registry import register


@register("db_mtl")
class DualBalancing(GradientWeighting):
    """Dual-balancing multi-task learning (Lin et al. 2023, algorithm 1).

    Scale balancing: the gradients are those of `log L_k`, `g_k / L_k`. Magnitude balancing: their
    moving averages `m_k = beta_t m_k + (1 - beta_t) g_k / L_k`, `beta_t = beta / t^decay` for the
    t-th training call, are brought to the length of the longest, `d = max_j ||m_j|| sum_k m_k /
    ||m_k||`. What belongs to one task gets the gradient of its `log L_k`. The weights are the
    factors of the batch's gradients without the average, `max_j ||m_j|| / (||m_k|| L_k)`.

    An average starts at zero, as in paper and LibMTL, and is divided by the share of it that
    gradients make up (1 - 0.9^t of the t-th call by default). Tasks that start together have one
    share, and the direction is LibMTL's up to its length; for one that appears later it brings the
    average to its length. An absent task keeps its average and is not in the direction. A loss that
    is not positive is left as it is. The averages take `K` times the memory of the weights that the
    gradients are taken at.

    Args:
        beta: float of at least 0 and less than 1. 0.9 as in LibMTL.
        decay: float >= 0. 0.0 as in LibMTL; the paper has 0.5.

    Example:

    >>> import numpy as np
    >>> layer = DualBalancing()
    >>> layer.build((2, 2))
    >>> gradients = np.array([[4.0, 0.0], [0.0, 3.0]])
    >>> _, update = layer(np.array([2.0, 3.0]), gradients=gradients, return_update=True)
    >>> np.asarray(update.direction).tolist()
    [2.0, 2.0]

    Reference:
        [Dual-Balancing for Multi-Task Learning](https://arxiv.org/abs/2308.12029), 2023.
    """

    keeps_gradients = True
    facts = MethodFacts(
        "gradients of the losses' logarithms, averaged, at one length",
        "Lin et al. 2023",
        2023,
        balances_magnitudes=True,
        cost="gradients, kept",
        total="free",
        lone_task=False,
        scale="inverse",
    )

    def __init__(self, beta: float = 0.9, decay: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.beta = checks.share("beta", beta)
        self.decay = checks.nonnegative("decay", decay)

    def create_state(self, num_tasks: int) -> None:
        if self.num_gradient_elements is None:
            return
        self.step = self.add_state("step", shape=())
        self.share = self.add_state("share", shape=(num_tasks, 1))
        self.average = self.add_state("average", shape=(num_tasks, self.num_gradient_elements))

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        step = ops.convert_to_tensor(self.step) + 1.0
        positive = tasks.losses > 0
        reciprocals = 1.0 / ops.where(positive, tasks.losses, 1.0)
        present = tasks.present[:, None]
        gradients = tasks.gradients * reciprocals[:, None]
        beta = ops.where(present, self.beta / ops.power(step, self.decay), 1.0)
        kept = beta * self.average + (1.0 - beta) * gradients
        share = beta * self.share + (1.0 - beta)
        average = kept / ops.where(share > 0, share, 1.0)
        norms = ops.sqrt(ops.sum(average * average, axis=1))
        largest = ops.max(ops.where(tasks.present, norms, 0.0))
        factors = ops.where(norms > 0, largest / ops.where(norms > 0, norms, 1.0), 1.0)
        factors = ops.where(tasks.present, factors, 0.0)
        return TaskUpdate(
            factors * reciprocals,
            reciprocals,
            ops.sum(factors[:, None] * average, axis=0),
            [(self.step, step), (self.share, share), (self.average, kept)],
        )

    def get_config(self):
        return {**super().get_config(), "beta": self.beta, "decay": self.decay}
