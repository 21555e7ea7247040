"""JAX: one vector-Jacobian product serves the Gramian and the update. Replicas need nothing."""

import contextlib

import jax
import jax.numpy as jnp
import keras
from jax.interpreters import partial_eval


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


def shared_variables(model, x):
    """The indices of the network's trainable variables that the most tasks share."""

    def outputs(trainable, non_trainable, x):
        prediction, _ = model.stateless_call(trainable, non_trainable, x, training=False)
        return model.task_outputs(prediction)

    # The variables' values are donated to the running step: only their shapes are at hand.
    specifications = keras.tree.map_structure(
        lambda value: jax.ShapeDtypeStruct(value.shape, value.dtype),
        (model.trainable_variables, model.non_trainable_variables, x),
    )
    jaxpr = jax.make_jaxpr(outputs)(*specifications).jaxpr
    number = len(jaxpr.outvars)
    positions = _positions(model.trainable_variables, model.network.trainable_variables)
    reached = []
    for output in range(number):
        _, used = partial_eval.dce_jaxpr(jaxpr, [output == index for index in range(number)])
        reached.append([used[position] for position in positions])
    return model.most_shared(reached)


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
    variables = model.gramian_variables(lambda: shared_variables(model, x))
    positions = _positions(model.trainable_variables, variables)

    def forward(trainable):
        y_pred, updated, losses = model.stateless_call(
            trainable, non_trainable, x, return_losses=True, training=True
        )
        scope = _scope(model, trainable, updated)
        with scope:
            task_losses, counts, others, _ = model.task_losses_of_batch(
                x, y, y_pred, sample_weight, additional_losses=losses
            )
        return (task_losses, others), (y_pred, updated, counts)

    (task_losses, others), pull_back, (y_pred, non_trainable, counts) = jax.vjp(
        forward, trainable, has_aux=True
    )

    def task_gradient(cotangent):
        (gradients,) = pull_back((cotangent, jnp.zeros_like(others)))
        return [gradients[index] for index in positions]

    rows = jax.vmap(task_gradient)(jnp.eye(len(task_losses), dtype=task_losses.dtype))
    gramian = sum(_inner_products(row) for row in rows)

    def objective(task_losses, trainable):
        scope = _scope(model, trainable, non_trainable, metrics_variables)
        with scope:
            value = model.objective_of_tasks(task_losses, counts, gramian, training=True)
        return value, [_current(scope, variables) for variables in _state_of(model)]

    (value, (non_trainable, metrics_variables)), (weights, weighting_gradients) = (
        jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)(task_losses, trainable)
    )
    scale = _loss_scale(model.optimizer, optimizer_variables)
    (gradients,) = pull_back((scale * weights, scale * jnp.ones_like(others)))
    for index in _positions(model.trainable_variables, model.weighting.trainable_variables):
        gradients[index] = scale * weighting_gradients[index]

    trainable, optimizer_variables = model.optimizer.stateless_apply(
        optimizer_variables, gradients, trainable
    )
    logs, metrics_variables = model._update_metrics_variables(
        metrics_variables, value + others, x, y, y_pred, sample_weight
    )
    return logs, (trainable, non_trainable, optimizer_variables, metrics_variables)


def _inner_products(rows):
    flat = rows.reshape(rows.shape[0], -1).astype("float32")
    return jnp.matmul(flat, flat.T, precision="highest")


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
