"""The encoder of a `MultiModalMAE` in a folder that Hugging Face's Transformers open."""

import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_taskrobust.hugging_face_files import (
    to_pytorch,
    transformers_name,
    write_json,
    write_model,
)
from keras_taskrobust.vision.augmentation import RGB_DEVIATION, RGB_MEAN
from keras_taskrobust.vision.mm_mae import MultiModalMAE
from keras_taskrobust.vision.vit_export import export_vit_backbone

_BICUBIC = 3  # as Pillow numbers it
_BLOCK_LAYERS = {
    "ln_1": "layernorm_before",
    "mha/query": "attention.attention.query",
    "mha/key": "attention.attention.key",
    "mha/value": "attention.attention.value",
    "mha/attention_output": "attention.output.dense",
    "ln_2": "layernorm_after",
    "mlp/dense_1": "intermediate.dense",
    "mlp/dense_2": "output.dense",
}
_CLASS_TOKEN = "vit_patching_and_embedding/class_token"
_POSITIONS = "vit_patching_and_embedding/position_embedding/embeddings"


def save_hugging_face_vit(
    model: MultiModalMAE,
    folder: str | os.PathLike,
    mean: Sequence[float] = RGB_MEAN,
    deviation: Sequence[float] = RGB_DEVIATION,
) -> None:
    """Writes the encoder as Hugging Face's Transformers keep it; PyTorch is not needed.

    `transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False)` opens it, with the
    hidden states of the encoder on its first modality with their channels, and so does
    `keras_hub.models.ViTBackbone.from_preset(folder)` where images are square. A `ViTModel` always
    ends in a normalisation: of a model with `encoder_norm=False` it is an untrained one, and the
    hidden states before it are the encoder's.

    Not written: the embeddings of the other modalities, and the decoders.

    Args:
        model: `MultiModalMAE`.
        folder: where `config.json`, `model.safetensors` and `preprocessor_config.json` go.
        mean: the mean of each channel, for images in [0, 1], that the input pipeline took off.
        deviation: the standard deviation of each channel, by which it divided.

    Raises:
        ValueError: no modality of the model uses the backbone's patch embedding, or the backbone
            has no class token.

    Example:

    ```python
    save_hugging_face_vit(keras.saving.load_model("runs/mine/model.keras"), "mine")
    vit = transformers.ViTModel.from_pretrained("mine", add_pooling_layer=False)
    ```
    """
    folder = Path(folder)
    backbone = export_vit_backbone(model)
    if not backbone.use_class_token:
        raise ValueError(
            "A ViT of Transformers has a class token: `model` must have a backbone with "
            "use_class_token=True, or go to KerasHub by `export_vit_backbone`. "
            "Received: use_class_token=False"
        )
    write_model(folder, _config(backbone), _arrays(backbone))
    height, width, _ = backbone.image_shape
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": height, "width": width},
            "resample": _BICUBIC,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(map(float, mean)),
            "image_std": list(map(float, deviation)),
        },
    )


def _config(backbone):
    return {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "image_size": _side(backbone.image_shape[:2]),
        "patch_size": _side(backbone.patch_size),
        "num_channels": backbone.image_shape[-1],
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_heads,
        "hidden_size": backbone.hidden_dim,
        "intermediate_size": backbone.mlp_dim,
        "hidden_dropout_prob": backbone.dropout_rate,
        "attention_probs_dropout_prob": backbone.attention_dropout,
        "layer_norm_eps": backbone.layer_norm_epsilon,
        "hidden_act": "gelu",
        "qkv_bias": True,
    }


def _side(shape):
    """A size as most readers know it: one number for a square."""
    height, width = shape
    return height if height == width else [height, width]


def _arrays(backbone: keras.Model) -> dict[str, np.ndarray]:
    """Names of parameters to arrays. A bias that the backbone does without is 0."""
    names = _names(backbone.num_layers)
    arrays = {}
    for variable in backbone.weights:
        array = ops.convert_to_numpy(ops.cast(variable, "float32"))
        if variable.path == _CLASS_TOKEN:
            arrays["vit.embeddings.cls_token"] = array
        elif variable.path == _POSITIONS:
            arrays["vit.embeddings.position_embeddings"] = array[None]
        else:
            name = transformers_name(variable.path, names)
            arrays[name] = to_pytorch(variable.path, array)
    for name, array in list(arrays.items()):
        if name.endswith(".weight"):
            bias = name.removesuffix("weight") + "bias"
            arrays.setdefault(bias, np.zeros(len(array), "float32"))
    return arrays


def _names(num_layers):
    """Keras paths of layers to what Transformers call them."""
    blocks = {
        f"vit_encoder/transformer_block_{index + 1}/{layer}": f"vit.encoder.layer.{index}.{name}"
        for index in range(num_layers)
        for layer, name in _BLOCK_LAYERS.items()
    }
    patches = "vit_patching_and_embedding/patch_embedding"
    return blocks | {
        patches: "vit.embeddings.patch_embeddings.projection",
        "vit_encoder/ln": "vit.layernorm",
    }
