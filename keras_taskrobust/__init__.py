"""Task-robust pre-training for Keras 3: train for the worst task, not for the average one."""

import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING

from keras_taskrobust import weighting
from keras_taskrobust.training import GroupedLoss, MinimaxModel

if TYPE_CHECKING:
    from keras_taskrobust import downstream, evaluation, text, vision

__version__ = "0.1.0"
__all__ = [
    "GroupedLoss",
    "MinimaxModel",
    "downstream",
    "evaluation",
    "text",
    "vision",
    "weighting",
]

_NEEDS = {
    "downstream": ("grain", "keras_hub", "nltk", "rich", "scipy", "sklearn", "tokenizers"),
    "evaluation": ("matplotlib", "rich", "scipy"),
    "text": ("grain", "keras_hub", "nltk", "rich", "textblob", "tokenizers"),
    "vision": ("PIL", "absl", "grain", "h5py", "keras_hub", "rich", "scipy"),
}


def __getattr__(name: str) -> ModuleType:
    if name not in _NEEDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    missing = [package for package in _NEEDS[name] if importlib.util.find_spec(package) is None]
    if missing:
        raise ModuleNotFoundError(
            f"`keras_taskrobust.{name}` needs packages that are not installed: "
            f"{', '.join(missing)}. Install the extra that brings them: "
            "pip install 'keras-taskrobust[models]'",
            name=missing[0],
        )
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
