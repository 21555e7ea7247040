"""What the methods that weigh by the task gradients, or by their Gramian, share."""

from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate, TaskWeighting, mean_weights


class _GradientBased(TaskWeighting):
    """Base class of methods that `combine` the task gradients into one direction.

    Without gradients, as in evaluation, the weights are those of `weigh`: of the mean over the
    present tasks, unless a subclass says otherwise.
    """

    head_gradients = "own"

    def respond(self, tasks: TaskBatch, training: bool) -> TaskUpdate:
        if getattr(tasks, self.needs) is None:
            return super().respond(tasks, training)
        update = self.combine(tasks)
        if not isinstance(update, TaskUpdate):
            raise TypeError(
                f"{type(self).__name__} must return a TaskUpdate from `combine(self, tasks)`. "
                f"Received: {type(update).__name__}"
            )
        return update

    def weigh(self, tasks: TaskBatch) -> Tensor:
        return mean_weights(tasks)

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        """Returns weights, direction and new state for `tasks`, whose gradients are given."""
        raise TypeError(f"{type(self).__name__} must define `combine(self, tasks)`.")


class GramianWeighting(_GradientBased):
    """Base class of methods whose direction is a combination of the task gradients.

    A subclass defines `combine(tasks)`: a `TaskUpdate` with the weights `(K,)` of the gradients,
    from `tasks.gramian` `(K, K)`, in which the rows and columns of absent tasks are 0, and with the
    new state if it has any. Without a Gramian, as in evaluation, `weigh` serves: the weights of the
    mean over the present tasks, unless the subclass says otherwise.

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> class Normalised(GramianWeighting):
    ...     def combine(self, tasks: TaskBatch) -> TaskUpdate:
    ...         return TaskUpdate(1.0 / ops.sqrt(ops.diagonal(tasks.gramian)))
    >>> weights = Normalised().compute_weights(np.ones(2), gramian=np.diag([1.0, 4.0]))
    >>> np.asarray(weights).tolist()
    [1.0, 0.5]
    """

    needs = "gramian"


class GradientWeighting(_GradientBased):
    """Base class of methods that look at every element of the task gradients.

    A subclass defines `combine(tasks)`: a `TaskUpdate` from `tasks.gradients` `(K, P)`, in which
    the rows of absent tasks are 0. Without gradients, as in evaluation, `weigh` serves: the weights
    of the mean over the present tasks, unless the subclass says otherwise.
    """

    needs = "gradients"
