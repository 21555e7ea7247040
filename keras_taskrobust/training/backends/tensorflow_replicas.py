"""Replicas of `tf.distribute` that each have a part of the batch and take one step together.

What they hand to the optimizer are parts of the gradient: Keras's optimizers sum them.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_taskrobust.training.optimizers import looks_at_gradients
from keras_taskrobust.training.replica_seeds import SEEDS, SEEDS_APART, seeds_of_replica
from keras_taskrobust.types import Tensor


def replicas() -> int:
    """The number of replicas that train together."""
    return tf.distribute.get_strategy().num_replicas_in_sync


class Trainer(keras.Model):
    """Keras's trainer, which fits under several workers, too; replicas have own random states.

    Attributes:
        has_own_seeds: bool. Whether they have, in this `fit`.
    """

    has_own_seeds = False
    train_function: Callable | None

    def fit(self, *args, **kwargs):
        self.has_own_seeds = False
        return super().fit(*args, **kwargs)

    def predict_on_batch(self, x):
        outputs = super().predict_on_batch(x)
        if replicas_of(self) == 1:
            return outputs
        # Keras lets each replica predict all of it.
        rows = len(keras.tree.flatten(x)[0])
        return keras.tree.map_structure(lambda output: output[:rows], outputs)

    def make_train_function(self, force=False):
        former = self.train_function
        super().make_train_function(force)
        made = self.train_function
        if made is not None and made is not former and replicas_of(self) > 1:
            self.train_function = _with_own_seeds(self, made)

    def _make_function(self, step_function):
        strategy = self.distribute_strategy
        has_workers = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        logs_rows = has_workers and strategy.extended._in_multi_worker_mode()

        def step(data):
            logs = step_function(self._in_own_memory(data))
            # Keras takes means over the first axis of what the workers log.
            return keras.tree.map_structure(lambda log: log[tf.newaxis] if logs_rows else log, logs)

        return super()._make_function(step)

    def _in_own_memory(self, data):
        """A batch of which no operation writes into the arrays that it came from.

        On a processor TensorFlow takes an array that begins at a multiple of 64 bytes as it is,
        and each replica's part is a slice of it. An operation may write its result into a slice
        that nothing else reads. XLA never does, nor does `predict`, which holds the batch.
        """
        if self.jit_compile or replicas_of(self) == 1 or not self._is_on_processor():
            return data
        return tf.nest.map_structure(
            lambda value: None if value is None else tf.raw_ops.DeepCopy(x=value),
            data,
            expand_composites=True,
        )

    def _is_on_processor(self):
        return all("CPU" in name for name in self.distribute_strategy.extended.worker_devices)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # From a mean over the replicas' batches, in Keras, which fails where a worker has one.
        if iterator is not None and replicas_of(self) > 1:
            results_of = self.distribute_strategy.experimental_local_results
            batch = next(next(iter(iterator))[-1])
            data_batch = keras.tree.map_structure(lambda value: results_of(value)[0], batch)
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)


def replicas_of(model: Trainer) -> int:
    """The number of replicas of a model, whatever the scope."""
    strategy = model.distribute_strategy
    return 1 if strategy is None else strategy.num_replicas_in_sync


def _with_own_seeds(model: Trainer, function: Callable) -> Callable:
    """A train function before whose first step each replica gets random states of its own."""

    def step(iterator):
        if not model.has_own_seeds:
            _spread_seeds(model)
            model.has_own_seeds = True
        return function(iterator)

    return step


def _spread_seeds(model: Trainer) -> None:
    """Sets the random states apart from those of the first replica; that of a weighting is one."""
    states = seeds_of_replica(model)
    if not states:
        return

    @tf.function
    def spread():
        context = tf.distribute.get_replica_context()
        number = tf.cast(context.replica_id_in_sync_group, tf.int64)
        own = [tf.cast(state.value, tf.int64) for state in states]
        of_first = [tf.where(number == 0, one, tf.zeros_like(one)) for one in own]
        for state, first in zip(states, sum_over_replicas(of_first), strict=True):
            seed, drawn = tf.unstack(first)
            apart = tf.stack([(seed + number * SEEDS_APART) % SEEDS, drawn])
            state.assign(tf.cast(apart, state.dtype))

    model.distribute_strategy.run(spread)


def same_start(model):
    """Nothing: the variables are mirrored, and random states are spread before the first step."""


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


def are_finite(values: Sequence[Tensor]) -> Tensor:
    """Whether all values of all replicas are finite, and so is each one's sum over them."""
    number = replicas()
    broken = [tf.reduce_any(~tf.math.is_finite(number * value)) for value in values]
    (found,) = sum_over_replicas([tf.cast(tf.reduce_any(broken), tf.float32)])
    return tf.equal(found, 0.0)


def make_if(is_taken: Tensor, make: Callable, *arguments: Any) -> None:
    """Calls `make` on all replicas with the arguments of each, or on none.

    Args:
        is_taken: scalar bool, the same on all.
        make: what may look at variables of all replicas, which TensorFlow refuses in a branch that
            each of them takes by itself.
        arguments: tensors, in lists or not.
    """

    def of_each():
        make(*arguments)

    if replicas() == 1 or tf.__internal__.distribute.strategy_supports_no_merge_call():
        tf.cond(is_taken, of_each, lambda: None)
        return

    def of_all(strategy, is_taken, *arguments):
        def make_on_all():
            strategy.extended.call_for_each_replica(make, args=arguments)

        first, *_ = strategy.experimental_local_results(is_taken)
        tf.cond(first, make_on_all, lambda: None)

    tf.distribute.get_replica_context().merge_call(of_all, args=(is_taken, *arguments))


@contextlib.contextmanager
def one_step_of_all(model: keras.Model) -> Iterator[None]:
    if replicas_of(model) == 1:
        yield
        return
    _spread_seeds(model)
    compute_loss = model.compute_loss

    def compute_loss_of_all(x=None, y=None, y_pred=None, sample_weight=None, training=True):
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            # Its gradients are summed over the replicas.
            y, y_pred, sample_weight = tf.nest.map_structure(
                lambda rows: None if rows is None else context.all_gather(rows, axis=0),
                (y, y_pred, sample_weight),
            )
        return compute_loss(x, y, y_pred, sample_weight, training)

    model.__dict__["compute_loss"] = compute_loss_of_all  # past Keras's tracking of attributes
    try:
        yield
    finally:
        del model.__dict__["compute_loss"]
