"""JAX: task gradients and update from one linearized pass. Replicas need nothing."""

import contextlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.interpreters import partial_eval

from keras_taskrobust.training.backends.jax_device import accelerator as accelerator
from keras_taskrobust.training.backends.jax_device import has_bfloat16 as has_bfloat16
from keras_taskrobust.training.backends.jax_layers import attend as attend
from keras_taskrobust.training.backends.jax_layers import linear as linear
from keras_taskrobust.training.backends.jax_linear import LinearFunction
from keras_taskrobust.training.backends.jax_products import inner_products as inner_products
from keras_taskrobust.training.backends.jax_products import weighted_sum as weighted_sum
from keras_taskrobust.training.backends.jax_state import Trainer as Trainer
from keras_taskrobust.training.backends.jax_state import give_back_state as give_back_state
from keras_taskrobust.training.gradients import (
    GradientPlan,
    TaskRows,
    add,
    by_variable_and_layer,
    cutting,
    floats_of,
    is_float,
)
from keras_taskrobust.training.keras_internals import get_keras_mask, set_keras_mask
from keras_taskrobust.training.skipped_steps import what_must_be_finite
from keras_taskrobust.types import Tensor

FUSES_LAYERS = True


def sum_by_group(values, member):
    return jnp.where(member, values[..., None], 0.0).sum(tuple(range(values.ndim)))


def select_predictions(counts, predictions, value):
    return jnp.where(counts, predictions, value)


def replicas():
    return 1


def same_start(model):
    """Nothing: there is one model, whatever the devices."""


def global_totals(model, totals, counts):
    return totals, counts


def sum_over_replicas(tensor):
    return tensor


def update_metric(metric, *batch):
    metric.update_state(*batch)


def scale_for_replicas(loss):
    return loss


def is_concrete(tensor: Tensor) -> bool:
    return not isinstance(tensor, jax.core.Tracer)


def rematerialized(function):
    return jax.checkpoint(function)


def random_stream():
    return None


def own_randomness(stream):
    return contextlib.nullcontext()


def one_step_of_all(model):
    return contextlib.nullcontext()


def fused_update(optimizer):
    return contextlib.nullcontext()


def reached(model, x, layer):
    def outputs(trainable, non_trainable, x, offsets=None):
        uncut = []

        def shift(tensor):
            uncut.append(tensor)
            return tensor if offsets is None else tensor + offsets[len(uncut) - 1]

        with cutting(layer, shift):
            prediction, _ = model.stateless_call(trainable, non_trainable, x, training=False)
        return model.task_outputs(prediction), uncut

    def slopes(sources, tangents, non_trainable, x):
        return jax.jvp(lambda *s: outputs(s[0], non_trainable, x, s[1]), sources, tangents)[1]

    # The variables' values are donated to the running step: only their shapes are at hand.
    trainable, non_trainable, x = keras.tree.map_structure(
        lambda value: jax.ShapeDtypeStruct(value.shape, value.dtype),
        (model.trainable_variables, model.non_trainable_variables, x),
    )
    found, offsets = jax.eval_shape(outputs, trainable, non_trainable, x)
    sources = (trainable, offsets)
    jaxpr = jax.make_jaxpr(slopes)(sources, sources, non_trainable, x).jaxpr
    first = len(trainable) + len(offsets)
    positions = _positions(model.trainable_variables, model.network.trainable_variables)
    order = [*positions, *range(len(trainable), first)]

    def sources_of(results):
        _, used = partial_eval.dce_jaxpr(jaxpr, [i in results for i in range(len(jaxpr.outvars))])
        return by_variable_and_layer([used[first + p] for p in order], len(positions))

    depends = [sources_of({output}) for output in range(len(found))]
    return (
        depends if layer is None else [*depends, sources_of(range(len(found), len(jaxpr.outvars)))]
    )


def stock_train_step(model, state, data):
    """Keras's step, which may be left out."""
    trainable, non_trainable, optimizer_variables, metrics_variables = state
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    differentiate = jax.value_and_grad(model.compute_loss_and_updates, has_aux=True)
    (_, (loss, y_pred, non_trainable, metrics_variables)), gradients = differentiate(
        trainable,
        non_trainable,
        metrics_variables,
        x,
        y,
        sample_weight,
        training=True,
        optimizer_variables=optimizer_variables,
    )
    moved = (non_trainable, metrics_variables)
    return _update(model, state, moved, gradients, loss, (x, y, y_pred, sample_weight))


