"""Small models and batches for the tests of the vision room."""

import keras_hub
import numpy as np

from keras_taskrobust.vision import Modality, MultiModalMAE

RGB = Modality("rgb", channels=3)
DEPTH = Modality("depth", channels=1)
SEMSEG = Modality("semseg", num_classes=5, stride=4)


def backbone(image_shape=(32, 48, 3), patch_size=16, num_layers=1, **kwargs):
    arguments = {"num_heads": 2, "hidden_dim": 16, "mlp_dim": 32, **kwargs}
    return keras_hub.models.ViTBackbone(
        image_shape=image_shape, patch_size=patch_size, num_layers=num_layers, **arguments
    )


def model(modalities=(RGB, DEPTH), vit=None, **kwargs):
    arguments = {
        "visible_tokens": 4,
        "decoder_dim": 8,
        "decoder_depth": 1,
        "decoder_heads": 2,
        "encoder_norm": False,
        **kwargs,
    }
    return MultiModalMAE(vit or backbone(), modalities, **arguments)


def batch(network, size=4, seed=0):
    """Random maps for every modality."""
    generator = np.random.default_rng(seed)
    maps = {}
    for modality in network.modalities:
        shape = (size, *network.map_shape_of(modality))
        if modality.is_labels:
            maps[modality.name] = generator.integers(0, modality.num_classes, shape)
        else:
            maps[modality.name] = generator.standard_normal(shape).astype("float32")
    return maps


def masks(network, size=4, visible=4, seed=1):
    """Random masks with as many visible tokens in every sample."""
    generator = np.random.default_rng(seed)
    tokens = network.grid[0] * network.grid[1]
    total = tokens * len(network.input_names)
    flat = np.stack([generator.permutation(total) >= visible for _ in range(size)])
    parts = np.split(flat.astype("int32"), len(network.input_names), axis=1)
    return dict(zip(network.input_names, parts, strict=True))
