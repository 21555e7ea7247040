"""Small PosBerts under several weightings, fine-tuned on real tasks: who pays, downstream?

    NLTK_DATA=... KERAS_BACKEND=torch python benchmarks/downstream_text.py --glue FOLDER

Pre-trained on Brown, movie reviews and the training sentences of GLUE's tables, without labels.
Needs NLTK's brown, movie_reviews, sentence_polarity, ppattach and tagger, and a folder of GLUE's
tables. Finished runs and cells are kept. Several processes may share the folder with different
seeds; a last call with all seeds writes the report.
"""

import dataclasses
import json
from pathlib import Path

import tyro

from keras_taskrobust.downstream import text_task
from keras_taskrobust.downstream.text import TextTasks
from keras_taskrobust.evaluation import print_downstream, print_report
from keras_taskrobust.files import write_atomically
from keras_taskrobust.recipes.finetuning_settings import SMALL_TEXT
from keras_taskrobust.recipes.text import compare_text
from keras_taskrobust.recipes.text_settings import TINY

RECIPE = dataclasses.replace(
    TINY,
    tagger="nltk",
    vocabulary_size=8000,
    held_out=0.02,
    steps=500,
    warmup_steps=50,
    reports_per_checkpoint=25,
)
WEIGHTINGS = {
    "pooled": {"weighting": "pooled"},
    "uniform": {"weighting": "uniform"},
    "hard maximum": {"weighting": "hard_max"},
    "minimax": {"weighting": "minimax"},
}
GLUE = ("SST-2", "CoLA", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE")
TASKS = ("ppattach", "sentence_polarity", "SST-2", "STS-B", "QQP", "CoLA", "RTE")
FINETUNING = dataclasses.replace(SMALL_TEXT, max_steps=250, sequence_length=32)
_EXAMPLES_A_DOCUMENT = 20


def write_training_sentences(glue: Path, path: Path) -> None:
    """Writes the texts of GLUE's training tables as JSON lines, some examples a document."""
    lines = []
    for name in GLUE:
        examples = text_task(name).load(glue).train
        texts = [" ".join(pair) for pair in zip(*examples.texts, strict=True)]
        for start in range(0, len(texts), _EXAMPLES_A_DOCUMENT):
            text = "\n".join(texts[start : start + _EXAMPLES_A_DOCUMENT])
            lines.append(json.dumps({"text": text}))
    write_atomically(path, "\n".join(lines).encode())


def main(
    glue: Path,
    output: Path = Path("runs/downstream-text"),
    seeds: tuple[int, ...] = (0, 1, 2),
    tasks: tuple[str, ...] = TASKS,
):
    """Trains every weighting with every seed, fine-tunes on every task and writes the report.

    Args:
        glue: folder of GLUE's tables.
        output: folder of the report, the runs and the cells.
        seeds: the seeds.
        tasks: the downstream tasks.
    """
    sentences = output / "glue.jsonl"
    if not sentences.exists():
        write_training_sentences(glue, sentences)
    recipe = dataclasses.replace(RECIPE, corpus=f"nltk:brown+nltk:movie_reviews+{sentences}")
    downstream = TextTasks(tasks, FINETUNING, str(glue))
    title = "PosBert: what the weighting is worth downstream"
    drawn = compare_text(recipe, output, WEIGHTINGS, seeds, title=title, downstream=downstream)
    print_report(drawn.runs)
    print_downstream(drawn.results)


if __name__ == "__main__":
    tyro.cli(main)
