"""Progress bars: what is never cut, and what a grid shows of its cells."""

import io

import pytest
from rich.console import Console

from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.downstream.watching import TellWatcher
from keras_taskrobust.recipes import cells
from keras_taskrobust.recipes.cells import Cell, Start, compute_cells
from keras_taskrobust.recipes.progress import progress_bars

pytestmark = pytest.mark.backend_free

LONG = "sentence_polarity, scale_free_minimax, seed 0"


def drawn(progress, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(progress.get_renderable())
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("figures", ["", "worst 8.019"])
@pytest.mark.parametrize("width", [60, 80, 200])
def test_counts_times_and_figures_are_whole_whatever_the_width(width, figures):
    progress = progress_bars()
    bar = progress.add_task(LONG, total=12_000, figures=figures)
    for _ in range(3):
        progress.advance(bar, 400)
    (line,) = drawn(progress, width)
    assert "1200/12000" in line
    assert ":00" in line.split("1200/12000")[1]
    assert "…" not in line.split("1200/12000")[1]
    assert line.rstrip().endswith(figures)
    assert len(line) == width
    assert (LONG in line) is (width == 200)


def test_a_grid_shows_the_steps_of_its_cell_and_what_failed(tmp_path, monkeypatch):
    shown, bars = {}, progress_bars()
    monkeypatch.setattr(cells, "progress_bars", lambda: bars)

    def compute(cell):
        tell = TellWatcher(steps=4)
        for loss in (0.5, 0.25):
            tell.on_train_batch_end(0, {"loss": loss})
        shown[cell.task] = "\n".join(drawn(bars, 100))
        if cell.task == "a":
            raise ValueError("It broke.")
        return {"scores": {"last": {"accuracy": 1.0}}, "trivial": {"accuracy": 0.5}, "seconds": 1.0}

    start = Start("uniform", 0, "preset", "identity")
    grid = [Cell(start, task, FineTuning(), {}) for task in ("a", "b")]
    compute_cells(grid, tmp_path, compute)
    for task in ("a", "b"):
        assert f"{task}, uniform, seed 0" in shown[task]
        assert "2/4" in shown[task]
        assert "loss 0.250" in shown[task]
    assert "failed" not in shown["a"]
    assert "1 failed" in shown["b"]
    (line,) = drawn(bars, 100)
    assert "2/2" in line
    assert "1 failed" in line
