"""GLUE's tables with a few made-up rows, and the preset of a tiny PosBert."""

import gzip
import os

import keras
import keras_hub

from keras_taskrobust.downstream import GLUE_TASKS
from keras_taskrobust.text import WordPieceEncoder, train_vocabulary
from keras_taskrobust.text.pos_bert import PosBert

SENTENCES = [
    "the old dog ran to the red house",
    "she bought a very small boat",
    "they never liked that slow train",
    "a teacher reads the long letter",
]


def glue_table(task, labelled, rows=12):
    """The lines of a table of `task`, with the label in the words."""
    names = task.label_names or ("0.5", "4.5")
    header = ["index", *task.columns]
    if labelled:
        header.append(task.label_column)
    lines = ["\t".join(header)]
    for row in range(rows):
        label = row % len(names)
        texts = [
            f'"{SENTENCES[(row + k) % 4]} {SENTENCES[label]}' for k in range(len(task.columns))
        ]
        lines.append("\t".join([str(row + 100), *texts, *([names[label]] if labelled else [])]))
    return "".join(line + "\n" for line in lines)


def write_glue_folder(root):
    """A folder with all tasks; CoLA as GLUE has it, without header; RTE in gzip."""
    for task in GLUE_TASKS:
        folder = root / task.name
        folder.mkdir(parents=True)
        files = [("train.tsv", True), *((names[0], True) for names in task.dev_files.values())]
        files += [(names[0], False) for names in task.test_files.values()]
        for name, labelled in files:
            text = glue_table(task, labelled)
            if task.name == "CoLA" and labelled:
                rows = [line.split("\t") for line in text.splitlines()[1:]]
                text = "".join(f"gj04\t{label}\t*\t{words}\n" for _, words, label in rows)
            if task.name == "RTE":
                (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
            else:
                (folder / name).write_text(text)
    return root


def save_tiny_preset(folder, seed=0, dropout=0.1):
    """The folder of a PosBert of one layer of 8, as `save_to_preset` writes it."""
    keras.utils.set_random_seed(seed)
    encoder = WordPieceEncoder(train_vocabulary([s.split() for s in SENTENCES] * 2, size=100))
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=encoder.vocabulary_size,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=32,
        dropout=dropout,
    )
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        encoder.to_tokenizer(), sequence_length=32
    )
    PosBert(backbone, preprocessor).save_to_preset(folder)
    return os.fspath(folder)
