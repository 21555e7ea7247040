"""Random weights at every step."""

from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._random import advanced, normal
from keras_taskrobust.weighting.base import StateUpdates, TaskBatch, TaskWeighting, masked_softmax
from keras_taskrobust.weighting.registry import register


@register("rlw")
class RandomLossWeighting(TaskWeighting):
    """Random loss weighting: `w = softmax(z)`, `z` standard normal, drawn anew at every call.

    A baseline that a method should beat. In expectation it is the mean of the losses; the noise
    of the weights adds to the noise of the batch.

    The numbers come from a hash of (seed, number of training calls, task): no global generator is
    read or seeded, a saved layer draws on where it stopped, and all backends draw the same.
    Args:
        seed: int.

    Example:

    >>> import numpy as np
    >>> weights = RandomLossWeighting(seed=1).compute_weights(np.array([1.0, 3.0]))
    >>> round(float(np.asarray(weights).sum()), 6)
    1.0

    Reference:
        [Reasonable Effectiveness of Random Weighting](https://arxiv.org/abs/2111.10603), TMLR 2022.
    """

    facts = MethodFacts(
        "random weights at every step",
        "Lin et al. 2022",
        2022,
        needs_no_tuning=True,
        scale="same",
    )

    def __init__(self, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = checks.integer("seed", seed, least=0)

    def create_state(self, num_tasks: int) -> None:
        self.step = self.add_state("step", shape=())
        self.stream = self.add_state("stream", lambda shape, dtype: ops.arange(*shape, dtype=dtype))

    def weigh(self, tasks: TaskBatch) -> Tensor:
        stream = ops.convert_to_tensor(self.stream)
        drawn = normal(self.seed, ops.convert_to_tensor(self.step), stream)
        return masked_softmax(drawn, tasks.present)

    def next_state(self, tasks: TaskBatch) -> StateUpdates:
        return [(self.step, advanced(ops.convert_to_tensor(self.step)))]

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}
