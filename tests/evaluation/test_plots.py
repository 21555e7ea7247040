import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from matplotlib.text import Text

from keras_taskrobust.evaluation import (
    Run,
    TaskScores,
    bars,
    drawing,
    plot_final_bars,
    plot_gradient_conflicts,
    plot_gradient_norms,
    plot_task_losses,
    plot_task_weights,
    plots,
)

pytestmark = pytest.mark.backend_free

SIX = {
    "pooled": 0.0,
    "uniform": 0.05,
    "minimax": -0.2,
    "minimax alpha=3 momentum=0.9": -0.1,
    "hard_max": 0.6,
    "group_dro": 0.01,
}
PLOTS = [
    plot_task_losses,
    plot_task_weights,
    plot_gradient_norms,
    plot_gradient_conflicts,
    plot_final_bars,
]


@pytest.mark.parametrize("plot", PLOTS)
def test_writes_a_picture_wide_enough(plot, make_runs, tmp_path):
    path = tmp_path / "plots" / "picture.png"
    plot(make_runs({"uniform": 0.0, "minimax": -0.2}, seeds=(0, 1), records=50), path)
    picture = imread(path)
    assert picture.shape[1] >= 1200
    assert picture[..., :3].std() > 0.05
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]


# Above the levels of the losses: the constants of shares that are above 0, of both signs, below 0.
CONSTANTS = [2.0, 0.1, -0.5]


@pytest.mark.parametrize("weightings", [1, 2, 6])
@pytest.mark.parametrize(
    ("plot", "trivial"),
    [*((plot, None) for plot in PLOTS), *((plot_final_bars, one) for one in CONSTANTS)],
)
def test_no_labels_overlap_or_leave_the_picture(
    plot, trivial, weightings, make_runs, tmp_path, monkeypatch
):
    figures = []
    for module in (plots, bars):
        monkeypatch.setattr(module, "save_figure", lambda figure, path: figures.append(figure))
    runs = make_runs(dict(list(SIX.items())[:weightings]), trivial=trivial)
    plot(runs, tmp_path / "picture.png")
    canvas = FigureCanvasAgg(figures[0])
    canvas.draw()
    texts = {id(text): text for text in figures[0].findobj(Text)}
    for axes in figures[0].axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not low <= tick.get_loc() <= high:  # Not drawn.
                    del texts[id(tick.label1)]
    boxes = [
        (text.get_text(), text.get_window_extent(canvas.get_renderer()))
        for text in texts.values()
        if text.get_visible() and text.get_text().strip()
    ]
    assert len(boxes) > (10 * weightings if plot is not plot_gradient_conflicts else 10)
    frame = figures[0].bbox
    for text, box in boxes:
        assert frame.x0 <= box.x0, text
        assert box.x1 <= frame.x1, text
        assert frame.y0 <= box.y0, text
        assert box.y1 <= frame.y1, text
    for (one, box), (other, another) in itertools.combinations(boxes, 2):
        across = min(box.x1, another.x1) - max(box.x0, another.x0)
        down = min(box.y1, another.y1) - max(box.y0, another.y0)
        assert across <= 1 or down <= 2, (one, other)


