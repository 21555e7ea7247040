"""Fine-tuning on image tasks: examples, training, the robust methods."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
from image_models import SIZE, as_array, opened, tiny_mm_mae, tiny_vit
from marks import slow

from keras_taskrobust.downstream.finetuning_run import head_variables
from keras_taskrobust.downstream.image_examples import (
    held_out_batches,
    open_image_task,
    training_batches,
)
from keras_taskrobust.downstream.image_finetuning import (
    finetune_images,
    image_size_of,
    score_images,
    strides_of,
)
from keras_taskrobust.downstream.image_model import build_image_model
from keras_taskrobust.downstream.settings import ImageFineTuning
from keras_taskrobust.downstream.task import mean_score
from keras_taskrobust.randomness import generator
from keras_taskrobust.vision import (
    ArrayImages,
    ProceduralScenes,
    RelabelledImages,
    normalize_rgb,
)
from keras_taskrobust.vision.augmentation import draw_jitter, fit, place

SETTINGS = ImageFineTuning(
    image_size=None,
    batch_size=4,
    epochs=2,
    warmup_epochs=1,
    learning_rate=3e-3,
    head_width=8,
    least_crop=0.8,
    reports=2,
)
SHARED = Path(__file__).parents[3] / "shared" / "data"
SCENES = ProceduralScenes(8, 20, 24), ProceduralScenes(6, 20, 24, seed=1)


@pytest.fixture
def images(tmp_path):
    """Images whose class is their colour, as train and test of an .npz."""
    generator = np.random.default_rng(0)

    def split(number):
        labels = np.arange(number) % 2
        rgb = generator.integers(0, 40, (number, 20, 20, 3)) + 200 * labels[:, None, None, None]
        return rgb.astype("uint8"), labels

    train, test = split(16), split(7)
    path = tmp_path / "images.npz"
    np.savez(
        path,
        train_rgb=train[0],
        train_label=train[1],
        test_rgb=test[0],
        test_label=test[1],
        class_names=np.array(["dark", "bright"]),
    )
    return ArrayImages(path), ArrayImages(path, "test")


def task_data(name, model, settings=SETTINGS, sources=SCENES):
    return open_image_task(
        name, *sources, image_size_of(opened(model), settings), strides_of(opened(model), settings)
    )


def scenes_model(**arguments):
    return tiny_mm_mae(classes=len(SCENES[0].class_names), **arguments)


def test_jitter_shows_the_same_part_of_all_maps():
    columns = np.broadcast_to(np.arange(64), (48, 64))
    record = {
        "depth": columns[..., None].astype("float32") + 1,
        "semseg": columns.astype("uint8"),
    }
    sizes = set()
    for key in range(40):
        placement = draw_jitter(48, 64, (32, 48), generator(key), multiple=4)
        shown = place(record, placement, (32, 48), {"semseg": 4})
        assert shown["depth"].shape == (32, 48, 1)
        assert shown["semseg"].shape == (8, 12)
        height, width = placement.size
        sizes.add(placement.size)
        assert height % 4 == 0
        assert width % 4 == 0
        assert np.isfinite(shown["depth"][:height, :width]).all()
        assert np.isnan(shown["depth"][height:]).all()
        assert np.isnan(shown["depth"][:, width:]).all()
        known = shown["semseg"] != 255
        assert known.sum() == height * width // 16
        depth = shown["depth"][..., 0].reshape(8, 4, 12, 4).mean(axis=(1, 3))
        step = placement.view.width / width
        gaps = np.abs(depth[known] - 1 - shown["semseg"][known])
        assert gaps.max() <= 2 * step + 0.51
    assert len(sizes) > 10
    assert min(sizes) < (12, 24) < max(sizes) == (32, 48)


def test_jitter_keeps_the_aspect_ratio_and_fit_the_whole_image():
    for key in range(20):
        view, (height, width) = draw_jitter(480, 640, (240, 240), generator(key))
        assert view.width / width == pytest.approx(view.height / height, rel=0.05)
    assert fit(480, 640, (240, 240)) == ((0, 0, 480, 640, False), (180, 240))
    assert draw_jitter(9, 9, (9, 9), generator(1)) == draw_jitter(9, 9, (9, 9), generator(1))


def test_held_out_images_come_whole_and_in_order(images):
    data = task_data("classification", tiny_vit(size=(16, 16)), sources=images)
    batches = held_out_batches(data, SETTINGS)
    shown = np.concatenate([batches[index]["rgb"] for index in range(len(batches))])
    assert shown.shape == (8, 16, 16, 3)  # seven, and the first once more
    np.testing.assert_array_equal(shown[7], shown[0])
    assert [image.mean() > 0 for image in shown[:7]] == [label == 1 for label in data.labels]


def test_dense_targets_lie_over_their_images():
    data = task_data("semseg", scenes_model())
    record = SCENES[1][3]
    placed = place(record, fit(20, 24, SIZE), SIZE)
    np.testing.assert_array_equal(data.labels[3], placed["semseg"])
    batches = held_out_batches(data, SETTINGS)
    np.testing.assert_array_equal(batches[0]["rgb"][3], normalize_rgb(placed["rgb"]))
    assert (data.labels == 255).any()  # 20 x 24 in 16 x 24 leaves a margin


def test_training_batches_are_a_function_of_seed_and_step(images):
    settings = dataclasses.replace(SETTINGS, rand_augment=9, mixup=0.8, cutmix=1.0)
    data = task_data("classification", tiny_vit(size=(16, 16)), settings, images)
    first, again = (training_batches(data, settings, seed=3) for _ in range(2))
    _ = again[7]
    for step in (5, 0):
        (x, y), (x_again, y_again) = first[step], again[step]
        np.testing.assert_array_equal(x["rgb"], x_again["rgb"])
        np.testing.assert_array_equal(y, y_again)
        np.testing.assert_allclose(y.sum(axis=1), 1, atol=1e-5)
    other = training_batches(data, settings, seed=4)[5]
    assert not np.array_equal(other[0]["rgb"], first[5][0]["rgb"])


def test_mixed_labels_are_the_shares_of_the_mixed_images(images):
    settings = dataclasses.replace(SETTINGS, batch_size=16)
    data = task_data("classification", tiny_vit(size=(16, 16)), settings, images)
    brightness = [normalize_rgb(np.full((1, 3), value, "uint8")).mean() for value in (20, 220)]
    mixed = 0
    for name in ("mixup", "cutmix"):
        inputs, shares = training_batches(
            data, dataclasses.replace(settings, **{name: 1.0}), seed=0
        )[0]
        means = inputs["rgb"].mean(axis=(1, 2, 3))
        expected = brightness[0] + shares[:, 1] * (brightness[1] - brightness[0])
        np.testing.assert_allclose(means, expected, atol=0.25)
        mixed += ((shares > 0.1) & (shares < 0.9)).any()
    assert mixed == 2


def test_depth_targets_are_normalised_by_the_training_depths():
    data = task_data("depth", scenes_model())
    mean, deviation = data.depth_scale
    known = np.concatenate([SCENES[0][index]["depth"].ravel() for index in range(8)])
    assert mean == pytest.approx(np.nanmean(known), rel=0.05)
    _, targets = training_batches(data, SETTINGS, seed=0, augment=False)[0]
    assert targets.shape == (4, *SIZE, 1)
    metres = targets * deviation + mean
    assert np.nanmin(metres) > 0


@pytest.mark.parametrize("name", ["semseg", slow("depth")])
def test_dense_tasks_train_from_several_modalities(name):
    keras.utils.set_random_seed(0)
    other = {"semseg": "depth", "depth": "semseg"}[name]
    settings = dataclasses.replace(SETTINGS, modalities=("rgb", other))
    model = scenes_model()
    before = [as_array(weight) for weight in model.weights]
    data = task_data(name, model, settings)
    result = finetune_images(opened(model), data, settings)
    assert [line["step"] for line in result.history] == [2, 4]
    assert result.predictions["best"].shape == data.labels.shape
    assert set(result.scores["last"]) == set(result.trivial_scores)
    errors = result.further_scores["errors"]["best"]
    assert set(errors) == ({"rmse", "rel"} if name == "depth" else set())
    again = data.task.evaluate(data.labels, result.predictions["best"])
    assert again == result.scores["best"]
    assert score_images(result.model, data, settings) == mean_score(again)
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, as_array(weight))


def test_classification_learns_a_colour(images):
    keras.utils.set_random_seed(0)
    settings = dataclasses.replace(SETTINGS, epochs=6, learning_rate=1e-2, reports=1)
    model = tiny_vit(1, size=(16, 16))
    result = finetune_images(
        opened(model), task_data("classification", model, settings, images), settings
    )
    assert result.scores["last"] == {"accuracy": 1.0}
    assert result.trivial_scores["accuracy"] < 0.6


@pytest.mark.parametrize("changes", [{}, slow({"soup_size": 2}), slow({"wise_share": 0.7})])
def test_scores_are_those_of_the_weights(images, changes):
    keras.utils.set_random_seed(0)
    settings = dataclasses.replace(SETTINGS, learning_rate=2e-2, reports=4, **changes)
    model = tiny_vit(1, size=(16, 16))
    data = task_data("classification", model, settings, images)
    result = finetune_images(opened(model), data, settings)
    for report in ("last", "best"):
        result.model.set_weights(result.weights[report])
        assert score_images(result.model, data, settings) == result.scores[report]["accuracy"]


@pytest.mark.parametrize("method", ["linear_probe", slow("l2_sp"), "lwf", slow("ewc"), "lora"])
def test_robust_methods_keep_the_encoder(images, method):
    keras.utils.set_random_seed(0)
    options = {"strength": 1e4} if method in ("l2_sp", "lwf", "ewc") else {}
    options |= {"fisher_examples": 3} if method == "ewc" else {}
    settings = dataclasses.replace(SETTINGS, method=method, max_steps=3, reports=1, **options)
    model = tiny_vit(1, size=(16, 16))
    data = task_data("classification", model, settings, images)
    result = finetune_images(opened(model), data, settings)
    kernel = model.get_layer("vit_encoder").encoder_layers[0].mlp.dense_1.kernel
    tuned = result.model.encoder.blocks[0].mlp.dense_1.kernel
    moved = np.abs(as_array(tuned) - as_array(kernel)).max()
    assert moved == 0 if method in ("linear_probe", "lora") else 0 < moved < 1e-2
    if method == "lora":
        trained = {variable.name for variable in result.model.encoder.trainable_variables}
        assert trained == {"lora_kernel_a", "lora_kernel_b", "bias"}


def test_wise_and_soups_average_the_encoder(images):
    model = tiny_vit(1, size=(16, 16))
    settings = dataclasses.replace(
        SETTINGS, soup_size=2, wise_share=0.0, max_steps=2, warmup_epochs=0, reports=1
    )
    data = task_data("classification", model, settings, images)
    keras.utils.set_random_seed(0)
    result = finetune_images(opened(model), data, settings)
    tuned = result.model.encoder.blocks[0].mlp.dense_2.kernel
    kernel = model.get_layer("vit_encoder").encoder_layers[0].mlp.dense_2.kernel
    np.testing.assert_array_equal(as_array(tuned), as_array(kernel))
    assert np.abs(as_array(result.model.head.logits.bias)).max() > 0


@pytest.mark.parametrize(
    ("file", "split", "names", "number"),
    [("cifar10_small.npz", "train", 10, 2000), ("nyuv2_64x48.npz", "test", 16, 654)],
)
def test_real_sets_have_classes_of_whole_images(file, split, names, number):
    path = SHARED / "vision" / file
    if not path.is_file():
        pytest.skip(f"needs ../shared/data/vision/{file}")
    source = ArrayImages(path, split)
    assert len(source.label_names) == names
    data = open_image_task("classification", source, source, SIZE)
    assert data.labels.shape == (number,)
    assert set(data.labels.tolist()) == set(range(names))


def test_data_without_the_target_is_refused(images):
    with pytest.raises(ValueError, match="training split must have 'depth'.*with rgb, label"):
        task_data("depth", tiny_vit(), sources=images)
    with pytest.raises(ValueError, match="must have 'label', which the task 'classification'"):
        task_data("classification", tiny_vit())


def test_an_empty_split_is_refused():
    class Empty(ProceduralScenes):
        def __len__(self):
            return 0

    with pytest.raises(ValueError, match="The held-out split must have images. Received: none"):
        task_data("semseg", tiny_vit(), sources=(SCENES[0], Empty(1, 8, 8)))


def test_a_label_outside_of_the_classes_is_refused(tmp_path):
    path = tmp_path / "wrong.npz"
    arrays = {"train_rgb": np.zeros((2, 8, 8, 3), "uint8"), "train_label": np.array([0, 2])}
    np.savez(path, **arrays, class_names=np.array(["a", "b"]))
    with pytest.raises(ValueError, match=r"below 2, the number of their names.*\[2\] in .*wrong"):
        ArrayImages(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_decay": 1.5}, "`layer_decay` must lie between 0 and 1"),
        ({"reports": 0}, "`reports` must be an integer >= 1. Received: reports=0"),
        ({"learning_rate": 0.0}, "`learning_rate` must be a positive number"),
        ({"least_learning_rate": -1e-6}, "`least_learning_rate` must be a number >= 0"),
        ({"beta_2": 1.0}, "`beta_2` must be at least 0 and less than 1"),
        ({"mixup": -1}, "`mixup` must be a number >= 0"),
        ({"head_width": 0}, "`head_width` must be an integer >= 1 or None"),
        ({"head": "wide"}, "`head` must be one of standard, linear"),
        ({"pooling": "max"}, "`pooling` must be one of mean, global"),
        ({"image_size": (0, 8)}, "`image_size` must be a height and a width, integers >= 1"),
        ({"jitter": (2.0, 0.1)}, "`jitter` must be two positive factors, the smaller first"),
        ({"modalities": ()}, "`modalities` must be one or more different values"),
        ({"warmup_epochs": 2}, "`warmup_epochs` must be at least 0 and less than `epochs`"),
        ({"mixup": 0.8, "modalities": ("rgb", "depth")}, "`cutmix` must be 0 unless"),
    ],
)
def test_settings_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **fields)


def test_a_run_starts_from_a_trained_head(images):
    model = tiny_vit(size=(16, 16))
    data = task_data("classification", model, sources=images)
    probe = dataclasses.replace(SETTINGS, method="linear_probe")
    probed = finetune_images(opened(model), data, probe).model
    head = [as_array(one) for one in head_variables(probed)]
    assert [array.shape for array in head] == [(12,), (12,), (12, 2), (2,)]
    settings = dataclasses.replace(SETTINGS, wise_share=0.0)
    start = finetune_images(opened(model), data, settings, head=head)
    for mine, weights in zip(start.weights["last"], probed.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, weights)


def test_classes_that_a_set_lacks_are_not_predicted(images, tmp_path):
    model = tiny_vit(size=(16, 16))
    data = task_data("classification", model, sources=images)
    trained = finetune_images(opened(model), data, SETTINGS).model
    names = ("none", *images[0].label_names)
    mapped = [RelabelledImages(source, names) for source in images]
    other = task_data("classification", model, sources=mapped)
    wide = build_image_model(opened(model), other.task, SETTINGS)
    kernel, bias = (np.insert(as_array(one), 0, 9, -1) for one in trained.head.logits.weights)
    wide.encoder.set_weights(trained.encoder.get_weights())
    wide.head.norm.set_weights(trained.head.norm.get_weights())
    wide.head.logits.set_weights([np.insert(kernel[:, 1:], 0, 0, -1), bias])
    inputs = held_out_batches(data, SETTINGS)
    logits = np.concatenate([as_array(wide(inputs[k], training=False)) for k in range(2)])[:7]
    assert (logits.argmax(-1) == 0).all()
    expected = np.mean(logits[:, 1:].argmax(-1) + 1 == other.labels)
    assert score_images(wide, other, SETTINGS) == pytest.approx(expected)
    assert score_images(trained, data, SETTINGS) == pytest.approx(expected)
