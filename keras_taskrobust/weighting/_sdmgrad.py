"""SDMGrad: the shortest combination of the gradients, held near their mean."""

from typing import Any

import keras
from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._gradient_based import GramianWeighting
from keras_taskrobust.weighting._solvers import matrix_vector, project_onto_simplex
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate, mean_weights
from keras_taskrobust.weighting.registry import register

_MOMENTUM = 0.5


@register("sdmgrad")
class SDMGrad(GramianWeighting):
    """Stochastic direction-oriented multi-objective gradient descent (Xiao et al. 2023).

    `w = (v + regularisation p) / (1 + regularisation)`, `p = 1 / n`, where `v` takes `iterations`
    steps of projected gradient descent on `||sum_k (v_k + regularisation p_k) g_k||^2` over the
    simplex at every call, with momentum 0.5, from the last call's `v` (equal weights at first). The
    Gramian is divided by the squared mean of the norms first, so that the rate has no unit.

    The paper takes the two factors of the inner products, and the gradients that are combined, from
    three independent batches, so that the estimate is unbiased; here, as with every method, all
    come from one. The steps are the official code's; they need not reach the minimum, and with its
    rate they may circle around it. Absent tasks keep their `v` while the present ones share out the
    rest.

    Args:
        regularisation: float >= 0, the pull to the mean gradient (`lambda`). 0.3 as in LibMTL and
            in the official experiments.
        iterations: int >= 1. 20 as in the official code.
        rate: positive float. 10.0 as in the official code; LibMTL has 5.0.

    Example:

    >>> import numpy as np
    >>> weights = SDMGrad().compute_weights(np.array([1.0, 1.0]), gramian=np.eye(2))
    >>> np.asarray(weights).round(4).tolist()
    [0.5, 0.5]

    Reference:
        [Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms]
        (https://arxiv.org/abs/2305.18409), NeurIPS 2023.
    """

    facts = MethodFacts(
        "shortest combination of the gradients, held near their mean",
        "Xiao et al. 2023",
        2023,
        balances_magnitudes=True,
        balances_learning=True,
        cost="Gramian",
        scale="same",
    )

    def __init__(
        self, regularisation: float = 0.3, iterations: int = 20, rate: float = 10.0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.regularisation = checks.nonnegative("regularisation", regularisation)
        self.iterations = checks.integer("iterations", iterations, least=1)
        self.rate = checks.positive("rate", rate)

    def create_state(self, num_tasks: int) -> None:
        self.combination = self.add_state(
            "combination", keras.initializers.Constant(1.0 / num_tasks)
        )

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        combination, preference = self._descend(tasks), mean_weights(tasks)
        weights = (combination + self.regularisation * preference) / (1.0 + self.regularisation)
        old = ops.convert_to_tensor(self.combination)
        # What the present tasks held together, shared out anew.
        held = ops.sum(ops.where(tasks.present, old, 0.0))
        new = ops.where(tasks.present, held * combination, old)
        return TaskUpdate(weights, state=[(self.combination, new)])

    def get_config(self):
        return {
            **super().get_config(),
            "regularisation": self.regularisation,
            "iterations": self.iterations,
            "rate": self.rate,
        }

    def _descend(self, tasks):
        present = ops.cast(tasks.present, "float32")
        preference = mean_weights(tasks)
        norms = ops.sqrt(ops.relu(ops.diagonal(tasks.gramian)))
        scale = ops.sum(norms * preference)
        scale = ops.where(scale > 0, scale, 1.0)
        gramian = tasks.gramian / scale / scale
        old = ops.convert_to_tensor(self.combination) * present
        total = ops.sum(old)
        start = ops.where(total > 0, old / ops.where(total > 0, total, 1.0), preference)

        pull = self.regularisation * matrix_vector(gramian, preference)

        def iterate(_, state):
            combination, velocity = state
            velocity = _MOMENTUM * velocity + matrix_vector(gramian, combination) + pull
            moved = combination - self.rate * velocity
            return project_onto_simplex(moved, present), velocity

        zeros = ops.zeros_like(start)
        return ops.fori_loop(0, self.iterations, iterate, (start, zeros))[0]
