"""ConFIG: equal cosines with every gradient, as long as the projections together."""

from keras import ops

from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._gradient_based import GramianWeighting
from keras_taskrobust.weighting._solvers import (
    cosines_and_norms,
    equal_projections,
    matrix_vector,
    reciprocal,
)
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate
from keras_taskrobust.weighting.registry import register


@register("config")
class ConFIG(GramianWeighting):
    """Conflict-free inverse gradients (Liu et al. 2024, eq. 2).

    The unit vector `u` with equal cosines with all gradients, `u = pinv(U) 1 / ||pinv(U) 1||`, `U`
    the gradients at unit length, times `sum_k <g_k, u>`. The direction is IMTL-G's, its length is
    that of the sum's projection; weights may be negative. A gradient that is zero is left out; for
    opposed gradients the direction is that of least squares, and the length goes to zero.

    Example:

    >>> import numpy as np
    >>> weights = ConFIG().compute_weights(np.ones(2), gramian=np.diag([1.0, 9.0]))
    >>> print(np.asarray(weights).round(4))
    [2.     0.6667]

    Reference:
        [ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks]
        (https://arxiv.org/abs/2408.11104), ICLR 2025.
    """

    facts = MethodFacts(
        "equal cosine with every gradient",
        "Liu et al. 2024",
        2024,
        balances_magnitudes=True,
        needs_no_tuning=True,
        cost="Gramian",
        total="free",
        nonnegative=False,
        scale="same",
    )

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        cosines, norms = cosines_and_norms(tasks.gramian)
        combination = equal_projections(cosines, norms)
        projections = matrix_vector(cosines, combination)
        squared_length = ops.sum(combination * projections)
        exists = squared_length > 1e-5 * ops.sum(combination * combination)
        factor = ops.sum(norms * projections) / ops.where(exists, squared_length, 1.0)
        return TaskUpdate(ops.where(exists, factor, 0.0) * combination * reciprocal(norms))
