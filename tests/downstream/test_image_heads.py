"""The encoder, its heads, losses and layer-wise decay."""

import dataclasses

import keras
import keras_hub
import numpy as np
import pytest
from image_models import (
    SIZE,
    WIDTH,
    as_array,
    opened,
    random_inputs,
    tiny_mm_mae,
    tiny_vit,
)
from keras import ops

from keras_taskrobust.downstream.depth import BerHu, dpt_hooks
from keras_taskrobust.downstream.image_encoder import ImageEncoder, open_image_model
from keras_taskrobust.downstream.image_model import (
    build_image_model,
    layer_decay_optimizer,
    layer_depths,
)
from keras_taskrobust.downstream.image_task import image_task
from keras_taskrobust.downstream.robust import penalize_distance
from keras_taskrobust.downstream.segmentation import ConvNeXtHead, split_patches
from keras_taskrobust.downstream.settings import ImageFineTuning
from keras_taskrobust.training.optimizers import ScaledAdamW
from keras_taskrobust.vision import normalize_rgb
from keras_taskrobust.vision.image_source import IGNORE_LABEL
from keras_taskrobust.vision.patches import resize_positions

SETTINGS = ImageFineTuning(image_size=None, head_width=8, drop_path=0.0, epochs=2, warmup_epochs=1)
CLASSES = ("wall", "floor", "chair")


def rgb(inputs):
    return {"rgb": inputs["rgb"]}


def test_a_vit_is_encoded_as_by_itself():
    keras.utils.set_random_seed(0)
    vit = tiny_vit()
    inputs = random_inputs()
    features = ImageEncoder(vit)(rgb(inputs))
    expected = as_array(vit(inputs["rgb"]))
    np.testing.assert_allclose(as_array(features.tokens)[:, -1], expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(as_array(features.tokens)[:, :-1], expected[:, 1:], atol=1e-5)
    np.testing.assert_allclose(
        as_array(features.blocks[-1]).reshape(2, -1, WIDTH), expected[:, 1:], atol=1e-5
    )


@pytest.mark.parametrize("names", [("rgb",), ("rgb", "depth"), ("rgb", "depth", "semseg")])
@pytest.mark.parametrize("encoder_norm", [False, True])
def test_an_mm_mae_is_encoded_as_by_itself(names, encoder_norm):
    model = tiny_mm_mae(encoder_norm=encoder_norm)
    inputs = {name: array for name, array in random_inputs().items() if name in names}
    tokens, _ = model.network.embed(inputs)
    expected = as_array(model.network.encode(tokens[:, : 6 * len(names)]))
    features = ImageEncoder(model, names)(inputs)
    np.testing.assert_allclose(as_array(features.tokens), expected, atol=1e-5)
    assert features.blocks[-1].shape == (2, 2, 3, WIDTH * len(names))
    second = as_array(features.blocks[-1])[:, 1, 2, WIDTH * (len(names) - 1) :]
    np.testing.assert_allclose(second, expected[:, 6 * len(names) - 1], atol=1e-5)


def test_the_source_keeps_its_weights_and_decoders_stay_behind():
    model = tiny_mm_mae()
    encoder = ImageEncoder(model)
    assert encoder.backbone is not model.backbone
    assert not any("decode" in variable.path for variable in encoder.variables)


def test_another_size_interpolates_the_positions():
    model = tiny_mm_mae()
    encoder = ImageEncoder(model, ("rgb", "depth"), image_size=(32, 16))
    patching = encoder.backbone.get_layer("vit_patching_and_embedding")
    old = as_array(
        model.backbone.get_layer("vit_patching_and_embedding").position_embedding.embeddings
    )
    new = as_array(patching.position_embedding.embeddings)
    expected = resize_positions(old[1:].reshape(2, 3, WIDTH), (4, 2), "bicubic")
    np.testing.assert_allclose(new[1:], expected.reshape(8, WIDTH), atol=1e-6)
    depth = as_array(encoder.network.embeddings["depth"].positions)
    np.testing.assert_allclose(depth, expected.reshape(8, WIDTH), atol=1e-6)
    inputs = random_inputs(size=(32, 16))
    assert encoder({name: inputs[name] for name in ("rgb", "depth")}).tokens.shape == (2, 17, WIDTH)


def test_drop_path_leaves_out_whole_residuals_in_training_alone():
    keras.utils.set_random_seed(1)
    encoder = ImageEncoder(tiny_vit(num_layers=1), drop_path=0.0)
    dropping = ImageEncoder(tiny_vit(num_layers=2), drop_path=0.999)
    inputs = rgb(random_inputs())
    assert [layer.rate for layer in dropping.drop_paths] == [0.0, 0.999]
    kept, dropped = dropping(inputs, training=False), dropping(inputs, training=True)
    assert not np.allclose(as_array(kept.tokens), as_array(dropped.tokens), atol=1e-3)
    once = _after_first_block(dropping, inputs)
    norm = dropping.backbone.get_layer("vit_encoder").layer_norm
    np.testing.assert_allclose(as_array(dropped.tokens), as_array(norm(once)), atol=1e-5)
    np.testing.assert_array_equal(
        as_array(encoder(inputs, training=True).tokens), as_array(encoder(inputs).tokens)
    )


def _after_first_block(encoder, inputs):
    tokens, _ = encoder.network.embed(inputs)
    return encoder.blocks[0](encoder.network.add_global_token(tokens))


def test_modalities_that_the_model_has_not_seen_are_refused():
    with pytest.raises(ValueError, match=r"some of rgb, which the model .*\('rgb', 'depth'\)"):
        ImageEncoder(tiny_vit(), ("rgb", "depth"))
    with pytest.raises(ValueError, match=r"multiples of the patch size \(8, 8\)"):
        ImageEncoder(tiny_vit(), image_size=(20, 24))
    with pytest.raises(ValueError, match="must be a MultiModalMAE"):
        ImageEncoder(keras.Sequential([keras.layers.Dense(2)]))


def test_a_preset_that_is_no_vit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"of a KerasHub ViT.*{tmp_path}.*without a model"):
        open_image_model(str(tmp_path))
    keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(2)]).save(tmp_path / "a.keras")
    with pytest.raises(ValueError, match="Received: .*a.keras.*a Sequential"):
        open_image_model(str(tmp_path / "a.keras"))


