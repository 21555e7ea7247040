"""What the methods that compare the mean losses of finished windows share."""

from keras import ops

from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting.base import StateUpdates, TaskBatch, TaskWeighting


class WindowedWeighting(TaskWeighting):
    """Base class of methods that compare mean losses over `window` training calls each.

    A task absent for a whole window keeps its mean.
    """

    window: int

    def create_state(self, num_tasks: int) -> None:
        self.step = self.add_state("step", shape=())
        self.total = self.add_state("total")
        self.appearances = self.add_state("appearances")
        self.last_mean = self.add_state("last_mean")

    def add_to_window(self, tasks: TaskBatch) -> tuple[Tensor, Tensor, StateUpdates]:
        """The window with this batch in it.

        Returns:
            `(K,)` float32 means; `(K,)` bool: whose mean it is that the window ends with; and
            `(variable, new value)` pairs.
        """
        step = self.step + 1.0
        total = self.total + tasks.losses
        appearances = self.appearances + ops.cast(tasks.present, "float32")
        closes = step >= self.window
        ends = closes & (appearances > 0)
        mean = total / ops.maximum(appearances, 1.0)
        return (
            mean,
            ends,
            [
                (self.step, ops.where(closes, 0.0, step)),
                (self.total, ops.where(closes, 0.0, total)),
                (self.appearances, ops.where(closes, 0.0, appearances)),
                (self.last_mean, ops.where(ends, mean, ops.convert_to_tensor(self.last_mean))),
            ],
        )
