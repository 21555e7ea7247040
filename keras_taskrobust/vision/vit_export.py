"""The encoder, handed on: ViT backbones for classification, ViTDet backbones for dense tasks."""

import os
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_taskrobust.vision.augmentation import RGB_DEVIATION, RGB_MEAN
from keras_taskrobust.vision.mm_mae import MultiModalMAE
from keras_taskrobust.vision.patches import resize_positions
from keras_taskrobust.vision.vit_layers import (
    attention_inputs_of,
    encoder_of,
    patch_positions_of,
    patching_of,
)


def export_vit_backbone(
    model: MultiModalMAE,
    path: str | os.PathLike | None = None,
    mean: Sequence[float] = RGB_MEAN,
    deviation: Sequence[float] = RGB_DEVIATION,
) -> keras.Model:
    """Copies the encoder into a `keras_hub.models.ViTBackbone` of its own.

    The copy reads images as the model reads its first modality with their channels. All its
    weights are trainable again. A `ViTBackbone` always ends in a normalisation: of a model with
    `encoder_norm=False` the copy has an untrained one, and its features before that one
    are the model's.

    Not transferred: the embeddings of the other modalities, and the decoders.

    Args:
        model: `MultiModalMAE`.
        path: a folder for a preset, which `keras_hub.models.ViTImageClassifier.from_preset(path,
            num_classes=...)` opens. `None`: none is written.
        mean: the mean of each channel, for images in [0, 1], that the input pipeline took off. The
            preset's preprocessor does the same to images in 0 ... 255.
        deviation: the standard deviation of each channel, by which it divided.

    Returns:
        `keras_hub.models.ViTBackbone`.

    Raises:
        ValueError: if no modality of the model uses the backbone's patch embedding.
    """
    _check_image_modality(model)
    source = model.backbone
    copy = type(source).from_config({**source.get_config(), "trainable": True})
    copy.set_weights(source.get_weights())
    if path is not None:
        _write_preset(copy, os.fspath(path), mean, deviation)
    return copy


def transfer_to_vit_det(model: MultiModalMAE, vit_det: keras.Model) -> tuple[str, ...]:
    """Copies the encoder's patch embedding, positions and blocks into a ViTDet backbone.

    Positions are interpolated (bicubic) to the ViTDet's grid. ViTDet normalises images itself, by
    ImageNet's mean and deviation from [0, 1]; the features are the model's if its pipeline did
    the same, and if all attention is global and without relative positions.

    Args:
        model: `MultiModalMAE`.
        vit_det: `keras_hub.models.ViTDetBackbone` or `keras_cv.models.ViTDetBackbone` of the same
            patch size, width, depth, heads and MLP width. Changed in place.

    Returns:
        What was not transferred, in words: parts of the encoder that a ViTDet has no place for,
        and weights of the ViTDet that stay as they were.

    Raises:
        ValueError: if the sizes differ, or if no modality uses the backbone's patch embedding.

    Reference:
        [Exploring Plain Vision Transformer Backbones for Object Detection]
        (https://arxiv.org/abs/2203.16527), ECCV 2022.
    """
    _check_image_modality(model)
    backbone = model.backbone
    encoder = encoder_of(backbone)
    targets = _vit_det_layers(vit_det)
    if len(targets["blocks"]) != len(encoder.encoder_layers):
        raise ValueError(
            f"`vit_det` must have the encoder's {len(encoder.encoder_layers)} blocks. "
            f"Received: {len(targets['blocks'])} blocks"
        )
    pairs = _embedding_pairs(model, targets)
    for source, target in zip(encoder.encoder_layers, targets["blocks"], strict=True):
        pairs += _block_pairs(source, target)
    wrong = [(v.path, v.shape, array.shape) for v, array in pairs if tuple(v.shape) != array.shape]
    if wrong:
        raise ValueError(
            "`vit_det` must have the encoder's sizes. Received (variable, its shape, the "
            f"encoder's): {wrong[:5]}"
        )
    for variable, array in pairs:
        variable.assign(array)
    return _left_out(model, vit_det, targets, {id(variable) for variable, _ in pairs})


