"""IMTL-G: a direction that has the same projection on every gradient."""

from keras import ops

from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._gradient_based import GramianWeighting
from keras_taskrobust.weighting._solvers import (
    apply_pseudo_inverse,
    cosines_and_norms,
    equal_projections,
    matrix_vector,
    reciprocal,
    relative_inverse,
)
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate
from keras_taskrobust.weighting.registry import register

_LARGEST_MISS = 1e-3


@register("imtl_g")
class ImpartialGradient(GramianWeighting):
    """Equal projections onto all gradients (Liu et al. 2021, the gradient balance of IMTL).

    `w = v / sum(v)`, `v = pinv(G) n`, `n` the gradients' norms: `<g_k, d> / ||g_k||` is the same
    for all tasks. Weights may be negative. Solved as `v = pinv(C) 1 / n`, `C` the cosines, which
    scales that lie apart do not disturb. Where no direction is impartial (dependent gradients, as a
    rule) `v = pinv(G) n` is the least-squares solution, as in torchjd, which may raise the losses
    of some tasks; where `sum(v)` is 0 (equal and opposed gradients), the step is zero. A task whose
    gradient is zero has weight 0.

    The paper fixes `sum(w) = 1` and solves a linear system of `n - 1` equations, which is singular
    with dependent gradients; with others its direction is the same.

    Example:

    >>> import numpy as np
    >>> weights = ImpartialGradient().compute_weights(np.ones(2), gramian=np.diag([1.0, 9.0]))
    >>> np.asarray(weights).round(4).tolist()
    [0.75, 0.25]

    Reference:
        [Towards Impartial Multi-task Learning](https://openreview.net/forum?id=IMPnRXEWpvr),
        ICLR 2021.
    """

    facts = MethodFacts(
        "equal projection on every gradient",
        "Liu et al. 2021",
        2021,
        balances_magnitudes=True,
        needs_no_tuning=True,
        cost="Gramian",
        nonnegative=False,
        scale="same",
    )

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        cosines, norms = cosines_and_norms(tasks.gramian)
        units = equal_projections(cosines, norms)
        misses = ops.where(norms > 0, ops.abs(matrix_vector(cosines, units) - 1.0), 0.0)
        combination = ops.where(
            ops.max(misses) < _LARGEST_MISS,
            units * relative_inverse(norms),
            _least_squares(cosines, norms),
        )
        total = ops.sum(combination)
        exists = ops.abs(total) > 1e-5 * ops.sum(ops.abs(combination))
        weights = ops.where(exists, combination / ops.where(exists, total, 1.0), 0.0)
        return TaskUpdate(weights)


def _least_squares(cosines, norms):
    """`pinv(G) n`, with the norms in units of the longest."""
    lengths = norms * reciprocal(ops.max(norms))
    gramian = cosines * lengths[None] * lengths[:, None]
    return apply_pseudo_inverse(gramian, lengths)
