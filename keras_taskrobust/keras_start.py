"""How a command starts Keras: on a backend that is installed, and without its chatter.

What JAX compiles is kept for later runs and commands.
"""

import contextlib
import importlib.util
import json
import logging
import os
import platform
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

#: The variable by which TensorFlow's C++ is silent; who sets it to less than 3 hears all.
CHATTER = "TF_CPP_MIN_LOG_LEVEL"
BACKENDS = ("jax", "torch", "tensorflow")
#: The variables of JAX's cache of compiled programs, and the bytes after which the oldest go.
_PROGRAMS, _PROGRAM_BYTES = "JAX_COMPILATION_CACHE_DIR", "JAX_COMPILATION_CACHE_MAX_SIZE"
_MOST_BYTES = 2 * 2**30
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
    keep_programs()
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


def keep_programs() -> None:
    """Lets JAX keep its programs in Keras's folder, unless the environment names another.

    A program is one for a kind of processor: machines that share a home have folders of their own.
    """
    if "jax" in sys.modules or _PROGRAMS in os.environ:
        return
    folder = _keras_folder() / "taskrobust" / "jax" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        os.environ[_PROGRAMS] = str(folder)
        os.environ.setdefault(_PROGRAM_BYTES, str(_MOST_BYTES))


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


def _processor():
    """A name for the instructions that the processor has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{zlib.crc32((platform.processor() + flags).encode()):08x}"


def _keras_folder():
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


def _is_configured():
    try:
        settings = json.loads((_keras_folder() / "keras.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and "backend" in settings and settings != _WRITTEN_BY_KERAS
