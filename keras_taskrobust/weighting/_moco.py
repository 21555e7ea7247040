"""MoCo: gradients and combination are both tracked over the steps."""

from typing import Any

import keras
from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._gradient_based import GradientWeighting
from keras_taskrobust.weighting._solvers import matrix_vector
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate, masked_softmax
from keras_taskrobust.weighting.registry import register


@register("moco")
class MoCo(GradientWeighting):
    """Multi-objective optimisation with gradient correction (Fernando et al. 2023, algorithm 1).

    The gradients, at the length of their losses, are tracked: `y_k -= beta_t (y_k - L_k g_k /
    ||g_k||)`. The combination moves toward the shortest one of them, `w = softmax(w - gamma_t
    (Y Y^T + rho I) w)`, and the direction is `Y^T w`. `beta_t = beta / t^beta_decay` and `gamma_t =
    gamma / t^gamma_decay` for the t-th training call. Both start at zero and at equal weights.

    The lengths and the softmax are those of LibMTL, which follows the authors' own code; the paper
    tracks the gradients as they are and projects `w` onto the simplex. An absent task keeps its
    `y_k` and its part of `w`, and is not in the direction. `Y` takes `K` times the memory of the
    weights that the gradients are taken at.

    Args:
        beta: float above 0 and at most 1. 0.5 as in LibMTL.
        beta_decay: float >= 0. 0.5 as in LibMTL.
        gamma: positive float. 0.1 as in LibMTL.
        gamma_decay: float >= 0. 0.5 as in LibMTL.
        rho: float >= 0. 0.0 as in LibMTL.

    Example:

    >>> import numpy as np
    >>> layer = MoCo()
    >>> layer.build((2, 2))
    >>> gradients = np.array([[4.0, 0.0], [0.0, 3.0]])
    >>> _, update = layer(np.array([1.0, 1.0]), gradients=gradients, return_update=True)
    >>> np.asarray(update.direction).tolist()
    [0.25, 0.25]

    Reference:
        [Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent Approach]
        (https://openreview.net/forum?id=dLAYGdKTi2), ICLR 2023.
    """

    keeps_gradients = True
    facts = MethodFacts(
        "shortest combination of tracked gradients, itself tracked",
        "Fernando et al. 2023",
        2023,
        balances_magnitudes=True,
        cost="gradients, kept",
    )

    def __init__(
        self,
        beta: float = 0.5,
        beta_decay: float = 0.5,
        gamma: float = 0.1,
        gamma_decay: float = 0.5,
        rho: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.beta = checks.fraction("beta", beta)
        self.beta_decay = checks.nonnegative("beta_decay", beta_decay)
        self.gamma = checks.positive("gamma", gamma)
        self.gamma_decay = checks.nonnegative("gamma_decay", gamma_decay)
        self.rho = checks.nonnegative("rho", rho)

    def create_state(self, num_tasks: int) -> None:
        if self.num_gradient_elements is None:
            return
        self.step = self.add_state("step", shape=())
        self.tracked = self.add_state("tracked", shape=(num_tasks, self.num_gradient_elements))
        self.combination = self.add_state(
            "combination", keras.initializers.Constant(1.0 / num_tasks)
        )

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        step = ops.convert_to_tensor(self.step) + 1.0
        present = ops.cast(tasks.present, "float32")
        tracked = self._track(tasks, self.beta / ops.power(step, self.beta_decay))
        here = tracked * present[:, None]
        old = ops.convert_to_tensor(self.combination)
        held = ops.sum(old * present)
        start = old * present / ops.where(held > 0, held, 1.0)
        slope = matrix_vector(here, ops.sum(start[:, None] * here, axis=0)) + self.rho * start
        rate = self.gamma / ops.power(step, self.gamma_decay)
        weights = masked_softmax(start - rate * slope, tasks.present)
        # What the present tasks held together, shared out anew.
        combination = ops.where(tasks.present, held * weights, old)
        return TaskUpdate(
            weights,
            direction=ops.sum(weights[:, None] * here, axis=0),
            state=[(self.step, step), (self.tracked, tracked), (self.combination, combination)],
        )

    def get_config(self):
        return {
            **super().get_config(),
            "beta": self.beta,
            "beta_decay": self.beta_decay,
            "gamma": self.gamma,
            "gamma_decay": self.gamma_decay,
            "rho": self.rho,
        }

    def _track(self, tasks, rate):
        norms = ops.sqrt(ops.sum(tasks.gradients * tasks.gradients, axis=1))
        lengths = tasks.losses / ops.where(norms > 0, norms, 1.0)
        tracked = ops.convert_to_tensor(self.tracked)
        moved = tracked - rate * (tracked - lengths[:, None] * tasks.gradients)
        return ops.where(tasks.present[:, None], moved, tracked)
