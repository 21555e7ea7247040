"""Task-robust pre-training for Keras 3: train for the worst task, not for the average one."""

import importlib
from types import ModuleType

from keras_taskrobust import weighting
from keras_taskrobust.training import GroupedLoss, MinimaxModel

__version__ = "0.1.0"
__all__ = ["GroupedLoss", "MinimaxModel", "text", "vision", "weighting"]


def __getattr__(name: str) -> ModuleType:
    if name not in ("text", "vision"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__name__):
            raise
        raise ModuleNotFoundError(
            f"`keras_taskrobust.{name}` needs the package {error.name!r}, which is not installed. "
            "Install the extra that brings it: pip install 'keras-taskrobust[models]'",
            name=error.name,
        ) from error
