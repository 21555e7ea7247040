"""The logs of a step, and who listens to them."""

from keras.callbacks import CallbackList


class UnheardLogs(dict):
    """The logs of a step to which nobody listens.

    They are false, for which reason Keras, which turns the logs of every step into floats for its
    callbacks, leaves them alone: on small models that takes as long as the weighting itself.
    """

    def __bool__(self):
        return False


def hear_steps(callbacks) -> bool:
    """Whether one of the callbacks does something after a training step.

    Args:
        callbacks: what `keras.Model.fit` takes: a list, one callback, a `CallbackList` or `None`.
    """
    if isinstance(callbacks, CallbackList):
        callbacks = callbacks.callbacks
    callbacks = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    hooks = (getattr(c, name, None) for c in callbacks for name in _HOOKS)
    return any(hook is not None and not getattr(hook, "_is_default", False) for hook in hooks)


_HOOKS = ("on_batch_end", "on_train_batch_end")
