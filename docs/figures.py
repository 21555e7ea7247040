"""Figures and tables of `benchmarks/results/`; run as a script it draws the README's picture."""

import csv
import functools
import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from keras_taskrobust import weighting

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
BROWN = "brown_pos-bert-2x64_400-steps_3-seeds_jax-cpu"
TAGS = "adaptive-groups_pos-bert-2x64_400-steps_3-seeds_jax-cpu"
TEXTS = "downstream_pos-bert-2x128_500-steps_3-seeds_torch-cpu"
NYU = "downstream_mm-mae-4x128_3000-steps_3-seeds_torch-cpu"
PICTURE = Path(__file__).parent / "pictures" / "worst_task.svg"

#: Figures by row, seed and task.
Figures = dict[str, dict[str, dict[str, float]]]

#: Held-out targets that a task needs to count.
_LEAST_TARGETS = 1000
#: The tasks of the comparison of texts that no row learns.
_NOT_LEARNT = ("CoLA", "RTE")

_COLOURS = {"pooled": "#7a8793", "uniform": "#b9c2ca", "uncertainty": "#7a8793"}
_HIGHLIGHT = "#0072b2"
_STYLE = {
    "font.size": 10,
    "svg.hashsalt": "taskrobust",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}


def rows(name: str) -> list[dict[str, str]]:
    """The lines of a CSV file of the results."""
    with (RESULTS / name).open(newline="") as file:
        return list(csv.DictReader(file))


def losses(folder: str) -> Figures:
    """Held-out losses by weighting, seed and task, of the tasks that count."""
    found: Figures = {}
    for row in rows(f"{folder}/metrics.csv"):
        if row["kind"] == "task" and int(row["targets"]) >= _LEAST_TARGETS:
            of_seed = found.setdefault(row["weighting"], {}).setdefault(row["seed"], {})
            of_seed[row["task"]] = float(row["loss"])
    return found


def scores(folder: str, column: str = "value") -> Figures:
    """Scores, or another column, by row, seed and task; a task of two metrics has their mean."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in rows(f"{folder}/downstream.csv"):
        if row["task"] not in _NOT_LEARNT:
            tasks = found.setdefault(row["weighting"], {}).setdefault(row["seed"], {})
            tasks.setdefault(row["task"], []).append(float(row[column]))
    return {
        name: {
            seed: {task: statistics.fmean(values) for task, values in tasks.items()}
            for seed, tasks in seeds.items()
        }
        for name, seeds in found.items()
    }


def gains(folder: str) -> Figures:
    """What a score is above the trivial one, as a share of what there was to gain."""
    trivial = scores(folder, "trivial")
    return {
        name: {
            seed: {
                task: (score - trivial[name][seed][task]) / (1 - trivial[name][seed][task])
                for task, score in tasks.items()
            }
            for seed, tasks in seeds.items()
        }
        for name, seeds in scores(folder).items()
    }


def worst(figures: Mapping[str, Mapping[str, float]], of: Callable[..., float]) -> list[float]:
    """The largest or smallest figure of a task, of each seed."""
    return [of(tasks.values()) for tasks in figures.values()]


def to_svg(figure: Figure) -> bytes:
    """The figure as a file that is the same whenever it is drawn."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    plt.close(figure)
    return file.getvalue()


def draw_worst_tasks() -> bytes:
    """The README's picture: the worst task under three weightings, in three comparisons."""
    texts, images = gains(TEXTS), gains(NYU)
    brown = {name.replace(" 1", ""): one for name, one in losses(BROWN).items()}
    panels = (
        (
            "Pre-training on Brown",
            "held-out loss of the worst\npart of speech: less is better",
            {name: worst(brown[name], max) for name in ("pooled", "uniform", "minimax")},
        ),
        (
            "Fine-tuning on texts",
            "gain of the worst of\nfive tasks: more is better",
            {name: worst(texts[name], min) for name in ("pooled", "uniform", "minimax")},
        ),
        (
            "Fine-tuning on NYU Depth v2",
            "gain of the worst of\nthree tasks: more is better",
            {name: worst(images[name], min) for name in ("uniform", "uncertainty", "minimax")},
        ),
    )
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(10, 2.9), layout="constrained")
        for panel, (title, label, bars) in zip(axes, panels, strict=True):
            _draw_bars(panel, bars)
            panel.set_title(title, loc="left", fontsize=11)
            panel.set_xlabel(label)
        figure.get_layout_engine().set(w_pad=0.15)
        return to_svg(figure)


