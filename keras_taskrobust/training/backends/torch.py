"""PyTorch: eager steps; gradients by `torch.autograd.grad`; replicas by `torch.distributed`."""

import contextlib
from collections.abc import Sequence

import keras
import torch
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from keras_taskrobust.training.backends.torch_layers import attend as attend
from keras_taskrobust.training.backends.torch_layers import linear as linear
from keras_taskrobust.training.backends.torch_random import RandomStream
from keras_taskrobust.training.backends.torch_replicas import Trainer as Trainer
from keras_taskrobust.training.backends.torch_replicas import global_totals as global_totals
from keras_taskrobust.training.backends.torch_replicas import (
    mean_over_replicas,
    reached_on_any,
    samples_of,
    sum_in_buckets,
)
from keras_taskrobust.training.backends.torch_replicas import one_step_of_all as one_step_of_all
from keras_taskrobust.training.backends.torch_replicas import replicas as replicas
from keras_taskrobust.training.backends.torch_replicas import same_start as same_start
from keras_taskrobust.training.backends.torch_replicas import sum_over_replicas as sum_over_replicas
from keras_taskrobust.training.backends.torch_replicas import update_metric as update_metric
from keras_taskrobust.training.backends.torch_rows import (
    gradients_of,
    pull_losses,
    pull_one_by_one,
    pull_together,
    runs_on_cpu,
)
from keras_taskrobust.training.backends.torch_update import fused_update as fused_update
from keras_taskrobust.training.gradients import (
    GradientPlan,
    TaskRows,
    add,
    by_variable_and_layer,
    cutting,
    is_float,
)
from keras_taskrobust.training.held_assignments import HeldAssignments
from keras_taskrobust.training.keras_internals import log_loss, value_outside_scopes
from keras_taskrobust.training.skipped_steps import StepSkipped, what_must_be_finite
from keras_taskrobust.types import Tensor

FUSES_LAYERS = True


def give_back_state(model):
    """Nothing: the variables hold the state all the time."""


def sum_by_group(values, member):
    return torch.where(member, values[..., None], 0.0).sum(tuple(range(values.ndim)))


def select_predictions(counts, predictions, value):
    return torch.where(counts, predictions, value)


def scale_for_replicas(loss):
    return loss


def is_concrete(tensor: Tensor) -> bool:
    return tensor.device.type != "meta"


def accelerator() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def has_bfloat16() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def rematerialized(function):
    def run(*tensors):
        if not torch.is_grad_enabled():
            return function(*tensors)
        # Its early stop is an error, which Keras dresses up and whose traceback keeps the tensors.
        with set_checkpoint_early_stop(False):
            return checkpoint(function, *tensors, use_reentrant=False)

    return run


def random_stream():
    return RandomStream()


@contextlib.contextmanager
def own_randomness(stream):
    """Keras's unseeded dropout draws from torch's global generator, which no model can save.

    Inside this context it draws from the model's own stream; the global state is left as it was.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    before = stream.numbers()
    stream.count()
    with torch.random.fork_rng(devices=devices):
        # What `torch.manual_seed` does for these; for all other kinds of devices it takes longer
        # than the weighting.
        torch.default_generator.manual_seed(sum(before))
        if devices:
            torch.cuda.manual_seed(sum(before))
        try:
            yield
        except BaseException:
            stream.state.assign(before)
            raise


def reached(model, x, layer):
    uncut: list = []
    cut_off: list = []

    def watch(tensor):
        uncut.append(tensor)
        cut_off.append(tensor if tensor.requires_grad else tensor.detach().requires_grad_())
        return cut_off[-1]

    with torch.enable_grad(), cutting(layer, watch):
        outputs = model.task_outputs(model(x, training=False))

    variables = [variable.value for variable in model.network.trainable_variables]
    sources = [*variables, *cut_off]

    def sources_of(tensors):
        sums = [tensor.float().sum() for tensor in tensors]
        found = gradients_of(sums, [torch.ones_like(total) for total in sums], sources)
        return by_variable_and_layer([g is not None for g in found], len(variables))

    depends = [sources_of([output]) for output in outputs]
    return depends if layer is None else [*depends, sources_of(uncut)]


class _HeldAssignments(HeldAssignments):
    def add_update(self, update):
        variable, value = update
        super().add_update((variable, value.detach()))

    def mean_over_replicas(self, model, gradients, loss, samples):
        """As `torch_replicas.mean_over_replicas`, for the gradients of the trainable variables.

        What the replicas assigned to other weights, such as moving averages, becomes the mean, too.
        """
        if replicas() == 1:
            return list(gradients), loss.detach(), samples
        weights = [w for w in model.network.non_trainable_weights if is_float(w)]
        changes = [self.change_of(weight) for weight in weights]
        likes = [variable.value for variable in (*model.trainable_variables, *weights)]
        means, loss, samples = mean_over_replicas([*gradients, *changes], likes, loss, samples)
        for weight, change in zip(weights, means[len(gradients) :], strict=True):
            if change is not None:
                weight.assign(value_outside_scopes(weight) + change)
        return means[: len(gradients)], loss, samples


def stock_train_step(model, data):
    """Keras's step, which changes nothing before all that may fail in a user's code is over.

    And without `backward`, which would call what other libraries hang on it to sum gradients.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    with _HeldAssignments(model) as held:
        y_pred = model(x, training=True)
        loss = model.compute_loss(x, y, y_pred, sample_weight, training=True)
        scaled = model.optimizer.scale_loss(loss)
        variables = model.trainable_variables
        gradients = gradients_of(
            [scaled], [torch.ones_like(scaled)], [v.value for v in variables], is_last=True
        )
        gradients, loss, samples = held.mean_over_replicas(model, gradients, loss, samples_of(x))
        log_loss(model, loss, samples)
        logs = model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
    return _update(model, held, gradients, loss, logs)


