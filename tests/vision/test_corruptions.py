import io
import re

import numpy as np
import pytest
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy import signal, stats

from keras_taskrobust.vision import (
    CORRUPTIONS,
    CorruptedImages,
    ImageSubset,
    ProceduralScenes,
    RelabelledImages,
    corrupt,
)
from keras_taskrobust.vision.datasets import ArrayImages

pytestmark = pytest.mark.backend_free

GREY = 128
SIZES = {"small": (32, 48), "large": (80, 96)}


@pytest.fixture(scope="module")
def images():
    """A scene in the sizes that have constants of CIFAR-10-C and of ImageNet-C."""
    return {size: ProceduralScenes(1, *pixels, seed=3)[0]["rgb"] for size, pixels in SIZES.items()}


def plain(size, value=GREY):
    return np.full((*SIZES[size], 3), value, "uint8")


def corrupted(image, name, severity, seed=0):
    return corrupt(image, name, severity, np.random.default_rng(seed))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_is_monotone(name, size, images):
    image = images[size]
    before = image.copy()
    found = [corrupted(image, name, severity) for severity in range(1, 6)]
    assert all(one.dtype == np.uint8 and one.shape == image.shape for one in found)
    changes = [float(np.mean((one - image.astype("float64")) ** 2)) for one in found]
    assert changes[0] > 0
    assert (np.diff(changes) > 0).all(), changes
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(("size", "deviation"), [("small", 0.06), ("large", 0.12)])
def test_gaussian_noise_has_the_deviation_of_the_reference(size, deviation):
    noise = corrupted(plain(size), "gaussian_noise", 2) / 255 - GREY / 255
    number = noise.size
    # 5 standard errors of a deviation, and a little for cutting off decimals.
    assert noise.std() == pytest.approx(deviation, rel=5 / np.sqrt(2 * number), abs=1e-3)


@pytest.mark.parametrize(("size", "photons"), [("small", 75), ("large", 5)])
def test_shot_noise_is_poisson(size, photons):
    counts = np.round(corrupted(plain(size, 60), "shot_noise", 4) / 255 * photons + 0.01)
    mean = 60 / 255 * photons
    assert counts.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / counts.size))
    number_below = np.arange(int(mean) + 1)
    expected = stats.poisson(mean).pmf(number_below)
    observed = [(counts == number).mean() for number in number_below]
    np.testing.assert_allclose(observed, expected, atol=5 * np.sqrt(0.25 / counts.size))


@pytest.mark.parametrize(("size", "share"), [("small", 0.07), ("large", 0.27)])
def test_impulse_noise_flips_a_share(size, share):
    found = corrupted(plain(size), "impulse_noise", 5)
    assert set(np.unique(found)) == {0, GREY, 255}
    error = 5 * np.sqrt(share / found.size)
    assert (found != GREY).mean() == pytest.approx(share, abs=error)
    assert (found == 0).mean() == pytest.approx(share / 2, abs=error)


def gaussian_row(edge, reach):
    row = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * edge**2))
    return row / row.sum()


@pytest.mark.parametrize(
    ("size", "severity", "radius", "edge", "reach"),
    [("small", 3, 0.5, 0.6, 1), ("small", 5, 1.5, 0.1, 1), ("large", 1, 3, 0.1, 1)],
)
def test_defocus_blur_is_a_convolution_with_a_soft_disk(
    size, severity, radius, edge, reach, images
):
    grid = np.arange(-9, 10)
    disk = np.hypot(*np.meshgrid(grid, grid)) <= radius
    row = gaussian_row(edge, reach)
    kernel = signal.convolve2d(disk / disk.sum(), np.outer(row, row), mode="same")
    image = images[size] / 255
    channels = [
        signal.convolve2d(np.pad(image[..., k], 9, mode="reflect"), kernel, mode="valid")
        for k in range(3)
    ]
    found = corrupted(images[size], "defocus_blur", severity)
    np.testing.assert_allclose(found, np.stack(channels, -1) * 255, atol=1 + 1e-5)


def test_defocus_blur_of_many_pixels_keeps_the_mean():
    dot = np.zeros((81, 81, 3), "uint8")
    dot[40, 40] = 255
    found = corrupted(dot, "defocus_blur", 5)
    assert (found[40, 30:51] == found[30:51, 40]).all()
    assert found[40, 29:52, 0].astype(bool).sum() == 0  # 255 / 317 is below 1
    wide = np.zeros((81, 81, 3), "uint8")
    wide[20:61, 20:61] = 255
    assert corrupted(wide, "defocus_blur", 5).mean() == pytest.approx(wide.mean(), abs=0.3)


