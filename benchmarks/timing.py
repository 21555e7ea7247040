"""What the benchmarks of speed share."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np


def time_in_turn(blocks: Sequence[Callable[[], float]], rounds: int) -> np.ndarray:
    """What the blocks return, `(rounds, len(blocks))`, run once before and then in an order that
    rotates.
    """
    for block in blocks:
        block()
    seconds = np.zeros((rounds, len(blocks)))
    for number in range(rounds):
        for place in range(len(blocks)):
            index = (number + place) % len(blocks)
            seconds[number, index] = blocks[index]()
    return seconds


def append_row(path: Path, row: dict) -> None:
    """Appends a row to a csv file, after a header if the file is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
