"""Task-robust pre-training for Keras 3: train for the worst task, not for the average one."""

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_taskrobust import (
        distribution,
        downstream,
        evaluation,
        recipes,
        text,
        training,
        vision,
        weighting,
    )
    from keras_taskrobust.training import (
        BackupAndRestore,
        GroupedLoss,
        MinimaxModel,
        layout_map,
    )

__version__ = "0.1.0"
__all__ = [
    "BackupAndRestore",
    "GroupedLoss",
    "MinimaxModel",
    "distribution",
    "downstream",
    "evaluation",
    "layout_map",
    "recipes",
    "text",
    "training",
    "vision",
    "weighting",
]

#: The rooms, which load when they are used, and the packages of the extra `models` that they need.
_NEEDS: dict[str, tuple[str, ...]] = {
    "distribution": (),
    "downstream": ("grain", "keras_hub", "nltk", "rich", "scipy", "sklearn", "tokenizers"),
    "evaluation": ("matplotlib", "rich", "scipy"),
    "recipes": (),
    "text": ("grain", "keras_hub", "nltk", "rich", "textblob", "tokenizers"),
    "training": (),
    "vision": ("PIL", "absl", "grain", "h5py", "keras_hub", "rich", "scipy"),
    "weighting": (),
}
_ROOM_OF = dict.fromkeys(
    ("BackupAndRestore", "GroupedLoss", "MinimaxModel", "layout_map"), "training"
)


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
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


if "keras" in sys.modules:
    # Keras opens saved models of the classes that are loaded. These need nothing but Keras.
    importlib.import_module(f"{__name__}.training")
importlib.import_module(f"{__name__}.moved_modules")  # until the next release
