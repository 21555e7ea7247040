"""Minimax for losses of different kinds."""

from typing import Any

from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._minimax import MEASURE, SoftmaxWeightedLoss
from keras_taskrobust.weighting.registry import register


@register("scale_free_minimax")
class ScaleFreeMinimax(SoftmaxWeightedLoss):
    """Minimises the largest `L_k / T_k`, `T` the loss of the best constant prediction, smoothly.

    `SoftmaxWeightedLoss` with `unit_free=True`, `alpha=10` and `trivial_losses="measure"`: the
    weights are `softmax(alpha * L / T) / T`. A loss in other units, or times a constant, gives the
    same steps. The scores lie near [0, 1] whatever the losses, so that one `alpha` serves all.

    Args:
        alpha: as in `SoftmaxWeightedLoss`.
        trivial_losses: as in `SoftmaxWeightedLoss`.
        unit_free: as in `SoftmaxWeightedLoss`.
        **kwargs: the other options of `SoftmaxWeightedLoss`.

    Example:

    >>> import numpy as np
    >>> layer = ScaleFreeMinimax(alpha=np.log(9.0))
    >>> T, L = np.array([2.0, 0.5]), np.array([1.0, 0.5])
    >>> np.asarray(layer.compute_weights(L, trivial_losses=T)).round(4).tolist()
    [0.125, 1.5]

    Reference:
        ours, after [Task-Robust Pre-Training for Worst-Case Downstream Adaptation]
        (https://arxiv.org/abs/2306.12070), NeurIPS 2023.
    """

    facts = MethodFacts(
        "`softmax(alpha * L / T) / T`, `T` the loss of the best constant prediction",
        "ours, after Wang et al. 2023",
        2023,
        balances_learning=True,
    )

    def __init__(
        self,
        alpha: Any = 10.0,
        trivial_losses: Any = MEASURE,
        unit_free: bool = True,
        **kwargs: Any,
    ):
        super().__init__(alpha=alpha, trivial_losses=trivial_losses, unit_free=unit_free, **kwargs)
