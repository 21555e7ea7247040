"""Training any Keras model on many tasks."""

from keras_taskrobust.training import schedules as schedules  # saved models may name them
from keras_taskrobust.training.backup import BackupAndRestore
from keras_taskrobust.training.layouts import layout_map
from keras_taskrobust.training.minimax_model import MinimaxModel
from keras_taskrobust.training.output_losses import GroupedLoss
from keras_taskrobust.training.tasks import TaskTotals

__all__ = ["BackupAndRestore", "GroupedLoss", "MinimaxModel", "TaskTotals", "layout_map"]
