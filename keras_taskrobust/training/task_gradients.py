"""What a gradient step makes of the task gradients."""

import math
from collections.abc import Callable

import keras
from keras import ops

from keras_taskrobust.training.backends import backend
from keras_taskrobust.training.gradient_metric import GradientMetric
from keras_taskrobust.training.gradients import GradientPlan, GradientSettings, named_variables
from keras_taskrobust.training.tasks import Tasks
from keras_taskrobust.weighting.base import TaskWeighting


class TaskGradients:
    """The tasks' gradients of one compiled model: where they are taken, and their combination.

    Args:
        network: the network.
        task_losses: `Tasks`.
        weighting: the `TaskWeighting`.
        settings: `GradientSettings`.

    Attributes:
        metric: the `GradientMetric`, or `None` without diagnostics.
        is_stock_step: bool. Whether Keras's own step on the weighted objective does it all.
    """

    def __init__(
        self,
        network: keras.Model,
        task_losses: Tasks,
        weighting: TaskWeighting,
        settings: GradientSettings,
    ):
        self._network = network
        self._task_losses = task_losses
        self._weighting = weighting
        self._settings = settings
        self._plan: GradientPlan | None = None
        self.metric = GradientMetric(task_losses.task_names) if settings.diagnostics else None
        self.is_stock_step = not settings.takes_rows and settings.head_gradients == "weighted"

    def plan(self, find_reached: Callable) -> GradientPlan:
        """Where the gradients are taken and what they do, for the variables that are trainable.

        Args:
            find_reached: as for `GradientPlan`, for the outputs that carry tasks.
        """
        if self._plan is not None and not self._plan.is_for(self._network):
            if self._weighting.keeps_gradients:
                raise ValueError(
                    f"{type(self._weighting).__name__} keeps a state for every gradient element: "
                    "compile again after a change of the trainable variables, with a new "
                    "weighting. Received: a network with other trainable variables"
                )
            self._plan = None
        if self._plan is None:
            self._check_replicas(backend.replicas())
            tasks = self._task_losses.tasks_per_output()
            self._plan = GradientPlan(self._network, tasks, find_reached, self._settings)
        return self._plan

    def _check_replicas(self, number):
        is_local = self._settings.gradients_at == "representation"
        if number > 1 and is_local and self._weighting.needs == "gradients":
            raise ValueError(
                f"{self._settings.weighting} compares the elements of the tasks' gradients, and of "
                "those at a representation every replica has its samples' part: take them at "
                f"weights, or take one replica. Received: {number} replicas"
            )

    def shape_of_state(self, reached: Callable) -> tuple[int, ...]:
        """What the weighting is built for: `(K,)`, or `(K, P)` if its state is that large.

        Args:
            reached: function of a batch and a layer or `None`, `find_reached` for that batch.
        """
        number = len(self._task_losses.task_names)
        if not self._weighting.keeps_gradients:
            return (number,)
        variables, at = self._network.trainable_variables, self._settings.gradients_at
        if isinstance(at, tuple):
            named = named_variables(variables, at)
            return number, sum(math.prod(variables[index].shape) for index in named)
        batch = _symbolic_batch(self._network) if self._network.built else None
        if batch is None:
            raise ValueError(
                f"{type(self._weighting).__name__} keeps a state for every gradient element, so "
                "`compile` must know where they are: give a functional or built sequential network "
                "whose inputs have a known shape, or name layers or variables in `gradients_at`. "
                f"Received: gradients_at={at!r}, network={self._network}"
            )
        return number, self.plan(lambda layer: reached(batch, layer)).number_of_elements

    def weigh(self, losses, counts, rows, trivial_losses=None):
        """Asks the weighting for the weights of the losses or for a direction.

        Args:
            losses: `(K,)`.
            counts: `(K,)`.
            rows: `TaskRows`, or `None`.
            trivial_losses: `(K,)`, or `None`.

        Returns:
            The scalar objective, the weighting's `TaskUpdate`, and the list of directions, one for
            each of `rows.place`.
        """
        gradients = None if rows is None else rows.place
        gramian = matrix = None
        needs = self._weighting.needs
        if gradients is not None and needs == "gradients":
            matrix = _as_matrix(gradients)
        if gradients is not None and (self.metric is not None or needs == "gramian"):
            gramian = sum(map(backend.inner_products, gradients))
            if self._settings.gradients_at == "representation":
                # A replica has the gradients of its own samples there.
                gramian = backend.sum_over_replicas(gramian)
        if self.metric is not None:
            self.metric.update_state(gramian, counts)
        objective, update = self._weighting(
            losses,
            counts=counts,
            gramian=gramian if needs == "gramian" else None,
            gradients=matrix,
            return_update=True,
            trivial_losses=trivial_losses,
        )
        if gradients is None:
            directions = []
        elif update.direction is None:
            directions = [backend.weighted_sum(update.weights, g) for g in gradients]
        else:
            direction = _break_where_broken(update.direction, matrix, counts)
            directions = _split_like(direction, gradients)
        return objective, update, directions


def _as_matrix(gradients):
    """Per-task gradients `(K, ...)` side by side, `(K, P)`."""
    return ops.concatenate([ops.reshape(g, (g.shape[0], -1)) for g in gradients], axis=1)


def _break_where_broken(direction, gradients, counts):
    """A direction `(P,)`; NaN if a task with `counts` has `gradients` `(K, P)` that are not finite.

    The weighting masks such a task: what is left of the direction would hide it from the optimizer,
    which has to skip the step and lower its loss scale.
    """
    finite = ops.isfinite(ops.sum(gradients * gradients, axis=1))
    broken = ops.any((counts > 0) & ~finite)
    return ops.where(broken, float("nan"), direction)


def _split_like(direction, gradients):
    """Cuts a direction `(P,)` into the shapes of the gradients `(K, ...)` it is made of."""
    parts, start = [], 0
    for gradient in gradients:
        shape = ops.shape(gradient)[1:]
        size = math.prod(shape)
        parts.append(ops.reshape(direction[start : start + size], shape))
        start = start + size
    return parts


def _symbolic_batch(network):
    """Zeros with the shapes of the inputs of a network that knows them, or `None`."""
    try:
        is_chain = isinstance(network, keras.Sequential)
        inputs = network.inputs[0] if is_chain else network.input
    except (AttributeError, ValueError):
        return None

    def zeros(tensor):
        return ops.zeros((1, *tensor.shape[1:]), dtype=tensor.dtype)

    known = all(None not in tensor.shape[1:] for tensor in keras.tree.flatten(inputs))
    return keras.tree.map_structure(zeros, inputs) if known else None
