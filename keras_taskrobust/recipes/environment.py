"""What figures are computed with: it is written down beside them."""

import os
import platform
import sys

import keras
import keras_hub
import numpy as np

from keras_taskrobust.training.backends import backend


def environment() -> dict[str, str]:
    """The backend, the device and the versions of now.

    Returns:
        dict of strings, to be kept with what is computed.
    """
    name = keras.backend.backend()
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    return {
        "backend": f"{name} {sys.modules[name].__version__}",
        "device": backend.accelerator() or machine,
        "versions": f"Python {platform.python_version()}, NumPy {np.__version__}, "
        f"Keras {keras.__version__}, KerasHub {keras_hub.__version__}",
    }
