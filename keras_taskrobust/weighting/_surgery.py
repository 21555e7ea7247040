"""Gradient surgery, one gradient against the next, in terms of the Gramian."""

from collections.abc import Callable

from keras import ops

from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._gradient_based import GramianWeighting
from keras_taskrobust.weighting._random import advanced, uniform
from keras_taskrobust.weighting._solvers import matrix_vector
from keras_taskrobust.weighting.base import StateUpdates, TaskBatch


class GradientSurgery(GramianWeighting):
    """Base class of PCGrad and GradVac: every gradient meets all others, in a random order.

    The order in which gradient `i` meets the others comes from a hash of (seed, number of training
    calls, `i`, `j`): no global generator is read or seeded, a saved layer goes on as it would
    have, and all backends use the same order.
    """

    seed: int

    def create_state(self, num_tasks: int) -> None:
        self.step = self.add_state("step", shape=())
        self.stream = self.add_state("stream", lambda shape, dtype: ops.arange(*shape, dtype=dtype))

    def next_state(self, tasks: TaskBatch) -> StateUpdates:
        return [(self.step, advanced(ops.convert_to_tensor(self.step)))]

    def orders(self, present: Tensor) -> Tensor:
        """`(K, K)` int: in row `i`, all tasks in the order that `i` meets them; itself last."""
        stream = ops.convert_to_tensor(self.stream)
        keys = uniform(
            self.seed,
            ops.convert_to_tensor(self.step),
            stream[:, None],
            stream[None],
        )
        keys = keys + ops.where(present, 0.0, 1.0)[None]
        keys = keys + 2.0 * ops.eye(self.num_tasks, dtype="float32")
        return ops.argsort(keys, axis=1)


def operate(
    cosines: Tensor, orders: Tensor, strength: Callable, extra: Tensor
) -> tuple[Tensor, Tensor]:
    """Lets every gradient, at unit length, meet the others in turn.

    Args:
        cosines: `(K, K)` float32.
        orders: `(K, K)` int, from `GradientSurgery.orders`.
        strength: function of the operated gradients' projections on the unit gradients they meet
            `(K,)`, of their squared lengths `(K,)`, of who is met (`(K, K)` one-hot), and of
            `extra`; gives how much of the met unit gradient is added `(K,)`, and the new `extra`.
        extra: `(K, K)` float32, carried along.

    Returns:
        The coefficients `(K, K)` of the unit gradients in each operated one, and `extra`.
    """
    size = cosines.shape[0]
    identity = ops.eye(size, dtype="float32")
    places = ops.arange(size, dtype="int32")[None, None]
    turns = ops.cast(orders[:, :, None] == places, "float32")
    cosines_in_turn = ops.take(cosines, orders, axis=0)

    def meet(turn, state):
        coefficients, projections, extra = state
        met = turns[:, turn]
        projection = ops.sum(projections * met, axis=1)
        squared_length = ops.sum(projections * coefficients, axis=1)
        added, extra = strength(projection, squared_length, met, extra)
        added = added[:, None]
        projections = projections + added * cosines_in_turn[:, turn]
        return coefficients + added * met, projections, extra

    coefficients, _, extra = ops.fori_loop(0, size - 1, meet, (identity, cosines, extra))
    return coefficients, extra


def weights_of(coefficients: Tensor, norms: Tensor) -> Tensor:
    """The weights of the sum of the operated gradients; 1 for one that is zero."""
    positive = norms > 0
    sums = matrix_vector(ops.transpose(coefficients), norms)
    return ops.where(positive, sums / ops.where(positive, norms, 1.0), 1.0)
