"""GradDrop: every gradient element keeps one sign, drawn by how much the tasks agree on it."""

from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._gradient_based import GradientWeighting
from keras_taskrobust.weighting._random import advanced, uniform
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate
from keras_taskrobust.weighting.registry import register


@register("graddrop")
class GradDrop(GradientWeighting):
    """Gradient sign dropout (Chen et al. 2020, algorithm 1).

    For each element, the sign purity `p = (1 + sum_k g_k / sum_k |g_k|) / 2` is the probability
    that the positive entries are kept and the negative ones dropped; otherwise it is the other way
    round. The direction is the sum of `leak g_k + (1 - leak) kept g_k`; its mean over the draws is
    not the sum of the gradients: where tasks disagree, elements are smaller. The weights of the
    losses are 1.

    Applied to the gradients as they are, wherever `gradients_at` takes them, as in torchjd; the
    paper and LibMTL apply it at the representation, and there multiply the gradients by the
    representation's sign and add them over the batch before they draw. The draws come from a hash
    of (seed, number of training calls, element).

    Args:
        leak: float of at least 0 and less than 1, the share of each gradient that always passes.
            0.0 as in LibMTL; the paper also has one for each task.
        seed: int, of the draws.

    Example:

    >>> import numpy as np
    >>> gradients = np.array([[1.0, 2.0, -1.0], [3.0, 1.0, -2.0]])
    >>> layer = GradDrop()
    >>> _, update = layer(np.ones(2), gradients=gradients, return_update=True)
    >>> np.asarray(update.direction).tolist()
    [4.0, 3.0, -3.0]

    Reference:
        [Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout]
        (https://arxiv.org/abs/2010.06808), NeurIPS 2020.
    """

    facts = MethodFacts(
        "one sign kept for every gradient element, drawn by agreement",
        "Chen et al. 2020",
        2020,
        needs_no_tuning=True,
        cost="gradients",
        total="number",
        scale="same",
    )

    def __init__(self, leak: float = 0.0, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.leak = checks.share("leak", leak)
        self.seed = checks.integer("seed", seed, least=0)

    def create_state(self, num_tasks: int) -> None:
        self.step = self.add_state("step", shape=())

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        step = ops.convert_to_tensor(self.step)
        total = ops.sum(tasks.gradients, axis=0)
        size = ops.sum(ops.abs(tasks.gradients), axis=0)
        purity = 0.5 * (1.0 + total / ops.where(size > 0, size, 1.0))
        elements = ops.arange(ops.shape(total)[0], dtype="int32")
        keeps_positive = purity > uniform(self.seed, step, elements)
        kept = 0.5 * ops.where(keeps_positive, total + size, total - size)
        return TaskUpdate(
            ops.ones_like(tasks.losses),
            direction=self.leak * total + (1.0 - self.leak) * kept,
            state=[(self.step, advanced(step))],
        )

    def get_config(self):
        return {**super().get_config(), "leak": self.leak, "seed": self.seed}
