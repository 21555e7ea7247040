"""Weights that never change."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import TaskBatch, TaskWeighting
from keras_taskrobust.weighting.registry import register


@register("static")
class StaticWeighting(TaskWeighting):
    """Given weights: `w_k = weights[k]`, whatever the losses; an absent task has weight 0.

    Without weights it is the plain sum of the losses, as in most multi-task code.

    Args:
        weights: `K` numbers >= 0, in the order of the model's `task_names`, or `None` for 1 each.

    Example:

    >>> import numpy as np
    >>> float(StaticWeighting([1.0, 0.5])(np.array([1.0, 3.0])))
    2.5
    """

    facts = MethodFacts("given weights; the plain sum", total="free", scale="same")

    def __init__(self, weights: Sequence[float] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if isinstance(weights, Mapping):
            raise ValueError(
                "`weights` must be a list of numbers, in the order of the model's `task_names`. "
                f"Received: weights={weights}"
            )
        # A layer's own `weights` are its variables.
        self.task_weights = checks.finite_floats("weights", weights)
        if self.task_weights is not None and min(self.task_weights, default=0.0) < 0:
            raise ValueError(f"`weights` must be numbers >= 0. Received: weights={weights}")

    def create_state(self, num_tasks: int) -> None:
        checks.one_per_task("weights", self.task_weights, num_tasks)

    def weigh(self, tasks: TaskBatch) -> Tensor:
        if self.task_weights is None:
            return ops.cast(tasks.present, "float32")
        return ops.convert_to_tensor(self.task_weights, dtype="float32")

    def get_config(self):
        return {**super().get_config(), "weights": self.task_weights}
