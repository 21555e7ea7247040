"""MGDA: the shortest convex combination of the gradients."""

from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._gradient_based import GramianWeighting
from keras_taskrobust.weighting._solvers import cosines_and_norms, min_norm_weights
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate
from keras_taskrobust.weighting.registry import register

NORMALISATIONS = ("none", "l2", "loss", "loss+")


@register("mgda")
class MGDA(GramianWeighting):
    """Multiple-gradient descent: `argmin_w ||sum_k w_k g_k / s_k||` over the simplex.

    The direction lowers every loss equally fast, and is zero where none can fall without another
    rising. `s_k` by `normalisation`: 1 ("none"), `||g_k||` ("l2"), `L_k` ("loss"), `L_k ||g_k||`
    ("loss+").

    Solved exactly, where torchjd stops Frank-Wolfe iterations at a change of 1e-3 or after 100, and
    the official code and LibMTL stop projected steps at 1e-5 or after 250 and leave the longer of
    two gradients a weight of 0.001 where its own is 0. The weights of the normalised gradients are
    applied to the losses as they are, as in the official code
    (`isl-org/MultiObjectiveOptimization`); LibMTL applies them to the normalised gradients. A task
    whose gradient is zero takes all the weight, and the step is zero: no direction lowers it. A
    loss that is not positive does not normalise.

    Args:
        normalisation: "none", "l2", "loss" or "loss+". "none" is LibMTL's default; the authors use
            "loss+" for CelebA and MultiMNIST.

    Example:

    >>> import numpy as np
    >>> gramian = np.diag([1.0, 3.0])
    >>> weights = MGDA().compute_weights(np.array([1.0, 1.0]), gramian=gramian)
    >>> np.asarray(weights).round(4).tolist()
    [0.75, 0.25]

    Reference:
        Desideri, Multiple-gradient descent algorithm, 2012;
        [Multi-Task Learning as Multi-Objective Optimization](https://arxiv.org/abs/1810.04650),
        NeurIPS 2018.
    """

    facts = MethodFacts(
        "shortest convex combination of the gradients",
        "Sener and Koltun 2018",
        2018,
        balances_magnitudes=True,
        balances_learning=True,
        needs_no_tuning=True,
        cost="Gramian",
        scale="same",
    )

    def __init__(self, normalisation: str = "none", **kwargs: Any):
        super().__init__(**kwargs)
        self.normalisation = checks.choice("normalisation", normalisation, NORMALISATIONS)

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        gramian = tasks.gramian
        if self.normalisation in ("l2", "loss+"):
            gramian, _ = cosines_and_norms(gramian)
        if self.normalisation in ("loss", "loss+"):
            losses = ops.where(tasks.losses > 0, tasks.losses, 1.0)
            gramian = gramian / losses[None] / losses[:, None]
        return TaskUpdate(min_norm_weights(gramian, tasks.present))

    def get_config(self):
        return {**super().get_config(), "normalisation": self.normalisation}
