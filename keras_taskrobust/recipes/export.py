"""A finished run, handed on: to Hugging Face's Transformers, to KerasHub, to the MultiMAE."""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_hub

from keras_taskrobust.files import nearest_path
from keras_taskrobust.hugging_face_files import WEIGHTS, write_arrays
from keras_taskrobust.recipes.guide import write_guide
from keras_taskrobust.recipes.model_card import Exported, write_model_card
from keras_taskrobust.recipes.training_run import load_run
from keras_taskrobust.text import PosBert, save_hugging_face_bert
from keras_taskrobust.vision import MultiModalMAE, save_hugging_face_vit, save_multimae_weights

_WHOLE = "model.keras"
_PRESET = "preset"
_FILL_MASK = """\
import transformers

fill_mask = transformers.pipeline("fill-mask", "{folder}")
fill_mask("the [MASK] sat on the mat .")"""
_BERT = """\
import transformers

model = transformers.AutoModel.from_pretrained("{folder}")
tokenizer = transformers.AutoTokenizer.from_pretrained("{folder}")"""
_VIT = """\
import transformers

model = transformers.ViTModel.from_pretrained("{folder}", add_pooling_layer=False)
processor = transformers.AutoImageProcessor.from_pretrained("{folder}")"""
_KERAS_BERT = """\
import keras_hub

model = keras_hub.models.BertTextClassifier.from_preset("{folder}", num_classes=2)"""
_KERAS_VIT = """\
import keras_hub

model = keras_hub.models.ViTImageClassifier.from_preset("{folder}", num_classes=10)"""
_MULTIMAE = """\
# A checkpoint as the scripts of MultiMAE read it (--finetune multimae.pth)
import torch
from safetensors.torch import load_file

torch.save({{"model": load_file("{folder}/model.safetensors")}}, "multimae.pth")"""
_NO_HEADS = (
    "the masked-LM head: the run is of a version that kept only the encoder. Train it again to "
    "export a BertForMaskedLM"
)
_NO_NORM = (
    "a trained normalisation after the last block: the model has none. Take the hidden states "
    "before it, or train it with the task"
)
_ONLY_RGB = "the embeddings of the other modalities, and the decoders"


