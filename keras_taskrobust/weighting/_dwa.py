"""Dynamic weight average: more weight for tasks whose loss falls slowly."""

from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._windows import WindowedWeighting
from keras_taskrobust.weighting.base import StateUpdates, TaskBatch, masked_softmax
from keras_taskrobust.weighting.registry import register


@register("dwa")
class DynamicWeightAverage(WindowedWeighting):
    """Weights by the relative rate of descent (Liu et al. 2019, eq. 7).

    `w = K * softmax(r / temperature)`, `r_k = L_k(t - 1) / L_k(t - 2)`, with the mean losses of
    the last two finished windows; every `w_k` is 1 until there are two. `K` counts the tasks
    present in the batch.

    The paper's window is an epoch, as is its official code's: pass `window=steps_per_epoch` for
    that. A task absent for a whole window keeps its two means.

    Args:
        temperature: positive float. Larger is more even. 2.0 is the paper's.
        window: int >= 1. Training calls whose losses are averaged.

    Example:

    >>> import numpy as np
    >>> layer = DynamicWeightAverage()
    >>> for losses in ([1.0, 1.0], [1.0, 0.5]):
    ...     _ = layer(np.array(losses))
    >>> print(np.asarray(layer.compute_weights(np.array([1.0, 0.5]))).round(4))
    [1.1244 0.8756]

    Reference:
        [End-to-End Multi-Task Learning with Attention](https://arxiv.org/abs/1803.10704).
    """

    facts = MethodFacts(
        "more weight where the loss falls slowly",
        "Liu et al. 2019",
        2019,
        balances_learning=True,
        total="number",
        scale="same",
    )

    def __init__(self, temperature: float = 2.0, window: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.temperature = checks.positive("temperature", temperature)
        self.window = checks.integer("window", window, least=1)

    def create_state(self, num_tasks: int) -> None:
        super().create_state(num_tasks)
        self.mean_before = self.add_state("mean_before")

    def weigh(self, tasks: TaskBatch) -> Tensor:
        last, before = map(ops.convert_to_tensor, (self.last_mean, self.mean_before))
        ratio = ops.where(before > 0, last / ops.where(before > 0, before, 1.0), 1.0)
        number = ops.sum(ops.cast(tasks.present, "float32"))
        return number * masked_softmax(ratio, tasks.present, scale=1.0 / self.temperature)

    def next_state(self, tasks: TaskBatch) -> StateUpdates:
        last, before = map(ops.convert_to_tensor, (self.last_mean, self.mean_before))
        _, ends, state = self.add_to_window(tasks)
        return [*state, (self.mean_before, ops.where(ends, last, before))]

    def get_config(self):
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "window": self.window,
        }
