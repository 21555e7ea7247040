"""The one base class of all weightings."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

import keras
from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._masks import (
    check_shape,
    masked_gradients,
    masked_gramian,
    masked_weights,
    squared_norms,
)

PACKAGE = "keras_taskrobust"

#: `(variable, new value)` pairs, assigned after a training call.
StateUpdates: TypeAlias = Sequence[tuple[keras.Variable, Tensor]]


class TaskBatch(NamedTuple):
    """What a weighting sees of one batch. Absent tasks and non-finite losses are already masked.

    Attributes:
        losses: `(K,)` float32, 0 where `present` is False. No gradient flows through it.
        present: `(K,)` bool. The tasks with elements in this batch, a finite loss and, where they
            are given, finite gradients.
        counts: `(K,)` float32. Elements (tokens, samples) behind each loss, 0 where absent.
        gramian: `(K, K)` float32 inner products of the task gradients, or `None`.
        gradients: `(K, P)` float32 task gradients, or `None`.
        trivial_losses: `(K,)` float32, the losses of the best constant predictions, NaN where they
            are not known; or `None`.
    """

    losses: Tensor
    present: Tensor
    counts: Tensor
    gramian: Tensor
    gradients: Tensor = None
    trivial_losses: Tensor = None


class TaskUpdate(NamedTuple):
    """What a weighting makes of one batch.

    Attributes:
        weights: `(K,)` float32, the weights of the losses in the objective.
        own_weights: `(K,)` float32, the weights of the gradients of what belongs to one task alone,
            where a model does not weigh them by `weights` (`compile(head_gradients="own")`); `None`
            from a method: 1 for each present task.
        direction: `(P,)` float32, what takes the place of `sum_k w_k g_k` in the update, or `None`.
        state: `(variable, new value)` pairs, assigned after a training call.
    """

    weights: Tensor
    own_weights: Tensor | None = None
    direction: Tensor | None = None
    state: StateUpdates = ()


class TaskWeighting(keras.layers.Layer):
    """Turns K task losses into one objective. Base class of every weighting.

    The objective is `sum_k stop_gradient(w_k) * L_k + regulariser`, over the tasks present in the
    batch. A subclass says what the weights are, in `weigh`; a method with state also says what the
    state becomes, in `next_state`; a method with trainable variables adds the term that trains
    them, in `regulariser`. All three are pure functions written in `keras.ops`, so that one
    implementation serves TensorFlow, JAX and PyTorch, compiled or not. Everything is float32,
    whatever the dtype policy.

    A task whose count is 0 has weight 0, and no say in the weights of others or in any state.
    A non-finite loss makes the objective non-finite, but never enters the state; nor does a
    gradient that is not finite.

    Args:
        learning_rate: float or `None`. Learning rate of this layer's trainable variables.
            `None`: the model's own.
        **kwargs: `keras.layers.Layer` arguments, such as `name`.

    Call arguments:
        losses: `(K,)` task losses.
        counts: `(K,)` elements behind each loss. `None`: all tasks are present, equally.
        gramian: `(K, K)` inner products of the task gradients, for methods that need them.
        training: bool. State moves only if it is True.
        return_weights: bool. If True, return `(objective, weights)`.
        gradients: `(K, P)` task gradients, for methods that need them elementwise.
        return_update: bool. If True, return `(objective, TaskUpdate)`.
        trivial_losses: `(K,)` losses of the best constant predictions, for methods that need them.

    Returns:
        The scalar objective, float32; with `return_weights`, also the `(K,)` weights used; with
        `return_update`, also the `TaskUpdate`.

    Example:

    >>> import numpy as np
    >>> class InverseLoss(TaskWeighting):
    ...     def weigh(self, tasks):
    ...         return 1.0 / (tasks.losses + 1.0)
    >>> layer = InverseLoss()
    >>> objective, weights = layer(np.array([1.0, 3.0]), return_weights=True)
    >>> np.asarray(weights).tolist(), float(objective)
    ([0.5, 0.25], 1.25)
    """

    #: What the method weighs by: "losses", "gramian" (K, K), or "gradients" (K, P).
    needs: ClassVar[str] = "losses"

    #: Where a model takes the gradients, and what the weights of one task alone get, unless
    #: `compile` says otherwise; see `MinimaxModel.compile`.
    gradients_at: ClassVar[str] = "shared"
    head_gradients: ClassVar[str] = "weighted"

    #: Whether the state has an entry for every gradient element: `build` takes `(K, P)` then.
    keeps_gradients: ClassVar[bool] = False

    #: Whether `call` needs the losses of the best constant predictions. A model measures them then.
    needs_trivial_losses: bool = False

    #: What is known of the method, for the table of methods and the property tests.
    facts: MethodFacts | None = None

    def __init__(self, learning_rate: float | None = None, **kwargs: Any):
        if learning_rate is not None and not checks.is_positive(learning_rate):
            raise ValueError(
                "`learning_rate` must be a positive number or None. "
                f"Received: learning_rate={learning_rate}"
            )
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.learning_rate = None if learning_rate is None else float(learning_rate)
        self.num_tasks: int | None = None
        self.num_gradient_elements: int | None = None

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Creates the state for `K` tasks.

        Args:
            input_shape: `(K,)`; `(K, P)`, the shape of the gradients, for a method whose state has
                an entry for every gradient element.
        """
        if self.keeps_gradients and len(input_shape) == 2:
            self._keep_gradient_elements(int(input_shape[1]))
            input_shape = input_shape[:1]
        if len(input_shape) != 1 or not input_shape[0]:
            raise ValueError(
                "A weighting is built for the shape (K,) of K >= 1 task losses. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        num_tasks = int(input_shape[0])
        if self.num_tasks not in (None, num_tasks):
            raise ValueError(
                f"{type(self).__name__} {self.name!r} was built for {self.num_tasks} tasks and "
                f"cannot be used for another number. Received: {num_tasks} tasks"
            )
        if self.num_tasks is None:
            self.num_tasks = num_tasks
            self.create_state(num_tasks)

    def create_state(self, num_tasks: int) -> None:
        """Creates the variables of a method that has any. Called once, by `build`."""

    def weigh(self, tasks: TaskBatch) -> Tensor:
        """Returns the weights `(K,)` for this batch. The base class zeroes absent tasks."""
        raise TypeError(f"{type(self).__name__} must define `weigh(self, tasks)`.")

    def next_state(self, tasks: TaskBatch) -> StateUpdates:
        """Returns `(variable, new value)` pairs, assigned after a training call."""
        return []

    def regulariser(self, tasks: TaskBatch) -> Tensor:
        """Returns a scalar added to the objective, through which trainable variables learn."""
        return 0.0

    def respond(self, tasks: TaskBatch, training: bool) -> TaskUpdate:
        """Returns all that follows from a batch: `weigh` and, in training, `next_state`.

        A method whose weights, direction and state come out of one computation overrides this.
        """
        state = self.next_state(tasks) if training else ()
        return TaskUpdate(self.weigh(tasks), state=state)

    def weights_of_batch(self, tasks: TaskBatch) -> Tensor:
        """The weights `(K,)` of the next training call with this batch; no state changes."""
        return masked_weights(self.respond(tasks, training=False).weights, tasks)

    def call(
        self,
        losses: Tensor,
        counts: Tensor | None = None,
        gramian: Tensor | None = None,
        training: bool = True,
        return_weights: bool = False,
        gradients: Tensor | None = None,
        return_update: bool = False,
        trivial_losses: Tensor | None = None,
    ) -> Any:
        tasks, masked_losses = self._inspect(losses, counts, gramian, gradients, trivial_losses)
        update = self.respond(tasks, training)
        update = update._replace(weights=masked_weights(update.weights, tasks))
        objective = ops.sum(update.weights * masked_losses) + self.regulariser(tasks)
        if training:
            for variable, value in update.state:
                variable.assign(ops.stop_gradient(value))
        if return_update:
            own = ops.ones_like(tasks.losses) if update.own_weights is None else update.own_weights
            return objective, update._replace(own_weights=masked_weights(own, tasks), state=())
        return (objective, update.weights) if return_weights else objective

    def compute_weights(
        self,
        losses: Tensor,
        counts: Tensor | None = None,
        gramian: Tensor | None = None,
        gradients: Tensor | None = None,
        trivial_losses: Tensor | None = None,
    ) -> Tensor:
        """The weights the next training call with these arguments would use; no state changes.

        Args:
            losses: `(K,)` task losses.
            counts: `(K,)` elements behind each loss, or `None`.
            gramian: `(K, K)` inner products of the task gradients, or `None`.
            gradients: `(K, P)` task gradients, or `None`.
            trivial_losses: `(K,)` losses of the best constant predictions, or `None`.

        Returns:
            `(K,)` float32: the derivative of the objective by the losses.
        """
        losses = ops.convert_to_tensor(losses, dtype="float32")
        if not self.built:
            by_element = gradients if self.keeps_gradients else None
            self.build(losses.shape if by_element is None else by_element.shape)
        tasks, _ = self._inspect(losses, counts, gramian, gradients, trivial_losses)
        return self.weights_of_batch(tasks)

    def check_trivial_losses(self, losses: Mapping[str, float]) -> None:
        """Refuses losses of the best constant predictions that the method cannot work with.

        Args:
            losses: dict of the K task names, in order, to them.

        Raises:
            ValueError: if there is one.
        """

    def add_state(
        self, name: str, initializer: Any = "zeros", shape: tuple[int, ...] | None = None
    ) -> keras.Variable:
        """Adds a non-trainable float32 variable, `(K,)` unless `shape` says otherwise."""
        return self.add_weight(
            name=name,
            shape=(self.num_tasks,) if shape is None else shape,
            initializer=initializer,
            trainable=False,
            # Every replica computes the same value from the global losses.
            aggregation="only_first_replica",
        )

    def get_config(self):
        config = super().get_config()
        del config["dtype"]
        return {**config, "learning_rate": self.learning_rate}

    def _keep_gradient_elements(self, number):
        if self.num_tasks is not None and self.num_gradient_elements != number:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} was built for "
                f"{self.num_gradient_elements} gradient elements and cannot be used for another "
                f"number. Received: {number} gradient elements"
            )
        self.num_gradient_elements = number

    def _inspect(self, losses, counts, gramian, gradients=None, trivial_losses=None):
        losses = ops.cast(losses, "float32")
        counts = ops.ones_like(losses) if counts is None else ops.cast(counts, "float32")
        check_shape("losses", losses, (self.num_tasks,))
        check_shape("counts", counts, (self.num_tasks,))
        if gramian is not None:
            gramian = ops.cast(gramian, "float32")
            check_shape("gramian", gramian, (self.num_tasks, self.num_tasks))
        if gradients is not None:
            gradients = ops.cast(gradients, "float32")
            self._check_gradients(gradients)
        if trivial_losses is not None:
            trivial_losses = ops.stop_gradient(ops.cast(trivial_losses, "float32"))
            check_shape("trivial_losses", trivial_losses, (self.num_tasks,))
        elif self.needs_trivial_losses:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} needs the losses of the best constant "
                "predictions: give it `trivial_losses`, one for each task, or let a MinimaxModel "
                "measure them. Received: trivial_losses=None"
            )
        occurs = counts > 0
        masked_losses = ops.where(occurs, losses, 0.0)
        present = occurs & ops.isfinite(losses)
        for figures in squared_norms(gramian, gradients):
            present = present & ops.isfinite(figures)
        tasks = TaskBatch(
            losses=ops.stop_gradient(ops.where(present, losses, 0.0)),
            present=present,
            counts=ops.where(present, counts, 0.0),
            gramian=None if gramian is None else masked_gramian(gramian, present),
            gradients=None if gradients is None else masked_gradients(gradients, present),
            trivial_losses=trivial_losses,
        )
        return tasks, masked_losses

    def _check_gradients(self, gradients):
        elements = self.num_gradient_elements
        if self.keeps_gradients and elements is None:
            raise ValueError(
                f"{type(self).__name__} keeps a state for every gradient element: call "
                f"`build((K, P))` before its first use. Received: gradients of shape "
                f"{tuple(gradients.shape)}, for a layer built for the shape ({self.num_tasks},)"
            )
        expected = elements if self.keeps_gradients else gradients.shape[-1]
        check_shape("gradients", gradients, (self.num_tasks, expected))


