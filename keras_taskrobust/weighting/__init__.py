"""K task losses to one objective: every way of weighing tasks, as Keras layers."""

from keras_taskrobust.weighting.base import (
    TaskBatch,
    TaskWeighting,
    available,
    get,
    register,
)
from keras_taskrobust.weighting.dwa import DynamicWeightAverage
from keras_taskrobust.weighting.gradnorm import GradNorm
from keras_taskrobust.weighting.group_dro import GroupDRO
from keras_taskrobust.weighting.hard_max import HardMaximum
from keras_taskrobust.weighting.minimax import SoftmaxWeightedLoss, SquareRootSchedule
from keras_taskrobust.weighting.pooled import PooledWeighting
from keras_taskrobust.weighting.uncertainty import UncertaintyWeighting
from keras_taskrobust.weighting.uniform import UniformWeighting

__all__ = [
    "DynamicWeightAverage",
    "GradNorm",
    "GroupDRO",
    "HardMaximum",
    "PooledWeighting",
    "SoftmaxWeightedLoss",
    "SquareRootSchedule",
    "TaskBatch",
    "TaskWeighting",
    "UncertaintyWeighting",
    "UniformWeighting",
    "available",
    "get",
    "register",
]