def test_bars_are_the_shares_and_the_lowest_is_the_worst(make_runs, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(bars, "save_figure", lambda figure, path: figures.append(figure))
    runs = make_runs({"uniform": 0.0, "minimax": -0.2}, seeds=(0, 1), trivial=0.1)
    plot_final_bars(runs, tmp_path / "picture.png", minimum_targets=150)
    pairs = [[run.scores.with_targets(150) for run in pair] for pair in (runs[:2], runs[2:])]
    widths = np.reshape([bar.get_width() for bar in figures[0].axes[0].patches[:22]], (11, 2))
    for row, pair in enumerate(pairs):
        shares = np.array([1 - one.losses / one.trivial_losses for one in pair])
        expected = [shares.min(axis=1).mean(), shares.mean(), *shares.mean(axis=0)]
        np.testing.assert_allclose(widths[:, row], expected)
    worst = [text.get_text() for text in figures[0].axes[0].texts if "worst" in text.get_text()]
    lowest = [np.mean([one.shares for one in pair], axis=0).min() for pair in pairs]
    assert worst == [f"{share:.3f}  worst".replace("-", "−") for share in lowest]  # noqa: RUF001


def test_names_of_lines_end_before_the_axis_of_the_next_panel(make_runs, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    runs = make_runs({"uniform": 0.0, "minimax": -0.2}, records=50)
    plot_gradient_conflicts(runs, tmp_path / "picture.png")
    canvas = FigureCanvasAgg(figures[0])
    canvas.draw()
    left, right = figures[0].axes
    names = [text.get_window_extent(canvas.get_renderer()) for text in left.texts]
    ticks = [text.get_window_extent(canvas.get_renderer()) for text in right.get_yticklabels()]
    assert max(box.x1 for box in names) < min(box.x0 for box in ticks)


def test_draws_what_is_there(tmp_path, monkeypatch):
    """One step, a task never seen, one without finite values, twelve tasks, ten weightings."""
    monkeypatch.setattr(drawing, "DOTS_PER_INCH", 20)
    names = tuple(f"task_{index}" for index in range(12))
    counts = np.ones((3, 12), dtype=int)
    counts[:, 0] = 0
    totals = counts * 2.0
    totals[0, 1] = np.nan
    history = {"step": [5], **{f"{name}_loss": [1.0] for name in names}}
    history["task_2_loss"] = [float("nan")]
    scores = TaskScores(names, totals, counts)
    runs = [Run(f"weighting {index}", 0, scores, history, 1.0) for index in range(10)]
    plot_task_losses(runs, tmp_path / "losses.png")
    plot_final_bars(runs, tmp_path / "bars.png", minimum_targets=1)
    for name in ("losses.png", "bars.png"):
        assert imread(tmp_path / name)[..., :3].std() > 0.05


def test_refuses_to_draw_training_without_histories(make_runs, tmp_path):
    runs = make_runs({"uniform": 0.0}, records=20, steps=0)
    with pytest.raises(ValueError, match="series of the name '<task>_weight' in at least one"):
        plot_task_weights(runs, tmp_path / "weights.png")
    with pytest.raises(ValueError, match="series 'gradient_cosine' and 'gradient_conflict' in at"):
        plot_gradient_conflicts(runs, tmp_path / "conflicts.png")
    assert not list(tmp_path.iterdir())


def test_averages_seeds_step_by_step():
    histories = [
        {"step": [1, 2], "a_loss": [1.0, float("nan")]},
        {"step": [1, 2, 3], "a_loss": [3.0, 4.0, 5.0]},
    ]
    steps, values = plots._mean_series(histories, "a_loss")
    np.testing.assert_array_equal(steps, [1, 2, 3])
    np.testing.assert_array_equal(values, [2.0, 4.0, 5.0])


def test_draws_the_series_of_the_gradients(make_runs, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    runs = make_runs({"uniform": 0.0, "minimax": -0.2}, seeds=(0, 1), records=20)
    plot_gradient_conflicts(runs, tmp_path / "conflicts.png")
    for axes, name in zip(figures[0].axes, ("gradient_cosine", "gradient_conflict"), strict=True):
        for place, weighting in enumerate(("uniform", "minimax")):
            raw = axes.lines[2 * place]
            series = [run.history[name] for run in runs if run.row == weighting]
            np.testing.assert_allclose(raw.get_ydata(), np.mean(series, axis=0))
            np.testing.assert_array_equal(raw.get_xdata(), runs[0].history["step"])


def test_smoothing_keeps_constants_and_lengths():
    for length in (1, 2, 5, 400):
        values = np.full(length, 3.0)
        np.testing.assert_allclose(plots._smooth(values), values)
    sparse = np.full(400, np.nan)
    sparse[::10] = 3.0
    np.testing.assert_allclose(plots._smooth(sparse), 3.0)
    assert np.isnan(plots._smooth(np.full(4, np.nan))).all()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_spreads_labels_apart(positions):
    positions = sorted(positions)
    gap = 0.08
    places = plots.spread_out(positions, gap)
    assert len(places) == len(positions)
    assert places[0] >= -1e-9
    assert places[-1] <= 1 + 1e-9
    assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(places))
    if all(b - a >= gap for a, b in itertools.pairwise(positions)):
        np.testing.assert_allclose(places, positions, atol=1e-9)
