"""Processes of `torch.distributed` that each have a part of the batch and take one step together.

The gradients of these replicas are averaged. The slope of a global total by a replica's own one is
therefore the number of replicas.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import torch
from torch import distributed

from keras_taskrobust.training.keras_internals import in_symbolic_scope, log_loss
from keras_taskrobust.training.replica_seeds import SEEDS, SEEDS_APART, seeds_of_replica
from keras_taskrobust.types import Tensor

#: The bytes that are summed at once, unless a single tensor has more.
BUCKET = 25 * 2**20


def replicas() -> int:
    """The number of processes that train together."""
    initialised = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if initialised else 1


class Trainer(keras.Model):
    """Keras's trainer, whose steps and passes over data are those of all replicas.

    Attributes:
        has_same_start: bool. Whether the replicas have the state of the first one.
        length_of_totals: int, of the totals that the last step summed; `None` before the first.
    """

    has_same_start = False
    length_of_totals: int | None = None

    def fit(self, *args, **kwargs):
        self.has_same_start = False
        history = super().fit(*args, **kwargs)
        _end_pass(self)
        return history

    def evaluate(self, *args, **kwargs):
        result = super().evaluate(*args, **kwargs)
        _end_pass(self)
        return result

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y_pred = self(x, training=False)
        loss = self.compute_loss(x, y, y_pred, sample_weight, training=False)
        _, loss, samples = mean_over_replicas([], [], loss, samples_of(x))
        log_loss(self, loss, samples)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)


def samples_of(x: Any) -> int:
    """The number of samples of a batch of inputs."""
    return keras.tree.flatten(x)[0].shape[0]


def same_start(model):
    if replicas() == 1 or model.has_same_start:
        return
    _start_alike(model)
    model.has_same_start = True


def _start_alike(model: keras.Model) -> None:
    """Gives all replicas the state of the first one, and random states of their own."""
    variables = [*model.variables, *model.optimizer.variables]
    _check_alike(variables)
    for variable in variables:
        value = variable.value.detach().clone()
        distributed.broadcast(value, 0)
        variable.assign(value)
    for state in seeds_of_replica(model) if distributed.get_rank() else ():
        seed, drawn = state.value.tolist()
        state.assign([(seed + distributed.get_rank() * SEEDS_APART) % SEEDS, drawn])


def _check_alike(variables: Sequence[keras.Variable]) -> None:
    """Raises a `ValueError` where another replica has variables of other shapes or dtypes."""
    own = [(f"of shape {tuple(v.shape)}, {v.dtype}", v.path) for v in variables]
    by_rank: list = [None] * replicas()
    distributed.all_gather_object(by_rank, own)
    for rank, others in enumerate(by_rank):
        pairs = itertools.zip_longest(by_rank[0], others, fillvalue=("not there", "a variable"))
        for (of_first, path), (of_other, other_path) in pairs:
            if of_first != of_other:
                raise ValueError(
                    "Every process must make the same model, compiled alike. Received: "
                    f"{path} {of_first} on rank 0; {other_path} {of_other} on rank {rank}"
                )


class _GlobalTotals(torch.autograd.Function):
    """The sums of all replicas in the place of this one's, to the bit."""

    @staticmethod
    def forward(ctx, totals, sums):
        return sums.clone()

    @staticmethod
    def backward(ctx, slopes):
        return replicas() * slopes, None


def global_totals(model, totals, counts):
    if replicas() == 1:
        return totals, counts
    model.length_of_totals = len(totals)
    step = model._task_metric.steps + 1.0
    sums, counts = _sum_totals(totals, counts, step if torch.is_grad_enabled() else -step)
    return _GlobalTotals.apply(totals, sums), counts


def _end_pass(model: Trainer) -> None:
    """Waits for the end of the others' data, too: a replica that has more says so with its step."""
    if replicas() > 1 and model.length_of_totals is not None:
        nothing = torch.zeros(model.length_of_totals, device=model._task_metric.steps.device)
        _sum_totals(nothing, nothing, 0.0)


def _sum_totals(totals: Tensor, counts: Tensor, step: Any) -> tuple[Tensor, Tensor]:
    """Sums totals and counts over the replicas, which must all be at the same place.

    Args:
        totals: `(N,)`.
        counts: `(N,)`.
        step: the number of this step in its pass over the data, from 1, negative in an evaluation;
            0 after the last.
    """
    steps = totals.new_zeros(replicas())
    steps[distributed.get_rank()] = step
    sums = torch.cat([totals.detach(), counts, steps])
    distributed.all_reduce(sums)
    totals, counts, steps = sums.split([len(totals), len(counts), len(steps)])
    places: dict[float, list[str]] = {}
    for rank, place in enumerate(steps.tolist()):
        places.setdefault(place, []).append(str(rank))
    if len(places) > 1:
        received = (f"{_named(place)} rank {', '.join(ranks)}" for place, ranks in places.items())
        raise RuntimeError(
            "Every process must have as many batches, and evaluate when the others do. "
            f"Received: {'; '.join(received)}"
        )
    return totals, counts


