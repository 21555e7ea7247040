"""What the methods that need the task gradients elementwise share."""

from keras_taskrobust.weighting._uniform import mean_weights
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate, TaskWeighting


class GradientWeighting(TaskWeighting):
    """Base class of methods that look at every element of the task gradients.

    A subclass defines `combine(tasks)`, from `tasks.gradients` `(K, P)`, in which the rows of
    absent tasks are 0. Without gradients, as in evaluation, `weigh` serves: the weights of the mean
    over the present tasks, unless the subclass says otherwise.
    """

    needs = "gradients"
    head_gradients = "own"

    def respond(self, tasks, training):
        if tasks.gradients is None:
            return super().respond(tasks, training)
        return self.combine(tasks)

    def weigh(self, tasks):
        return mean_weights(tasks)

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        """Returns weights, direction and new state for `tasks`, whose gradients are given."""
        raise TypeError(f"{type(self).__name__} must define `combine(self, tasks)`.")
