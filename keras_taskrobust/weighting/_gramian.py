"""What the methods that weigh by the Gramian of the task gradients share."""

from keras_taskrobust.weighting._uniform import mean_weights
from keras_taskrobust.weighting.base import TaskWeighting


class GramianWeighting(TaskWeighting):
    """Base class of methods whose direction is a combination of the task gradients.

    A subclass defines `combine(tasks)`: the weights `(K,)` of the gradients in the update, from
    `tasks.gramian` `(K, K)`, in which the rows and columns of absent tasks are 0. Without a
    Gramian, as in evaluation, the weights are those of the mean over the present tasks. Where the
    new state comes out of the same computation as the weights, it defines `respond` instead.
    """

    needs = "gramian"
    head_gradients = "own"

    def weigh(self, tasks):
        if tasks.gramian is None:
            return mean_weights(tasks)
        return self.combine(tasks)

    def combine(self, tasks):
        """Returns the weights `(K,)` for `tasks`, whose Gramian is given."""
        raise TypeError(f"{type(self).__name__} must define `combine(self, tasks)`.")
