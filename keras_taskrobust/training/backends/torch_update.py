"""The update of Keras's Adam and AdamW, and of `ScaledAdamW`, by PyTorch's fused kernel.

Keras's own is made of a dozen operations, each of which reads and writes all numbers of the model.
Everything around it stays Keras's: gradient accumulation, loss scaling, clipping, weight decay,
moving averages, constraints, schedules, and the variables themselves.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence

import keras
import torch
from keras import ops
from torch.optim.adam import adam

from keras_taskrobust.training.keras_internals import index_of_variable, leaves_of, moments_of
from keras_taskrobust.training.optimizers import ScaledAdamW
from keras_taskrobust.types import Tensor

# What Keras makes of its classes on this backend.
_KERAS_KINDS = type(keras.optimizers.Adam(name="adam")), type(keras.optimizers.AdamW(name="adamw"))


@contextlib.contextmanager
def fused_update(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    fused = [leaf for leaf in leaves_of(optimizer) if type(leaf) in (*_KERAS_KINDS, ScaledAdamW)]
    for leaf in fused:
        # Past Keras's tracking of attributes.
        leaf.__dict__["_backend_update_step"] = functools.partial(_update, leaf)
    try:
        yield
    finally:
        for leaf in fused:
            leaf.__dict__.pop("_backend_update_step", None)


@torch.no_grad()
def _update(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[Tensor],
    variables: Sequence[keras.Variable],
    learning_rate: Tensor,
) -> None:
    rows = [
        (variable.value, gradient.contiguous(), *moments_of(optimizer, variable))
        for variable, gradient in zip(variables, gradients, strict=True)
    ]
    if not _suit_the_kernel(rows):
        type(optimizer)._backend_update_step(optimizer, gradients, variables, learning_rate)
        return
    for multiplier, decay, members in _groups(optimizer, variables):
        rate = learning_rate if multiplier == 1 else ops.multiply(learning_rate, multiplier)
        columns = [list(column) for column in zip(*(rows[i] for i in members), strict=True)]
        if decay:
            share = ops.cast(ops.multiply(rate, decay), "float32")
            torch._foreach_sub_(columns[0], torch._foreach_mul(columns[0], share))
        _apply_kernel(optimizer, columns, rate)


def _suit_the_kernel(rows: Sequence[Sequence[Tensor]]) -> bool:
    """Whether all are float32, and variables and moments lie in memory as the kernel reads them."""
    return all(t.dtype == torch.float32 and t.is_contiguous() for row in rows for t in row)


def _groups(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> list[tuple[float, float, list[int]]]:
    """Multipliers of the rate, weight decays beside Keras's, and the variables that share them."""
    if not isinstance(optimizer, ScaledAdamW):
        return [(1.0, 0.0, list(range(len(variables))))]
    groups: dict[tuple[float, float], list[int]] = {}
    for position, variable in enumerate(variables):
        index = index_of_variable(optimizer, variable)
        key = optimizer.multipliers[index], optimizer.weight_decays[index]
        groups.setdefault(key, []).append(position)
    return [(*key, members) for key, members in groups.items()]


def _apply_kernel(
    optimizer: keras.optimizers.Optimizer, columns: Sequence[list[Tensor]], rate: Tensor
) -> None:
    """Adam's step for columns of variables, gradients, first and second moments, and maxima."""
    step = ops.cast(optimizer.iterations + 1, "float32")
    unseen_1, unseen_2 = (1 - ops.power(b, step) for b in (optimizer.beta_1, optimizer.beta_2))
    # Keras adds epsilon to the root of the second moment as it is. So the corrections are part of
    # the rate, and the kernel, after steps without end, has none to make.
    rate = ops.cast(rate, "float32") * ops.sqrt(unseen_2) / unseen_1
    values, gradients, firsts, seconds, *maxima = columns
    adam(
        values,
        gradients,
        firsts,
        seconds,
        maxima[0] if maxima else [],
        [rate.new_full((), torch.inf)] * len(values),
        fused=True,
        amsgrad=optimizer.amsgrad,
        beta1=optimizer.beta_1,
        beta2=optimizer.beta_2,
        lr=rate,
        weight_decay=0.0,
        eps=optimizer.epsilon,
        maximize=False,
    )