@pytest.mark.parametrize(("size", "added"), [("small", 0.15), ("large", 0.3)])
def test_brightness_adds_to_the_value_of_hsv(size, added, images):
    image = images[size].copy()
    image[0, 0] = 0
    hsv = rgb_to_hsv(image / 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + added, 0, 1)
    found = corrupted(image, "brightness", 3)
    np.testing.assert_allclose(found, np.clip(hsv_to_rgb(hsv), 0, 1) * 255, atol=1 + 1e-5)
    assert found[0, 0].tolist() == [int(added * 255 + 1e-6)] * 3


@pytest.mark.parametrize(("size", "kept"), [("small", 0.3), ("large", 0.1)])
def test_contrast_shrinks_deviations(size, kept, images):
    image = images[size].astype("float64")
    found = corrupted(images[size], "contrast", 4)
    mean = image.mean(axis=(0, 1))
    np.testing.assert_allclose(found, mean + kept * (image - mean), atol=1 + 1e-5)


def test_pixelate_gives_the_means_of_boxes(images):
    blocks = images["large"].reshape(20, 4, 24, 4, 3).mean(axis=(1, 3))
    found = corrupted(images["large"], "pixelate", 5)  # to a quarter
    np.testing.assert_allclose(found, blocks.repeat(4, axis=0).repeat(4, axis=1), atol=0.51 + 0.5)


def test_pixelate_of_small_images_rounds_their_sides_down():
    height, width = 20, 10
    ramp = np.arange(height, dtype="uint8")[:, None, None] * np.ones((1, width, 3), "uint8")
    found = corrupted(ramp, "pixelate", 5)  # 13 rows of the 20
    assert len(np.unique(found)) >= 13
    shrunk = Image.fromarray(ramp).resize((6, 13), Image.Resampling.BOX)
    np.testing.assert_array_equal(
        found, np.array(shrunk.resize((width, height), Image.Resampling.BOX))
    )


@pytest.mark.parametrize(("size", "quality"), [("small", 65), ("large", 18)])
def test_jpeg_is_pillows(size, quality, images):
    file = io.BytesIO()
    Image.fromarray(images[size]).save(file, "JPEG", quality=quality)
    np.testing.assert_array_equal(
        corrupted(images[size], "jpeg_compression", 2), np.array(Image.open(file))
    )


def test_a_source_is_corrupted_by_number_and_name():
    scenes = ProceduralScenes(3, 16, 16)
    noisy = CorruptedImages(scenes, "gaussian_noise", 3)
    assert (len(noisy), noisy.stem(1)) == (3, scenes.stem(1))
    assert noisy.class_names == scenes.class_names
    for index in range(3):
        first, again, clean = noisy[index], noisy[index], scenes[index]
        np.testing.assert_array_equal(first["rgb"], again["rgb"])
        assert (first["rgb"] != clean["rgb"]).mean() > 0.5
        np.testing.assert_array_equal(first["semseg"], clean["semseg"])
        np.testing.assert_array_equal(first["depth"], clean["depth"])
    twice = CorruptedImages(ImageSubset(scenes, [0, 0]), "gaussian_noise", 3)
    assert (twice[0]["rgb"] != twice[1]["rgb"]).any()


def save_labelled(path, names):
    labels = np.arange(4) % len(names)
    rgb = np.zeros((4, 8, 8, 3), "uint8")
    np.savez(path, test_rgb=rgb, test_label=labels, label_names=np.array(names))
    return ArrayImages(path, "test")


def test_labels_are_numbered_after_other_names(tmp_path):
    some = save_labelled(tmp_path / "some.npz", ["n03", "n01"])
    mapped = RelabelledImages(some, ["n01", "n02", "n03"])
    assert [int(record["label"]) for record in mapped] == [2, 0, 2, 0]
    assert mapped.label_names == ("n01", "n02", "n03")
    with pytest.raises(ValueError, match=r"labels out of the 2 of .*Received: also n03"):
        RelabelledImages(some, ["n01", "n02"])
    with pytest.raises(ValueError, match="Received: no labels"):
        RelabelledImages(ProceduralScenes(1, 8, 8), ["n01", "n02"])


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [
        ("fog", 1, "must be one of gaussian_noise, .*Received: 'fog'"),
        ("contrast", 0, "from 1 to 5. Received: 0"),
        ("contrast", 6, "from 1 to 5. Received: 6"),
    ],
)
def test_refuses(name, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupt(plain("small"), name, severity, np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        CorruptedImages(ProceduralScenes(1, 8, 8), name, severity)


def test_refuses_a_source_without_images(tmp_path):
    np.savez(tmp_path / "depth.npz", test_depth=np.ones((1, 4, 4)))
    with pytest.raises(
        ValueError, match=re.escape("must have 'rgb'. Received: a source with depth")
    ):
        CorruptedImages(ArrayImages(tmp_path / "depth.npz", "test"), "contrast", 1)
