import numpy as np
import pytest
from keras import ops
from numpy_multimae import flat_positions

from keras_taskrobust.vision import patchify, sin_cos_positions, unpatchify
from keras_taskrobust.vision.patches import resize_positions


def test_patchify_is_channel_first_and_row_by_row():
    images = np.arange(2 * 4 * 6 * 3, dtype="float32").reshape(2, 4, 6, 3)
    patches = ops.convert_to_numpy(patchify(images, (2, 3)))
    assert patches.shape == (2, 4, 18)
    for row, column in np.ndindex(2, 2):
        cell = images[:, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
        expected = np.moveaxis(cell, -1, 1).reshape(2, -1)
        np.testing.assert_array_equal(patches[:, 2 * row + column], expected)


def test_unpatchify_is_the_inverse():
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 5)).astype("float32")
    patches = patchify(images, (4, 2))
    np.testing.assert_array_equal(ops.convert_to_numpy(unpatchify(patches, (2, 6), (4, 2))), images)


def test_positions_are_row_then_column():
    table = sin_cos_positions((3, 5), 8).reshape(3, 5, 8)
    omega = np.array([1.0, 10000.0**-0.5])
    expected = [np.sin(2 * omega), np.cos(2 * omega), np.sin(4 * omega), np.cos(4 * omega)]
    np.testing.assert_allclose(table[2, 4], np.concatenate(expected), atol=1e-6)
    assert len(np.unique(table.reshape(15, 8), axis=0)) == 15


def test_positions_need_a_multiple_of_four():
    with pytest.raises(ValueError, match="`dim` must be a positive multiple of 4. Received: dim=6"):
        sin_cos_positions((2, 2), 6)


@pytest.mark.parametrize("grid", [(7, 3), (4, 9), (2, 2), (4, 5)])
@pytest.mark.parametrize(("interpolation", "a"), [("bicubic", -0.75), ("bilinear", None)])
def test_resized_positions(grid, interpolation, a):
    table = np.random.default_rng(0).standard_normal((4, 5, 8)).astype("float32")
    resized = resize_positions(table, grid, interpolation)
    assert resized.dtype == table.dtype
    expected = flat_positions(np.transpose(table, (2, 0, 1))[None], grid, a)
    np.testing.assert_allclose(resized.reshape(-1, 8), expected[0], atol=1e-6)
    functional = pytest.importorskip("torch.nn.functional")
    import torch

    by_torch = functional.interpolate(
        torch.tensor(np.transpose(table, (2, 0, 1))[None]),
        size=grid,
        mode=interpolation,
        align_corners=False,
    )
    np.testing.assert_allclose(resized, np.transpose(by_torch.numpy()[0], (1, 2, 0)), atol=1e-5)
