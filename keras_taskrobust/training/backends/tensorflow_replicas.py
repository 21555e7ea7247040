"""Replicas of `tf.distribute` that each have a part of the batch and take one step together.

What they hand to the optimizer are parts of the gradient: Keras's optimizers sum them.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_taskrobust.training.optimizers import looks_at_gradients
from keras_taskrobust.types import Tensor


def replicas() -> int:
    """The number of replicas that train together."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def same_start(model):
    """Nothing: the variables are mirrored."""


def sum_over_replicas(tensors):
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tensors
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)


def global_totals(model, totals, counts):
    number = replicas()
    if number == 1:
        return totals, counts
    sums, counts = sum_over_replicas([tf.stop_gradient(totals), counts])

    @tf.custom_gradient
    def in_their_place(totals):
        # All replicas do the same with the sums, so that the slopes by them are the same, too.
        return tf.identity(sums), lambda slopes: number * slopes

    return in_their_place(totals), counts


def update_metric(metric, *batch):
    metric.update_state(*batch)


def scale_for_replicas(loss):
    number = replicas()
    return loss if number == 1 else loss / number


def unscale_for_replicas(loss):
    """A global loss, of the share of it that one replica returns."""
    number = replicas()
    return loss if number == 1 else loss * number


def parts_to_sum(optimizer: keras.optimizers.Optimizer, parts: Sequence) -> list:
    """What each replica hands to the optimizer: parts of the gradient that it may look at.

    Keras clips each part as if it were the whole. So where the optimizer does more than sum, one
    replica hands over the whole gradient and the others nothing.

    Args:
        optimizer: the model's.
        parts: this replica's parts of the gradients, `None` where there is none.

    Returns:
        As `parts`; not finite on any replica where the sum is not.
    """
    if replicas() == 1 or not looks_at_gradients(optimizer):
        return list(parts)
    context = tf.distribute.get_replica_context()
    sums = iter(sum_over_replicas([part for part in parts if part is not None]))
    is_first = tf.equal(context.replica_id_in_sync_group, 0)

    def whole_or_nothing(total: Tensor) -> Tensor:
        return tf.where(is_first | ~tf.math.is_finite(total), total, tf.zeros_like(total))

    return [None if part is None else whole_or_nothing(next(sums)) for part in parts]
