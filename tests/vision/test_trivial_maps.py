"""The trivial losses of maps against NumPy in float64, pixel by pixel."""

import numpy as np
import pytest
from tiny import DEPTH, RGB, SEMSEG, batch, masks, model

from keras_taskrobust.evaluation.held_out import score_reconstructions
from keras_taskrobust.vision import Modality

TWIN = Modality("rgb", channels=3, normalized_twin=True)
SAMPLES = 6


def maps_with_gaps(network):
    maps = batch(network, SAMPLES)
    maps["depth"][:2, 3:9] = np.nan
    maps["depth"][4] = np.nan
    maps["semseg"][2, :4] = 255
    maps["semseg"][:, 0, 0] = 3
    return maps


def expected_losses(maps, counted):
    """Over what is `counted`, of constants over everything: `{task: (B,)}`."""
    losses = {}
    rgb = maps["rgb"].astype("float64")
    losses["rgb"] = _means(np.square(rgb - rgb.mean(0)).mean(-1), counted["rgb"])
    depth = maps["depth"][..., 0].astype("float64")
    valid = np.isfinite(depth)
    weights = valid / np.maximum(valid.sum((1, 2), keepdims=True), 1)
    median = np.zeros(depth.shape[1:])
    for place in np.ndindex(median.shape):
        values, w = np.nan_to_num(depth[:, *place]), weights[:, *place]
        costs = [(w * np.abs(values - one)).sum() for one in values[w > 0]]
        median[place] = values[w > 0][np.argmin(costs)]
    losses["depth"] = _means(np.abs(depth - median), counted["depth"] & valid)
    labels = maps["semseg"]
    valid = labels != 255
    weights = valid / valid.sum((1, 2), keepdims=True)
    one_hot = np.eye(5)[np.where(valid, labels, 0)] * weights[..., None]
    p = (one_hot.sum(0) + 1 / 5) / (weights.sum(0)[..., None] + 1)
    chosen = np.take_along_axis(p[None], np.where(valid, labels, 0)[..., None], -1)[..., 0]
    losses["semseg"] = _means(-np.log(chosen), counted["semseg"] & valid)
    return losses


def _means(losses, counted):
    numbers = counted.sum((1, 2))
    sums = np.where(counted, np.nan_to_num(losses), 0.0).sum((1, 2))
    return np.where(numbers > 0, sums / np.maximum(numbers, 1), np.nan)


def whole(maps):
    return {name: np.ones(maps[name].shape[:3], bool) for name in maps}


def pixels_of(network, masked, maps):
    """Which pixels the masked patches hold."""
    counted = {}
    for name, mask in masked.items():
        grid = mask.reshape(-1, *network.grid).astype(bool)
        height, width = (maps[name].shape[i + 1] // network.grid[i] for i in range(2))
        counted[name] = grid.repeat(height, 1).repeat(width, 2)
    return counted


@pytest.fixture(scope="module")
def measured():
    autoencoder = model((RGB, DEPTH, SEMSEG))
    autoencoder.compile("sgd", weighting="scale_free_minimax")
    maps = maps_with_gaps(autoencoder.network)
    return autoencoder, maps, autoencoder.measure_trivial_losses(maps, batch_size=4)


def test_measured_over_all_patches(measured):
    _, maps, found = measured
    expected = expected_losses(maps, whole(maps))
    means = [np.nanmean(expected[name]) for name in found]
    np.testing.assert_allclose(list(found.values()), means, rtol=1e-5)


def test_scored_on_the_masked_patches(measured):
    autoencoder, maps, _ = measured
    constants = autoencoder.fit_constants(maps, batch_size=4)
    masked = masks(autoencoder.network, SAMPLES)
    found = autoencoder.sample_losses(maps, masked, constants)
    expected = expected_losses(maps, pixels_of(autoencoder.network, masked, maps))
    for name, losses in found.items():
        np.testing.assert_allclose(losses, expected[name], rtol=1e-5, err_msg=name)
    scores = score_reconstructions(autoencoder, [maps], 0, constants)
    drawn = autoencoder.draw_masks(maps, 0)
    expected = expected_losses(maps, pixels_of(autoencoder.network, drawn, maps))
    trivial = [np.nanmean(expected[name]) for name in scores.task_names]
    np.testing.assert_allclose(scores.trivial_losses, trivial, rtol=1e-5)
    assert (scores.shares < 0.2).all()


def test_twins_are_normalised_and_sample_weights_count():
    autoencoder = model((TWIN,))
    autoencoder.compile("sgd", weighting="uniform", trivial_losses="measure")
    maps = batch(autoencoder.network, SAMPLES)
    weights = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0], "float32")
    found = autoencoder.measure_trivial_losses(maps, sample_weight=weights)
    kept = maps["rgb"][weights > 0].astype("float64")
    assert found["rgb"] == pytest.approx(np.square(kept - kept.mean(0)).mean(), rel=1e-5)
    patches = kept.reshape(4, 2, 16, 3, 16, 3).transpose(0, 1, 3, 2, 4, 5).reshape(4, 6, -1)
    centred = patches - patches.mean(-1, keepdims=True)
    normal = centred / np.sqrt(patches.var(-1, ddof=1, keepdims=True) + 1e-6)
    expected = np.square(normal - normal.mean(0)).mean()
    assert found["norm_rgb"] == pytest.approx(expected, rel=1e-5)


class ReadAnew:
    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def test_a_batch_may_lack_a_modality():
    autoencoder = model((RGB, DEPTH))
    autoencoder.compile("sgd", weighting="uniform", trivial_losses="measure")
    maps = batch(autoencoder.network)
    with pytest.raises(ValueError, match="no element of 'depth'"):
        autoencoder.fit({"rgb": maps["rgb"]}, verbose=0)
    found = autoencoder.measure_trivial_losses(ReadAnew(({"rgb": maps["rgb"]},), (maps,)))
    assert np.isfinite(list(found.values())).all()
