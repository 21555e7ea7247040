"""How a command starts Keras: on a backend that is installed, and without its chatter."""

import contextlib
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

#: The variable by which TensorFlow's C++ is silent; who sets it to less than 3 hears all.
CHATTER = "TF_CPP_MIN_LOG_LEVEL"
BACKENDS = ("jax", "torch", "tensorflow")
#: What Keras writes to `keras.json` by itself, on whatever backend it runs: nobody's choice.
_WRITTEN_BY_KERAS = {
    "floatx": "float32",
    "epsilon": 1e-07,
    "backend": "tensorflow",
    "image_data_format": "channels_last",
}


@contextlib.contextmanager
def starting_keras() -> Iterator[None]:
    """A body that imports Keras and what needs it. What libraries print meanwhile is dropped.

    TensorFlow, which KerasHub imports, prints banners from C++ that no setting silences. Where the
    environment sets `TF_CPP_MIN_LOG_LEVEL` to less than 3, nothing is dropped.

    Raises:
        ModuleNotFoundError: no backend is installed.
    """
    choose_backend()
    if os.environ.setdefault(CHATTER, "3") != "3":
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
        _open_device()
        _hush()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


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
            f"Keras needs one of the backends {', '.join(BACKENDS)}. Install one: "
            "pip install 'keras-taskrobust[jax]'"
        )
    os.environ["KERAS_BACKEND"] = backend
    print(f"KERAS_BACKEND is not set: {backend} is used.", file=sys.stderr, flush=True)


def _open_device():
    """The first computation, in which a backend says which devices it found."""
    if "keras" in sys.modules:
        sys.modules["keras"].ops.zeros(())


def _hush():
    """Leaves the errors of what libraries log: grain and JAX warn by `absl` of what is chosen."""
    for name in ("absl", "jax", "tensorflow"):
        if name in sys.modules:
            logging.getLogger(name).setLevel(logging.ERROR)
    if "tensorflow" in sys.modules:  # looks for devices, and says so, at its first use
        sys.modules["tensorflow"].config.list_physical_devices()


def _is_configured():
    folder = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    try:
        settings = json.loads((Path(folder) / "keras.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and "backend" in settings and settings != _WRITTEN_BY_KERAS
