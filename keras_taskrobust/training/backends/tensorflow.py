"""TensorFlow: gradients by a second, persistent tape; replicas by `tf.distribute`."""

import contextlib

import keras
import tensorflow as tf


def sum_over_replicas(totals, counts):
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return totals, counts
    return context.all_reduce(tf.distribute.ReduceOp.SUM, [totals, counts])


def scale_for_replicas(loss):
    return loss / tf.distribute.get_strategy().num_replicas_in_sync


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


def gradient_train_step(model, data):
    x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    variables = model.gramian_variables(lambda: shared_variables(model, x))
    with tf.GradientTape(persistent=True) as tape:

        def gramian(losses):
            tasks = tf.unstack(losses)
            with tape.stop_recording():
                rows = [
                    tape.gradient(loss, variables, unconnected_gradients="zero") for loss in tasks
                ]
            total = tf.zeros((len(rows), len(rows)))
            for gradients in zip(*rows, strict=True):
                flat = tf.reshape(tf.stack(gradients), (len(rows), -1))
                flat, _ = sum_over_replicas(tf.cast(flat, tf.float32), tf.zeros(()))
                total += tf.matmul(flat, flat, transpose_b=True)
            return total

        with model.gramian_from(gramian):
            return model.stock_train_step(data)