def test_a_preset_comes_with_its_own_normalisation(tmp_path):
    vit = tiny_vit()
    vit.save_to_preset(tmp_path)
    keras_hub.models.ViTImageClassifierPreprocessor(
        image_converter=keras_hub.layers.ViTImageConverter(
            image_size=SIZE, scale=1 / 127.5, offset=-1.0
        )
    ).save_to_preset(tmp_path)
    model, rescaling = open_image_model(str(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3)).astype("uint8")
    tokens = ImageEncoder(model, rescaling=rescaling)({"rgb": normalize_rgb(pixels)}).tokens
    expected = as_array(vit(pixels.astype("float32") / 127.5 - 1))
    np.testing.assert_allclose(as_array(tokens)[:, -1], expected[:, 0], atol=1e-4)


def test_a_random_start_keeps_the_architecture_alone(tmp_path):
    model = tiny_mm_mae()
    model.save(tmp_path / "model.keras")
    kept = open_image_model(str(tmp_path)).model
    fresh = open_image_model(str(tmp_path), from_scratch=True).model
    kernel = [
        as_array(one.backbone.get_layer("vit_encoder").encoder_layers[0].mlp.dense_1.kernel)
        for one in (model, kept, fresh)
    ]
    np.testing.assert_array_equal(kernel[0], kernel[1])
    assert not np.allclose(kernel[0], kernel[2])


def test_split_patches_lays_tokens_out_row_by_row():
    x = np.arange(2 * 3 * 8).reshape(1, 2, 3, 8)
    laid = as_array(split_patches(x, 2))
    assert laid.shape == (1, 4, 6, 2)
    for row, column, y, x_ in np.ndindex(2, 3, 2, 2):
        expected = x[0, row, column, (y * 2 + x_) * 2 : (y * 2 + x_) * 2 + 2]
        np.testing.assert_array_equal(laid[0, 2 * row + y, 2 * column + x_], expected)


def test_the_convnext_head_has_multimaes_sizes():
    head = ConvNeXtHead(13, (224, 224))
    head.build(768)
    block = 49 * 384 + 384 + 2 * 384 + (384 * 1536 + 1536) + (1536 * 384 + 384)
    assert head.count_params() == 769 * 6144 + 4 * block + 385 * 13


def test_dpt_hooks_are_at_the_quarters():
    assert dpt_hooks(24) == (5, 11, 17, 23)
    assert dpt_hooks(2) == (0, 0, 1, 1)


@pytest.mark.parametrize("head", ["standard", "linear"])
@pytest.mark.parametrize("name", ["classification", "semseg", "depth"])
def test_outputs_have_the_shape_of_the_targets(name, head):
    settings = dataclasses.replace(SETTINGS, head=head)
    task = image_task(name, CLASSES)
    model = build_image_model(opened(tiny_mm_mae()), task, settings)
    outputs = model(rgb(random_inputs()))
    expected = {"classification": (2, 3), "semseg": (2, *SIZE, 3), "depth": (2, *SIZE, 1)}
    assert tuple(outputs.shape) == expected[name]
    assert np.isfinite(as_array(outputs)).all()


