"""UPGrad: the mean of the gradients, each freed of its conflicts first."""

from keras import ops

from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._gradient_based import GramianWeighting
from keras_taskrobust.weighting._solvers import dual_cone_weights
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate, mean_weights
from keras_taskrobust.weighting.registry import register


@register("upgrad")
class UPGrad(GramianWeighting):
    """Mean of the projections of each gradient onto the dual cone of all (Quinton and Rey 2024).

    `w = sum_i v_i / n`, `v_i = argmin_v v' G v` over `v >= e_i`: `sum_k v_ik g_k` is the nearest
    direction to `g_i` that conflicts with no task. No loss rises to first order, and a task's
    gradient counts in proportion to its length.

    The `n` problems are solved at once on the device, for the cosines with 1e-6 added to their
    diagonal; torchjd solves one after the other with quadprog on the CPU, for `G / trace(G)` with
    1e-4 added.

    Example:

    >>> import numpy as np
    >>> gramian = np.array([[1.0, -0.5], [-0.5, 1.0]])
    >>> weights = UPGrad().compute_weights(np.array([1.0, 1.0]), gramian=gramian)
    >>> np.asarray(weights).round(4).tolist()
    [0.75, 0.75]

    Reference:
        [Jacobian Descent for Multi-Objective Optimization](https://arxiv.org/abs/2406.16232), 2024.
    """

    facts = MethodFacts(
        "mean of the gradients, each projected off its conflicts",
        "Quinton and Rey 2024",
        2024,
        needs_no_tuning=True,
        cost="Gramian",
        total="free",
        scale="same",
    )

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        mean = mean_weights(tasks)
        combinations = mean[:, None] * ops.eye(self.num_tasks, dtype="float32")
        return TaskUpdate(ops.sum(dual_cone_weights(tasks.gramian, combinations), axis=0))
