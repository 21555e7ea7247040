"""What a weighting makes of absent tasks before and after a method sees them."""

from keras import ops


def masked_weights(weights, tasks):
    """In float32, without a gradient, and 0 for absent tasks."""
    weights = ops.stop_gradient(ops.cast(weights, "float32"))
    if len(weights.shape):
        check_shape("weights", weights, tuple(tasks.present.shape))
    return ops.where(tasks.present, weights, 0.0)


def squared_norms(gramian, gradients):
    """What is not finite where a task's gradient is not."""
    if gramian is not None:
        yield ops.diagonal(gramian)
    if gradients is not None:
        yield ops.sum(gradients * gradients, axis=1)


def masked_gramian(gramian, present):
    """Without a gradient, and 0 in the rows and columns of absent tasks."""
    both = present[None] & present[:, None]
    return ops.stop_gradient(ops.where(both, gramian, 0.0))


def masked_gradients(gradients, present):
    """Without a gradient, and 0 in the rows of absent tasks."""
    return ops.stop_gradient(ops.where(present[:, None], gradients, 0.0))


def check_shape(name, tensor, expected):
    """Refuses a tensor whose shape is known to be another."""
    shape = tuple(tensor.shape)
    if len(shape) != len(expected) or any(
        size not in (None, wanted) for size, wanted in zip(shape, expected, strict=True)
    ):
        raise ValueError(
            f"`{name}` must have the shape {expected}. Received: {name} of shape {shape}"
        )
