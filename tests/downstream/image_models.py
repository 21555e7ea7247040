"""Tiny pre-trained models of images."""

import keras
import keras_hub
import numpy as np

from keras_taskrobust.downstream.image_encoder import OpenedModel
from keras_taskrobust.vision import Modality, MultiModalMAE

SIZE = (16, 24)
PATCH = 8
WIDTH = 12


def tiny_vit(num_layers=2, size=SIZE, **arguments):
    return keras_hub.models.ViTBackbone(
        image_shape=(*size, 3),
        patch_size=PATCH,
        num_layers=num_layers,
        num_heads=2,
        hidden_dim=WIDTH,
        mlp_dim=16,
        **arguments,
    )


def tiny_mm_mae(num_layers=2, classes=3, size=SIZE, encoder_norm=False):
    return MultiModalMAE(
        tiny_vit(num_layers, size),
        [
            Modality("rgb", channels=3),
            Modality("depth", channels=1),
            Modality("semseg", num_classes=classes, stride=2),
        ],
        visible_tokens=4,
        decoder_dim=8,
        decoder_depth=1,
        decoder_heads=2,
        encoder_norm=encoder_norm,
        class_embedding_dim=4,
        seed=0,
    )


def opened(model):
    return OpenedModel(model, None)


def random_inputs(batch=2, size=SIZE, seed=0, classes=3):
    generator = np.random.default_rng(seed)
    height, width = size
    return {
        "rgb": generator.normal(size=(batch, height, width, 3)).astype("float32"),
        "depth": generator.normal(size=(batch, height, width, 1)).astype("float32"),
        "semseg": generator.integers(0, classes, (batch, height // 2, width // 2)).astype("int32"),
    }


def as_array(tensor):
    return keras.ops.convert_to_numpy(tensor)
