import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny
from keras import ops
from marks import slow
from numpy_multimae import Spec, forward, loss

from keras_taskrobust.vision import Modality, load_multimae_weights, save_multimae_weights
from keras_taskrobust.vision.embeddings import Patches
from keras_taskrobust.vision.losses import reconstruction_total
from keras_taskrobust.vision.masking import visible_ids
from keras_taskrobust.vision.modalities import tasks_of
from keras_taskrobust.vision.network import _slots, gather_tokens

CASE = Path(__file__).parents[2] / "../shared/data/vision/multimae_reference.npz"
NAMES = ("rgb", "depth", "semseg")


@pytest.fixture(scope="module")
def case():
    if not CASE.exists():
        pytest.skip(f"the worked case of the reference is not at {CASE}")
    with np.load(CASE) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def case_weights(case):
    prefix = "weights/"
    return {n.removeprefix(prefix): a for n, a in case.items() if n.startswith(prefix)}


@pytest.fixture(scope="module")
def case_model(case_weights):
    vit = tiny.backbone((64, 64, 3), num_layers=3, num_heads=4, hidden_dim=48, mlp_dim=192)
    modalities = [
        Modality("rgb", channels=3, normalized_twin=True),
        tiny.DEPTH,
        Modality("semseg", num_classes=13, stride=4),
    ]
    model = tiny.model(
        modalities, vit, visible_tokens=12, decoder_dim=32, decoder_depth=2, decoder_heads=8
    )
    report = load_multimae_weights(model, case_weights)
    assert report[1:] == ((), (), ())
    return model


def channels_last(maps):
    return np.moveaxis(maps, 1, -1) if maps.ndim == 4 else maps


def case_batch(case):
    maps = {name: channels_last(case[f"input/{name}"]) for name in NAMES}
    return maps, {name: case[f"task_masks/{name}"] for name in NAMES}


def test_worked_case_predictions_and_losses(case, case_model):
    maps, masks = case_batch(case)
    predictions = case_model.reconstruct(maps, masks)
    losses = case_model.task_losses(maps, masks)
    assert tuple(predictions) == ("rgb", "depth", "semseg", "norm_rgb")
    for task, prediction in predictions.items():
        np.testing.assert_allclose(prediction, channels_last(case[f"preds/{task}"]), atol=1e-4)
        np.testing.assert_allclose(losses[task], case[f"loss_masked/{task}"], atol=1e-4)


def test_worked_case_stages(case, case_model):
    maps, masks = case_batch(case)
    network = case_model.network
    tokens, _ = network.embed({name: ops.convert_to_tensor(x) for name, x in maps.items()})
    expected = np.concatenate([case[f"input_tokens/{name}"] for name in NAMES], axis=1)
    np.testing.assert_allclose(ops.convert_to_numpy(tokens), expected, atol=1e-4)
    stacked = ops.convert_to_tensor(np.stack([masks[n] for n in NAMES], axis=1).astype("float32"))
    ids = visible_ids(stacked, 12)
    encoded = network.encode(gather_tokens(tokens, ids))
    np.testing.assert_allclose(ops.convert_to_numpy(encoded), case["encoder_tokens"], atol=1e-4)
    decoder = network.decoders["rgb"]
    attended = decoder.attend(encoded, ids, _slots(stacked, 12))
    after = attended + decoder.mlp(decoder.out_norm(attended))
    for found, stage in ((attended, "xattn"), (after, "after_mlp")):
        expected = case[f"decoder_rgb/{stage}"]
        np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-4)


def test_numpy_forward_is_the_reference(case, case_weights):
    inputs = {name: case[f"input/{name}"] for name in NAMES}
    masks = {name: case[f"task_masks/{name}"].astype(int) for name in NAMES}
    specs = {"rgb": Spec(), "depth": Spec(loss="mae"), "semseg": Spec(stride=4, classes=13)}
    outputs = {"rgb": "rgb", "depth": "depth", "semseg": "semseg", "norm_rgb": "rgb"}
    result = forward(case_weights, inputs, masks, specs, (16, 16), 4, 8, outputs)
    pairs = [(result["encoder_tokens"], "encoder_tokens")]
    pairs += [(result["input_tokens"][name], f"input_tokens/{name}") for name in NAMES]
    pairs += [(result["stages"]["rgb"][s], f"decoder_rgb/{s}") for s in ("xattn", "after_mlp")]
    for task, name in outputs.items():
        prediction = result["predictions"][task]
        pairs.append((prediction, f"preds/{task}"))
        twin = task != name
        value = loss(prediction, inputs[name], masks[name], specs[name], (16, 16), twin)
        pairs.append((value, f"loss_masked/{task}"))
    for found, key in pairs:
        assert np.abs(found - case[key]).max() <= 1e-6 * np.abs(case[key]).max(), key


