"""JAX: one vector-Jacobian product serves task gradients and update. Replicas need nothing."""

import contextlib

import jax
import jax.numpy as jnp
import keras
from jax.interpreters import partial_eval

from keras_taskrobust.training.gradients import add, by_variable_and_layer, cutting


def sum_by_group(values, member):
    return jnp.where(member, values[..., None], 0.0).sum(tuple(range(values.ndim)))


def sum_over_replicas(totals, counts):
    return totals, counts


def scale_for_replicas(loss):
    return loss


def random_stream():
    return None


def own_randomness(stream):
    return contextlib.nullcontext()


def reached(model, x, layer):
    """For each of `task_outputs`, by which trainable variables of the network it has a gradient.

    And, as the last entry, whether it has one by an output of `layer`.
    """

    def outputs(trainable, non_trainable, x, offsets=None):
        uncut = []

        def shift(tensor):
            uncut.append(tensor)
            return tensor if offsets is None else tensor + offsets[len(uncut) - 1]

        with cutting(layer, shift):
            prediction, _ = model.stateless_call(trainable, non_trainable, x, training=False)
        return model.task_outputs(prediction), uncut

    def slopes(sources, tangents, non_trainable, x):
        return jax.jvp(lambda *s: outputs(s[0], non_trainable, x, s[1])[0], sources, tangents)[1]

    # The variables' values are donated to the running step: only their shapes are at hand.
    trainable, non_trainable, x = keras.tree.map_structure(
        lambda value: jax.ShapeDtypeStruct(value.shape, value.dtype),
        (model.trainable_variables, model.non_trainable_variables, x),
    )
    _, offsets = jax.eval_shape(outputs, trainable, non_trainable, x)
    sources = (trainable, offsets)
    jaxpr = jax.make_jaxpr(slopes)(sources, sources, non_trainable, x).jaxpr
    first, number = len(trainable) + len(offsets), len(jaxpr.outvars)
    positions = _positions(model.trainable_variables, model.network.trainable_variables)
    order = [*positions, *range(len(trainable), first)]
    depends = []
    for output in range(number):
        _, used = partial_eval.dce_jaxpr(jaxpr, [output == index for index in range(number)])
        found = [used[first + position] for position in order]
        depends.append(by_variable_and_layer(found, len(positions)))
    return depends


def stock_train_step(model, *args):
    return keras.Model.train_step(model, *args)


def with_logs(step_function, change):
    def changed(state, iterator):
        logs, state = step_function(state, iterator)
        return change(logs), state

    return changed