def _update(model, held, gradients, loss, logs):
    """Makes the step, unless it would break the model."""
    is_taken = model.skipped_steps is None or _are_finite(
        what_must_be_finite(model.optimizer, loss, gradients)
    )
    if is_taken:
        held.make()
        with torch.no_grad(), fused_update(model.optimizer):
            model.optimizer.apply(gradients, model.trainable_variables)
    if model.skipped_steps is None:
        return logs
    logs = model.count_step(is_taken, held.get_current_value(model.task_sums))
    if not is_taken:
        raise StepSkipped
    return logs


def _are_finite(tensors):
    largest = torch.nn.utils.get_total_norm(tensors, norm_type=float("inf"))
    return bool(torch.isfinite(largest))


def with_logs(step_function, change):
    def changed(iterator):
        return change(step_function(iterator))

    return changed


def gradient_train_step(model, data):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    plan = model.gradient_plan(lambda layer: reached_on_any(model, reached(model, x, layer)))
    number = replicas()
    uncut, cut_off = [], []

    def cut(tensor):
        uncut.append(tensor)
        cut_off.append(tensor.detach().requires_grad_())
        return cut_off[-1]

    with _HeldAssignments(model) as held:
        with cutting(plan.layer, cut):
            y_pred = model(x, training=True)
        losses, counts, others, shares = model.task_losses_of_batch(x, y, y_pred, sample_weight)

        def pull(tasks, scale, upstream, variables):
            targets, cotangents = [], []
            if others is not None:
                targets, cotangents = [others], [scale * torch.ones_like(others)]
            if tasks is not None:
                targets, cotangents = [*targets, shares], [*cotangents, number * tasks]
            if upstream is not None:
                targets += uncut
                cotangents += [u.to(z.dtype) for u, z in zip(upstream, uncut, strict=True)]
            values = cut_off if variables is None else [variable.value for variable in variables]
            is_last = upstream is not None
            return gradients_of(targets, cotangents, values, is_last)

        scale = model.optimizer.scale_loss(torch.ones((), device=losses.device))
        rows = None
        if plan.takes_rows:
            rows = _task_rows(plan, shares, model.task_outputs(y_pred), cut_off, scale)
        value, weights, own_weights, directions = model.weigh_gradients(
            losses.detach(), counts, rows
        )
        if plan.layer is not None:
            # Of this replica's samples, which alone have them.
            directions = [number * direction for direction in directions]
        variables = model.trainable_variables
        with torch.no_grad():
            gradients = plan.gradients(
                variables, pull, weights, own_weights, rows, directions, scale
            )
        own = [variable.value for variable in model.weighting.trainable_variables]
        for variable, slope in zip(own, gradients_of([value], [scale], own), strict=True):
            position = next(i for i, v in enumerate(variables) if v.value is variable)
            gradients[position] = slope
        gradients, loss, samples = held.mean_over_replicas(
            model, gradients, add(value, others), samples_of(x)
        )
        log_loss(model, loss, samples)
        logs = model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
    return _update(model, held, gradients, loss, logs)


def _task_rows(
    plan: GradientPlan, shares: Tensor, outputs: Sequence, cut_off: list, scale: Tensor
) -> TaskRows:
    """The gradients of the global task losses.

    From a task's loss to its own one of the `outputs`, and on from there: all losses lie in one
    vector, through which a pass would take zeros through the heads of all other tasks.

    Those at a layer's outputs are of this replica's samples. Those of the heads are this replica's,
    of which the mean is taken later.
    """
    values = cut_off or [variable.value for variable in plan.place]
    heads = [[variable.value for variable in variables] for variables in plan.heads_of_task]
    outputs = [outputs[index] for index in plan.output_of_task]
    scale = replicas() * scale
    slopes = pull_losses(shares, scale, outputs)
    if plan.task_chunk == 1 or runs_on_cpu(values):
        place, of_heads = pull_one_by_one(outputs, slopes, values, heads)
    else:
        place, of_heads = pull_together(outputs, slopes, values, heads, plan.task_chunk)
    rows = [rows.float().div_(scale) for rows in place]
    return TaskRows(
        rows if cut_off else sum_in_buckets(rows),
        [[None if g is None else g.float() for g in own] for own in of_heads],
    )


def inner_products(gradients):
    rows = gradients.flatten(1)
    return rows @ rows.T


def weighted_sum(weights, gradients):
    return (weights @ gradients.flatten(1)).view(gradients.shape[1:])
