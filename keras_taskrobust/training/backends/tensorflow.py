"""TensorFlow: task gradients by a persistent tape; replicas by `tf.distribute`."""

import contextlib
from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_taskrobust.training.backends.tensorflow_replicas import Trainer as Trainer
from keras_taskrobust.training.backends.tensorflow_replicas import (
    are_finite,
    make_if,
    parts_to_sum,
    unscale_for_replicas,
)
from keras_taskrobust.training.backends.tensorflow_replicas import global_totals as global_totals
from keras_taskrobust.training.backends.tensorflow_replicas import (
    one_step_of_all as one_step_of_all,
)
from keras_taskrobust.training.backends.tensorflow_replicas import replicas as replicas
from keras_taskrobust.training.backends.tensorflow_replicas import same_start as same_start
from keras_taskrobust.training.backends.tensorflow_replicas import (
    scale_for_replicas as scale_for_replicas,
)
from keras_taskrobust.training.backends.tensorflow_replicas import (
    sum_over_replicas as sum_over_replicas,
)
from keras_taskrobust.training.backends.tensorflow_replicas import update_metric as update_metric
from keras_taskrobust.training.gradients import (
    GradientPlan,
    TaskRows,
    add,
    by_variable_and_layer,
    cutting,
    floats_of,
)
from keras_taskrobust.training.held_assignments import HeldAssignments
from keras_taskrobust.training.keras_internals import get_keras_mask, log_loss, set_keras_mask
from keras_taskrobust.training.skipped_steps import what_must_be_finite
from keras_taskrobust.types import Tensor

FUSES_LAYERS = False


def give_back_state(model):
    """Nothing: the variables hold the state all the time."""


@tf.custom_gradient
def sum_by_group(values, member):
    """A sum over a batch of unknown size has a gradient of some twenty small operations."""

    def gradient(upstream):
        return tf.reduce_sum(tf.where(member, upstream, 0.0), axis=-1), None

    selected = tf.where(member, values[..., tf.newaxis], 0.0)
    return tf.reduce_sum(selected, axis=list(range(len(values.shape)))), gradient


def select_predictions(counts, predictions, value):
    selected = tf.where(counts, predictions, value)
    # Keras's cross-entropies of probabilities are formed from these where it can see them.
    logits = getattr(predictions, "_keras_logits", None)
    if logits is not None:
        selected._keras_logits = tf.where(counts, logits, tf.cast(value, logits.dtype))
    return selected


def is_concrete(tensor: Tensor) -> bool:
    return hasattr(tensor, "numpy")


def accelerator() -> str:
    devices = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(devices[0]) if devices else {}
    return details.get("device_name", "GPU") if devices else ""


def has_bfloat16() -> bool:
    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return bool(tf.config.list_physical_devices("TPU"))
    details = tf.config.experimental.get_device_details(devices[0])
    return details.get("compute_capability", (0, 0)) >= (8, 0)


def rematerialized(function):
    return tf.recompute_grad(function)


def random_stream():
    return None


def own_randomness(stream):
    return contextlib.nullcontext()


def fused_update(optimizer):
    return contextlib.nullcontext()


def reached(model, x, layer):
    uncut: list = []
    watched: list = []

    def watch(tensor):
        uncut.append(tensor)
        watched.append(tf.identity(tensor))
        tape.watch(watched[-1])
        return watched[-1]

    with tf.GradientTape(persistent=True) as tape, cutting(layer, watch):
        outputs = model.task_outputs(model(x, training=False))
    variables = [variable.value for variable in model.network.trainable_variables]

    def sources_of(tensors):
        gradients = tape.gradient(tensors, [*variables, *watched])
        return by_variable_and_layer([g is not None for g in gradients], len(variables))

    depends = [sources_of(output) for output in outputs]
    return depends if layer is None else [*depends, sources_of(uncut)]


