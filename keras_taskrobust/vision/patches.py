"""Images to patches and back, and the positions of patches."""

from collections.abc import Callable

import numpy as np
from keras import ops

from keras_taskrobust.types import Tensor


def patchify(images: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Cuts images into patches, channel first inside a patch.

    `patches[b, i * columns + j, (c * ph + y) * pw + x] = images[b, i * ph + y, j * pw + x, c]`:
    the layout `(c ph pw)` of the reference MultiMAE's predictions.

    Args:
        images: `(B, H, W, C)`, any dtype. H and W are multiples of the patch's.
        patch_size: `(ph, pw)`.

    Returns:
        `(B, (H / ph) * (W / pw), C * ph * pw)`, the patches row by row.

    Example:

    >>> import numpy as np
    >>> patchify(np.zeros((2, 32, 48, 3)), (16, 16)).shape == (2, 6, 768)
    True
    """
    height, width = patch_size
    _, image_height, image_width, channels = images.shape
    rows, columns = image_height // height, image_width // width
    split = ops.reshape(images, (-1, rows, height, columns, width, channels))
    ordered = ops.transpose(split, (0, 1, 3, 5, 2, 4))
    return ops.reshape(ordered, (-1, rows * columns, channels * height * width))


def unpatchify(patches: Tensor, grid: tuple[int, int], patch_size: tuple[int, int]) -> Tensor:
    """Puts patches together again: the inverse of `patchify`.

    Args:
        patches: `(B, rows * columns, C * ph * pw)`.
        grid: `(rows, columns)`.
        patch_size: `(ph, pw)`.

    Returns:
        `(B, rows * ph, columns * pw, C)`.
    """
    rows, columns = grid
    height, width = patch_size
    channels = patches.shape[-1] // (height * width)
    split = ops.reshape(patches, (-1, rows, columns, channels, height, width))
    ordered = ops.transpose(split, (0, 1, 4, 2, 5, 3))
    return ops.reshape(ordered, (-1, rows * height, columns * width, channels))


def sin_cos_positions(grid: tuple[int, int], dim: int, temperature: float = 10000.0) -> np.ndarray:
    """Fixed 2-D sine-cosine position vectors.

    With `omega_k = temperature^(-k / (dim / 4))`, `k = 0 ... dim / 4 - 1`, the vector of the patch
    in row `r` and column `c` is `[sin(r omega), cos(r omega), sin(c omega), cos(c omega)]`. On
    square grids that is the reference's table. On others the reference numbers rows and columns
    by the wrong side of the grid; here they stay rows and columns.

    Args:
        grid: `(rows, columns)`.
        dim: int, a multiple of 4.
        temperature: float.

    Returns:
        `(rows * columns, dim)` float32, row by row.

    Raises:
        ValueError: if `dim` is not a multiple of 4.

    Example:

    >>> sin_cos_positions((2, 3), 8).shape
    (6, 8)
    """
    if dim < 4 or dim % 4:
        raise ValueError(f"`dim` must be a positive multiple of 4. Received: dim={dim}")
    omega = temperature ** (-np.arange(dim // 4) / (dim // 4))
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    angles = [np.outer(index, omega) for index in (rows, columns)]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1).astype("float32")


def resize_positions(table: np.ndarray, grid: tuple[int, int], interpolation: str) -> np.ndarray:
    """Interpolates a position table as PyTorch's `interpolate(align_corners=False)` does.

    Args:
        table: `(rows, columns, dim)`.
        grid: the new `(rows, columns)`.
        interpolation: `"bicubic"` (cubic coefficient -0.75) or `"bilinear"`.

    Returns:
        `(new rows, new columns, dim)`, of the dtype of `table`.
    """
    if table.shape[:2] == tuple(grid):
        return table
    taps = {"bicubic": _cubic_taps, "bilinear": _linear_taps}[interpolation]
    by_row = _resize_matrix(table.shape[0], grid[0], taps)
    by_column = _resize_matrix(table.shape[1], grid[1], taps)
    resized = np.einsum("ai,bj,ijd->abd", by_row, by_column, table.astype("float64"))
    return resized.astype(table.dtype)


def _resize_matrix(old: int, new: int, taps: Callable) -> np.ndarray:
    """`(new, old)`: the weights of the old points for each new one."""
    positions = (np.arange(new) + 0.5) * old / new - 0.5
    matrix = np.zeros((new, old))
    for index, weights in taps(positions):
        np.add.at(matrix, (np.arange(new), np.clip(index, 0, old - 1)), weights)
    return matrix


def _linear_taps(positions):
    positions = np.maximum(positions, 0.0)
    left = np.floor(positions).astype(int)
    share = positions - left
    return [(left, 1.0 - share), (left + 1, share)]


def _cubic_taps(positions, a=-0.75):
    left = np.floor(positions).astype(int)
    share = positions - left

    def near(x):
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0

    def far(x):
        return ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a

    return [
        (left - 1, far(share + 1.0)),
        (left, near(share)),
        (left + 1, near(1.0 - share)),
        (left + 2, far(2.0 - share)),
    ]
