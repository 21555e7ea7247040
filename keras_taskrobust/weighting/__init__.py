"""K task losses to one objective: every way of weighing tasks, as Keras layers."""

from keras_taskrobust.weighting.adaptive_groups import AdaptiveGroups
from keras_taskrobust.weighting.aligned_mtl import AlignedMTL
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate, TaskWeighting
from keras_taskrobust.weighting.cagrad import CAGrad
from keras_taskrobust.weighting.chi2_dro import ChiSquareDRO
from keras_taskrobust.weighting.config import ConFIG
from keras_taskrobust.weighting.cvar import ConditionalValueAtRisk
from keras_taskrobust.weighting.db_mtl import DualBalancing
from keras_taskrobust.weighting.dualproj import DualProj
from keras_taskrobust.weighting.dwa import DynamicWeightAverage
from keras_taskrobust.weighting.excess_loss import ExcessLoss
from keras_taskrobust.weighting.excess_mtl import ExcessMTL
from keras_taskrobust.weighting.facts import MethodFacts
from keras_taskrobust.weighting.fairgrad import FairGrad
from keras_taskrobust.weighting.famo import FAMO
from keras_taskrobust.weighting.gls import GeometricLoss
from keras_taskrobust.weighting.graddrop import GradDrop
from keras_taskrobust.weighting.gradient import GradientWeighting
from keras_taskrobust.weighting.gradnorm import GradNorm
from keras_taskrobust.weighting.gradvac import GradVac
from keras_taskrobust.weighting.gramian import GramianWeighting
from keras_taskrobust.weighting.group_dro import GroupDRO
from keras_taskrobust.weighting.hard_max import HardMaximum
from keras_taskrobust.weighting.imtl_g import ImpartialGradient
from keras_taskrobust.weighting.imtl_l import ImpartialLoss
from keras_taskrobust.weighting.kl_dro import KLDivergenceDRO
from keras_taskrobust.weighting.mgda import MGDA
from keras_taskrobust.weighting.minimax import SoftmaxWeightedLoss, SquareRootSchedule
from keras_taskrobust.weighting.moco import MoCo
from keras_taskrobust.weighting.nash_mtl import NashMTL
from keras_taskrobust.weighting.pcgrad import PCGrad
from keras_taskrobust.weighting.pooled import PooledWeighting
from keras_taskrobust.weighting.rate_of_improvement import RateOfImprovement
from keras_taskrobust.weighting.registry import available, create, get, options_of, register
from keras_taskrobust.weighting.rlw import RandomLossWeighting
from keras_taskrobust.weighting.sdmgrad import SDMGrad
from keras_taskrobust.weighting.static import StaticWeighting
from keras_taskrobust.weighting.stch import SmoothTchebycheff
from keras_taskrobust.weighting.uncertainty import UncertaintyWeighting
from keras_taskrobust.weighting.uniform import UniformWeighting
from keras_taskrobust.weighting.upgrad import UPGrad

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
