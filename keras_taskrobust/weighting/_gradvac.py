"""GradVac: every gradient is turned until its cosines with the others reach their averages."""

from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._solvers import cosines_and_norms, matrix_vector, reciprocal
from keras_taskrobust.weighting._surgery import GradientSurgery, operate, weights_of
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate
from keras_taskrobust.weighting.registry import register

#: Targets are kept below 1, where no finite correction reaches them.
_LARGEST_COSINE = 0.9999


@register("gradvac")
class GradVac(GradientSurgery):
    """Gradient vaccine (Wang et al. 2021, algorithm 1).

    Every gradient `g_i` meets the others in a random order. Where its cosine `c` with `g_j` is
    below the target `t_ij`, `g_i += ||g_i|| (t sqrt(1 - c^2) - c sqrt(1 - t^2)) / (||g_j|| sqrt(1
    - t^2)) g_j` brings it to the target; the target is a moving average of the cosines,
    `t = (1 - beta) t + beta c`, which starts at 0. The step is the sum of the results. With
    targets at 0 it is PCGrad.

    The whole model is one group (the paper's `whole_model`). The average moves at every meeting, as
    in the paper and torchjd; LibMTL moves it only where the cosine is below the target. A pair of
    which one is absent, or has a zero gradient, keeps its target. Targets are at most 0.9999.

    Args:
        beta: float above 0 and at most 1, the share of the new cosine. 0.5 is LibMTL's and
            torchjd's; the paper uses 1e-2.
        seed: int, of the random orders.

    Example:

    >>> import numpy as np
    >>> gramian = np.array([[1.0, -0.5], [-0.5, 1.0]])
    >>> weights = GradVac().compute_weights(np.array([1.0, 1.0]), gramian=gramian)
    >>> np.asarray(weights).round(4).tolist()
    [1.5, 1.5]

    Reference:
        [Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively
        Multilingual Models](https://arxiv.org/abs/2010.05874), ICLR 2021.
    """

    facts = MethodFacts(
        "gradients turned to the average of their cosines",
        "Wang et al. 2021",
        2021,
        cost="Gramian",
        total="free",
        scale="same",
    )

    def __init__(self, beta: float = 0.5, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.beta = checks.fraction("beta", beta)
        self.seed = checks.integer("seed", seed, least=0)

    def create_state(self, num_tasks: int) -> None:
        super().create_state(num_tasks)
        self.targets = self.add_state("targets", shape=(num_tasks, num_tasks))

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        cosines, norms = cosines_and_norms(tasks.gramian)
        targets = ops.convert_to_tensor(self.targets)
        reachable = ops.minimum(targets, _LARGEST_COSINE)
        cotangents = reachable / ops.sqrt(1.0 - reachable * reachable)
        known = ops.cast(norms > 0, "float32")

        def strength(projection, squared_length, met, cosines_met):
            length = ops.sqrt(ops.relu(squared_length))
            cosine = projection * reciprocal(length)
            across = ops.sqrt(ops.relu(1.0 - cosine * cosine))
            wanted = ops.sum(cotangents * met, axis=1)
            meets = known * matrix_vector(met, known)
            missing = ops.relu(length * (wanted * across - cosine))
            return meets * missing, cosines_met + (meets * cosine)[:, None] * met

        orders = self.orders(tasks.present)
        zeros = ops.zeros_like(cosines)
        coefficients, cosines_met = operate(cosines, orders, strength, zeros)
        pairs = known[None] * known[:, None]
        pairs = pairs * (1.0 - ops.eye(self.num_tasks, dtype="float32"))
        moved = targets + self.beta * pairs * (cosines_met - targets)
        state = [*self.next_state(tasks), (self.targets, moved)]
        return TaskUpdate(weights_of(coefficients, norms), state=state)

    def get_config(self):
        return {**super().get_config(), "beta": self.beta, "seed": self.seed}
