"""Which backend Keras takes when nobody says so."""

import importlib.util
import json
import os
import sys
from pathlib import Path

BACKENDS = ("jax", "torch", "tensorflow")
#: What Keras writes to `keras.json` by itself, whatever backend it runs on: nobody's choice.
_WRITTEN_BY_KERAS = {
    "floatx": "float32",
    "epsilon": 1e-07,
    "backend": "tensorflow",
    "image_data_format": "channels_last",
}


def choose_backend() -> None:
    """Sets `KERAS_BACKEND` to an installed backend, and says so in a line on standard error.

    Nothing is done where the variable or the user's `keras.json` names a backend, or where Keras
    runs already.

    Raises:
        ModuleNotFoundError: no backend is installed.
    """
    if "keras" in sys.modules or os.environ.get("KERAS_BACKEND") or _is_configured():
        return
    backend = next((name for name in BACKENDS if importlib.util.find_spec(name)), None)
    if backend is None:
        raise ModuleNotFoundError(
            "Keras needs one of the backends jax, torch and tensorflow. Install one: "
            "pip install 'keras-taskrobust[jax]'"
        )
    os.environ["KERAS_BACKEND"] = backend
    print(f"KERAS_BACKEND is not set: {backend} is used.", file=sys.stderr, flush=True)


def _is_configured():
    folder = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    try:
        settings = json.loads((Path(folder) / "keras.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and "backend" in settings and settings != _WRITTEN_BY_KERAS