def _update(model, state, moved, gradients, loss, batch):
    """Makes the step, unless it would break the model.

    Args:
        model: the model.
        state: that of before the step.
        moved: the values of the non-trainable variables and the metrics' after the forward pass.
        gradients: of the trainable variables.
        loss: the unscaled loss.
        batch: `x, y, y_pred, sample_weight`.

    Returns:
        The logs and the new state.
    """
    trainable, _, optimizer_variables, _ = state
    non_trainable, metrics_variables = moved
    trainable, optimizer_variables = model.optimizer.stateless_apply(
        optimizer_variables, gradients, trainable
    )
    logs, metrics_variables = model._update_metrics_variables(metrics_variables, loss, *batch)
    new = (trainable, non_trainable, optimizer_variables, metrics_variables)
    if model.skipped_steps is None:
        return logs, new
    values = what_must_be_finite(model.optimizer, loss, gradients)
    is_taken = jnp.all(jnp.stack([jnp.isfinite(value).all() for value in values]))
    kept = jax.tree.map(lambda now, before: jnp.where(is_taken, now, before), new, state)
    sums = metrics_variables[_positions(model.metrics_variables, [model.task_sums])[0]]
    scope = _scope(model, kept[0], kept[1], kept[3])
    with scope:
        logs = model.count_step(is_taken, sums)
    return logs, (*kept[:3], _current(scope, model.metrics_variables))


def with_logs(step_function, change):
    def changed(state, iterator):
        logs, state = step_function(state, iterator)
        return change(logs), state

    return changed


def gradient_train_step(model, state, data):
    trainable, non_trainable, optimizer_variables, metrics_variables = state
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    plan = model.gradient_plan(lambda layer: reached(model, x, layer))
    forward = _forward(model, plan, trainable, non_trainable, x, y, sample_weight)
    task_losses, counts, others, non_trainable = forward[:4]

    def pull(tasks, scale, upstream, variables):
        slopes = forward.of_losses.pull([tasks, None if others is None else scale])
        gradients = forward.of_network.pull([*slopes, *(upstream or ())])
        if variables is None:
            return gradients[len(trainable) :]
        return [gradients[index] for index in _positions(model.trainable_variables, variables)]

    scale = jnp.float32(_loss_scale(model.optimizer, optimizer_variables))
    rows = _task_rows(model, plan, forward, scale) if plan.takes_rows else None

    def objective(trainable):
        scope = _scope(model, trainable, non_trainable, metrics_variables)
        with scope:
            value, *shares = model.weigh_gradients(task_losses, counts, rows)
        return value, (shares, [_current(scope, variables) for variables in _state_of(model)])

    (value, (shares, (non_trainable, metrics_variables))), weighting_gradients = jax.value_and_grad(
        objective, has_aux=True
    )(trainable)
    weights, own_weights, directions = shares
    gradients = plan.gradients(
        model.trainable_variables, pull, weights, own_weights, rows, directions, scale
    )
    for index in _positions(model.trainable_variables, model.weighting.trainable_variables):
        gradients[index] = scale * weighting_gradients[index]
    gradients = [
        jnp.zeros_like(value) if gradient is None else gradient
        for value, gradient in zip(trainable, gradients, strict=True)
    ]

    moved = (non_trainable, metrics_variables)
    batch = (x, y, forward.y_pred, sample_weight)
    return _update(model, state, moved, gradients, add(value, others), batch)


class _Forward(NamedTuple):
    """A forward pass, and its linear approximation.

    Attributes:
        task_losses: `(K,)`.
        counts: `(K,)`.
        others: the scalar sum of all that is outside the weighting, or `None`.
        non_trainable: the values of the non-trainable variables after it.
        y_pred: the outputs.
        of_network: from the trainable variables, and what the rest of the network gets as the
            outputs of the plan's layer, to the floats in `y_pred`, the additional losses and those
            outputs.
        of_losses: from the floats and the additional losses to `task_losses` and `others`.
    """

    task_losses: Any
    counts: Any
    others: Any
    non_trainable: list
    y_pred: Any
    of_network: LinearFunction
    of_losses: LinearFunction