def test_the_global_token_can_be_classified_alone():
    settings = dataclasses.replace(SETTINGS, pooling="global")
    task = image_task("classification", CLASSES)
    model = build_image_model(opened(tiny_vit()), task, settings)
    inputs = rgb(random_inputs())
    token = model.encoder(inputs).tokens[:, -1]
    expected = model.head.logits(model.head.norm(token))
    np.testing.assert_allclose(as_array(model(inputs)), as_array(expected), atol=1e-6)
    with pytest.raises(ValueError, match="`pooling` must be 'mean'"):
        build_image_model(opened(tiny_vit(use_class_token=False)), task, settings)


def test_a_target_is_no_input():
    settings = dataclasses.replace(SETTINGS, modalities=("rgb", "depth"))
    with pytest.raises(ValueError, match="must not have 'depth'"):
        build_image_model(opened(tiny_mm_mae()), image_task("depth", ()), settings)


def test_berhu_is_its_formula():
    generator = np.random.default_rng(0)
    labels = generator.normal(size=(2, 3, 4, 1)).astype("float32")
    predictions = generator.normal(size=labels.shape).astype("float32")
    labels[0, 1] = np.nan
    errors = np.abs(predictions - labels).astype("float64")
    errors = errors[np.isfinite(labels)]
    threshold = 0.2 * errors.max()
    expected = np.where(
        errors < threshold, errors, (errors**2 + threshold**2) / (2 * threshold)
    ).mean()
    assert float(BerHu()(labels, predictions)) == pytest.approx(expected, rel=1e-5)
    predictions[0, 1] = np.inf
    assert float(BerHu()(labels, predictions)) == pytest.approx(expected, rel=1e-5)
    assert float(BerHu()(np.full_like(labels, np.nan), predictions)) == 0.0


def test_the_loss_of_segmentation_is_the_mean_over_labelled_pixels():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORE_LABEL)
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(2, 3, 4, 5)).astype("float32")
    labels = generator.integers(0, 5, (2, 3, 4)).astype("int32")
    labels[0, :2] = IGNORE_LABEL
    known = labels != IGNORE_LABEL
    log_sums = np.log(np.exp(logits).sum(axis=-1))
    losses = log_sums[known] - logits[known][np.arange(known.sum()), labels[known]]
    assert float(loss(labels, logits)) == pytest.approx(losses.mean(), rel=1e-5)


def adamw_by_hand(start, gradients, rates, weight_decay, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    weights, first, second = start.astype("float64"), 0.0, 0.0
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        first = beta_1 * first + (1 - beta_1) * gradient
        second = beta_2 * second + (1 - beta_2) * gradient**2
        move = (first / (1 - beta_1**step)) / (np.sqrt(second / (1 - beta_2**step)) + epsilon)
        weights = weights - rate * weight_decay * weights - rate * move
    return weights


def test_scaled_adamw_is_adamw_at_each_variables_rate():
    generator = np.random.default_rng(0)
    starts = [generator.normal(size=3).astype("float32") for _ in range(3)]
    gradients = generator.normal(size=(4, 3, 3)).astype("float32")
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 6, warmup_target=0.2, warmup_steps=2)
    optimizer = ScaledAdamW(
        schedule, multipliers=(1.0, 0.5, 0.25), weight_decays=(0.1, 0.1, 0.0), epsilon=1e-8
    )
    variables = [keras.Variable(start) for start in starts]
    for step in range(4):
        optimizer.apply([ops.convert_to_tensor(one) for one in gradients[step]], variables)
    rates = np.array([float(schedule(step)) for step in range(4)])
    for index, (factor, decay) in enumerate([(1.0, 0.1), (0.5, 0.1), (0.25, 0.0)]):
        expected = adamw_by_hand(starts[index], gradients[:, index], rates * factor, decay)
        np.testing.assert_allclose(as_array(variables[index]), expected, rtol=1e-4, atol=1e-6)


def test_scaled_adamw_without_scales_is_keras_adamw():
    ours = keras.Variable([1.0, -2.0])
    theirs = keras.Variable([1.0, -2.0])
    optimizers = (
        ScaledAdamW(0.1, [1.0], [0.05]),
        keras.optimizers.AdamW(0.1, weight_decay=0.05),
    )
    for gradient in ([0.5, -1.0], [0.1, 2.0], [-0.3, 0.0]):
        for optimizer, variable in zip(optimizers, (ours, theirs), strict=True):
            optimizer.apply([ops.array(gradient)], [variable])
    np.testing.assert_allclose(as_array(ours), as_array(theirs), rtol=1e-6)


