"""Training any Keras model on many tasks."""

from keras_taskrobust.training.minimax_model import MinimaxModel
from keras_taskrobust.training.task_losses import GroupedLoss, TaskTotals

__all__ = ["GroupedLoss", "MinimaxModel", "TaskTotals"]
