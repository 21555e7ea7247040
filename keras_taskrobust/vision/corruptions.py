"""Common corruptions of images, and sources of corrupted images."""

import io
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

from keras_taskrobust import randomness
from keras_taskrobust.vision.image_source import DerivedImages, ImageSource, Record

Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]

#: Images whose shorter side has at most as many pixels have the constants of CIFAR-10-C.
SMALL_SIDE = 64


def gaussian_noise(image, severity, generator):
    """Adds normal noise to every value."""
    deviation = _constant(
        image, severity, (0.04, 0.06, 0.08, 0.09, 0.1), (0.08, 0.12, 0.18, 0.26, 0.38)
    )
    shares = image / 255
    return _to_bytes(shares + generator.normal(scale=deviation, size=image.shape))


def shot_noise(image, severity, generator):
    """Replaces every value by a Poisson variable of that mean, as few photons give."""
    photons = _constant(image, severity, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3))
    return _to_bytes(generator.poisson(image / 255 * photons) / photons)


def impulse_noise(image, severity, generator):
    """Replaces a share of the values by 0 or 255."""
    share = _constant(
        image, severity, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)
    )
    flipped = generator.random(image.shape) <= share
    salted = generator.random(image.shape) <= 0.5
    return np.where(flipped, np.where(salted, 255, 0), image).astype("uint8")


def defocus_blur(image, severity, generator):
    """Averages over a disk with a soft edge."""
    radius, edge = _constant(
        image,
        severity,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    )
    kernel = _disk(radius, edge)[..., None]
    return _to_bytes(ndimage.correlate(image / 255, kernel, mode="mirror"))


def brightness(image, severity, generator):
    """Adds to the value of HSV; hue and saturation stay."""
    added = _constant(image, severity, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5))
    shares = image / 255
    value = shares.max(axis=-1, keepdims=True)
    brighter = np.minimum(value + added, 1)
    # With hue and saturation fixed, colours are proportional to the value; black becomes grey.
    factor = np.divide(brighter, value, out=np.zeros_like(value), where=value > 0)
    return _to_bytes(np.where(value > 0, shares * factor, brighter))


def contrast(image, severity, generator):
    """Moves every value towards its channel's mean."""
    kept = _constant(image, severity, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05))
    shares = image / 255
    means = shares.mean(axis=(0, 1), keepdims=True)
    return _to_bytes((shares - means) * kept + means)


def pixelate(image, severity, generator):
    """Shrinks the image and enlarges it again, both by the mean over boxes."""
    share = _constant(image, severity, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25))
    height, width = image.shape[:2]
    small = (max(int(width * share), 1), max(int(height * share), 1))
    shrunk = Image.fromarray(image).resize(small, Image.Resampling.BOX)
    return np.array(shrunk.resize((width, height), Image.Resampling.BOX))


def jpeg_compression(image, severity, generator):
    """Compresses the image as a JPEG of low quality."""
    quality = _constant(image, severity, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        defocus_blur,
        brightness,
        contrast,
        pixelate,
        jpeg_compression,
    )
}
"""The corruptions by name: those of Hendrycks and Dietterich that need no files of theirs."""


def corrupt(
    image: np.ndarray, name: str, severity: int, generator: np.random.Generator
) -> np.ndarray:
    """Corrupts an image.

    The constants are those of CIFAR-10-C for images whose shorter side has at most 64 pixels, and
    those of ImageNet-C, made for 224 x 224, for larger ones.

    Args:
        image: `(H, W, 3)` uint8.
        name: string, a key of `CORRUPTIONS`.
        severity: int, 1 to 5.
        generator: `np.random.Generator`, which noise is drawn from.

    Returns:
        `(H, W, 3)` uint8.

    Raises:
        ValueError: there is no such corruption or severity.

    Reference:
        [Benchmarking Neural Network Robustness to Common Corruptions and Perturbations]
        (https://arxiv.org/abs/1903.12261).

    Example:

    >>> image = np.array([[[0, 100, 200], [100, 100, 100]]], "uint8")
    >>> corrupt(image, "contrast", 2, np.random.default_rng(0)).tolist()
    [[[25, 100, 175], [75, 100, 125]]]
    """
    _check(name, severity)
    return CORRUPTIONS[name](image, severity, generator)


class CorruptedImages(DerivedImages):
    """A source with corrupted images; depth and labels are left alone.

    Noise is a function of the record's number and the corruption's name.

    Args:
        source: `ImageSource` with `"rgb"`.
        name: string, a key of `CORRUPTIONS`.
        severity: int, 1 to 5.

    Raises:
        ValueError: there is no such corruption or severity, or the source has no images.

    Example:

    >>> from keras_taskrobust.vision.scenes import ProceduralScenes
    >>> noisy = CorruptedImages(ProceduralScenes(2, 16, 16), "gaussian_noise", severity=3)
    >>> sorted(noisy[0]), noisy[0]["rgb"].shape
    (['depth', 'rgb', 'semseg'], (16, 16, 3))
    """

    def __init__(self, source: ImageSource, name: str, severity: int):
        _check(name, severity)
        if "rgb" not in source.modalities:
            raise ValueError(
                f"`source` must have 'rgb'. Received: a source with {', '.join(source.modalities)}"
            )
        super().__init__(source)
        self._name = name
        self._severity = severity

    def read(self, index: int) -> Record:
        record = self._source[index]
        noise = randomness.generator(index, zlib.crc32(self._name.encode()))
        return {**record, "rgb": corrupt(record["rgb"], self._name, self._severity, noise)}


def _check(name, severity):
    if name not in CORRUPTIONS:
        raise ValueError(
            f"A corruption must be one of {', '.join(CORRUPTIONS)}. Received: {name!r}"
        )
    if severity not in range(1, 6):
        raise ValueError(f"`severity` must be an integer from 1 to 5. Received: {severity!r}")


def _constant(image, severity, of_small, of_large):
    is_small = min(image.shape[:2]) <= SMALL_SIDE
    return (of_small if is_small else of_large)[severity - 1]


def _to_bytes(shares):
    """Cuts off decimals, as the reference does."""
    # Products such as 0.6 * 255 may lie a rounding error below the integer they stand for.
    return np.floor(np.clip(shares, 0, 1) * 255 + 1e-6).astype("uint8")


def _disk(radius, edge):
    """A disk of sum 1, its edge softened by a Gaussian of the deviation `edge`."""
    half, reach = (8, 1) if radius <= 8 else (radius, 2)
    x, y = np.meshgrid(*[np.arange(-half, half + 1)] * 2)
    disk = (x**2 + y**2 <= radius**2).astype("float64")
    return ndimage.gaussian_filter(disk / disk.sum(), edge, radius=reach, mode="mirror")
