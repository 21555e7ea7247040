"""A warning where the loss of a task became NaN or infinite."""

import math
import warnings

import keras


class WarnOfBrokenLoss(keras.callbacks.Callback):
    """Warns at the end of the first epoch in which the loss of a task was not finite."""

    def __init__(self):
        super().__init__()
        self._has_warned = False

    def on_epoch_end(self, epoch, logs=None):
        names = getattr(self.model, "task_names", ())
        broken = [name for name in names if math.isinf((logs or {}).get(f"{name}_loss", 0.0))]
        if not broken or self._has_warned:
            return
        self._has_warned = True
        warnings.warn(
            f"In epoch {epoch + 1} the loss of {', '.join(map(repr, broken))} became NaN or "
            "infinite, and with it the weights of the model. Missing labels need the sample weight "
            "0, and group ids their range; else lower the learning rate. `StopOnBrokenLoss` stops "
            'at the step and names the first; `compile(on_nonfinite="skip")` leaves it out.',
            stacklevel=2,
        )