def _check_image_modality(model):
    if model.network.image_modality is None:
        raise ValueError(
            "One input modality must have the channels of the backbone's images. Received: "
            f"{[m.name for m in model.modalities]}, for images {model.backbone.image_shape}"
        )


def _write_preset(backbone, path, mean, deviation):
    import keras_hub

    height, width, _ = backbone.image_shape
    mean, deviation = np.array(mean, float), np.array(deviation, float)
    converter = keras_hub.layers.ViTImageConverter(
        image_size=(height, width),
        scale=(1.0 / (255.0 * deviation)).tolist(),
        offset=(-mean / deviation).tolist(),
    )
    preprocessor = keras_hub.models.ViTImageClassifierPreprocessor(image_converter=converter)
    backbone.save_to_preset(path)
    preprocessor.save_to_preset(path)


def _vit_det_layers(vit_det):
    """The layers to fill. KerasHub and KerasCV name their classes alike."""
    layers: dict[str, list] = {"blocks": [], "patches": [], "positions": []}
    kinds = {
        "WindowedTransformerEncoder": "blocks",
        "ViTDetPatchingAndEmbedding": "patches",
        "AddPositionalEmbedding": "positions",
    }
    for layer in vit_det.layers:
        if type(layer).__name__ in kinds:
            layers[kinds[type(layer).__name__]].append(layer)
    if not layers["blocks"] or not layers["patches"]:
        raise ValueError(
            "`vit_det` must be a ViTDetBackbone of keras_hub or keras_cv. "
            f"Received: {type(vit_det).__name__}"
        )
    return layers


def _embedding_pairs(model, targets):
    """Pairs of a ViTDet variable and its new value, for patches and positions."""
    backbone = model.backbone
    convolution, projection = (
        patching_of(backbone).patch_embedding,
        targets["patches"][0].projection,
    )
    pairs = [(projection.kernel, ops.convert_to_numpy(convolution.kernel))]
    if convolution.bias is not None:
        pairs.append((projection.bias, ops.convert_to_numpy(convolution.bias)))
    table = ops.convert_to_numpy(patch_positions_of(backbone)).reshape(*model.network.grid, -1)
    for layer in targets["positions"]:
        resized = resize_positions(table, tuple(layer.pos_embed.shape[1:3]), "bicubic")
        pairs.append((layer.pos_embed, resized[None]))
    return pairs


def _block_pairs(source, target):
    """Pairs of a ViTDet block's variable and its new value."""
    merged = attention_inputs_of(source)
    width = merged[0].kernel.shape[0]

    def joined(name):
        arrays = [ops.convert_to_numpy(getattr(layer, name)) for layer in merged]
        return [array.reshape(-1, width) if name == "kernel" else array.ravel() for array in arrays]

    output = source.mha.output_dense
    first, second = [layer for layer in target.mlp_block.dense_net.layers if layer.weights]
    pairs = [
        (target.attention.qkv.kernel, np.concatenate(joined("kernel"), axis=1)),
        (
            target.attention.projection.kernel,
            ops.convert_to_numpy(output.kernel).reshape(-1, width),
        ),
    ]
    if output.bias is not None:
        pairs.append((target.attention.projection.bias, ops.convert_to_numpy(output.bias)))
        if target.attention.qkv.bias is not None:
            pairs.append((target.attention.qkv.bias, np.concatenate(joined("bias"))))
    for here, there in (
        (source.layer_norm_1, target.layer_norm1),
        (source.layer_norm_2, target.layer_norm2),
        (source.mlp.dense_1, first),
        (source.mlp.dense_2, second),
    ):
        pairs += [
            (variable, ops.convert_to_numpy(value))
            for variable, value in zip(there.weights, here.weights, strict=True)
        ]
    return pairs


def _left_out(model, vit_det, targets, filled):
    found = []
    if model.backbone.use_class_token:
        found.append("the encoder's global token")
    if not targets["positions"]:
        found.append("the encoder's position table")
    if model.network.encoder_norm:
        found.append("the encoder's final normalisation")
    windows = [layer for layer in targets["blocks"] if layer.window_size > 0]
    if windows:
        found.append(f"global attention in {len(windows)} blocks, which attend in windows")
    found += [f"weight {v.path}" for v in vit_det.weights if id(v) not in filled]
    return tuple(found)
