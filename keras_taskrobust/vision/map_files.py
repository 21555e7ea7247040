"""Single files of images, depth and labels: read in every form that is in use, written in one."""

import contextlib
import io
import threading
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from keras_taskrobust.files import READING_ERRORS, write_atomically
from keras_taskrobust.vision.image_source import IGNORE_LABEL, UnreadableFileError, clean_depth

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".npy")

_READING_ERRORS = (*READING_ERRORS, Image.DecompressionBombError)

#: NumPy reads the header of a .npy by `ast`, in which threads of Python 3.11 disturb one another.
_HEADERS = threading.Lock()


def read_rgb(path: Path) -> np.ndarray:
    """Reads an image file; grey images get three equal channels, transparency is dropped.

    A photo is turned as its EXIF orientation says.

    Args:
        path: a picture, or a .npy of `(H, W, 3)` or `(H, W)` uint8.

    Returns:
        `(H, W, 3)` uint8.

    Raises:
        UnreadableFileError: if it cannot be decoded.
        ValueError: if it is an array of another shape or dtype.
    """
    if path.suffix.lower() != ".npy":
        return _decode(path, "RGB")
    array = _load_array(path)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
        raise ValueError(
            "An RGB array must be uint8 of the shape (H, W, 3). "
            f"Received: {array.dtype} {array.shape} in {path}"
        )
    return array


def read_depth(path: Path, scale: float) -> np.ndarray:
    """Reads a depth map.

    Args:
        path: a grey picture of 8 or 16 bits, or a .npy of `(H, W)` or `(H, W, 1)` numbers.
        scale: float, metres per unit of integer maps. Floating-point maps are metres.

    Returns:
        `(H, W, 1)` float32 metres, NaN where the file has no finite number above zero.

    Raises:
        UnreadableFileError: if it cannot be decoded.
        ValueError: if it has several channels.
    """
    array = _read_single_channel(path)
    if array.dtype.kind != "f":
        array = array.astype("float64") * scale
    return clean_depth(array)


def read_labels(path: Path, ignore_label: int) -> np.ndarray:
    """Reads a label map.

    Args:
        path: a picture with one channel or a palette, a picture with three channels that holds
            red + 256 * green (the form of ImageNet-S), or a .npy of `(H, W)` integers.
        ignore_label: int, the label of pixels without a class.

    Returns:
        `(H, W)` int64, 255 where the file has the ignore label.

    Raises:
        UnreadableFileError: if it cannot be decoded.
        ValueError: if it is not a map of integers, or uses 255 for a class.
    """
    array = _load_array(path) if path.suffix.lower() == ".npy" else _decode(path)
    if array.ndim == 3 and array.shape[-1] == 3 and array.dtype == np.uint8:
        array = array[..., 0].astype("int64") + 256 * array[..., 1].astype("int64")
    array = _drop_channel(array, path)
    if array.dtype.kind not in "iu":
        raise ValueError(f"Labels must be integers. Received: {array.dtype} in {path}")
    labels = array.astype("int64")
    if ignore_label != IGNORE_LABEL and (labels == IGNORE_LABEL).any():
        raise ValueError(
            f"Labels must be below {IGNORE_LABEL}, but for `ignore_label`={ignore_label}. "
            f"Received: label {IGNORE_LABEL} in {path}"
        )
    return np.where(labels == ignore_label, IGNORE_LABEL, labels)


def write_depth(path: Path, units: np.ndarray) -> None:
    """Writes a depth map as a 16-bit PNG, whole or not at all.

    Args:
        path: where it goes. Missing folders are made.
        units: `(H, W)` uint16, 0 where missing.
    """
    _write_png(path, Image.fromarray(units))


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Writes a label map as an 8-bit PNG, whole or not at all.

    Args:
        path: where it goes. Missing folders are made.
        labels: `(H, W)` uint8, 255 where there is no class.
    """
    _write_png(path, Image.fromarray(labels))


def _write_png(path, image):
    content = io.BytesIO()
    image.save(content, format="PNG")
    write_atomically(path, content.getvalue())


def _read_single_channel(path):
    array = _load_array(path) if path.suffix.lower() == ".npy" else _decode(path)
    return _drop_channel(array, path)


def _drop_channel(array, path):
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 2:
        raise ValueError(
            "A depth or label map must have one channel. "
            f"Received: an array of the shape {array.shape} in {path}"
        )
    return array


def is_whole_picture(path: Path) -> bool:
    """Whether a PNG's checksums are right; the pixels are not decoded."""
    try:
        with Image.open(path) as image:
            image.verify()
    except _READING_ERRORS:
        return False
    return True


def _decode(path, mode=None):
    try:
        with Image.open(path) as image:
            upright = _turn_upright(image)
            return np.array(upright.convert(mode) if mode else upright)
    except _READING_ERRORS as error:
        raise UnreadableFileError(path, error) from error


def _turn_upright(image):
    """Turns a photo as its camera was held, which EXIF says."""
    with contextlib.suppress(*READING_ERRORS):  # the pixels may be sound where EXIF is not
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            return ImageOps.exif_transpose(image)
    return image


def _load_array(path):
    try:
        # Mapped, a header that promises more than the file holds takes no memory.
        with np.errstate(over="ignore"), _HEADERS:
            mapped = np.lib.format.open_memmap(path, mode="r")
        return np.array(mapped)
    except READING_ERRORS as error:
        raise UnreadableFileError(path, error) from error
