"""Pre-trained models on disk: where they are, and their files that fine-tuning reads."""

from collections.abc import Collection
from pathlib import Path

from keras_taskrobust import checks
from keras_taskrobust.files import nearest_path

_PRESET = "preset"
_MM_MAE = ("model.keras",)
_KERAS_HUB = (
    "config.json",
    "model.weights.h5",
    "model.weights.json",
    "model_*.weights.h5",
    "tokenizer.json",
    "assets/tokenizer/*",
    "image_converter.json",
)
_TRANSFORMERS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "tokenizer_config.json",
    "vocab.txt",
    "preprocessor_config.json",
)


def preset_files(folder: Path) -> list[Path]:
    """The files that `open_bert` and `open_image_model` read of a folder, where they exist.

    Args:
        folder: a run of an MM-MAE, or a preset in the format of KerasHub or of Transformers, which
            KerasHub converts.

    Returns:
        list of paths, sorted.
    """
    patterns = (*_MM_MAE, *_KERAS_HUB, *_TRANSFORMERS)
    return sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())


def find_preset(preset: str, wanted: str, known: Collection[str] = (), whole: bool = False) -> str:
    """The model that a preset stands for: of the folder of a run, its preset.

    Args:
        preset: string. A folder or file, the name of a model that KerasHub knows, or a URI.
        wanted: string. What it must be, in words.
        known: the names that KerasHub knows.
        whole: bool. Whether the `model.keras` of a run comes before its preset.

    Returns:
        string. What KerasHub or Keras opens. A URI is not looked up.

    Raises:
        ValueError: there is no such file, folder or name, or no model in the folder.
    """
    path = Path(preset)
    if "://" in preset or path.is_file() or (preset in known and not path.exists()):
        return preset
    if path.is_dir():
        folders = (path, path / _PRESET) if whole else (path / _PRESET, path)
        own = [folder for folder in folders if preset_files(folder)]
        if own:
            return str(own[0])
        inside = sorted([*path.glob("*/preset"), *path.glob("runs/*/preset")])
        raise wrong_preset(preset, wanted, f"a folder without a model{_hint(inside)}")
    if path.name == preset:
        alike = checks.did_you_mean(preset, known)
        if alike:
            raise wrong_preset(preset, wanted, f"KerasHub has no such model{alike}")
    nearest = nearest_path(path)
    found = [] if nearest is None else [nearest / _PRESET, nearest]
    raise wrong_preset(preset, wanted, f"no such folder{_hint(found)}")


def wrong_preset(preset: str, wanted: str, received: str) -> ValueError:
    """What to raise for a preset that is not what is wanted."""
    return ValueError(f"`preset` must be {wanted}. Received: preset={preset!r}: {received}")


def _hint(paths):
    """The first of the paths that exists, as a question."""
    found = next((path for path in paths if path.exists()), None)
    return "" if found is None else f". Did you mean {str(found)!r}?"