def export_run(run: Path, to: str, output: Path | None = None) -> Exported:
    """Writes the model of a finished run in another format, with a model card beside it.

    Args:
        run: its folder, or what fine-tuning starts from in it.
        to: `"huggingface"`, `"keras"` or `"multimae"`.
        output: a new or empty folder; by default one of that name in the run's.

    Returns:
        `Exported`: what was written, and what was left out.

    Raises:
        ValueError: there is no such run or it is not finished, the format does not fit it, or there
            is something in the output.
    """
    folder = _find_run(run)
    found = load_run(folder, "exported")
    settings = json.loads((folder / "recipe.json").read_text())
    kind = "text" if "corpus" in settings else "images"
    if kind == "images":  # the settings may name some that the images lacked
        tasks = found.scores.task_names
        settings["modalities"] = [name for name in settings["modalities"] if name in tasks]
    write = _WRITERS.get((kind, to))
    if write is None:
        known = " or ".join(name for one, name in _WRITERS if one == kind)
        raise ValueError(
            f"A run on {kind} must go to {known}: MultiMAE knows no texts. Received: to={to!r}"
        )
    output = folder / to if output is None else output
    _refuse_content(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as parent:
        partial = Path(parent, output.name)
        partial.mkdir()
        exported = dataclasses.replace(write(folder, partial), folder=output)
        write_model_card(partial / "README.md", exported, found, settings)
        partial.replace(output)
    write_guide(folder)
    return exported


def _find_run(given: Path) -> Path:
    """The folder of a finished run, from it, its preset or its model."""
    found = [folder for folder in (given, given.parent) if (folder / "recipe.json").is_file()]
    if not given.exists() or not found:
        wrong = "a folder without a run" if given.exists() else "no such folder"
        inside = sorted([*given.glob("*/recipe.json"), *given.glob("runs/*/recipe.json")])
        near = nearest_path(given) if not inside and not given.exists() else None
        meant = inside[0].parent if inside else near
        hint = f". Did you mean {str(meant)!r}?" if meant else ""
        raise ValueError(
            "What is exported must be the folder of a run of `pretrain` or `compare`, or its "
            f"preset. Received: {given}: {wrong}{hint}"
        )
    if not (found[0] / "finished.json").exists():
        raise ValueError(
            "A run must be finished to be exported: the command that began it goes on with it. "
            f"Received: {found[0]}, without finished.json"
        )
    return found[0]


def _refuse_content(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(
            "The output must be a new or empty folder: remove what is there, or choose another "
            f"with --output. Received: {output}"
        )


def _text_to_hugging_face(run: Path, folder: Path) -> Exported:
    if (run / _WHOLE).exists():
        save_hugging_face_bert(_load(run, PosBert), folder)
        return Exported("BertForMaskedLM", "transformers", "fill-mask", _FILL_MASK)
    preset = str(run / _PRESET)
    backbone = keras_hub.models.BertBackbone.from_preset(preset)
    tokenizer = keras_hub.tokenizers.BertTokenizer.from_preset(preset)
    save_hugging_face_bert(backbone, folder, tokenizer)
    return Exported("BertModel", "transformers", "feature-extraction", _BERT, (_NO_HEADS,))


def _text_to_keras(run: Path, folder: Path) -> Exported:
    _copy_preset(run, folder)
    heads = ("the masked-LM and next-sentence heads, which are in the run's model.keras",)
    return Exported("KerasHub preset of a BertBackbone", "keras-hub", None, _KERAS_BERT, heads)


def _images_to_hugging_face(run: Path, folder: Path) -> Exported:
    model = _load(run, MultiModalMAE)
    save_hugging_face_vit(model, folder)
    return Exported("ViTModel", "transformers", "image-feature-extraction", _VIT, _left_out(model))


def _images_to_keras(run: Path, folder: Path) -> Exported:
    model = _load(run, MultiModalMAE)
    _copy_preset(run, folder)
    what = "KerasHub preset of a ViTBackbone"
    return Exported(what, "keras-hub", "image-feature-extraction", _KERAS_VIT, _left_out(model))


def _images_to_multimae(run: Path, folder: Path) -> Exported:
    model = _load(run, MultiModalMAE)
    if model.network.encoder_norm:
        raise ValueError(
            "The reference MultiMAE has no normalisation after its encoder: pre-train with "
            "--no-encoder-norm, or export to huggingface or keras. Received: a run with "
            "encoder_norm=True"
        )
    write_arrays(folder / WEIGHTS, save_multimae_weights(model))
    return Exported("Weights of a MultiMAE", None, "image-feature-extraction", _MULTIMAE)


_WRITERS: dict[tuple[str, str], Callable[[Path, Path], Exported]] = {
    ("text", "huggingface"): _text_to_hugging_face,
    ("text", "keras"): _text_to_keras,
    ("images", "huggingface"): _images_to_hugging_face,
    ("images", "keras"): _images_to_keras,
    ("images", "multimae"): _images_to_multimae,
}


def _load(run: Path, kind: type) -> Any:
    model = keras.saving.load_model(run / _WHOLE, compile=False)
    if not isinstance(model, kind):
        raise ValueError(
            f"{run / _WHOLE} must be the {kind.__name__} that the run wrote. "
            f"Received: a {type(model).__name__}"
        )
    return model


def _copy_preset(run: Path, folder: Path) -> None:
    if not (run / _PRESET).is_dir():
        raise ValueError(
            "A run on images without RGB has no ViT for KerasHub: its model.keras opens with "
            f"keras.saving.load_model. Received: {run}, without a preset"
        )
    shutil.copytree(run / _PRESET, folder, dirs_exist_ok=True)


def _left_out(model: MultiModalMAE) -> tuple[str, ...]:
    return (_ONLY_RGB,) if model.network.encoder_norm else (_ONLY_RGB, _NO_NORM)
