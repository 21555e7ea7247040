"""Bars of what is done before training, where it takes long."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def preparing(what: str, unit: str, total: int | None, shown: bool) -> Iterator[Callable[[], None]]:
    """Shows a bar.

    Args:
        what: string. What is done.
        unit: string. What it is done to several of, "" where it is one thing.
        total: int, or `None` if it is not known.
        shown: bool.

    Yields:
        A function to be called after each.
    """
    numbers = (MofNCompleteColumn(), TextColumn(unit)) if unit else ()
    columns = (TextColumn(f"{what:<10}"), BarColumn(), *numbers, TimeElapsedColumn())
    with Progress(*columns, disable=not shown) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
        done = bar.tasks[0].completed or 1
        bar.update(task, total=done, completed=done)
