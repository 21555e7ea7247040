"""Minimax over groups of tasks, which are re-made while training by the tasks' losses."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import StateUpdates, TaskBatch, TaskWeighting
from keras_taskrobust.weighting.registry import get, register


@register("adaptive_groups")
class AdaptiveGroups(TaskWeighting):
    """Minimax over `num_groups` groups of many fine tasks, grouped by the height of their losses.

    The adaptive grouping that Wang et al. (2023) leave to future work. The loss of a group is the
    mean over the elements of its tasks, `L_g = sum_k n_k L_k / N_g`, `N_g = sum_k n_k`; `weighting`
    weighs the groups, and a task gets its share of that: `w_k = w_g n_k / N_g`. So a task that is
    rare, whose loss is noisy, does not stand alone before the softmax.

    After every `window` training calls the groups are made again from each task's mean loss over
    these calls: those that minimise the squared distances of the losses from their group's mean,
    each task counted with its elements (Fisher 1958). On a line such groups are runs of the
    sorted losses, so that the best cuts are found exactly by dynamic programming, without starting
    points or a number of iterations; groups of similar losses hide little in their means, and
    counting elements keeps rare tasks with noisy losses from taking groups for themselves. Group 0
    has the lowest losses. A task that was absent keeps its last mean and its elements; one that was
    never seen stands above them all. Ties go by the position of the tasks.

    `num_groups=1` is `PooledWeighting`; `num_groups >= K` is `weighting` over all tasks.

    Args:
        num_groups: int >= 1. The groups, at most.
        window: int >= 1, the training calls between two groupings, or `None`: the first groups
            stay.
        initial_groups: `K` integers in `[0, num_groups)`, the first groups. `None`: runs of
            neighbouring tasks, of nearly equal numbers of them.
        weighting: what weighs the groups: a `TaskWeighting` on losses, its name or its config. Its
            state, if it has any, belongs to the group at that height, whatever its members.

    Example:

    >>> import numpy as np
    >>> layer = AdaptiveGroups(num_groups=2, window=1)
    >>> losses, counts = np.array([1.0, 5.0, 2.0]), np.array([3, 4, 1])
    >>> objective = layer(losses, counts)
    >>> np.asarray(layer.groups).tolist()
    [0.0, 1.0, 0.0]
    >>> print(np.asarray(layer.compute_weights(losses, counts)).round(4))
    [0.0172 0.977  0.0057]

    Reference:
        [Task-Robust Pre-Training for Worst-Case Downstream Adaptation]
        (https://arxiv.org/abs/2306.12070), NeurIPS 2023; Fisher, "On Grouping for Maximum
        Homogeneity", Journal of the American Statistical Association 53, 1958.
    """

    facts = MethodFacts(
        "minimax over groups of tasks, re-made by the height of their losses",
        "ours, after Wang et al. 2023",
        2023,
        balances_learning=True,
    )

    def __init__(
        self,
        num_groups: int = 8,
        window: int | None = 100,
        initial_groups: Sequence[int] | None = None,
        weighting: str | dict | TaskWeighting = "minimax",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_groups = checks.integer("num_groups", num_groups, 1)
        self.window = None if window is None else checks.integer("window", window, 1)
        self.initial_groups = _checked_groups(initial_groups, self.num_groups)
        self.weighting = get(weighting)
        if self.weighting.needs != "losses":
            raise ValueError(
                "`weighting` must weigh by the losses alone. Received: "
                f"weighting={self.weighting.name!r}, which needs {self.weighting.needs}"
            )
        if self.weighting.needs_trivial_losses:
            raise ValueError(
                "`weighting` must need no trivial losses: those of groups that change are not "
                f"known. Received: weighting={self.weighting.name!r}"
            )

    def create_state(self, num_tasks: int) -> None:
        checks.one_per_task("initial_groups", self.initial_groups, num_tasks)
        self.weighting.build((self.num_groups,))
        number = min(self.num_groups, num_tasks)
        neighbours = [task * number // num_tasks for task in range(num_tasks)]
        self.first_groups = neighbours if self.initial_groups is None else self.initial_groups
        if self.window is not None:
            self.step = self.add_state("step", shape=())
            self.total = self.add_state("total")
            self.elements = self.add_state("elements")
            self.last_mean = self.add_state("last_mean")
            self.last_elements = self.add_state("last_elements")
            self.groups = self.add_state("groups", self._make_groups)

    def weigh(self, tasks: TaskBatch) -> Tensor:
        members = self._members()
        groups = _pool(tasks, members)
        weights = self.weighting.weights_of_batch(groups) / _divisor(groups.counts)
        return tasks.counts * ops.sum(members * weights[None], axis=1)

    def next_state(self, tasks: TaskBatch) -> StateUpdates:
        updates = self.weighting.next_state(_pool(tasks, self._members()))
        if self.window is None:
            return updates
        step = self.step + 1.0
        total = self.total + tasks.counts * tasks.losses
        elements = self.elements + tasks.counts
        appeared = elements > 0
        last = (self.last_mean, self.last_elements, self.groups)
        last_mean, last_elements, last_groups = map(ops.convert_to_tensor, last)
        mean = ops.where(appeared, total / _divisor(elements), last_mean)
        sizes = ops.where(appeared, elements, last_elements)
        heights = ops.where(sizes > 0, mean, float("inf"))
        groups = homogeneous_groups(heights, sizes, min(self.num_groups, heights.shape[0]))
        closes = step >= self.window
        regroups = closes & ops.any(appeared)
        return [
            *updates,
            (self.step, ops.where(closes, 0.0, step)),
            (self.total, ops.where(closes, 0.0, total)),
            (self.elements, ops.where(closes, 0.0, elements)),
            (self.last_mean, ops.where(closes, mean, last_mean)),
            (self.last_elements, ops.where(closes, sizes, last_elements)),
            (self.groups, ops.where(regroups, groups, last_groups)),
        ]

    def regulariser(self, tasks: TaskBatch) -> Tensor:
        return self.weighting.regulariser(_pool(tasks, self._members()))

    def get_config(self):
        return {
            **super().get_config(),
            "num_groups": self.num_groups,
            "window": self.window,
            "initial_groups": self.initial_groups,
            "weighting": keras.saving.serialize_keras_object(self.weighting),
        }

    def _make_groups(self, shape, dtype=None):
        return ops.convert_to_tensor(self.first_groups, dtype=dtype)

    def _members(self):
        """`(K, G)` float32: 1 where a task is in a group."""
        groups = self.first_groups if self.window is None else self.groups
        return ops.one_hot(ops.cast(groups, "int32"), self.num_groups, dtype="float32")


def homogeneous_groups(values: Tensor, sizes: Tensor, num_groups: int) -> Tensor:
    """The groups of points on a line with the least squared distances from their means.

    Args:
        values: `(K,)` float32, the points; any that are infinite must have the size 0.
        sizes: `(K,)` float32 >= 0, how often each point counts.
        num_groups: int in `[1, K]`. None of the groups is empty.

    Returns:
        `(K,)` float32: the number of each point's group, in the order of their values.

    Example:

    >>> import numpy as np
    >>> groups = homogeneous_groups(np.array([5.0, 1.0, 1.5, 9.0], "float32"), np.ones(4), 3)
    >>> np.asarray(groups).tolist()
    [1.0, 0.0, 0.0, 2.0]
    """
    order = ops.argsort(values)
    rank = ops.cast(ops.argsort(order), "int32")
    cost = _costs_of_runs(ops.take(values, order), ops.cast(ops.take(sizes, order), "float32"))
    least, starts = cost[0], []  # of the points before each place, in one group
    for _ in range(num_groups - 1):
        with_last_run = least[:, None] + cost
        starts.append(ops.cast(ops.argmin(with_last_run, axis=0), "int32"))
        least = ops.min(with_last_run, axis=0)
    groups = ops.zeros(rank.shape, "float32")
    start = rank.shape[0]
    for starts_of_last_run in reversed(starts):
        start = ops.take(starts_of_last_run, start)
        groups = groups + ops.cast(rank >= start, "float32")
    return groups


def _costs_of_runs(values, sizes):
    """`(K + 1, K + 1)`: the squared distances of points i ... j - 1 from their mean."""
    shares = sizes / _divisor(ops.sum(sizes))
    values = ops.where(ops.isfinite(values), values, 0.0)
    values = values - ops.sum(shares * values)
    powers = (shares, shares * values, shares * values * values)
    mass, first, second = map(_sums_of_runs, powers)
    squares = ops.relu(second - first * first / _divisor(mass))
    places = ops.arange(values.shape[0] + 1)
    run = places[:, None] < places[None]
    return ops.where(run, squares, float("inf"))


def _sums_of_runs(values):
    sums = ops.concatenate([ops.zeros((1,), "float32"), ops.cumsum(values)])
    return sums[None] - sums[:, None]


def _pool(tasks: TaskBatch, members: Tensor) -> TaskBatch:
    """The batch as the groups see it."""
    counts = ops.sum(members * tasks.counts[:, None], axis=0)
    totals = ops.sum(members * (tasks.counts * tasks.losses)[:, None], axis=0)
    return TaskBatch(totals / _divisor(counts), counts > 0, counts, None)


def _divisor(values):
    return ops.where(values > 0, values, 1.0)


def _checked_groups(groups: Any, num_groups: int) -> list[int] | None:
    if groups is None:
        return None
    if not (
        isinstance(groups, Iterable)
        and all(checks.is_integer(group) and 0 <= group < num_groups for group in groups)
    ):
        raise ValueError(
            f"`initial_groups` must be integers in [0, {num_groups}), one for each task. "
            f"Received: initial_groups={groups}"
        )
    return [int(group) for group in groups]
