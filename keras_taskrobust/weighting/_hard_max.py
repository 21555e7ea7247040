"""All weight on the worst task of the batch."""

from keras import ops

from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import TaskBatch, TaskWeighting
from keras_taskrobust.weighting.registry import register


@register("hard_max")
class HardMaximum(TaskWeighting):
    """The largest task loss: `w = 1` for the worst task, shared equally between exact ties.

    The limit of `SoftmaxWeightedLoss` for `alpha -> infinity`, and the other reading of Wang et
    al. (2023), who also say once that "the loss term with the highest weight is selected".

    Example:

    >>> import numpy as np
    >>> float(HardMaximum()(np.array([1.0, 3.0])))
    3.0
    """

    facts = MethodFacts(
        "all weight on the worst task",
        "Wang et al. 2023",
        2023,
        balances_learning=True,
        needs_no_tuning=True,
        scale="same",
    )

    def weigh(self, tasks: TaskBatch) -> Tensor:
        return worst_tasks(tasks)


def worst_tasks(tasks):
    """`(K,)`: 1 for the present task of the largest loss, shared equally between exact ties."""
    largest = ops.max(ops.where(tasks.present, tasks.losses, -float("inf")))
    worst = tasks.present & (tasks.losses == largest)
    worst = ops.cast(worst, "float32")
    return worst / ops.maximum(ops.sum(worst), 1.0)
