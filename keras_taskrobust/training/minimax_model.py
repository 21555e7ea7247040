"""`MinimaxModel`: any Keras model, trained on K task losses under a weighting."""

import contextlib
import copy
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import keras
from keras import ops

from keras_taskrobust import weighting as weightings
from keras_taskrobust.training.backends import backend
from keras_taskrobust.training.fused_layers import FusedLayers
from keras_taskrobust.training.gradients import (
    GradientPlan,
    add,
    check_places,
    check_settings,
)
from keras_taskrobust.training.keras_internals import (
    additional_loss,
    compiled_metrics,
)
from keras_taskrobust.training.logging_trainer import LoggingTrainer
from keras_taskrobust.training.optimizers import (
    with_weighting_rate,
    without_weighting_rate,
)
from keras_taskrobust.training.outputs import (
    flat_metrics,
    names_in_logs,
    names_of_outputs,
    untrained_outputs,
)
from keras_taskrobust.training.skipped_steps import SkippedSteps, StepSkipped
from keras_taskrobust.training.task_gradients import TaskGradients
from keras_taskrobust.training.task_losses import TaskLosses
from keras_taskrobust.training.task_metric import TaskMetric, check_log_names
from keras_taskrobust.training.tasks import Tasks, TaskTotals
from keras_taskrobust.weighting.base import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class MinimaxModel(LoggingTrainer):
    """Trains a network for its worst task, or under any other weighting of its tasks.

    A task is an output with a loss, or a group of elements inside one output (`GroupedLoss`).
    Each step forms the task losses `L_k = totals_k / counts_k` over the global batch, asks the
    weighting for one objective, and descends along `sum_k w_k grad L_k`. Everything else is
    Keras: `fit`, `evaluate`, `predict`, `save`, callbacks, metrics, `sample_weight`.

    A task loss is a weighted mean: `sum(sample_weight * loss) / sum(sample_weight)` over the task's
    elements. That is Keras's `reduction="mean_with_sample_weight"`, not its default, which divides
    by the number of elements whatever they weigh.

    The logs hold `loss` (the objective, auxiliary losses and regularisers included),
    `<task>_loss`, `<task>_weight`, `worst_loss` and `mean_loss`, each also with `val_`. The task
    figures are totals over counts since the last reset: exact means over the epoch. With trivial
    losses there are also `<task>_trivial_ratio`, the loss over that of the best constant
    prediction, and their largest, `worst_trivial_ratio`.

    Args:
        network: any Keras model. Its outputs are a dict, which may hold dicts, one tensor, or the
            list of a functional model (then the names are its `output_names`).
        **kwargs: `keras.Model` arguments, such as `name`.

    Example:

    >>> import keras, numpy as np
    >>> inputs = keras.Input((4,))
    >>> trunk = keras.layers.Dense(8, activation="relu")(inputs)
    >>> network = keras.Model(
    ...     inputs, {name: keras.layers.Dense(1, name=name)(trunk) for name in ("height", "age")}
    ... )
    >>> model = MinimaxModel(network)
    >>> model.compile("adam", loss={"height": "mse", "age": "mse"}, weighting="minimax")
    >>> model.task_names
    ('height', 'age')
    >>> x = np.ones((8, 4), "float32")
    >>> y = {"height": np.ones((8, 1), "float32"), "age": np.zeros((8, 1), "float32")}
    >>> history = model.fit(x, y, verbose=0)
    >>> sorted(history.history)  # doctest: +NORMALIZE_WHITESPACE
    ['age_loss', 'age_weight', 'height_loss', 'height_weight', 'loss', 'mean_loss', 'worst_loss']

    Reference:
        [Task-Robust Pre-Training for Worst-Case Downstream Adaptation]
        (https://arxiv.org/abs/2306.12070), NeurIPS 2023.
    """

    def __init__(self, network, **kwargs):
        super().__init__(network, **kwargs)
        self.weighting: Any = None
        self._task_gradients: Any = None
        self._random_stream = backend.random_stream()
        self._fused_layers: FusedLayers | None = None

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        weighting="minimax",
        auxiliary=None,
        metrics=None,
        weighted_metrics=None,
        *,
        gradients_at=None,
        representation=None,
        head_gradients=None,
        task_chunk=None,
        gradient_diagnostics=False,
        trivial_losses=None,
        on_nonfinite=None,
        **kwargs,
    ):
        """Configures training, as `keras.Model.compile` does.

        Args:
            optimizer: a Keras optimizer. If the weighting has trainable variables, they get a
                copy of it without weight decay and clipping, at `weighting.learning_rate`. With
                `gradient_accumulation_steps` the weights, the counts and the state of the weighting
                are those of each small batch, and the update is the mean of their gradients: not
                that of the large batch, unless its parts hold the same tasks with the same losses.
            loss: a dict of output names to Keras losses and `GroupedLoss`es, nested as the outputs
                are (then the names are joined by `/`); a list with one for each output of a
                functional network; or one for the only output. `None` for an output that is meant
                to have none. Losses are summed and counted here: their own reduction is ignored.
            weighting: a name out of `keras_taskrobust.weighting.available()`, a config, or a
                `TaskWeighting`.
            auxiliary: dict of output names to losses that are added with weight 1, outside the
                weighting.
            metrics: as in Keras, for outputs with a loss or without. For a grouped output they see
                all labels.
            weighted_metrics: as in Keras. For a grouped output the weight is 0 outside the groups.
            gradients_at: where a weighting that needs them takes the task gradients: `"shared"`,
                the weights that more than one task reaches, found by tracing the network;
                `"last_shared"`, of those the last layer that the most tasks reach; a list of names
                or paths of layers and variables; or `"representation"`, the output of the layer
                `representation`, from which the combination is then pulled back through the rest of
                the network in one backward pass. `None`: `"shared"`, for GradNorm `"last_shared"`.
            representation: str, the layer for `gradients_at="representation"`. The network must
                call it once in a forward pass.
            head_gradients: what the weights that one task alone reaches get: `"weighted"`, the
                weight of the task's loss times its gradient, or `"own"`, the gradient as it is.
                `None`: `"weighted"` for weightings of the losses and GradNorm, else `"own"`, as in
                the methods' own codes.
            task_chunk: int or `None`. With JAX, and with PyTorch on an accelerator, the number of
                tasks whose gradients are taken in one backward pass, which bounds its memory;
                `None`: all. With 1, PyTorch takes no pass under `vmap`, which a layer of one's own
                may not bear. TensorFlow, and PyTorch on a CPU, take one at a time.
            gradient_diagnostics: bool. Whether `fit` logs, of the task gradients at that place,
                `<task>_gradient_norm`, `gradient_cosine` (mean over the pairs of tasks) and
                `gradient_conflict` (share of the pairs with a negative cosine). A weighting that
                needs losses only then takes the task gradients as well, for the same step.
            trivial_losses: what the best constant predictions score: `"measure"`, a dict of task
                names to losses (tasks left out are measured), or `None`. A weighting that needs
                them measures them anyway. They are measured before the first step of `fit`, on 64
                batches, saved with the model and kept from then on. The constants are weighted
                means for squared errors, medians for absolute ones, smoothed label frequencies for
                cross-entropies, searched for other errors of numbers; for each pixel of images, for
                all places of sequences, and one for all groups of an output. At the end of an
                epoch, a warning names a task whose loss is above its trivial one.
            on_nonfinite: what becomes of a step whose loss or gradients are NaN or infinite.
                `None`: it is taken, and a warning at the end of the epoch names the task.
                `"raise"`: `fit` raises a `FloatingPointError`, and the model is that of before.
                `"skip"`: the step changes nothing, neither the model nor the state of weighting,
                optimizer and dropout; the logs have `skipped_steps`, their number in the epoch,
                and ten in a row raise. Both read a number from the device each step. Under a
                `LossScaleOptimizer` the loss alone decides: it looks at scaled gradients itself.
            **kwargs: `run_eagerly`, `steps_per_execution`, `jit_compile`, `auto_scale_loss`.

        Raises:
            ValueError: if `loss` names no task, an output twice, or clashing task names; or if
                `loss_weights` is given: weighing the tasks is what `weighting` is for; or if a
                place of the gradients is not in the network, which for one that is not built yet
                shows at its first step; or if a trivial loss must be given, or serves no weighting.
        """
        if kwargs.pop("loss_weights", None) is not None:
            raise ValueError(
                "`loss_weights` is not supported: choose a `weighting`. Received: loss_weights"
            )
        self._task_losses = self.make_task_losses(loss, auxiliary)
        task_names = self._task_losses.task_names
        check_log_names(task_names)
        layer = weightings.get(weighting)
        settings = check_settings(
            layer, gradients_at, representation, head_gradients, task_chunk, gradient_diagnostics
        )
        if self.network.built:
            check_places(self.network, settings)
        self._task_gradients = TaskGradients(self.network, self._task_losses, layer, settings)
        layer.build(self._task_gradients.shape_of_state(partial(backend.reached, self)))
        self._replace("weighting", layer)
        self._fused_layers = None
        trivial = self._make_trivial_losses(trivial_losses, self._task_losses, layer)
        self._replace("_trivial_losses", trivial)
        self._replace("_task_metric", TaskMetric(task_names, trivial is not None))
        self._replace("_gradient_metric", self._task_gradients.metric)
        skipped = None if on_nonfinite is None else SkippedSteps(task_names, on_nonfinite)
        self._replace("skipped_steps", skipped)
        optimizer = without_weighting_rate(keras.optimizers.get(optimizer))
        super().compile(
            optimizer=with_weighting_rate(optimizer, layer),
            metrics=flat_metrics(metrics, self.network),
            weighted_metrics=flat_metrics(weighted_metrics, self.network),
            **kwargs,
        )
        self._compile_arguments = SimpleNamespace(
            optimizer=optimizer,
            loss=loss,
            weighting=layer,
            auxiliary=auxiliary,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            gradients_at=gradients_at,
            representation=representation,
            head_gradients=head_gradients,
            task_chunk=task_chunk,
            gradient_diagnostics=gradient_diagnostics,
            trivial_losses=trivial_losses,
            on_nonfinite=on_nonfinite,
            **kwargs,
        )

    @property
    def task_names(self) -> tuple[str, ...]:
        """The K task names, in the order of the weighting's losses. Known once compiled."""
        if self._task_metric is None:
            raise ValueError("The tasks of a MinimaxModel are known once `compile` was called.")
        return self._task_metric.task_names

    def train_step(self, *args):
        """One step: Keras's own, or its like with the task gradients.

        A weighting that needs the losses alone takes Keras's stock step, in which `compute_loss`
        returns the weighted objective. One that needs the gradients or their Gramian takes the
        backend's gradient step.

        Args:
            *args: `data`; with JAX `state, data`.

        Returns:
            The logs; with JAX `logs, state`.
        """
        backend.same_start(self)
        is_partial = getattr(self._task_losses, "leaves_some_untrained", False)
        expected = untrained_outputs() if is_partial else contextlib.nullcontext()
        is_stock = self._task_gradients.is_stock_step
        step = backend.stock_train_step if is_stock else backend.gradient_train_step
        try:
            with expected, backend.own_randomness(self._random_stream), self._fused_running():
                return step(self, *args)
        except StepSkipped:
            return self.logs_of_step()

    def _fused_running(self):
        if self._fused_layers is None:
            if not self.network.built:
                return contextlib.nullcontext()
            self._fused_layers = FusedLayers(self.network)
        return self._fused_layers.running()

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The objective: weighted task losses, auxiliary losses and regularisers."""
        losses, counts, others, _ = self.task_losses_of_batch(x, y, y_pred, sample_weight)
        trivial = self._trivial_values()
        objective, weights = self.weighting(
            losses, counts=counts, training=training, return_weights=True, trivial_losses=trivial
        )
        self._task_metric.update_state(losses * counts, counts, weights, trivial)
        return add(backend.scale_for_replicas(objective), others)

    def compute_task_totals(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> TaskTotals:
        """The batch's loss sums and counts of each task.

        Where task gradients are taken, each loss must depend on the network by the task's own
        output alone.

        Args:
            x: the inputs.
            y: the targets, as `loss` names them.
            y_pred: the network's outputs.
            sample_weight: weights for all outputs, or a dict by output.

        Returns:
            `TaskTotals`.
        """
        return self._task_losses(y, y_pred, sample_weight)

    def make_task_losses(self, loss: Any, auxiliary: Any) -> Tasks:
        """What `compile` makes of its losses. Models with losses of their own kind override this
        and `compute_task_totals`.

        Args:
            loss: as given to `compile`.
            auxiliary: as given to `compile`.

        Returns:
            `Tasks`, such as `TaskLosses`.
        """
        names = names_of_outputs(self.network), names_in_logs(self.network)
        return TaskLosses(loss, auxiliary, *names)

    def task_losses_of_batch(self, x, y, y_pred, sample_weight, additional_losses=None):
        """The task losses of the global batch.

        Returns:
            `losses` and `counts`, `(K,)`; the scalar sum of all that is outside the weighting,
            `None` if there is nothing; and `(K,)` this replica's shares of the losses, which sum to
            them over the replicas.
        """
        own, counts, auxiliary = self.compute_task_totals(x, y, y_pred, sample_weight)
        totals, number, others = own, own.shape[0], None
        if auxiliary is not None:
            totals, counts = map(ops.concatenate, zip((own, counts), auxiliary, strict=True))
        totals, counts = backend.global_totals(self, totals, counts)
        divisors = ops.where(counts > 0, counts, 1.0)
        losses = totals / divisors
        if auxiliary is not None:
            others = backend.scale_for_replicas(ops.sum(losses[number:]))
            losses, counts, divisors = losses[:number], counts[:number], divisors[:number]
        for loss in self.losses if additional_losses is None else additional_losses:
            others = add(others, ops.cast(additional_loss(self, loss), "float32"))
        return losses, counts, others, own / divisors

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Updates Keras's compiled metrics, on the task outputs and labels.

        Returns:
            The logs of a step, the task figures packed into one entry; `fit` and `evaluate` name
            them.
        """
        compiled = compiled_metrics(self)
        if compiled is not None:
            if not compiled.built and isinstance(self._task_losses, TaskLosses):
                given = self._compile_arguments
                for argument in ("metrics", "weighted_metrics"):
                    metrics = getattr(given, argument)
                    self._task_losses.check_metrics(metrics, y, y_pred, argument)
            y, y_pred, sample_weight = self._task_losses.for_metrics(y, y_pred, sample_weight)
            backend.update_metric(compiled, y, y_pred, sample_weight)
        return self.logs_of_step()

    def get_config(self):
        return {
            "name": self.name,
            "trainable": self.trainable,
            "network": keras.saving.serialize_keras_object(self.network),
        }

    @classmethod
    def from_config(cls, config):
        config = copy.deepcopy(config)  # Keras empties the configs that it reads.
        network = keras.saving.deserialize_keras_object(config.pop("network"))
        return cls(network, **config)

    def get_compile_config(self):
        if not self.compiled:
            return {}
        return keras.saving.serialize_keras_object(vars(self._compile_arguments))

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(copy.deepcopy(config)))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    # What the backends' gradient steps use.

    def task_outputs(self, y_pred: Any) -> list:
        """The outputs that carry tasks, as a list."""
        return self._task_losses.outputs_of_tasks(y_pred)

    def gradient_plan(self, find_reached: Callable) -> GradientPlan:
        """Where the gradients are taken and what they do, for the variables that are trainable.

        Args:
            find_reached: as for `GradientPlan`, for the outputs in `task_outputs`.
        """
        return self._task_gradients.plan(find_reached)

    def weigh_gradients(self, losses, counts, rows):
        """The weighted objective of a training step. Arguments as of `TaskGradients.weigh`.

        Returns:
            The scalar objective; the `(K,)` weights of the losses, and those for the heads' own
            gradients; and the list of directions, one for each of `rows.place`.
        """
        trivial = self._trivial_values()
        objective, update, directions = self._task_gradients.weigh(losses, counts, rows, trivial)
        self._task_metric.update_state(losses * counts, counts, update.weights, trivial)
        return objective, update.weights, update.own_weights, directions