@pytest.mark.parametrize(
    ("modalities", "image_shape", "patch_size", "native"),
    [
        ((tiny.RGB, tiny.SEMSEG), (48, 32, 3), 8, (5, 5)),
        ((tiny.DEPTH,), (32, 48, 3), 16, None),
        (
            (
                Modality("rgb", channels=3, is_target=False),
                Modality("depth", channels=1, stride=2, normalized_twin=True, loss="mse"),
                Modality("normals", channels=3, is_input=False, loss="l1"),
            ),
            (32, 64, 3),
            (16, 8),
            (3, 4),
        ),
    ],
    ids=["two, interpolated", "one", "output only, fewer decoders"],
)
def test_against_numpy(modalities, image_shape, patch_size, native):
    model = tiny.model(modalities, tiny.backbone(image_shape, patch_size), decoder_dim=16)
    network = model.network
    weights = random_weights(model, native)
    report = load_multimae_weights(model, weights)
    assert report[2:] == ((), ())
    assert bool(report.resized) == (native is not None)
    maps, masks = tiny.batch(network, size=3), tiny.masks(network, size=3)
    specs = {m.name: Spec(m.stride, m.num_classes, m.loss) for m in modalities}
    outputs = {task: task.removeprefix("norm_") for task in model.task_names}
    inputs = {
        name: maps[name] if maps[name].ndim == 3 else np.moveaxis(maps[name], -1, 1)
        for name in maps
    }
    shown = {name: inputs[name] for name in network.input_names}
    result = forward(weights, shown, masks, specs, network.patch_size, 2, 2, outputs)
    predictions = model.reconstruct(maps, masks)
    losses = model.task_losses(maps, masks)
    assert set(predictions) == set(outputs)
    for task, name in outputs.items():
        expected = result["predictions"][task]
        np.testing.assert_allclose(
            np.moveaxis(predictions[task], -1, 1), expected, atol=1e-4, err_msg=task
        )
        arguments = masks.get(name), specs[name], network.patch_size, task != name
        np.testing.assert_allclose(
            losses[task], loss(expected, inputs[name], *arguments), rtol=1e-4, err_msg=task
        )


def random_weights(model, native):
    """Weights for every parameter of the model, positions on the grid `native`."""
    generator = np.random.default_rng(3)
    weights = {}
    for name, array in save_multimae_weights(model).items():
        shape = array.shape
        if name.endswith("pos_emb") and native is not None:
            shape = (*shape[:2], *native)
        weights[name] = (0.3 * generator.standard_normal(shape)).astype("float32")
    return weights


@pytest.fixture(scope="module")
def small():
    return tiny.model((tiny.RGB, tiny.DEPTH, tiny.SEMSEG), seed=0)


def test_a_missing_modality_is_as_one_that_is_left_out(small):
    maps, masks = tiny.batch(small.network), tiny.masks(small.network)
    masks["rgb"] = np.tile([[0, 1, 0, 1, 1, 1]], (4, 1))
    masks["semseg"] = np.tile([[1, 0, 0, 1, 1, 1]], (4, 1))
    masks["depth"] = np.ones((4, 6))
    nothing = {**maps, "depth": np.full_like(maps["depth"], np.nan)}
    without = {name: maps[name] for name in ("rgb", "semseg")}
    whole, empty, left_out = (small.reconstruct(x, masks) for x in (maps, nothing, without))
    for task in small.task_names:
        np.testing.assert_allclose(empty[task], whole[task], atol=1e-5)
        np.testing.assert_allclose(left_out[task], whole[task], atol=1e-5)
    losses = small.task_losses(nothing, masks)
    assert np.isnan(losses["depth"])
    np.testing.assert_allclose(losses["rgb"], small.task_losses(maps, masks)["rgb"], rtol=1e-5)
    tensors = {name: ops.convert_to_tensor(array) for name, array in nothing.items()}
    _, available = small.network.embed(tensors)
    np.testing.assert_array_equal(ops.convert_to_numpy(available), [[True, False, True]] * 4)


