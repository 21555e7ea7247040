"""How many labels test bed (a) of `protocol.md` needs for what scratch reaches with all.

    python benchmarks/lift_labels.py lift

Reads the folders of `lift_images.py compare` and `labels`, and writes `labels.md` into the latter.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tyro
from lift_images import COMPARISON, LABELS, SHARES

from keras_taskrobust.evaluation import DownstreamResult, compare_downstream
from keras_taskrobust.files import write_atomically
from keras_taskrobust.recipes.checks import SCRATCH
from keras_taskrobust.recipes.reporting import draw

LABELLED = 700


def labels_needed(labels: Sequence[float], scores: Sequence[float], aim: float) -> float:
    """Where the scores reach the aim first, linear in the logarithm of the labels.

    Args:
        labels: numbers of labels, rising.
        scores: the scores with them.
        aim: the score to be reached.

    Returns:
        The number; infinity where no score reaches it, the first number where all do.

    Example:

    >>> labels_needed([100, 400], [0.1, 0.3], 0.2)
    200.0
    """
    for index, score in enumerate(scores):
        if score >= aim:
            if index == 0:
                return float(labels[0])
            share = (aim - scores[index - 1]) / (score - scores[index - 1])
            fewer, more = np.log(labels[index - 1 : index + 1])
            return round(float(np.exp(fewer + share * (more - fewer))), 6)
    return math.inf


def main(output: tyro.conf.Positional[Path]):
    """Writes and prints the mean scores and the labels needed.

    Args:
        output: folder of the result folders.
    """
    results = [draw(output / LABELS / name).results for name in SHARES]
    labels = [len(range(0, LABELLED, every)) for every in SHARES.values()]
    text = "\n".join(_lines([*results, draw(output / COMPARISON).results], [*labels, LABELLED]))
    write_atomically(output / LABELS / "labels.md", f"{text}\n".encode())
    print(text)


def _lines(results: list[list[DownstreamResult]], labels):
    comparisons = [compare_downstream(found) for found in results]
    fewest, all_labels = comparisons[0], comparisons[-1]
    for task in dict.fromkeys(one.task for one in results[0]):
        aim = all_labels.row(SCRATCH).scores[task].estimate
        yield f"| {task} | {' | '.join(map(str, labels))} | labels needed |"
        yield "| :-- |" + " --: |" * (len(labels) + 1)
        for row in fewest.rows:
            found = [one.row(row.name).scores[task] for one in comparisons]
            needed = labels_needed(labels, [one.estimate for one in found], aim)
            cells = [f"{one.estimate:.3f} [{one.lower:.3f}, {one.upper:.3f}]" for one in found]
            yield f"| {row.name} | {' | '.join(cells)} | {_in_words(needed, labels)} |"
        yield ""


def _in_words(needed, labels):
    if math.isinf(needed):
        return f"more than {labels[-1]}"
    return f"at most {labels[0]}" if needed == labels[0] else f"{needed:.0f}"


if __name__ == "__main__":
    tyro.cli(main)
