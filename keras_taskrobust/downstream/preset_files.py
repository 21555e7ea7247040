"""The files of a pre-trained model that fine-tuning reads."""

from pathlib import Path

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