def _draw_bars(panel: plt.Axes, bars: Mapping[str, Sequence[float]]) -> None:
    """A bar a row, a dot a seed, the mean in figures."""
    for place, (name, values) in enumerate(bars.items()):
        mean = statistics.fmean(values)
        panel.barh(place, mean, color=_COLOURS.get(name, _HIGHLIGHT), height=0.65)
        panel.plot(values, [place] * len(values), "o", color="black", markersize=3, alpha=0.6)
        end = max(*values, mean, 0)
        panel.annotate(
            _in_words(mean), (end, place), (5, 0), textcoords="offset points", va="center"
        )
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_yticks(range(len(bars)), bars)
    panel.invert_yaxis()
    panel.margins(x=0.15)


def _in_words(figure: float) -> str:
    return f"{figure:.3g}" if figure > 1 else f"{figure:.3f}".replace("-", "\u2212")


def draw_idea() -> bytes:
    """Nine tasks on one weight, the worst of them, and where mean and maximum are least."""
    number = 9
    points = [step / 400 for step in range(-40, 441)]
    first = [number * x**2 for x in points]
    others = [(x - 1) ** 2 for x in points]
    mean_at = (number - 1) / (2 * number - 1)
    worst_at = 1 / (1 + number**0.5)
    with plt.rc_context(_STYLE):
        figure, panel = plt.subplots(figsize=(7, 3.6), layout="constrained")
        panel.plot(points, first, color="#d55e00", label="the hard task")
        panel.plot(points, others, color="#7a8793", label="eight easy tasks, alike")
        for place, name, beside in (
            (mean_at, "least mean", (0.56, 1.75)),
            (worst_at, "least maximum", (-0.06, 1.6)),
        ):
            height = max(number * place**2, (place - 1) ** 2)
            panel.plot([place, place], [0, height], ":", color="black", linewidth=1)
            panel.plot(place, height, "o", color=_HIGHLIGHT)
            panel.annotate(
                f"{name}:\nthe worst loss is {height:.2f}",
                (place, height),
                beside,
                arrowprops={"arrowstyle": "-", "linewidth": 0.6},
            )
        panel.set(xlabel="the one weight of the model", ylabel="loss", xlim=(-0.1, 1.1))
        panel.set_ylim(0, 3)
        panel.legend(frameon=False, loc="upper right")
        return to_svg(figure)


def costs() -> dict[str, dict[int, list[float]]]:
    """The steps of methods over Keras's own, by where and on which backend, and by tasks.

    Of a method that was measured again the last figure counts.
    """
    found: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows("balancing_vit-4x64_1-core-amd-epyc_cpu.csv"):
        where = _place(row)
        if where:
            of_tasks = found.setdefault(where, {}).setdefault(int(row["tasks"]), {})
            of_tasks[row["method"]] = float(row["over_stock"])
    return {
        where: {number: list(one.values()) for number, one in of_tasks.items()}
        for where, of_tasks in sorted(found.items(), key=lambda one: _rank(one[0]))
    }


def _rank(where: str) -> int:
    order = ("on the losses", "at the representation", "at all shared weights", "torchjd")
    return next(rank for rank, start in enumerate(order) if where.startswith(start))


def _place(row: Mapping[str, str]) -> str:
    """What a row of the benchmark of steps is about, in words; "" for what is not in the table."""
    backend = {"torch": "PyTorch", "jax": "JAX"}[row["backend"]]
    if row["peer"]:
        return "torchjd, in PyTorch's rounds"
    needs = _needs().get(row["method"])
    if needs is None or row["method"] == "gradnorm":  # Keras's own step; at the last shared layer
        return ""
    if needs == "losses":
        return f"on the losses, {backend}"
    if row["place"] == "representation":
        return f"at the representation, {backend}" if needs == "gramian" else ""
    return f"at all shared weights, {backend}"


@functools.cache
def _needs() -> dict[str, str]:
    """What each method needs, by its name."""
    return {name: weighting.get(name).needs for name in weighting.available()}


def draw_costs() -> bytes:
    """The median step of the methods over Keras's own, by the number of tasks and the place."""
    with plt.rc_context(_STYLE):
        figure, panel = plt.subplots(figsize=(7, 3.6), layout="constrained")
        for name, of_tasks in costs().items():
            numbers = sorted(of_tasks)
            medians = [statistics.median(of_tasks[number]) for number in numbers]
            panel.plot(numbers, medians, "-o", markersize=4, label=name)
        panel.axhline(1, color="black", linewidth=0.8)
        panel.set(xlabel="tasks", ylabel="a step over Keras's own", ylim=(0, None))
        panel.set_xticks([3, 5, 9, 20])
        panel.legend(frameon=False, loc="upper left", fontsize=8)
        return to_svg(figure)


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_bytes(draw_worst_tasks())
    print(PICTURE)
