"""What figures are computed with: it is written down beside them, and runs go on with no other."""

import importlib.metadata
import os
import platform
import sys

import keras
import keras_hub
import numpy as np

from keras_taskrobust.training.backends import backend

_PACKAGES = ("keras-taskrobust", "keras", "keras-hub", "numpy", "grain")


def environment() -> dict[str, str]:
    """The backend, the device and the versions of now, in words.

    Returns:
        dict of strings, to be kept with what is computed.
    """
    name, version = _backend()
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    return {
        "backend": f"{name} {version}",
        "device": backend.accelerator() or machine,
        "versions": f"Python {platform.python_version()}, NumPy {np.__version__}, "
        f"Keras {keras.__version__}, KerasHub {keras_hub.__version__}",
    }


def versions() -> dict[str, str]:
    """The backend, and the version of all that decides numbers, each by itself."""
    name, version = _backend()
    return {
        "backend": name,
        f"version of {name}": version,
        **{f"version of {one}": importlib.metadata.version(one) for one in _PACKAGES},
    }


def _backend() -> tuple[str, str]:
    name = keras.backend.backend()
    return name, sys.modules[name].__version__