def test_missing_pixels_do_not_count(small):
    maps, masks = tiny.batch(small.network), tiny.masks(small.network)
    holes = {name: array.copy() for name, array in maps.items()}
    holes["depth"][:, :8, :, 0] = np.nan
    holes["semseg"][0] = 255
    holes["semseg"][1:, :, :5] = 255
    outputs = small.reconstruct(holes, masks)
    losses = small.task_losses(holes, masks)
    by_pixel = {
        "depth": np.kron(masks["depth"].reshape(4, 2, 3), np.ones((1, 16, 16))),
        "semseg": np.kron(masks["semseg"].reshape(4, 2, 3), np.ones((1, 4, 4))),
    }
    logits = outputs["semseg"]
    labels = np.where(holes["semseg"] == 255, 0, holes["semseg"])
    chosen = np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    pixels = {
        "depth": np.abs(outputs["depth"] - np.nan_to_num(holes["depth"]))[..., 0],
        "semseg": np.log(np.exp(logits).sum(-1)) - chosen,
    }
    valid = {"depth": ~np.isnan(holes["depth"][..., 0]), "semseg": holes["semseg"] != 255}
    for name, values in pixels.items():
        share = by_pixel[name] * valid[name]
        number = share.sum((1, 2))
        means = (values * share).sum((1, 2))[number > 0] / number[number > 0]
        np.testing.assert_allclose(losses[name], means.mean(), rtol=1e-4)


def test_what_is_not_masked_does_not_count_however_large_it_is():
    values, predictions = np.ones((2, 3, 12), "float32"), np.zeros((2, 3, 12), "float32")
    values[:, 1] = 1e30
    patches = Patches(ops.convert_to_tensor(values), ops.ones((2, 3, 4)), ops.ones(2))
    masked = np.array([[1, 0, 1], [0, 0, 1]])
    total, count = reconstruction_total(
        tasks_of((tiny.RGB,))[0], predictions, patches, masked, None
    )
    assert (float(total), float(count)) == (2.0, 2.0)


def test_totals_are_sums_of_sample_means(small):
    maps, masks = tiny.batch(small.network), tiny.masks(small.network)
    outputs = small.predict_on_batch({**maps, "visible_ids": small.visible_ids(masks)})
    totals, counts, _ = small.compute_task_totals(maps, None, outputs, None)
    one_by_one = []
    for index in range(4):
        one = {name: array[index : index + 1] for name, array in maps.items()}
        prediction = {
            "patches": {t: p[index : index + 1] for t, p in outputs["patches"].items()},
            "masks": outputs["masks"][index : index + 1],
        }
        one_by_one.append(
            [
                ops.convert_to_numpy(x)
                for x in small.compute_task_totals(one, None, prediction, None)
            ]
        )
    np.testing.assert_allclose(
        ops.convert_to_numpy(totals), sum(x[0] for x in one_by_one), rtol=1e-5
    )
    np.testing.assert_allclose(ops.convert_to_numpy(counts), sum(x[1] for x in one_by_one))
    weights = np.array([1.0, 0.0, 2.0, 0.5], "float32")
    totals, counts, _ = small.compute_task_totals(maps, None, outputs, weights)
    expected = sum(w * x[0] for w, x in zip(weights, one_by_one, strict=True))
    np.testing.assert_allclose(ops.convert_to_numpy(totals), expected, rtol=1e-5)
    expected = sum(w * x[1] for w, x in zip(weights, one_by_one, strict=True))
    np.testing.assert_allclose(ops.convert_to_numpy(counts), expected)


