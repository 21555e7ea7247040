"""Products of the tasks' gradients in full float32, laid out as XLA has them."""

import jax
import jax.numpy as jnp


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
