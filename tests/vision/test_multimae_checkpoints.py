import numpy as np
import pytest
import tiny

from keras_taskrobust.vision import Modality, load_multimae_weights, save_multimae_weights


@pytest.fixture(scope="module")
def model():
    return tiny.model((tiny.RGB, tiny.SEMSEG))


def test_round_trip(model):
    generator = np.random.default_rng(0)
    weights = {
        name: generator.standard_normal(array.shape).astype("float32")
        for name, array in save_multimae_weights(model).items()
    }
    report = load_multimae_weights(model, {"model": weights})
    assert set(report.loaded) == set(weights)
    saved = save_multimae_weights(model)
    assert saved.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(saved[name], array, err_msg=name)


def test_every_variable_has_a_name(model):
    number = sum(array.size for array in save_multimae_weights(model).values())
    unnamed = model.backbone.get_layer("vit_encoder").layer_norm.weights
    unnamed_numbers = sum(int(np.prod(v.shape)) for v in unnamed)
    # The class token's position is not in the reference either: it is 0.
    unnamed_numbers += model.backbone.hidden_dim
    assert number + unnamed_numbers == sum(int(np.prod(v.shape)) for v in model.network.weights)


def test_pytorch_files(model, tmp_path):
    torch = pytest.importorskip("torch")
    import argparse

    path = tmp_path / "checkpoint.pth"
    weights = save_multimae_weights(model, path)
    assert not load_multimae_weights(model, path).missing
    tensors = {name: torch.tensor(array) for name, array in weights.items()}
    tensors["global_tokens"] = tensors["global_tokens"] + 1.0
    torch.save({"model": tensors, "args": argparse.Namespace(epochs=2), "epoch": 1}, path)
    report = load_multimae_weights(model, str(path))
    assert report[2:] == ((), ())
    found = save_multimae_weights(model)["global_tokens"]
    np.testing.assert_allclose(found, weights["global_tokens"] + 1.0)


def test_missing_and_unused_parameters_are_listed(model):
    weights = save_multimae_weights(model)
    del weights["output_adapters.rgb.mask_token"]
    weights["output_adapters.norm_rgb.mask_token"] = np.zeros((1, 1, 8), "float32")
    with pytest.warns(UserWarning, match=r"1 parameters .* output_adapters.rgb.mask_token"):
        report = load_multimae_weights(model, weights)
    assert report.missing == ("output_adapters.rgb.mask_token",)
    assert report.unused == ("output_adapters.norm_rgb.mask_token",)


def test_a_padding_row_is_dropped(model):
    weights = save_multimae_weights(model)
    name = "input_adapters.semseg.class_emb.weight"
    classes = weights[name] + 1
    weights[name] = np.concatenate([classes, np.full((1, 64), 0.02, "float32")])
    report = load_multimae_weights(model, weights)
    assert name in report.loaded
    assert report.unused == (f"{name}[5]",)
    np.testing.assert_array_equal(save_multimae_weights(model)[name], classes)


def test_shapes_that_do_not_fit_are_listed_and_nothing_changes(model):
    before = save_multimae_weights(model)
    other = tiny.model((tiny.RGB, Modality("semseg", num_classes=7, stride=4)), decoder_dim=12)
    with pytest.raises(ValueError, match=r"Received \d+ that do not fit: .*\(7, 64\) instead of"):
        load_multimae_weights(model, save_multimae_weights(other))
    for name, array in save_multimae_weights(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_another_checkpoint_is_refused(model):
    with pytest.raises(ValueError, match="must have parameter names of the reference"):
        load_multimae_weights(model, {"blocks.0.norm1.weight": np.zeros(3)})


def test_another_file_is_refused(model, tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "junk.pth").write_text("junk")
    np.savez(tmp_path / "arrays.npz", **save_multimae_weights(model))
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    for name in ("junk.pth", "arrays.npz", "tensor.pth"):
        with pytest.raises(ValueError, match=rf"must be a PyTorch checkpoint.*Received: .*{name}"):
            load_multimae_weights(model, tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_multimae_weights(model, tmp_path / "nowhere.pth")


def test_a_backbone_without_biases_is_refused():
    vit = tiny.backbone(use_mha_bias=False)
    with pytest.raises(ValueError, match="has biases everywhere"):
        save_multimae_weights(tiny.model(vit=vit))