class _HeldAssignments(HeldAssignments):
    """What a loop or a branch assigns in a graph of its own is assigned there."""

    def __enter__(self):
        self._graph = tf.compat.v1.get_default_graph()
        return super().__enter__()

    def add_update(self, update):
        if tf.compat.v1.get_default_graph() is self._graph:
            super().add_update(update)
        else:
            self.assign_at_once(*update)


@contextlib.contextmanager
def _after(*results):
    """What is done inside is not done if one of the results is an error of the device."""
    tensors = [result for result in tf.nest.flatten(results) if result is not None]
    with tf.control_dependencies(tensors):
        all_there = tf.no_op()
    with tf.control_dependencies(None if all_there is None else [all_there]):
        yield


def stock_train_step(model, data):
    """Keras's step, which changes nothing before all that may fail in a user's code is over.

    And which sums the gradient of an embedding over repeated rows before its use. Keras 3.15 hands
    its optimizers `tf.IndexedSlices` as they are, and Adam then squares each occurrence of a row
    instead of their sum: another step than on JAX and PyTorch.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    with _HeldAssignments(model) as held:
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = model.compute_loss(x, y, y_pred, sample_weight, training=True)
            batch_size = tf.shape(keras.tree.flatten(x)[0])[0]
            log_loss(model, unscale_for_replicas(loss), batch_size)
            scaled = model.optimizer.scale_loss(loss)
        variables = model.trainable_variables
        gradients = [
            gradient if gradient is None else tf.convert_to_tensor(gradient)
            for gradient in tape.gradient(scaled, variables)
        ]
        gradients = parts_to_sum(model.optimizer, gradients)
        logs = model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
    return _update(model, held, gradients, loss, logs)


def _update(model, held, gradients, loss, logs):
    """Makes the step, unless it would break the model."""
    held_variables, values = held.pending

    def make(values, gradients):
        for variable, value in zip(held_variables, values, strict=True):
            variable.assign(value)
        variables = model.trainable_variables
        model.optimizer.apply_gradients(zip(gradients, variables, strict=True))

    with _after(gradients, logs):
        if model.skipped_steps is None:
            make(values, gradients)
            return logs
        is_taken = are_finite(what_must_be_finite(model.optimizer, loss, gradients))
        make_if(is_taken, make, values, gradients)
        return model.count_step(is_taken, held.get_current_value(model.task_sums))


def with_logs(step_function, change):
    def changed(iterator):
        return change(step_function(iterator))

    return changed


def gradient_train_step(model, data):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    plan = model.gradient_plan(lambda layer: reached(model, x, layer))
    uncut, cut_off = [], []

    def cut(tensor):
        uncut.append(tensor)
        cut_off.append(tf.stop_gradient(tensor))
        tape.watch(cut_off[-1])
        return cut_off[-1]

    with _HeldAssignments(model) as held:
        with tf.GradientTape(persistent=True) as tape:
            with cutting(plan.layer, cut):
                y_pred = model(x, training=True)
            additional = model.losses
        # The losses have a tape of their own: a tape goes back through all that it recorded.
        outputs = keras.tree.map_structure(_copy, y_pred)
        made, taken = ([*floats_of(tensors), *additional] for tensors in (y_pred, outputs))
        with tf.GradientTape(persistent=True) as loss_tape:
            loss_tape.watch(taken)
            losses, counts, others, shares = model.task_losses_of_batch(
                x, y, outputs, sample_weight, additional_losses=additional
            )

        def pull(tasks, scale, upstream, variables):
            slopes = _gradients(loss_tape, [shares, others], [tasks, scale], taken)
            upstream = [None] * len(uncut) if upstream is None else upstream
            sources = cut_off if variables is None else [variable.value for variable in variables]
            return _gradients(tape, [*made, *uncut], [*slopes, *upstream], sources)

        scale = tf.cast(model.optimizer.scale_loss(1.0), tf.float32)
        rows = None
        if plan.takes_rows:
            slopes = _slopes(plan, loss_tape, shares, model.task_outputs(outputs), scale)
            places = cut_off or [variable.value for variable in plan.place]
            rows = _task_rows(plan, tape, model.task_outputs(y_pred), slopes, places, scale)
        with tf.GradientTape() as weighting_tape:
            value, weights, own_weights, directions = model.weigh_gradients(losses, counts, rows)
        if plan.layer is None:
            # Of all replicas, unlike those at a layer's outputs, which have them for their samples.
            directions = list(map(scale_for_replicas, directions))
        variables = model.trainable_variables
        gradients = plan.gradients(variables, pull, weights, own_weights, rows, directions, scale)
        own = [variable.value for variable in model.weighting.trainable_variables]
        position = {id(variable): index for index, variable in enumerate(variables)}
        slopes = weighting_tape.gradient(value, own)
        for variable, slope in zip(model.weighting.trainable_variables, slopes, strict=True):
            gradients[position[id(variable)]] = (
                None if slope is None else scale_for_replicas(scale * slope)
            )
        gradients = parts_to_sum(model.optimizer, gradients)
        loss = add(value, None if others is None else unscale_for_replicas(others))
        log_loss(model, loss, tf.shape(keras.tree.flatten(x)[0])[0])
        logs = model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
    return _update(model, held, gradients, loss, logs)


def _copy(tensor):
    copy = tf.identity(tensor)
    set_keras_mask(copy, get_keras_mask(tensor))
    return copy


def _gradients(tape, targets, cotangents, sources):
    """Summed over the targets that are given and have a cotangent; `None` where there is none."""
    pairs = [
        (target, tf.cast(cotangent, target.dtype) * tf.ones_like(target))
        for target, cotangent in zip(targets, cotangents, strict=True)
        if target is not None and cotangent is not None
    ]
    if not pairs:
        return [None] * len(sources)
    targets, cotangents = zip(*pairs, strict=True)
    gradients = tape.gradient(list(targets), sources, output_gradients=list(cotangents))
    return [None if found is None else tf.convert_to_tensor(found) for found in gradients]


def _slopes(
    plan: GradientPlan, loss_tape: tf.GradientTape, shares: Tensor, outputs: Sequence, scale: Tensor
) -> list:
    """The gradient of this replica's share of each task loss by its own output, or `None`."""
    own = plan.output_of_task
    ranks = [own[:task].count(output) for task, output in enumerate(own)]
    # Of all outputs at once: of the first task of each, then of the second and so on.
    by_rank = [
        _gradients(
            loss_tape, [shares], [scale * tf.cast(tf.equal(ranks, rank), tf.float32)], outputs
        )
        for rank in range(max(ranks) + 1)
    ]
    return [by_rank[rank][output] for rank, output in zip(ranks, own, strict=True)]


