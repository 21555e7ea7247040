"""The mean over all elements, whatever task they belong to."""

from keras import ops

from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import TaskBatch, TaskWeighting
from keras_taskrobust.weighting.registry import register


@register("pooled")
class PooledWeighting(TaskWeighting):
    """The mean loss over all elements: `w_k = counts_k / sum_i counts_i`.

    With a `GroupedLoss` this is the loss one would have without tasks (plain BERT's masked
    language modelling, for example): frequent tasks weigh more. Without counts it is the mean of
    the task losses.

    Example:

    >>> import numpy as np
    >>> float(PooledWeighting()(np.array([1.0, 3.0]), counts=np.array([3, 1])))
    1.5
    """

    facts = MethodFacts(
        "mean over all elements: no tasks",
        needs_no_tuning=True,
        scale="same",
    )

    def weigh(self, tasks: TaskBatch) -> Tensor:
        total = ops.sum(tasks.counts)
        return tasks.counts / ops.where(total > 0, total, 1.0)