def mean_weights(tasks: TaskBatch) -> Tensor:
    """`(K,)`: 1 / (number of tasks present) for each present task."""
    present = ops.cast(tasks.present, "float32")
    return present / ops.maximum(ops.sum(present), 1.0)


def masked_mean(values: Tensor, present: Tensor) -> Tensor:
    """The mean of `values` `(K,)` over the present tasks; 0 if there is none.

    Args:
        values: `(K,)` float32.
        present: `(K,)` bool.

    Returns:
        float32 scalar.
    """
    number = ops.sum(ops.cast(present, "float32"))
    return ops.sum(ops.where(present, values, 0.0)) / ops.maximum(number, 1.0)


def masked_softmax(values: Tensor, present: Tensor, scale: Tensor = 1.0) -> Tensor:
    """`softmax(scale * values)` over the present tasks, exact for any finite scale.

    The maximum is taken off before scaling, so that a large `scale` costs no precision.

    Args:
        values: `(K,)` float32.
        present: `(K,)` bool.
        scale: positive scalar.

    Returns:
        `(K,)` float32 on the simplex of the present tasks; zeros if there is none.
    """
    values = ops.where(present, values, -float("inf"))
    largest = ops.maximum(ops.max(values), -checks.LARGEST_FLOAT32)
    exponentials = ops.exp(scale * (values - largest))
    # At least 1, the largest value's own, unless no task is present.
    return exponentials / ops.maximum(ops.sum(exponentials), 1.0)


def gradient_only(value: Tensor) -> Tensor:
    """A term for the objective that is 0, and has the gradient of `value`."""
    return value - ops.stop_gradient(value)


def moving_average(
    average: Tensor, seen: Tensor, values: Tensor, present: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """One step of K moving averages, each of which starts at its task's first value.

    Args:
        average: `(K,)` float32, the averages so far.
        seen: `(K,)` float32, 1 for a task that has an average.
        values: `(K,)` float32, the new values.
        present: `(K,)` bool. An absent task's average stays.
        momentum: float in [0, 1), the share of the old average.

    Returns:
        The new `average` and `seen`.
    """
    average, seen = ops.convert_to_tensor(average), ops.convert_to_tensor(seen)
    blended = ops.where(seen > 0, momentum * average + (1.0 - momentum) * values, values)
    return ops.where(present, blended, average), ops.where(present, 1.0, seen)