def _task_rows(
    plan: GradientPlan,
    tape: tf.GradientTape,
    outputs: Sequence,
    slopes: list,
    places: list,
    scale: Tensor,
) -> TaskRows:
    """The gradients of the task losses by the `places` and the heads, from their own outputs on.

    Those at a layer's outputs are of this replica's samples. Those of the heads are its parts of
    the gradients.
    """
    by_task = [
        _gradients(tape, [outputs[index]], [slope], [*places, *(head.value for head in heads)])
        for index, slope, heads in zip(plan.output_of_task, slopes, plan.heads_of_task, strict=True)
    ]
    rows = []
    for index, place in enumerate(places):
        found = [gradients[index] for gradients in by_task]
        rows.append(tf.stack([tf.zeros_like(place) if g is None else g for g in found]))
    rows = [tf.cast(row, tf.float32) / scale for row in rows]
    return TaskRows(
        sum_over_replicas(rows) if plan.layer is None else rows,
        [
            [None if g is None else tf.cast(g, tf.float32) for g in gradients[len(places) :]]
            for gradients in by_task
        ],
    )


def inner_products(gradients):
    rows = tf.reshape(gradients, (gradients.shape[0], -1))
    return tf.matmul(rows, rows, transpose_b=True)


def weighted_sum(weights, gradients):
    return tf.tensordot(weights, gradients, axes=1)
