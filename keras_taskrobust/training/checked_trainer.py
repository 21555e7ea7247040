"""Keras's entry points, with data that arrive as arrays checked first."""

import contextlib
import math
from typing import Any

import keras

from keras_taskrobust.training.backup import backup_among
from keras_taskrobust.training.broken_losses import WarnOfBrokenLoss
from keras_taskrobust.training.lone_tasks import (
    WarnOfLoneTasks,
    WarnOfLoudTask,
    depends_on_company,
    goes_by_size,
)
from keras_taskrobust.training.recovery import RecoveringModel
from keras_taskrobust.training.task_losses import TaskLosses
from keras_taskrobust.training.wrapper import Wrapper, check_checkpoints


class CheckedTrainer(RecoveringModel, Wrapper):
    """A wrapper of a network that checks arrays before a step gets them."""

    # What `compile` made of its losses.
    _task_losses: Any = None

    def check_arrays(self, x: Any, y: Any) -> None:
        """Raises a `ValueError` for data that no step could use, where they arrive as arrays.

        Args:
            x: the inputs given to `fit`, `evaluate`, `train_on_batch` or `test_on_batch`: arrays,
                or a data set, which is not looked into.
            y: the targets, or `None`.
        """
        if y is not None and self._task_losses is not None:
            self._task_losses.check_groups(y)

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        """The callbacks of `fit` beside those that it is given."""
        weighting = getattr(self, "weighting", None)
        own: list[keras.callbacks.Callback] = [WarnOfBrokenLoss()]
        if depends_on_company(weighting):
            own.append(WarnOfLoneTasks())
        if goes_by_size(weighting) and getattr(self._task_losses, "are_of_different_kinds", False):
            own.append(WarnOfLoudTask())
        return own

    def prepare_training(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        class_weight: Any,
        batch_size: int | None,
        held_out: float,
    ) -> Any:
        """What is to be done before the first step of `fit`, with its arguments.

        Args:
            held_out: float. The share at the end of arrays that is not trained on.

        Returns:
            The `x` to train on.
        """
        return x

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
        initial_epoch=0,
        steps_per_epoch=None,
        *args,
        **kwargs,
    ):
        """`keras.Model.fit`, with data that arrive as arrays checked first.

        The `sample_weight` of a grouped output, or of the only output, may be one array with the
        shape of the labels or of their leading axes. A dict of them may leave outputs out. A label
        that is NaN needs the weight 0. `class_weight` is for models with one loss;
        labels that are class indices may have any shape.
        """
        is_model = isinstance(self.network, keras.Model)  # MM-MAE wraps a layer
        if is_model and self.network.compiled and not self.compiled:
            raise ValueError(
                f"`compile` must be called on the {type(self).__name__}, not on its network. "
                "Received: a compiled network in a model that is not"
            )
        self.check_arrays(x, y)
        check_checkpoints(callbacks)
        if isinstance(validation_data, list | tuple):
            validation_data = self._checked(*validation_data)
        held_out = validation_split if validation_data is None else 0.0
        sample_weight, class_weight = self._weights(y, sample_weight, class_weight, held_out)
        if y is not None and isinstance(self._task_losses, TaskLosses):
            self._task_losses.check_labels(y, sample_weight)
        backup = backup_among(callbacks)
        with contextlib.ExitStack() as around:
            if backup is not None:
                x, initial_epoch = around.enter_context(
                    backup.resuming(self, x, initial_epoch, steps_per_epoch, shuffle)
                )
            x = self.prepare_training(x, y, sample_weight, class_weight, batch_size, held_out)
            if not isinstance(callbacks, keras.callbacks.CallbackList):
                given = [] if callbacks is None else keras.tree.flatten(callbacks)
                callbacks = [*given, *self.own_callbacks()]
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
                sample_weight,
                initial_epoch,
                steps_per_epoch,
                *args,
                **kwargs,
            )

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

        The `sample_weight` of a grouped output, or of the only output, may be one array.
        """
        self.check_arrays(x, y)
        sample_weight = self._weights_like_targets(y, sample_weight)
        return super().evaluate(x, y, batch_size, verbose, sample_weight, *args, **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, *args, **kwargs):
        """`keras.Model.train_on_batch`, with the arrays checked first.

        `class_weight` is as in `fit`.
        """
        self.check_arrays(x, y)
        sample_weight, class_weight = self._weights(y, sample_weight, class_weight)
        return super().train_on_batch(x, y, sample_weight, class_weight, *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        """`keras.Model.test_on_batch`, with the arrays checked first."""
        self.check_arrays(x, y)
        return super().test_on_batch(x, y, *args, **kwargs)

    def _checked(self, x, y=None, *sample_weight):
        self.check_arrays(x, y)
        return x, y, *(self._weights_like_targets(y, weight) for weight in sample_weight)

    def _weights(self, y, sample_weight, class_weight, held_out=0.0):
        """Sample weights as Keras wants them, and the class weights that are left to Keras."""
        has_tasks = isinstance(self._task_losses, TaskLosses)
        if class_weight is not None and sample_weight is None and has_tasks:
            sample_weight = self._task_losses.weights_of_classes(y, class_weight)
            if sample_weight is not None:
                # Keras does not weigh the samples that `validation_split` holds out.
                sample_weight[math.floor(len(sample_weight) * (1.0 - held_out)) :] = 1.0
                class_weight = None
        return self._weights_like_targets(y, sample_weight), class_weight

    def _weights_like_targets(self, y, sample_weight):
        if isinstance(self._task_losses, TaskLosses):
            return self._task_losses.weights_like_targets(y, sample_weight)
        return sample_weight
