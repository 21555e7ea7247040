import keras
import keras_hub
import numpy as np
import pytest
import tiny
from keras import ops
from marks import slow

from keras_taskrobust.vision import export_vit_backbone, transfer_to_vit_det

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def normalized(images):
    return ((images - MEAN) / DEVIATION).astype("float32")


def randomize(model):
    generator = np.random.default_rng(0)
    model.network.set_weights(
        [0.05 * generator.standard_normal(array.shape) for array in model.network.get_weights()]
    )


def encoded_images(model, images):
    """What the model's encoder makes of images all of whose patches are visible."""
    tokens, _ = model.network.embed({"rgb": ops.convert_to_tensor(images)})
    visible = tokens[:, : model.network.grid[0] * model.network.grid[1]]
    return ops.convert_to_numpy(model.network.encode(visible))


@pytest.mark.parametrize("encoder_norm", [True, slow(False)])
def test_exported_backbone_has_the_same_features(encoder_norm):
    model = tiny.model(encoder_norm=encoder_norm)
    randomize(model)
    images = np.random.default_rng(1).standard_normal((2, 32, 48, 3)).astype("float32")
    expected = encoded_images(model, images)
    backbone = export_vit_backbone(model)
    if not encoder_norm:
        norm = backbone.get_layer("vit_encoder").layer_norm
        assert norm.trainable
        expected = ops.convert_to_numpy(norm(expected))
    features = backbone.predict(images, verbose=0)
    np.testing.assert_allclose(features[:, 1:], expected[:, :-1], atol=1e-5)
    np.testing.assert_allclose(features[:, 0], expected[:, -1], atol=1e-5)
    assert all(layer.trainable for layer in backbone._flatten_layers())


def test_preset_opens_in_a_classifier(tmp_path):
    model = tiny.model()
    randomize(model)
    export_vit_backbone(model, tmp_path / "preset")
    classifier = keras_hub.models.ViTImageClassifier.from_preset(
        str(tmp_path / "preset"), num_classes=3
    )
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 48, 3)).astype("float32")
    prepared = ops.convert_to_numpy(classifier.preprocessor(images))
    np.testing.assert_allclose(prepared, normalized(images / 255), atol=1e-5)
    features = classifier.backbone.predict(prepared, verbose=0)
    np.testing.assert_allclose(features, model.backbone.predict(prepared, verbose=0), atol=1e-5)
    assert classifier.predict(images, verbose=0).shape == (2, 3)


def keras_hub_vit_det(size):
    return keras_hub.models.ViTDetBackbone(
        image_shape=(size, size, 3),
        patch_size=16,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        intermediate_dim=32,
        num_output_channels=4,
        use_rel_pos=False,
        global_attention_layer_indices=[0, 1],
    )


def keras_cv_vit_det(size):
    models = pytest.importorskip("keras_cv.models", reason="the extra keras-cv is not installed")
    return models.ViTDetBackbone(
        include_rescaling=False,
        input_shape=(size, size, 3),
        patch_size=16,
        embed_dim=16,
        depth=2,
        num_heads=2,
        mlp_dim=32,
        out_chans=4,
        use_rel_pos=False,
        global_attention_indices=[0, 1],
    )


@pytest.mark.parametrize("build", [keras_hub_vit_det, keras_cv_vit_det])
def test_vit_det_has_the_same_blocks(build):
    vit_det = build(48)
    model = tiny.model((tiny.RGB,), tiny.backbone((48, 48, 3), num_layers=2, use_class_token=False))
    randomize(model)
    left_out = transfer_to_vit_det(model, vit_det)
    assert left_out
    assert all("sequential" in name for name in left_out)
    images = np.random.default_rng(1).random((2, 48, 48, 3)).astype("float32")
    last = [x for x in vit_det.layers if type(x).__name__ == "WindowedTransformerEncoder"][-1]
    features = keras.Model(vit_det.inputs, last.output).predict(images, verbose=0)
    expected = encoded_images(model, normalized(images))
    np.testing.assert_allclose(features.reshape(2, 9, 16), expected, atol=1e-5)


def test_vit_det_says_what_is_left_out():
    vit_det = keras_hub.models.ViTDetBackbone(
        image_shape=(64, 64, 3),
        patch_size=16,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        intermediate_dim=32,
        num_output_channels=4,
        window_size=2,
        global_attention_layer_indices=[1],
    )
    model = tiny.model((tiny.RGB,), tiny.backbone((32, 32, 3), num_layers=2), encoder_norm=True)
    text = " ".join(transfer_to_vit_det(model, vit_det))
    for part in ("global token", "final normalisation", "1 blocks, which attend in win", "rel_pos"):
        assert part in text


def test_other_sizes_are_refused():
    model = tiny.model((tiny.RGB,), tiny.backbone((48, 48, 3), num_layers=1))
    with pytest.raises(ValueError, match="the encoder's 1 blocks"):
        transfer_to_vit_det(model, keras_hub_vit_det(48))
    wide = tiny.backbone((48, 48, 3), num_layers=2, mlp_dim=64)
    with pytest.raises(ValueError, match="the encoder's sizes"):
        transfer_to_vit_det(tiny.model((tiny.RGB,), wide), keras_hub_vit_det(48))
    with pytest.raises(ValueError, match="must be a ViTDetBackbone"):
        transfer_to_vit_det(model, wide)


def test_a_model_without_images_has_no_backbone_to_export():
    with pytest.raises(ValueError, match="must have the channels of the backbone's images"):
        export_vit_backbone(tiny.model((tiny.DEPTH,)))
