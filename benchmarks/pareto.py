"""The paths of all weightings on the two-task problem of CAGrad (Liu et al. 2021, section 5.1).

    KERAS_BACKEND=jax python benchmarks/pareto.py --output pareto.png

Two parameters, two losses with a curved valley and conflicting, unequal gradients. From three
starts each weighting takes steps of Adam through `MinimaxModel.fit`; a panel a weighting shows
where they go over the contours of the mean loss. Below the name stand the number of starts that
end within 0.5 of the Pareto set, and the largest distance left.

The losses are negative near the Pareto set: weightings that are made for positive losses stop
(`gls`, `moco`) or run off to infinity (`imtl_l`, `uncertainty`) there.
"""

import math
from pathlib import Path

import keras
import numpy as np
import tyro
from keras import ops
from matplotlib.figure import Figure

import keras_taskrobust as ktr
from keras_taskrobust.evaluation.drawing import (
    FAINT,
    FONT,
    INK,
    WEIGHTING_COLOURS,
    save_figure,
)

STARTS = ((-8.5, 7.5), (-8.5, 5.0), (9.0, 9.0))
EDGE = 11.0
_SMALLEST = 5e-6


def two_losses(x1, x2, xp):
    """CAGrad's two losses; `xp` is `numpy` or `keras.ops`."""

    def valley(values):
        return xp.log(xp.maximum(xp.abs(values), _SMALLEST)) + 6.0

    def bowl(centre):
        return ((x1 - centre) ** 2 + 0.1 * (x2 + 8.0) ** 2) / 10.0 - 20.0

    upper = xp.maximum(xp.tanh(0.5 * x2), 0.0)
    lower = xp.maximum(xp.tanh(-0.5 * x2), 0.0)
    first = valley(0.5 * (-x1 - 7.0) + xp.tanh(x2)) * upper + bowl(7.0) * lower
    second = valley(0.5 * (-x1 + 3.0) - xp.tanh(x2) + 2.0) * upper + bowl(-7.0) * lower
    return first, second


class Point(keras.layers.Layer):
    """A network whose only weights are the two parameters, and whose outputs are the losses."""

    def build(self, input_shape):
        self.point = self.add_weight(shape=(2,), initializer="zeros", name="point")

    def call(self, inputs):
        losses = two_losses(self.point[0], self.point[1], ops)
        return {name: loss * ops.ones_like(inputs) for name, loss in zip("ab", losses, strict=True)}


class Path2D(keras.callbacks.Callback):
    """Records the point after every epoch."""

    def __init__(self, variable):
        super().__init__()
        self.variable, self.points = variable, []

    def on_epoch_end(self, epoch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.points.append(np.array(ops.convert_to_numpy(self.variable)))


def paths_of(name: str, steps: int, records: int, rate: float) -> np.ndarray:
    """`(starts, records + 1, 2)`: where the weighting goes from each start."""
    inputs = keras.Input((1,))
    layer = Point()
    model = ktr.MinimaxModel(keras.Model(inputs, layer(inputs)))

    def output(_, prediction):
        return prediction[:, 0]

    model.compile(
        keras.optimizers.Adam(rate),
        loss={"a": output, "b": output},
        weighting=name,
        gradients_at="shared",
    )
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    initial = [np.array(ops.convert_to_numpy(variable)) for variable in variables]
    zeros = np.zeros((steps // records, 1), "float32")
    paths = []
    for start in STARTS:
        for variable, value in zip(variables, initial, strict=True):
            variable.assign(value)
        layer.point.assign(start)
        path = Path2D(layer.point)
        targets = {"a": zeros, "b": zeros}
        model.fit(
            zeros, targets, batch_size=1, epochs=records, shuffle=False, verbose=0, callbacks=[path]
        )
        paths.append([np.array(start), *path.points])
    return np.array(paths)


def pareto_set(number: int = 101) -> np.ndarray:
    """`(number, 2)`: the minima of all weighted sums of the two losses, on a fine grid."""
    x1, x2 = np.meshgrid(np.linspace(-8, 8, 321), np.linspace(-EDGE, -4, 281))
    first, second = two_losses(x1, x2, np)
    shares = np.linspace(0, 1, number)
    best = [np.argmin(share * first + (1 - share) * second) for share in shares]
    return np.stack([x1.ravel()[best], x2.ravel()[best]], axis=1)


def draw(paths: dict[str, np.ndarray], output: Path) -> None:
    """One panel a weighting."""
    columns = 6
    rows = math.ceil(len(paths) / columns)
    figure = Figure(figsize=(2.35 * columns, 2.65 * rows + 0.7), facecolor="white")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    x1, x2 = np.meshgrid(np.linspace(-EDGE, EDGE, 200), np.linspace(-EDGE, EDGE, 200))
    mean = sum(two_losses(x1, x2, np)) / 2
    front = pareto_set()
    for axes, (name, lines) in zip(grid, paths.items(), strict=False):
        axes.contour(x1, x2, mean, levels=12, colors=FAINT, linewidths=0.4, linestyles="-")
        axes.plot(*front.T, color=INK, linewidth=3, alpha=0.35, solid_capstyle="round")
        for line, colour in zip(lines, WEIGHTING_COLOURS, strict=False):
            axes.plot(*line.T, color=colour, linewidth=1.3)
            axes.plot(*line[0], "o", color=colour, markersize=3.5)
            axes.plot(*line[-1], "*", color=colour, markersize=8, markeredgecolor="white")
        gaps = np.linalg.norm(lines[:, -1, None] - front, axis=-1).min(axis=1)
        left = f"{gaps.max():.1f}" if np.isfinite(gaps).all() else "left the picture"
        arrived = f"{(gaps < 0.5).sum()} of {len(gaps)}, {left}"
        axes.set_title(f"{name}\n{arrived}", fontsize=FONT, color=INK, loc="left")
        axes.set_xlim(-EDGE, EDGE)
        axes.set_ylim(-EDGE, EDGE)
        axes.tick_params(labelsize=FONT - 2, color=FAINT, labelcolor=INK)
        for side in axes.spines.values():
            side.set_color(FAINT)
    for axes in grid[len(paths) :]:
        axes.remove()
    figure.suptitle(
        "Two tasks, three starts, from dots to stars; the grey bar is the Pareto set "
        "(starts that reach it, largest distance left)",
        fontsize=FONT + 2,
        color=INK,
    )
    figure.tight_layout(h_pad=1.5, rect=(0, 0, 1, 0.985))
    save_figure(figure, output)


def main(
    output: Path,
    methods: tuple[str, ...] = ktr.weighting.available(),
    steps: int = 4000,
    records: int = 50,
    rate: float = 0.01,
):
    """Draws the paths of all weightings.

    They are kept beside the picture, as `.npz`: what is there for the same settings is not run
    again.

    Args:
        output: the picture.
        methods: names of weightings.
        steps: steps from each start.
        records: points of a path that are drawn.
        rate: of Adam.
    """
    kept, settings = output.with_suffix(".npz"), np.array([steps, records, rate])
    paths = dict(np.load(kept)) if kept.exists() else {}
    if not np.array_equal(paths.pop("settings", None), settings):
        paths = {}
    for name in methods:
        if name not in paths:
            paths[name] = paths_of(name, steps, records, rate)
            np.savez_compressed(kept, settings=settings, **paths)
        print(name, *(f"({x:.2f}, {y:.2f})" for x, y in paths[name][:, -1]), flush=True)
    draw({name: paths[name] for name in methods}, output)


if __name__ == "__main__":
    tyro.cli(main)
