"""Keras's entry points, with data that arrive as arrays checked first."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_taskrobust.training.logs import hear_steps
from keras_taskrobust.training.task_losses import TaskLosses


class CheckedTrainer(keras.Model):
    """A Keras model that checks arrays before a step gets them.

    Attributes:
        steps_are_heard: bool. Whether anything looks at the logs of single steps.
    """

    steps_are_heard = True
    # What `compile` made of its losses.
    _task_losses: Any = None

    def check_arrays(self, x, y) -> None:
        """Raises a `ValueError` for data that no step could use, where they arrive as arrays.

        Args:
            x: the inputs given to `fit`, `evaluate`, `train_on_batch` or `test_on_batch`: arrays,
                or a data set, which is not looked into.
            y: the targets, or `None`.
        """
        if y is not None and self._task_losses is not None:
            self._task_losses.check_groups(y)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        *args,
        **kwargs,
    ):
        """`keras.Model.fit`, with data that arrive as arrays checked first.

        In a `sample_weight` by output, that of a grouped output may be one array.
        """
        self.check_arrays(x, y)
        if isinstance(validation_data, tuple):
            self.check_arrays(*(*validation_data, None)[:2])
            weights = map(self._weights_like_targets, validation_data[2:])
            validation_data = (*validation_data[:2], *weights)
        self.steps_are_heard = verbose != 0 or hear_steps(callbacks)
        try:
            return super().fit(
                x,
                y,
                batch_size,
                epochs,
                verbose,
                callbacks,
                validation_split,
                validation_data,
                shuffle,
                class_weight,
                self._weights_like_targets(sample_weight),
                *args,
                **kwargs,
            )
        finally:
            self.steps_are_heard = True

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        *args,
        **kwargs,
    ):
        """`keras.Model.evaluate`, with data that arrive as arrays checked first.

        In a `sample_weight` by output, that of a grouped output may be one array.
        """
        self.check_arrays(x, y)
        sample_weight = self._weights_like_targets(sample_weight)
        return super().evaluate(x, y, batch_size, verbose, sample_weight, *args, **kwargs)

    def train_on_batch(self, x, y=None, *args, **kwargs):
        """`keras.Model.train_on_batch`, with the arrays checked first."""
        self.check_arrays(x, y)
        return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        """`keras.Model.test_on_batch`, with the arrays checked first."""
        self.check_arrays(x, y)
        return super().test_on_batch(x, y, *args, **kwargs)

    def _weights_like_targets(self, sample_weight):
        if isinstance(sample_weight, Mapping) and isinstance(self._task_losses, TaskLosses):
            return self._task_losses.expand_weights(sample_weight)
        return sample_weight
