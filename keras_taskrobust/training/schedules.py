"""Learning-rate schedules that Keras does not have."""

import keras
from keras import ops

from keras_taskrobust.weighting.base import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class LinearWarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear from 0 to `peak` over `warmup_steps`, then linear to 0 at `steps`: BERT's schedule.

    Args:
        peak: float. The largest rate.
        warmup_steps: int >= 0, less than `steps`.
        steps: int. The step at which the rate is 0.

    Example:

    >>> schedule = LinearWarmupDecay(1.0, warmup_steps=2, steps=6)
    >>> [float(schedule(step)) for step in (0, 1, 2, 4, 6)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def __init__(self, peak, warmup_steps, steps):
        if not 0 <= warmup_steps < steps:
            raise ValueError(
                "`warmup_steps` must be at least 0 and less than `steps`. "
                f"Received: warmup_steps={warmup_steps}, steps={steps}"
            )
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.steps = steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rising = step / max(self.warmup_steps, 1)
        falling = (self.steps - step) / (self.steps - self.warmup_steps)
        share = ops.where(step < self.warmup_steps, rising, falling)
        return self.peak * ops.maximum(share, 0.0)

    def get_config(self):
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "steps": self.steps}
