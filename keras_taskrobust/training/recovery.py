"""A Keras model that stays whole when a step fails."""

import contextlib
from typing import Any

from keras_taskrobust.training.backends import Trainer, backend
from keras_taskrobust.training.keras_internals import compiled_metrics


class RecoveringModel(Trainer):
    """A Keras model that has, after a call that failed, the weights of before the failing step.

    Whatever ended the call: a mistake in the data, a loss, metric or callback that raises, an
    interrupt. What `fit` with right data needs is then as if the call had not been.
    """

    train_function: Any
    test_function: Any
    _a_step_finished = False

    def fit(self, *args, **kwargs):
        with self._recovering():
            return super().fit(*args, **kwargs)

    def evaluate(self, *args, **kwargs):
        with self._recovering():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args, **kwargs):
        with self._recovering():
            return super().predict(*args, **kwargs)

    def train_on_batch(self, *args, **kwargs):
        with self._recovering():
            return super().train_on_batch(*args, **kwargs)

    def test_on_batch(self, *args, **kwargs):
        with self._recovering():
            return super().test_on_batch(*args, **kwargs)

    def predict_on_batch(self, *args, **kwargs):
        with self._recovering():
            return super().predict_on_batch(*args, **kwargs)

    def step_finished(self) -> None:
        """To be told of every step of `fit` or `evaluate` that came to its end."""
        # Past Keras's tracking of attributes.
        self.__dict__["_a_step_finished"] = True

    @contextlib.contextmanager
    def _recovering(self):
        metrics, functions = compiled_metrics(self), (self.train_function, self.test_function)
        were_built = metrics is None or metrics.built
        self.__dict__["_a_step_finished"] = False
        try:
            yield
        except BaseException:
            backend.give_back_state(self)
            if not self._a_step_finished:
                # What the first step made of wrong data: functions half traced, and metrics that
                # took their kind and their number of classes from the labels.
                self.train_function, self.test_function = functions
                if not were_built:
                    metrics.built = False
            raise
