"""Every private name of Keras that the library leans on.

Keras promises nothing of them. A test looks each up in the Keras that is installed, so that a new
one says at once what it lacks. What only one backend has is used in `backends/`, and named here.
"""

import contextlib
from typing import Any

import keras
from keras.src.backend import get_keras_mask as get_keras_mask
from keras.src.backend import set_keras_mask as set_keras_mask
from keras.src.backend.common.stateless_scope import get_stateless_scope as get_stateless_scope
from keras.src.backend.common.symbolic_scope import in_symbolic_scope as in_symbolic_scope
from keras.src.backend.common.variables import AutocastScope as AutocastScope
from keras.src.losses.loss import squeeze_or_expand_to_same_rank as squeeze_or_expand_to_same_rank
from keras.src.losses.losses import LossFunctionWrapper as LossFunctionWrapper

#: The private attributes, by what has them.
PRIVATE_NAMES = {
    "model": (
        "_aggregate_additional_loss",
        "_allow_non_tensor_positional_args",
        "_compile_metrics",
        "_convert_input_args",
        "_flatten_layers",
        "_get_metrics_result_or_logs",
        "_lock_state",
        "_loss_tracker",
        "_symbolic_build",
        "_tracker",
    ),
    "optimizer": ("_get_variable_index", "_model_variables_moving_average"),
    "optimizer of optimizers": ("_inner_optimizers",),
    "Adam": ("_backend_update_step", "_momentums", "_velocities", "_velocity_hats"),
    "attention": ("_dropout_layer",),
    "variable": ("_direct_assign", "_value"),
    "loss": ("_fn_kwargs",),
    "model on JAX": (
        "_get_jax_state",
        "_jax_state",
        "_jax_state_synced",
        "_losses_override",
        "_make_function",
        "_purge_model_variables",
        "_update_metrics_variables",
    ),
    "model on TensorFlow": ("_make_function", "_maybe_symbolic_build"),
    "probabilities on TensorFlow": ("_keras_logits",),
    "graph of TensorFlow": ("_thread_local",),
    "jax.interpreters.partial_eval": ("dce_jaxpr",),
}


class OpenModel(keras.Model):
    """A Keras model that leaves its inputs as they are, and tracks attributes set after `build`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True

    def _lock_state(self):
        """Stays open, as `keras.Functional` does: `compile` adds the weighting after `build`."""

    def _get_metrics_result_or_logs(self, logs):
        """At the end of a pass the metrics of all replicas, of which a step may log a part only."""
        metrics = self.get_metrics_result()
        return {name: metrics.get(name, value) for name, value in logs.items()}


class OptimizerWithMain(keras.optimizers.MultiOptimizer):
    """Several optimizers, of which `main` alone keeps moving averages of variables.

    Keras's `SwapEMAWeights` pairs them with all trainable variables in order: those that have none
    must be the last.
    """

    main: keras.optimizers.Optimizer

    @property
    def _model_variables_moving_average(self):
        return self.main._model_variables_moving_average


def layers_of(layer: keras.layers.Layer, include_self: bool = True) -> list[keras.layers.Layer]:
    """The layer, if it is to be included, and all layers inside it, at any depth."""
    return list(layer._flatten_layers(include_self=include_self))


def sublayers_of(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers right inside the layer."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def dropout_of(layer: keras.layers.MultiHeadAttention) -> keras.layers.Dropout:
    """What drops shares of an attention."""
    return layer._dropout_layer


def untrack(owner: keras.layers.Layer, value: Any) -> None:
    """Forgets what a layer or model tracks: variables, layers, metrics, or a list of them."""
    owner._tracker.unlock()
    owner._tracker.untrack(value)


def compiled_metrics(model: keras.Model) -> Any:
    """The metrics that `compile` was given, as one metric; `None` without any."""
    return model._compile_metrics


def metrics_are_built(model: keras.Model) -> bool:
    """Whether the metrics that `compile` was given have their variables."""
    metrics = compiled_metrics(model)
    return metrics is None or metrics.built


def build_metrics(model: keras.Model, batch: Any) -> None:
    """Creates the variables of the metrics that `compile` was given."""
    model._symbolic_build(data_batch=batch)


def log_loss(model: keras.Model, loss: Any, batch_size: Any) -> None:
    """Adds the loss of a batch to what a model logs as `loss`."""
    model._loss_tracker.update_state(loss, sample_weight=batch_size)


def additional_loss(model: keras.Model, loss: Any) -> Any:
    """One of `model.losses` as a share of the loss of this replica."""
    return model._aggregate_additional_loss(loss)


def index_of_variable(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> int:
    """The place of a variable among those that the optimizer was built with."""
    return optimizer._get_variable_index(variable)


def leaves_of(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """The optimizers inside one that leaves its work to others, or the optimizer itself."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return leaves_of(optimizer.inner_optimizer)
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        return [leaf for inner in optimizer._inner_optimizers for leaf in leaves_of(inner)]
    return [optimizer]


def moments_of(optimizer: keras.optimizers.Adam, variable: keras.Variable) -> list[Any]:
    """What Adam has moved for a variable: both moments and, with `amsgrad`, the maxima."""
    index = index_of_variable(optimizer, variable)
    states = [optimizer._momentums, optimizer._velocities]
    if optimizer.amsgrad:
        states.append(optimizer._velocity_hats)
    return [state[index].value for state in states]


def autocasting(layer: keras.layers.Layer) -> contextlib.AbstractContextManager:
    """The dtype that variables are read in inside a layer's `call`."""
    if not layer.autocast or layer.compute_dtype == layer.variable_dtype:
        return contextlib.nullcontext()
    return AutocastScope(layer.compute_dtype)


def current_value(variable: keras.Variable) -> Any:
    """What a variable holds, in an open `StatelessScope`, too, in its own dtype.

    `Variable.value` is in the dtype of an open `AutocastScope`.
    """
    scope = get_stateless_scope()
    found = None if scope is None else scope.get_current_value(variable)
    return variable._value if found is None else found


def value_outside_scopes(variable: keras.Variable) -> Any:
    """What a variable holds, whatever an open `StatelessScope` says."""
    return variable._value


def assign_outside_scopes(variable: keras.Variable, value: Any) -> None:
    """Assigns at once, past an open `StatelessScope`."""
    variable._direct_assign(value)


def arguments_of_loss(loss: Any) -> dict[str, Any]:
    """The arguments of a Keras loss that are passed on to its function."""
    return getattr(loss, "_fn_kwargs", {})
