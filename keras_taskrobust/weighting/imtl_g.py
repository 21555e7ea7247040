"""IMTL-G: a direction that has the same projection on every gradient."""

from keras import ops

from keras_taskrobust.weighting.base import register
from keras_taskrobust.weighting.facts import MethodFacts
from keras_taskrobust.weighting.gramian import GramianWeighting
from keras_taskrobust.weighting.solvers import (
    cosines_and_norms,
    equal_projections,
    reciprocal,
)


@register("imtl_g")
class ImpartialGradient(GramianWeighting):
    """Equal projections onto all gradients (Liu et al. 2021, the gradient balance of IMTL).

    `w = v / sum(v)`, `v = pinv(G) n`, `n` the gradients' norms: `<g_k, d> / ||g_k||` is the same
    for all tasks. Weights may be negative. Solved as `v = pinv(C) 1 / n`, `C` the cosines, so that
    linearly dependent gradients and scales that lie apart are no matter. Where no direction is
    impartial (opposed gradients: `sum(v)` is 0), the step is zero, as in torchjd; a task whose
    gradient is zero has weight 0.

    The paper fixes `sum(w) = 1` and solves a linear system of `n - 1` equations, which is singular
    with dependent gradients; its direction is the same.

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

    def combine(self, tasks):
        cosines, norms = cosines_and_norms(tasks.gramian)
        shortest = ops.min(ops.where(norms > 0, norms, float("inf")))
        relative = ops.where(norms > 0, shortest * reciprocal(norms), 0.0)
        combination = equal_projections(cosines, norms) * relative
        total = ops.sum(combination)
        exists = ops.abs(total) > 1e-5 * ops.sum(ops.abs(combination))
        return ops.where(exists, combination / ops.where(exists, total, 1.0), 0.0)