@pytest.mark.parametrize("weighting", ["uniform", slow("minimax"), slow("uncertainty"), "gradnorm"])
def test_training(weighting, tmp_path):
    keras.utils.set_random_seed(0)
    first = weighting == "uniform"
    optimizer = keras.optimizers.AdamW(1e-2) if first else keras.optimizers.SGD(0.1)
    modalities = (tiny.DEPTH, tiny.SEMSEG)
    model = tiny.model(modalities, encoder_norm=first, decoder_depth=int(first), seed=1)
    maps = tiny.batch(model.network, size=6)
    maps["depth"][0] = np.nan
    model.compile(optimizer, weighting=weighting)
    history = model.fit(maps, batch_size=3, epochs=3, verbose=0).history
    assert np.isfinite([history[f"{name}_loss"] for name in ("depth", "semseg", "worst")]).all()
    assert history["semseg_loss"][-1] < history["semseg_loss"][0]
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert loaded.weighting.get_config() == model.weighting.get_config()
    assert len(loaded.weights) == len(model.weights)
    for variable, expected in zip(loaded.variables, model.variables, strict=True):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(variable), ops.convert_to_numpy(expected), err_msg=variable.path
        )
    if first:
        assert loaded.task_losses(maps) == pytest.approx(model.task_losses(maps), rel=1e-5)


def test_config_round_trip():
    modalities = (Modality("rgb", channels=3, normalized_twin=True), tiny.SEMSEG)
    model = tiny.model(
        modalities,
        visible_concentration={"rgb": 0.5, "semseg": 2.0},
        sample_uniformly=True,
        class_embedding_dim=7,
        encoder_norm=True,
        seed=4,
    )
    copy = type(model).from_config(model.get_config())
    assert copy.get_config() == model.get_config()
    assert copy.modalities == modalities
    assert copy.network.sampler.concentrations.tolist() == [0.5, 2.0]
    shapes = [[tuple(v.shape) for v in m.variables] for m in (model, copy)]
    assert shapes[0] == shapes[1]


def test_a_model_saved_with_the_former_name_of_an_argument_opens(tmp_path):
    shares = {"rgb": 0.5, "depth": 2.0}
    model = tiny.model(visible_concentration=shares)
    model.save(tmp_path / "new.keras")
    with (
        zipfile.ZipFile(tmp_path / "new.keras") as new,
        zipfile.ZipFile(tmp_path / "old.keras", "w") as old,
    ):
        for name in new.namelist():
            content = new.read(name)
            if name == "config.json":
                saved = json.loads(content)
                saved["config"]["alpha"] = saved["config"].pop("visible_concentration")
                content = json.dumps(saved)
            old.writestr(name, content)
    opened = keras.saving.load_model(tmp_path / "old.keras")
    assert opened.get_config()["visible_concentration"] == shares
    assert opened.network.sampler.concentrations.tolist() == list(shares.values())


def test_the_former_name_of_an_argument_is_taken_with_a_warning():
    with pytest.warns(DeprecationWarning, match="is now `visible_concentration`"):
        model = tiny.model(alpha=2.0)
    assert model.get_config()["visible_concentration"] == 2.0


def test_half_precision_losses_are_float32():
    model = tiny.model((tiny.DEPTH, tiny.SEMSEG), tiny.backbone(dtype="mixed_bfloat16"))
    maps, masks = tiny.batch(model.network), tiny.masks(model.network)
    outputs = model.predict_on_batch({**maps, "visible_ids": model.visible_ids(masks)})
    totals, _, _ = model.compute_task_totals(maps, None, outputs, None)
    assert keras.backend.standardize_dtype(totals.dtype) == "float32"
    assert np.isfinite(list(model.task_losses(maps, masks).values())).all()


def test_positions_of_a_pretrained_backbone():
    vit = tiny.backbone()
    table = vit.get_layer("vit_patching_and_embedding").position_embedding.embeddings
    before = ops.convert_to_numpy(table)
    network = tiny.model((tiny.RGB, tiny.DEPTH), vit, positions="backbone").network
    np.testing.assert_array_equal(ops.convert_to_numpy(table), before)
    kept = ops.convert_to_numpy(network.embeddings["depth"].positions)
    np.testing.assert_array_equal(kept, before[1:])


