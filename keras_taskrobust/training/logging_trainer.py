"""A trainer that logs the figures of its tasks."""

from typing import Any

from keras_taskrobust.training.backends import backend
from keras_taskrobust.training.measuring_trainer import MeasuringTrainer
from keras_taskrobust.training.optimizers import build_optimizer
from keras_taskrobust.training.skipped_steps import SkippedSteps
from keras_taskrobust.training.task_metric import TaskMetric
from keras_taskrobust.types import Tensor


class LoggingTrainer(MeasuringTrainer):
    """A step hands its task figures on in one entry of its logs; here they get their names.

    Attributes:
        skipped_steps: the `SkippedSteps`, or `None` where broken steps are taken.
    """

    def __init__(self, network, **kwargs):
        super().__init__(network, **kwargs)
        self._task_metric: Any = None
        self._gradient_metric: Any = None
        self.skipped_steps: Any = None

    @property
    def task_sums(self) -> Any:
        """The variable of the task figures."""
        return self._task_metric.sums

    def logs_of_step(self) -> dict:
        """The figures of all metrics, those of the tasks packed into one entry."""
        logs = {}
        for metric in self.metrics:
            is_packed = isinstance(metric, TaskMetric | SkippedSteps)
            result = metric.packed() if is_packed else metric.result()
            logs.update(result if isinstance(result, dict) else {metric.name: result})
        return logs

    def count_step(self, is_taken: Any, sums: Tensor) -> dict:
        """Counts a step that may have been skipped.

        Args:
            is_taken: scalar bool.
            sums: the value of `task_sums`, had it been taken.

        Returns:
            The logs of what was done.
        """
        self.skipped_steps.update_state(is_taken, sums[0])
        return self.logs_of_step()

    def make_train_function(self, force=False):
        made = self.train_function
        build_optimizer(self)
        super().make_train_function(force)
        if self.train_function is not made:
            self.train_function = backend.with_logs(self.train_function, self._training_logs)

    def make_test_function(self, force=False):
        made = self.test_function
        super().make_test_function(force)
        if self.test_function is not made:
            self.test_function = backend.with_logs(self.test_function, self._evaluation_logs)

    def _training_logs(self, logs):
        self.step_finished()
        if self.skipped_steps is not None:
            logs = self.skipped_steps.unpack(logs)
        return self._task_metric.unpack(logs)

    def _evaluation_logs(self, logs):
        """Without the figures of training alone."""
        self.step_finished()
        of_training = (self._gradient_metric, self.skipped_steps)
        dropped = {
            name for metric in of_training if metric is not None for name in metric.log_names
        }
        logs = {name: value for name, value in logs.items() if name not in dropped}
        return self._task_metric.unpack(logs)