def _forward(
    model: keras.Model,
    plan: GradientPlan,
    trainable: list,
    non_trainable: list,
    x: Any,
    y: Any,
    sample_weight: Any,
) -> _Forward:
    def network(trainable, offsets):
        uncut = []

        def cut(tensor):
            uncut.append(tensor)
            if offsets is None:
                return tensor
            return jax.lax.stop_gradient(tensor) + offsets[len(uncut) - 1]

        with cutting(plan.layer, cut):
            y_pred, updated, additional = model.stateless_call(
                trainable, non_trainable, x, return_losses=True, training=True
            )
        masks = keras.tree.map_structure(get_keras_mask, y_pred)
        return (floats_of(y_pred), additional, uncut), (y_pred, masks, updated)

    offsets = []
    if plan.layer is not None:
        (_, _, uncut), _ = jax.eval_shape(lambda values: network(values, None), trainable)
        offsets = [jnp.zeros(tensor.shape, tensor.dtype) for tensor in uncut]
    (floats, additional, _), of_network, (y_pred, masks, non_trainable) = jax.linearize(
        network, trainable, offsets, has_aux=True
    )

    def losses(floats, additional):
        outputs = _with_floats(y_pred, floats, masks)
        with _scope(model, trainable, non_trainable):
            task_losses, counts, others, _ = model.task_losses_of_batch(
                x, y, outputs, sample_weight, additional_losses=additional
            )
        return (task_losses, others), counts

    (task_losses, others), of_losses, counts = jax.linearize(
        losses, floats, additional, has_aux=True
    )
    return _Forward(
        task_losses,
        counts,
        others,
        non_trainable,
        _with_floats(y_pred, floats, masks),
        LinearFunction(of_network, (trainable, offsets)),
        LinearFunction(of_losses, (floats, additional)),
    )


def _task_rows(
    model: keras.Model, plan: GradientPlan, forward: _Forward, scale: Tensor
) -> TaskRows:
    """The gradients of the task losses, from each task's own output on."""
    tensors = keras.tree.flatten(forward.y_pred)
    places = keras.tree.pack_sequence_as(forward.y_pred, list(range(len(tensors))))
    outputs = [len(floats_of(tensors[:place])) for place in model.task_outputs(places)]
    own = np.array(plan.output_of_task)
    rows = [scale * np.eye(len(own), dtype="float32")[own == i] for i in range(len(outputs))]

    def cotangent(output, tasks):
        found = forward.of_losses.pull([tasks])[output]
        return jnp.zeros_like(floats_of(tensors)[output]) if found is None else found

    def map_rows(function, rows):
        if len(jax.tree.leaves(rows)[0]) == 1:
            # XLA takes far longer for products with one more axis, even of size 1.
            found = function(jax.tree.map(lambda array: array[0], rows))
            return jax.tree.map(lambda array: array[None], found)
        if plan.task_chunk is None:
            return jax.vmap(function)(rows)
        return jax.lax.map(function, rows, batch_size=plan.task_chunk)

    variables = model.trainable_variables
    at = _positions(variables, plan.place)
    if plan.layer is not None:
        at = range(len(variables), len(forward.of_network.inputs))
    found, of_heads = forward.of_network.pull_rows(outputs, rows, cotangent, at, map_rows)
    heads = [
        [of_heads[output][index] for index in _positions(variables, heads)]
        for output, heads in zip(own, plan.heads_of_task, strict=True)
    ]
    nothing = [jnp.zeros((len(own), *forward.of_network.inputs[index].shape)) for index in at]
    return TaskRows(
        [
            zeros if rows is None else rows.astype("float32") / scale
            for zeros, rows in zip(nothing, found, strict=True)
        ],
        [[None if g is None else g[0].astype("float32") for g in found] for found in heads],
    )


def _with_floats(y_pred, floats, masks):
    """`y_pred` with these floats, and with its Keras masks, which no transformation keeps."""
    left = iter(floats)

    def restore(tensor, mask):
        restored = next(left) if is_float(tensor) else tensor
        set_keras_mask(restored, mask)
        return restored

    return keras.tree.map_structure(restore, y_pred, masks)


def _positions(variables, selected):
    position = {id(variable): index for index, variable in enumerate(variables)}
    return [position[id(variable)] for variable in selected]


def _state_of(model):
    return model.non_trainable_variables, model.metrics_variables


def _scope(model, trainable, non_trainable, metrics_variables=()):
    mapping = [
        *zip(model.trainable_variables, trainable, strict=True),
        *zip(model.non_trainable_variables, non_trainable, strict=True),
        *zip(model.metrics_variables if metrics_variables else (), metrics_variables, strict=True),
    ]
    return keras.StatelessScope(state_mapping=mapping)


def _current(scope, variables):
    return [scope.get_current_value(variable) for variable in variables]


def _loss_scale(optimizer, optimizer_variables):
    mapping = list(zip(optimizer.variables, optimizer_variables, strict=True))
    with keras.StatelessScope(state_mapping=mapping):
        return optimizer.scale_loss(1.0)
