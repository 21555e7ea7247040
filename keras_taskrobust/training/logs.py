"""The logs of a step, and who listens to them."""

from typing import Any

import keras

from keras_taskrobust.training.keras_internals import does_nothing

_HOOKS = ("on_batch_end", "on_train_batch_end")


class UnheardLogs(dict):
    """The logs of a step to which nobody listens.

    They are false, so that Keras, which turns the logs of every step into floats for its callbacks,
    leaves them alone: on a small model that takes as long as the weighting itself.
    """

    def __bool__(self):
        return False


def hear_steps(callbacks: Any) -> bool:
    """Whether one of the callbacks does something after a training step.

    Args:
        callbacks: what `keras.Model.fit` takes: a list, one callback, a `CallbackList` or `None`.

    Example:

    >>> hear_steps([keras.callbacks.EarlyStopping()])
    False
    >>> hear_steps(keras.callbacks.LambdaCallback(on_train_batch_end=print))
    True
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    hooks = [
        getattr(callback, name)
        for callback in keras.tree.flatten(callbacks)
        for name in _HOOKS
        if callback is not None
    ]
    return not all(map(does_nothing, hooks))