def test_scaled_adamw_wants_a_value_a_variable():
    optimizer = ScaledAdamW(0.1, [1.0], [0.0])
    with pytest.raises(ValueError, match="must have 2 values"):
        optimizer.build([keras.Variable([1.0]), keras.Variable([1.0])])
    again = ScaledAdamW.from_config(optimizer.get_config())
    assert again.multipliers == (1.0,)


def test_the_layers_of_an_mm_mae():
    model = build_image_model(opened(tiny_mm_mae(3)), image_task("semseg", CLASSES), SETTINGS)
    paths = {v.path: v for v in model.trainable_variables}
    depths = dict(zip(paths, layer_depths(model, list(paths.values())), strict=True))
    for index in (1, 2, 3):
        assert {d for p, d in depths.items() if f"transformer_block_{index}/" in p} == {index}
    assert {d for p, d in depths.items() if "convnext_head" in p} == {4}
    below = [p for p, d in depths.items() if d == 0]
    assert below
    assert all("patch_embedding" in p or "class_token" in p for p in below)


def test_training_moves_each_layer_at_its_own_rate():
    """One step of `fit`: AdamW's first step is `rate` wherever there is a gradient."""
    keras.utils.set_random_seed(0)
    settings = ImageFineTuning(
        image_size=None, drop_path=0.0, layer_decay=0.5, weight_decay=0.0, head="linear"
    )
    model = build_image_model(opened(tiny_vit(2)), image_task("semseg", CLASSES), settings)
    optimizer = layer_decay_optimizer(model, settings, 1e-3, steps=10, warmup_steps=0)
    model.compile(
        optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255),
    )
    before = [as_array(v) for v in model.trainable_variables]
    labels = np.random.default_rng(0).integers(0, 3, (2, *SIZE)).astype("int32")
    model.fit(rgb(random_inputs()), labels, batch_size=2, verbose=0)
    variables = model.trainable_variables
    for variable, old, depth in zip(variables, before, layer_depths(model, variables), strict=True):
        if variable.name == "kernel":
            moved = np.median(np.abs(as_array(variable) - old))
            np.testing.assert_allclose(moved, 1e-3 * 0.5 ** (3 - depth), rtol=0.02)
    assert set(layer_depths(model, variables)) == {0, 1, 2, 3}


def test_without_layer_decay_keras_s_adamw_takes_the_same_steps():
    kinds, weights = [], []
    for layer_decay in (1.0, 1.0 - 1e-7):
        keras.utils.set_random_seed(0)
        settings = ImageFineTuning(
            image_size=None, drop_path=0.0, layer_decay=layer_decay, weight_decay=0.5, head="linear"
        )
        model = build_image_model(opened(tiny_vit(2)), image_task("semseg", CLASSES), settings)
        optimizer = layer_decay_optimizer(model, settings, 1e-2, steps=10, warmup_steps=0)
        kinds.append(isinstance(optimizer, keras.optimizers.AdamW))
        rng = np.random.default_rng(0)
        for _ in range(3):
            gradients = [
                rng.normal(size=v.shape).astype("float32") for v in model.trainable_variables
            ]
            optimizer.apply(list(map(ops.convert_to_tensor, gradients)), model.trainable_variables)
        weights.append([as_array(v) for v in model.trainable_variables])
    assert kinds == [True, False]
    for plain, scaled in zip(*weights, strict=True):
        np.testing.assert_allclose(plain, scaled, atol=1e-5)


@pytest.mark.parametrize("layer_decay", [1.0, 0.75])
@pytest.mark.parametrize("has_importances", [False, True])
def test_a_pull_takes_the_place_of_weight_decay(layer_decay, has_importances):
    settings = dataclasses.replace(SETTINGS, layer_decay=layer_decay, weight_decay=0.5)
    model = build_image_model(opened(tiny_vit(2)), image_task("semseg", CLASSES), settings)
    pulled = model.backbone.trainable_variables
    importances = [np.ones(v.shape, "float32") for v in pulled] if has_importances else None
    penalize_distance(model, pulled, 0.01, importances)
    variables = model.trainable_variables
    before = [as_array(v) for v in variables]
    optimizer = layer_decay_optimizer(model, settings, 1e-2, steps=10, warmup_steps=0)
    optimizer.apply([ops.zeros(v.shape) for v in variables], variables)
    moved = [v for v, old in zip(variables, before, strict=True) if (as_array(v) != old).any()]
    kernels = [v for v in model.head.trainable_variables if v.name == "kernel"]
    assert kernels
    assert {v.path for v in kernels} <= {v.path for v in moved}
    assert not {id(v) for v in moved} & {id(v) for v in pulled}