def test_every_trainable_variable_is_used():
    model = tiny.model((tiny.RGB, tiny.SEMSEG))
    model.compile(keras.optimizers.SGD(1.0), weighting="uniform")
    before = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    model.fit(tiny.batch(model.network), verbose=0)
    unmoved = [
        v.path
        for v, old in zip(model.trainable_variables, before, strict=True)
        if np.array_equal(ops.convert_to_numpy(v), old)
    ]
    # The keys' biases have no gradient: the softmax takes them off again.
    assert all("key/bias" in path for path in unmoved), unmoved


def test_patches_drawn_with_the_data_are_what_the_model_sees():
    concentrations = {"depth": 0.5, "rgb": 2.0}
    model = tiny.model(visible_concentration=concentrations, sample_uniformly=True)
    maps = tiny.batch(model.network)
    ids = model.patch_masking(seed=5)(maps, np.arange(len(maps["rgb"])), 0)
    assert ids.shape[1] == model.network.visible_tokens
    masks = ops.convert_to_numpy(model.predict_on_batch({**maps, "visible_ids": ids})["masks"])
    for mask, visible in zip(masks, ids, strict=True):
        np.testing.assert_array_equal(np.flatnonzero(mask.ravel() == 0), visible)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"visible_tokens": 13}, "`visible_tokens` must be an integer from 1 to 12: .* Received"),
        ({"decoder_dim": 10, "decoder_heads": 5}, "`decoder_dim` must be a multiple"),
        (
            {"visible_concentration": {"rgb": 1.0}},
            "`visible_concentration` as a dict must have the keys",
        ),
        ({"visible_concentration": -1.0}, "`visible_concentration` must be positive"),
        ({"positions": "learned"}, "`positions` must be"),
        ({"modalities": (tiny.RGB, tiny.RGB)}, "must be distinct"),
        ({"modalities": ()}, "at least one Modality"),
        (
            {"modalities": (Modality("semseg", num_classes=3, stride=5),)},
            "The stride of a modality must divide the patch size",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny.model(**{"vit": tiny.backbone(), **arguments})


def test_an_image_that_the_patch_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="divisible by"):
        tiny.backbone((40, 48, 3))


def test_bad_batches(small):
    maps = tiny.batch(small.network)
    for bad, message in (
        ({**maps, "rgb": maps["rgb"][:, :20]}, r"'rgb' must have the shape \(batch, 32, 48, 3\)"),
        (
            {**maps, "depht": maps["depth"]},
            r"must be among the modalities .* Received: \['depht'\]",
        ),
        ({**maps, "rgb": maps["rgb"][:2]}, "as many samples"),
        ({**maps, "semseg": maps["semseg"] + 3}, "must lie between 0 and 4"),
        ({**maps, "semseg": maps["semseg"] * 1.0}, "must be integers"),
        ({"visible_ids": np.zeros((4, 2), int)}, "at least one of the input modalities"),
    ):
        with pytest.raises(ValueError, match=message):
            small.reconstruct(bad)
        with pytest.raises(ValueError, match=message):
            small.fit(bad, verbose=0)


def test_bad_masks(small):
    masks = tiny.masks(small.network)
    uneven = {**masks, "rgb": masks["rgb"].copy()}
    uneven["rgb"][0] = 1 - uneven["rgb"][0]
    for bad, message in (
        (uneven, "the same number of patches"),
        ({"rgb": np.ones((4, 6))}, "at least one, visible"),
        ({**masks, "depth": masks["depth"][:, :5]}, r"in the shape \(4, 6\)"),
        ({**masks, "depth": masks["depth"] * 2}, "0 .visible. and 1 .masked."),
        ({"thermal": masks["rgb"]}, "keys are among"),
    ):
        with pytest.raises(ValueError, match=message):
            small.visible_ids(bad)
    maps = tiny.batch(small.network, size=3)
    with pytest.raises(ValueError, match="`masks` must have 3 samples, as the inputs. Received: 4"):
        small.task_losses(maps, masks)


def test_losses_given_to_compile_are_refused(small):
    with pytest.raises(ValueError, match="`loss` and `auxiliary` must be None"):
        small.compile("adam", loss={"rgb": "mse"})
