"""Equal weights: the paper's "None"."""

from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import TaskBatch, TaskWeighting, mean_weights
from keras_taskrobust.weighting.registry import register


@register("uniform")
class UniformWeighting(TaskWeighting):
    """The mean of the task losses: `w_k = 1 / (number of tasks present)`.

    This is "None" in the tables of Wang et al. (2023), which sum the losses; the mean keeps the
    objective's scale when tasks are absent, and the step's scale equal to that of `minimax`.

    Example:

    >>> import numpy as np
    >>> float(UniformWeighting()(np.array([1.0, 3.0])))
    2.0
    """

    facts = MethodFacts(
        'mean over the tasks present (the paper\'s "None")',
        needs_no_tuning=True,
        scale="same",
    )

    def weigh(self, tasks: TaskBatch) -> Tensor:
        return mean_weights(tasks)
