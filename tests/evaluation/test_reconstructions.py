"""The picture of reconstructions: its panels show what they say."""

import numpy as np
import pytest
import tiny
from matplotlib.image import imread

from keras_taskrobust.evaluation import reconstructions
from keras_taskrobust.evaluation.held_out import score_reconstructions
from keras_taskrobust.evaluation.reconstructions import (
    COLUMNS,
    Reconstructions,
    label_colours,
    paint_reconstructions,
    plot_reconstructions,
    plot_reconstructions_of_runs,
)
from keras_taskrobust.vision import Modality, restore_rgb

TWIN = Modality("rgb", channels=3, normalized_twin=True)
GREY = 200


@pytest.fixture(scope="module")
def model():
    return tiny.model((TWIN, tiny.DEPTH, tiny.SEMSEG))


@pytest.fixture(scope="module")
def batch(model):
    batch = tiny.batch(model.network, size=2)
    batch["depth"][0, :3, :3] = np.nan
    batch["semseg"][1, 0, 0] = 255
    return batch


@pytest.fixture
def panels(model, batch, tmp_path, monkeypatch):
    """`[sample][task][column]` of images."""
    figures = []
    monkeypatch.setattr(reconstructions, "save_figure", lambda figure, path: figures.append(figure))
    masks = tiny.masks(model.network, size=2, visible=8)
    painted = paint_reconstructions(model, batch, masks, list("abcde"))
    plot_reconstructions(painted, tmp_path / "picture.png")
    axes = np.array(figures[0].axes).reshape(4, len(COLUMNS), 2).transpose(2, 0, 1)
    images = [[[np.asarray(a.images[0].get_array()) for a in task] for task in row] for row in axes]
    assert [a.get_title() for a in axes[0, 0]] == list(COLUMNS)
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert labels == sorted(labels)
    return images, masks


def pixels(mask, name):
    side = 4 if name == "semseg" else 16
    return np.repeat(np.repeat(mask.reshape(2, 3), side, 0), side, 1).astype(bool)


def test_panels(panels, model, batch):
    images, masks = panels
    predicted = model.reconstruct(batch, masks)
    colours = label_colours(5)
    for row in range(2):
        for task, name in enumerate(("rgb", "depth", "semseg", "rgb")):
            given, visible, completed, truth = images[row][task]
            masked = pixels(masks[name][row], name)
            np.testing.assert_array_equal(given, truth)
            assert (visible[masked] == GREY).all()
            np.testing.assert_array_equal(visible[~masked], truth[~masked])
            np.testing.assert_array_equal(completed[~masked], truth[~masked])
        np.testing.assert_array_equal(images[row][0][3], restore_rgb(batch["rgb"][row]))
        masked = pixels(masks["semseg"][row], "semseg")
        guessed = colours[predicted["semseg"][row].argmax(-1)]
        np.testing.assert_array_equal(images[row][2][2][masked], guessed[masked])
    assert (images[0][1][3][:3, :3] == GREY).all()
    assert (images[1][2][3][0, 0] == GREY).all()


def test_normalised_predictions_get_the_mean_and_deviation_of_the_true_patches():
    rng = np.random.default_rng(0)
    truth = rng.normal(3.0, 2.0, (32, 48, 3))
    standard = np.empty_like(truth)
    for top in (0, 16):
        for left in (0, 16, 32):
            part = np.s_[top : top + 16, left : left + 16]
            values = truth[part]
            standard[part] = (values - values.mean()) / np.sqrt(values.var(ddof=1) + 1e-6)
    restored = reconstructions._restore_patches(standard, truth, (16, 16))
    np.testing.assert_allclose(restored, truth, rtol=1e-9)


def test_writes_a_picture(model, batch, tmp_path):
    masks = model.draw_masks(batch, seed=0)
    plot_reconstructions(paint_reconstructions(model, batch, masks), tmp_path / "picture.png")
    assert imread(tmp_path / "picture.png").shape[1] >= 1200


def test_runs_side_by_side(model, batch, tmp_path, monkeypatch):
    paths = [tmp_path / f"{seed}.npz" for seed in range(2)]
    for seed, path in enumerate(paths):
        masks = model.draw_masks(batch, seed)
        paint_reconstructions(model, batch, masks, list("abcde")).save(path)
    first, second = (Reconstructions.load(path) for path in paths)
    figures = []
    monkeypatch.setattr(reconstructions, "save_figure", lambda figure, path: figures.append(figure))
    plot_reconstructions_of_runs({"uniform": first, "minimax": second}, tmp_path / "picture.png")
    axes = np.array(figures[0].axes).reshape(4, 4, 2)
    for task, name in enumerate(("rgb", "depth", "semseg", "norm_rgb")):
        titles = [a.get_title() for a in axes[task, :, 0]]
        assert titles == ["truth", "visible patches", "uniform", "minimax"]
        true, visible, completed = first.images[name]
        for column, images in enumerate((true, visible, completed, second.images[name][2])):
            for row, image in enumerate(images):
                shown = np.asarray(axes[task, column, row].images[0].get_array())
                np.testing.assert_array_equal(shown, image)
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert set(texts) == set(first.labels) | set(second.labels)


def test_scores_are_the_masked_means_of_each_sample(model, batch):
    masks = model.draw_masks(batch, seed=3)
    scores = score_reconstructions(model, [batch], seed=3)
    predicted = model.reconstruct(batch, masks)["depth"][..., 0]
    truth = batch["depth"][..., 0]
    for row in range(2):
        counted = pixels(masks["depth"][row], "depth") & np.isfinite(truth[row])
        expected = np.abs(predicted[row] - truth[row])[counted].mean()
        np.testing.assert_allclose(scores.totals[row, 1], expected, rtol=1e-5)
    assert (scores.counts == 1).all()
    with pytest.raises(ValueError, match="at least one batch"):
        score_reconstructions(model, [], seed=0)


def test_drawn_masks_depend_on_the_seed_alone(model, batch):
    first, again, other = (model.draw_masks(batch, seed) for seed in (1, 1, 2))
    for name, mask in first.items():
        np.testing.assert_array_equal(mask, again[name])
    assert any(not np.array_equal(mask, other[name]) for name, mask in first.items())
    without = {**batch, "depth": np.full_like(batch["depth"], np.nan)}
    masks = model.draw_masks(without, seed=1)
    assert masks["depth"].all()
    assert sum((mask == 0).sum() for mask in masks.values()) == 2 * model.network.visible_tokens