def gradient_train_step(model, state, data):
    trainable, non_trainable, optimizer_variables, metrics_variables = state
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    plan = model.gradient_plan(lambda layer: reached(model, x, layer))

    def forward(trainable, offsets):
        uncut = []

        def cut(tensor):
            uncut.append(tensor)
            if offsets is None:
                return tensor
            return jax.lax.stop_gradient(tensor) + offsets[len(uncut) - 1]

        with cutting(plan.layer, cut):
            y_pred, updated, losses = model.stateless_call(
                trainable, non_trainable, x, return_losses=True, training=True
            )
        with _scope(model, trainable, updated):
            task_losses, counts, others, _ = model.task_losses_of_batch(
                x, y, y_pred, sample_weight, additional_losses=losses
            )
        return (task_losses, others, uncut), (y_pred, updated, counts)

    offsets = []
    if plan.layer is not None:
        (_, _, uncut), _ = jax.eval_shape(lambda values: forward(values, None), trainable)
        offsets = [jnp.zeros(tensor.shape, tensor.dtype) for tensor in uncut]
    (task_losses, others, _), pull_back, (y_pred, non_trainable, counts) = jax.vjp(
        forward, trainable, offsets, has_aux=True
    )

    def pull(tasks, scale, upstream, variables):
        if tasks is None and upstream is None and others is None:
            return [None] * len(offsets if variables is None else variables)
        tasks = jnp.zeros_like(task_losses) if tasks is None else tasks
        upstream = [jnp.zeros_like(offset) for offset in offsets] if upstream is None else upstream
        upstream = [u.astype(offset.dtype) for u, offset in zip(upstream, offsets, strict=True)]
        one = None if others is None else scale * jnp.ones_like(others)
        gradients, by_offset = pull_back((tasks, one, upstream))
        if variables is None:
            return by_offset
        return [gradients[index] for index in _positions(model.trainable_variables, variables)]

    scale = _loss_scale(model.optimizer, optimizer_variables)
    task_gradients = None
    if plan.takes_rows:
        where = None if plan.layer is not None else plan.place
        task_gradients = _map_tasks(
            lambda tasks: pull(tasks, 0.0, None, where), scale * jnp.eye(len(task_losses)), plan
        )
        task_gradients = [rows.astype("float32") / scale for rows in task_gradients]

    def objective(trainable):
        scope = _scope(model, trainable, non_trainable, metrics_variables)
        with scope:
            value, *shares = model.weigh_gradients(task_losses, counts, task_gradients)
        return value, (shares, [_current(scope, variables) for variables in _state_of(model)])

    (value, (shares, (non_trainable, metrics_variables))), weighting_gradients = jax.value_and_grad(
        objective, has_aux=True
    )(trainable)
    gradients = plan.gradients(model.trainable_variables, pull, *shares, scale)
    for index in _positions(model.trainable_variables, model.weighting.trainable_variables):
        gradients[index] = scale * weighting_gradients[index]

    trainable, optimizer_variables = model.optimizer.stateless_apply(
        optimizer_variables, gradients, trainable
    )
    logs, metrics_variables = model._update_metrics_variables(
        metrics_variables, add(value, others), x, y, y_pred, sample_weight
    )
    return logs, (trainable, non_trainable, optimizer_variables, metrics_variables)


def _map_tasks(task_gradient, cotangents, plan):
    if plan.task_chunk is None:
        return jax.vmap(task_gradient)(cotangents)
    return jax.lax.map(task_gradient, cotangents, batch_size=plan.task_chunk)


def inner_products(gradients):
    rows = _rows(gradients)
    products = jnp.matmul(rows, rows.T, precision="highest")
    # LAPACK wants its matrices column by column, and a product that is laid out so takes XLA ten
    # times as long on a CPU: a vector has one layout only.
    return jax.lax.optimization_barrier(products.reshape(-1)).reshape(products.shape)


def weighted_sum(weights, gradients):
    total = jnp.matmul(weights, _rows(gradients), precision="highest")
    return total.reshape(gradients.shape[:0:-1]).T


def _rows(gradients):
    """`(K, P)`, the axes in reverse: so lie the gradients of a kernel that XLA takes for all tasks
    at once, and need no copy.
    """
    axes = (0, *range(gradients.ndim - 1, 0, -1))
    return gradients.transpose(axes).reshape(gradients.shape[0], -1)


def _positions(variables, selected):
    position = {id(variable): index for index, variable in enumerate(variables)}
    return [position[id(variable)] for variable in selected]


def _state_of(model):
    return model.non_trainable_variables, model.metrics_variables


def _scope(model, trainable, non_trainable, metrics_variables=()):
    mapping = [
        *zip(model.trainable_variables, trainable, strict=True),
        *zip(model.non_trainable_variables, non_trainable, strict=True),
        *zip(model.metrics_variables if metrics_variables else (), metrics_variables, strict=True),
    ]
    return keras.StatelessScope(state_mapping=mapping)


def _current(scope, variables):
    return [scope.get_current_value(variable) for variable in variables]


def _loss_scale(optimizer, optimizer_variables):
    mapping = list(zip(optimizer.variables, optimizer_variables, strict=True))
    with keras.StatelessScope(state_mapping=mapping):
        return optimizer.scale_loss(1.0)
