"""The encoder of an MM-MAE in Hugging Face's Transformers: the same hidden states."""

import keras_hub
import numpy as np
import pytest
import tiny
from keras import ops
from PIL import Image

from keras_taskrobust.hugging_face_files import read_arrays
from keras_taskrobust.vision import export_vit_backbone, normalize_rgb, save_hugging_face_vit


def random_model(vit=None, **arguments):
    """A model whose weights are all random, biases and normalisations too."""
    model = tiny.model(vit=vit or tiny.backbone(num_layers=2), **arguments)
    generator = np.random.default_rng(0)
    network = model.network
    network.set_weights([0.3 * generator.standard_normal(w.shape) for w in network.get_weights()])
    return model


def encoded(model, images):
    """The class token, then all patches of the images, as the model's encoder makes them."""
    tokens, _ = model.network.embed({"rgb": ops.convert_to_tensor(images)})
    visible = tokens[:, : model.network.grid[0] * model.network.grid[1]]
    return np.roll(ops.convert_to_numpy(model.network.encode(visible)), 1, axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("encoder_norm", [True, False])
@pytest.mark.parametrize("use_bias", [True, False])
def test_transformers_compute_the_same_hidden_states(encoder_norm, use_bias, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the extra dev is not installed")
    import torch

    biases = dict.fromkeys(("use_mha_bias", "use_mlp_bias", "use_patch_bias"), use_bias)
    model = random_model(tiny.backbone(num_layers=2, **biases), encoder_norm=encoder_norm)
    save_hugging_face_vit(model, tmp_path)
    vit, info = transformers.ViTModel.from_pretrained(
        tmp_path, add_pooling_layer=False, output_loading_info=True
    )
    assert not any(info.values())
    pixels = np.random.default_rng(1).integers(0, 256, (2, 32, 48, 3)).astype("uint8")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    prepared = processor([Image.fromarray(image) for image in pixels], return_tensors="pt")
    with torch.no_grad():
        outputs = vit.eval()(**prepared, output_hidden_states=True)
    states = outputs.last_hidden_state if encoder_norm else outputs.hidden_states[-1]
    expected = encoded(model, normalize_rgb(pixels))
    np.testing.assert_allclose(states.numpy(), expected, atol=1e-4)


def test_keras_hub_reads_a_vit_of_square_images(tmp_path):
    model = random_model(tiny.backbone((32, 32, 3), num_layers=2))
    save_hugging_face_vit(model, tmp_path)
    opened = keras_hub.models.ViTBackbone.from_preset(str(tmp_path))
    expected = export_vit_backbone(model).get_weights()
    for one, other in zip(opened.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_absent_biases_are_zeros(tmp_path):
    save_hugging_face_vit(random_model(tiny.backbone(use_mlp_bias=False)), tmp_path)
    arrays = read_arrays(tmp_path / "model.safetensors")
    name = "vit.encoder.layer.0.intermediate.dense"
    assert arrays[f"{name}.weight"].shape == (32, 16)
    np.testing.assert_array_equal(arrays[f"{name}.bias"], np.zeros(32, "float32"))


def test_a_backbone_without_a_class_token_is_refused(tmp_path):
    model = tiny.model(vit=tiny.backbone(use_class_token=False))
    with pytest.raises(ValueError, match="Received: use_class_token=False"):
        save_hugging_face_vit(model, tmp_path)
    assert not any(tmp_path.iterdir())
