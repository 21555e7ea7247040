"""TensorFlow: task gradients by a persistent tape; replicas by `tf.distribute`."""

import contextlib

import keras
import tensorflow as tf

from keras_taskrobust.training.gradients import add, by_variable_and_layer, cutting


@tf.custom_gradient
def sum_by_group(values, member):
    """A sum over a batch of unknown size has a gradient of some twenty small operations."""

    def gradient(upstream):
        return tf.reduce_sum(tf.where(member, upstream, 0.0), axis=-1), None

    selected = tf.where(member, values[..., tf.newaxis], 0.0)
    return tf.reduce_sum(selected, axis=list(range(len(values.shape)))), gradient


def sum_over_replicas(totals, counts):
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return totals, counts
    return context.all_reduce(tf.distribute.ReduceOp.SUM, [totals, counts])


def scale_for_replicas(loss):
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss if replicas == 1 else loss / replicas


def _unscaled(loss):
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss if replicas == 1 else loss * replicas


def random_stream():
    return None


def own_randomness(stream):
    return contextlib.nullcontext()


def reached(model, x, layer):
    """For each of `task_outputs`, by which trainable variables of the network it has a gradient.

    And, as the last entry, whether it has one by an output of `layer`.
    """
    watched: list = []

    def watch(tensor):
        watched.append(tf.identity(tensor))
        tape.watch(watched[-1])
        return watched[-1]

    with tf.GradientTape(persistent=True) as tape, cutting(layer, watch):
        outputs = model.task_outputs(model(x, training=False))
    variables = [variable.value for variable in model.network.trainable_variables]
    depends = []
    for output in outputs:
        gradients = tape.gradient(output, [*variables, *watched])
        found = [gradient is not None for gradient in gradients]
        depends.append(by_variable_and_layer(found, len(variables)))
    return depends


def stock_train_step(model, data):
    """Keras's step, with the gradient of an embedding summed over repeated rows before its use.

    Keras 3.15 hands its optimizers `tf.IndexedSlices` as they are, and Adam then squares each
    occurrence of a row instead of their sum: another step than on JAX and PyTorch.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    with tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        loss = model.compute_loss(x, y, y_pred, sample_weight, training=True)
        batch_size = tf.shape(keras.tree.flatten(x)[0])[0]
        model._loss_tracker.update_state(_unscaled(loss), sample_weight=batch_size)
        loss = model.optimizer.scale_loss(loss)
    variables = model.trainable_variables
    gradients = [
        gradient if gradient is None else tf.convert_to_tensor(gradient)
        for gradient in tape.gradient(loss, variables)
    ]
    model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)


def with_logs(step_function, change):
    def changed(iterator):
        return change(step_function(iterator))

    return changed


def gradient_train_step(model, data):
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1:
        raise ValueError(
            f"{type(model.weighting).__name__} needs the tasks' gradients, which are not offered "
            "under tf.distribute; take a weighting that needs losses only, or JAX. "
            f"Received: {replicas} replicas"
        )
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    plan = model.gradient_plan(lambda layer: reached(model, x, layer))
    uncut, cut_off = [], []

    def cut(tensor):
        uncut.append(tensor)
        cut_off.append(tf.stop_gradient(tensor))
        tape.watch(cut_off[-1])
        return cut_off[-1]

    with tf.GradientTape(persistent=True) as tape:
        with cutting(plan.layer, cut):
            y_pred = model(x, training=True)
        losses, counts, others, _ = model.task_losses_of_batch(x, y, y_pred, sample_weight)

    def pull(tasks, scale, upstream, variables):
        targets, cotangents = [], []
        if others is not None:
            targets, cotangents = [others], [scale * tf.ones_like(others)]
        if tasks is not None:
            targets, cotangents = [*targets, losses], [*cotangents, tasks]
        if upstream is not None:
            targets += uncut
            cotangents += [tf.cast(u, z.dtype) for u, z in zip(upstream, uncut, strict=True)]
        sources = cut_off if variables is None else [variable.value for variable in variables]
        if not targets:
            return [None] * len(sources)
        gradients = tape.gradient(targets, sources, output_gradients=cotangents)
        return [None if found is None else tf.convert_to_tensor(found) for found in gradients]

    scale = tf.cast(model.optimizer.scale_loss(1.0), tf.float32)
    rows = None
    if plan.takes_rows:
        rows = _task_gradients(tape, losses, cut_off or [v.value for v in plan.place], scale)
    with tf.GradientTape() as weighting_tape:
        value, *shares = model.weigh_gradients(losses, counts, rows)
    variables = model.trainable_variables
    gradients = plan.gradients(variables, pull, *shares, scale)
    own = [variable.value for variable in model.weighting.trainable_variables]
    position = {id(variable): index for index, variable in enumerate(variables)}
    slopes = weighting_tape.gradient(value, own)
    for variable, slope in zip(model.weighting.trainable_variables, slopes, strict=True):
        gradients[position[id(variable)]] = None if slope is None else scale * slope
    batch_size = tf.shape(keras.tree.flatten(x)[0])[0]
    model._loss_tracker.update_state(add(value, others), sample_weight=batch_size)
    model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)


def _task_gradients(tape, losses, sources, scale):
    """The gradients `(K, ...)` of the task losses by each of the `sources`."""
    number = losses.shape[0]
    zero = tf.UnconnectedGradients.ZERO
    by_task = [
        tape.gradient(
            losses,
            sources,
            output_gradients=scale * tf.one_hot(k, number),
            unconnected_gradients=zero,
        )
        for k in range(number)
    ]
    return [tf.cast(tf.stack(rows), tf.float32) / scale for rows in zip(*by_task, strict=True)]


def inner_products(gradients):
    rows = tf.reshape(gradients, (gradients.shape[0], -1))
    return tf.matmul(rows, rows, transpose_b=True)


def weighted_sum(weights, gradients):
    return tf.tensordot(weights, gradients, axes=1)