def _named(place: float) -> str:
    if not place:
        return "at the end of the data"
    return f"at batch {abs(place):.0f} of {'training' if place > 0 else 'an evaluation'}"


def sum_over_replicas(tensor):
    if replicas() > 1:
        tensor = tensor.detach().clone()
        distributed.all_reduce(tensor)
    return tensor


def sum_in_buckets(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sums of tensors over the replicas, in float32."""
    if replicas() == 1:
        return list(tensors)
    sums: list = []
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.flatten().float() for tensor in bucket])
        distributed.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in bucket])
        sums += [part.view(like.shape) for part, like in zip(parts, bucket, strict=True)]
    return sums


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and size + 4 * tensor.numel() > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += 4 * tensor.numel()
    if bucket:
        yield bucket


def mean_over_replicas(
    gradients: Sequence, likes: Sequence[Tensor], loss: Tensor, samples: int
) -> tuple[list, Tensor, Any]:
    """What the gradients and the losses of the replicas are together.

    Args:
        gradients: tensors, `None` where this replica has none: zeros, if another one has.
        likes: for each a tensor of its shape.
        loss: scalar.
        samples: int, of this replica's part of the batch.

    Returns:
        The mean gradients, `None` where no replica has any; the mean loss; and the number of
        samples of the batch.
    """
    number = replicas()
    if number == 1:
        return list(gradients), loss.detach(), samples
    there = [float(gradient is not None) for gradient in gradients]
    facts = torch.cat([loss.new_tensor([*there, samples]), loss.detach().reshape(1)])
    distributed.all_reduce(facts)
    anywhere = [index for index, found in enumerate(facts[:-2].tolist()) if found]
    sums = sum_in_buckets(
        [
            torch.zeros_like(likes[index]) if gradients[index] is None else gradients[index]
            for index in anywhere
        ]
    )
    means: list = [None] * len(there)
    for index, total in zip(anywhere, sums, strict=True):
        means[index] = total.div_(number).to(likes[index].dtype)
    return means, facts[-1] / number, facts[-2]


def reached_on_any(model: Any, reached: list[list[bool]]) -> list[list[bool]]:
    """Which variables the tasks reach on any replica."""
    if replicas() == 1:
        return reached
    table = model._task_metric.sums.value.new_tensor(reached)
    distributed.all_reduce(table)
    return (table > 0).tolist()


def update_metric(metric, *batch):
    # Keras builds metrics by a call whose results are thrown away.
    if replicas() == 1 or in_symbolic_scope():
        metric.update_state(*batch)
        return
    before = {id(variable): variable.value.clone() for variable in metric.variables}
    metric.update_state(*batch)
    summed = [variable for variable in metric.variables if variable.aggregation == "sum"]
    if not summed:
        return
    # Double precision holds whole numbers, too.
    added = [(v.value - before.get(id(v), 0)).flatten().double() for v in summed]
    total = torch.cat(added)
    distributed.all_reduce(total)
    for variable, part in zip(summed, total.split([len(each) for each in added]), strict=True):
        change = part.view(variable.value.shape).to(variable.value.dtype)
        variable.assign(before.get(id(variable), 0) + change)


class _OutputsOfAll(torch.autograd.Function):
    """The outputs for the whole batch. The gradients of the replicas are averaged later."""

    @staticmethod
    def forward(ctx, own):
        ctx.rows = len(own)
        return _rows_of_all(own)

    @staticmethod
    def backward(ctx, slopes):
        return replicas() * slopes.split(ctx.rows)[distributed.get_rank()]


def _rows_of_all(own: Tensor) -> Tensor:
    parts = [
        torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(replicas())
    ]
    distributed.all_gather(parts, own.contiguous())
    return torch.cat(parts)


@contextlib.contextmanager
def one_step_of_all(model: keras.Model) -> Iterator[None]:
    if replicas() == 1:
        yield
        return
    _start_alike(model)
    optimizer, compute_loss, apply = model.optimizer, model.compute_loss, model.optimizer.apply

    def compute_loss_of_all(x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if not in_symbolic_scope():
            y, sample_weight = keras.tree.map_structure(
                lambda own: None if own is None else _rows_of_all(own), (y, sample_weight)
            )
            y_pred = keras.tree.map_structure(_OutputsOfAll.apply, y_pred)
        return compute_loss(x, y, y_pred, sample_weight, training)

    def apply_mean(gradients, variables):
        there = [gradient for gradient in gradients if gradient is not None]
        means = iter([total / replicas() for total in sum_in_buckets(there)])
        gradients = [None if one is None else next(means).to(one.dtype) for one in gradients]
        return apply(gradients, variables)

    # Past Keras's tracking of attributes.
    model.__dict__["compute_loss"] = compute_loss_of_all
    optimizer.__dict__["apply"] = apply_mean
    try:
        yield
    finally:
        del model.__dict__["compute_loss"], optimizer.__dict__["apply"]
