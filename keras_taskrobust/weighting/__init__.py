"""K task losses to one objective: every way of weighing tasks, as Keras layers."""

from keras_taskrobust.weighting._adaptive_groups import AdaptiveGroups
from keras_taskrobust.weighting._aligned_mtl import AlignedMTL
from keras_taskrobust.weighting._cagrad import CAGrad
from keras_taskrobust.weighting._chi2_dro import ChiSquareDRO
from keras_taskrobust.weighting._config import ConFIG
from keras_taskrobust.weighting._cvar import ConditionalValueAtRisk
from keras_taskrobust.weighting._db_mtl import DualBalancing
from keras_taskrobust.weighting._dualproj import DualProj
from keras_taskrobust.weighting._dwa import DynamicWeightAverage
from keras_taskrobust.weighting._excess_loss import ExcessLoss
from keras_taskrobust.weighting._excess_mtl import ExcessMTL
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._fairgrad import FairGrad
from keras_taskrobust.weighting._famo import FAMO
from keras_taskrobust.weighting._gls import GeometricLoss
from keras_taskrobust.weighting._graddrop import GradDrop
from keras_taskrobust.weighting._gradient_based import GradientWeighting, GramianWeighting
from keras_taskrobust.weighting._gradnorm import GradNorm
from keras_taskrobust.weighting._gradvac import GradVac
from keras_taskrobust.weighting._group_dro import GroupDRO
from keras_taskrobust.weighting._hard_max import HardMaximum
from keras_taskrobust.weighting._imtl_g import ImpartialGradient
from keras_taskrobust.weighting._imtl_l import ImpartialLoss
from keras_taskrobust.weighting._kl_dro import KLDivergenceDRO
from keras_taskrobust.weighting._mgda import MGDA
from keras_taskrobust.weighting._minimax import SoftmaxWeightedLoss, SquareRootSchedule
from keras_taskrobust.weighting._moco import MoCo
from keras_taskrobust.weighting._nash_mtl import NashMTL
from keras_taskrobust.weighting._pcgrad import PCGrad
from keras_taskrobust.weighting._pooled import PooledWeighting
from keras_taskrobust.weighting._rate_of_improvement import RateOfImprovement
from keras_taskrobust.weighting._rlw import RandomLossWeighting
from keras_taskrobust.weighting._scale_free_minimax import ScaleFreeMinimax
from keras_taskrobust.weighting._sdmgrad import SDMGrad
from keras_taskrobust.weighting._static import StaticWeighting
from keras_taskrobust.weighting._stch import SmoothTchebycheff
from keras_taskrobust.weighting._uncertainty import UncertaintyWeighting
from keras_taskrobust.weighting._uniform import UniformWeighting
from keras_taskrobust.weighting._upgrad import UPGrad
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate, TaskWeighting
from keras_taskrobust.weighting.registry import available, create, get, options_of, register

__all__ = [
    "FAMO",
    "MGDA",
    "AdaptiveGroups",
    "AlignedMTL",
    "CAGrad",
    "ChiSquareDRO",
    "ConFIG",
    "ConditionalValueAtRisk",
    "DualBalancing",
    "DualProj",
    "DynamicWeightAverage",
    "ExcessLoss",
    "ExcessMTL",
    "FairGrad",
    "GeometricLoss",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GradientWeighting",
    "GramianWeighting",
    "GroupDRO",
    "HardMaximum",
    "ImpartialGradient",
    "ImpartialLoss",
    "KLDivergenceDRO",
    "MethodFacts",
    "MoCo",
    "NashMTL",
    "PCGrad",
    "PooledWeighting",
    "RandomLossWeighting",
    "RateOfImprovement",
    "SDMGrad",
    "ScaleFreeMinimax",
    "SmoothTchebycheff",
    "SoftmaxWeightedLoss",
    "SquareRootSchedule",
    "StaticWeighting",
    "TaskBatch",
    "TaskUpdate",
    "TaskWeighting",
    "UPGrad",
    "UncertaintyWeighting",
    "UniformWeighting",
    "available",
    "create",
    "get",
    "options_of",
    "register",
]


def __dir__() -> list[str]:
    modules = ("base", "registry")
    return sorted([*__all__, *modules, *(name for name in globals() if name.startswith("__"))])
