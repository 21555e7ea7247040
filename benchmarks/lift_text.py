"""Test bed (c) of `protocol.md`: PosBert on Brown, measured by the word within its task.

    cd SOMEWHERE-WITH-glue
    NLTK_DATA=... KERAS_BACKEND=torch python .../benchmarks/lift_text.py

Needs NLTK's brown, sentence_polarity, ppattach and tagger, and a folder `glue` of GLUE's tables.
Finished runs and cells are kept; without a report, several processes may share the folder with
different seeds or rows, once a first one has prepared the text.
"""

import dataclasses
from pathlib import Path

import numpy as np
import tyro
from lift_runs import RAW, UNIFORM, anchored, anchored_and_clipped, chosen, run

from keras_taskrobust.downstream.text import TextTasks
from keras_taskrobust.recipes.finetuning_settings import SMALL_TEXT
from keras_taskrobust.recipes.text import TEXTS
from keras_taskrobust.recipes.text_settings import TINY

COMPARISON = "lift_pos-bert-2x128_3000-steps_5-seeds_torch-cpu"
GLUE = "glue"

RECIPE = dataclasses.replace(
    TINY,
    corpus="nltk:brown",
    tagger="nltk",
    held_out=0.2,
    next_sentence="none",
    dropout=0.0,
    steps=3_000,
    warmup_steps=300,
    reports_per_checkpoint=20,
)
WEIGHTINGS = {
    "uniform": UNIFORM,
    "pooled": {"weighting": "pooled"},
    "raw minimax": RAW,
    "uniform, within": {**UNIFORM, "task_loss": "within"},
    "raw minimax, within": {**RAW, "task_loss": "within"},
    "anchored, within": {**anchored(10.0), "task_loss": "within"},
    "anchored, clip": {**anchored_and_clipped(10.0), "task_loss": "within"},
}
#: Those of the first round.
ROWS = tuple(WEIGHTINGS)[:-1]
MINIMUM = 1_000
TASKS = ("ppattach", "sentence_polarity", "SST-2", "STS-B", "QQP")
FINETUNING = dataclasses.replace(SMALL_TEXT, epochs=10, max_steps=300, sequence_length=32)


@dataclasses.dataclass(frozen=True)
class FewLabels(TextTasks):
    """Text tasks with some of their labels, spread evenly over the training examples."""

    labels: int = 1_000

    def identity(self, task):
        return {**super().identity(task), "labels": self.labels}

    def describe(self):
        return {**super().describe(), "labels": f"{self.labels:,} of each task"}

    def load(self, task):
        data = super().load(task)
        train = data.train
        kept = np.linspace(0, len(train) - 1, self.labels).astype(int)
        texts = tuple([column[index] for index in kept] for column in train.texts)
        ids = [train.ids[index] for index in kept]
        train = dataclasses.replace(train, texts=texts, labels=train.labels[kept], ids=ids)
        return dataclasses.replace(data, train=train)


def main(
    output: Path = Path("lift"),
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    rows: tuple[str, ...] = ROWS,
    report: bool = True,
):
    """Trains every weighting with every seed, fine-tunes with few labels and writes the report.

    Args:
        output: folder of the result folder.
        seeds: the seeds.
        rows: the rows; by default those of the first round.
        report: whether to write the report.
    """
    run(
        TEXTS,
        RECIPE,
        output / COMPARISON,
        chosen(WEIGHTINGS, rows),
        seeds,
        MINIMUM,
        "PosBert on Brown: the worst part of speech",
        FewLabels(TASKS, FINETUNING, GLUE),
        report=report,
    )


if __name__ == "__main__":
    tyro.cli(main)
