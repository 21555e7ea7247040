"""TensorFlow: gradients by a second, persistent tape; replicas by `tf.distribute`."""

import contextlib

import keras
import tensorflow as tf


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


def shared_variables(model, x):
    """The indices of the network's trainable variables that the most tasks share."""
    variables = model.network.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        outputs = model.task_outputs(model(x, training=False))
    reached = [
        [gradient is not None for gradient in tape.gradient(output, variables)]
        for output in outputs
    ]
    return model.most_shared(reached)


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
    x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    variables = [v.value for v in model.gramian_variables(lambda: shared_variables(model, x))]
    zero = tf.UnconnectedGradients.ZERO
    with tf.GradientTape(persistent=True) as tape:

        def gramian(shares):
            tasks = tf.unstack(shares)
            with tape.stop_recording():
                rows = [
                    tape.gradient(task, variables, unconnected_gradients=zero) for task in tasks
                ]
            total = tf.zeros((len(rows), len(rows)))
            for gradients in zip(*rows, strict=True):
                flat = tf.cast(tf.reshape(tf.stack(gradients), (len(rows), -1)), tf.float32)
                total += tf.matmul(flat, flat, transpose_b=True)
            return total

        with model.gramian_from(gramian):
            return stock_train_step(model, data)
