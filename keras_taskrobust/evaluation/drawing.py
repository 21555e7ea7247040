"""What the pictures of a report look like."""

import io
import os

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from keras_taskrobust.files import write_atomically
from keras_taskrobust.plain_text import one_line

# Told apart with any common colour blindness: Paul Tol's "muted" for tasks, Okabe and Ito's set for
# weightings. Beyond their number, colours return with another line style or hatching.
TASK_COLOURS = (
    "#332288",
    "#CC6677",
    "#117733",
    "#DDAA33",
    "#88CCEE",
    "#882255",
    "#44AA99",
    "#999933",
    "#AA4499",
    "#888888",
)
WEIGHTING_COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#666666",
)
LINE_STYLES = ("-", "--", ":", "-.")
HATCHES = ("", "///", "...", "xxx")

INK = "#222222"
FAINT = "#8a8a8a"
# Inches. 12 inches at 150 dots are 1800 pixels, legible when shown at 1200.
WIDTH = 12.0
DOTS_PER_INCH = 150
FONT = 9.0
LINE_HEIGHT = 0.165


def shown(name: str, longest: int = 48) -> str:
    """A name as the text of a picture: one line, not too long, and no formula.

    Args:
        name: string, whatever it holds.
        longest: int. The most characters.

    Returns:
        string.
    """
    text = one_line(name)
    text = text if len(text) <= longest else f"{text[: longest - 4]} ..."
    # Matplotlib reads formulas between dollars, and leaves what starts with "_" out of legends.
    return f"{' ' * text.startswith('_')}{text}".replace("$", r"\$")


def plain_axes(axes: Axes) -> None:
    """Two thin spines and a faint grid."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(labelsize=FONT - 1, color=FAINT, labelcolor=INK)
    axes.grid(axis="x", color="#eeeeee", linewidth=0.6)
    axes.set_axisbelow(True)


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Writes a figure as PNG, whole or not at all."""
    canvas = FigureCanvasAgg(figure)
    picture = io.BytesIO()
    canvas.print_figure(picture, format="png", dpi=DOTS_PER_INCH, facecolor="white")
    write_atomically(path, picture.getvalue())
