"""A tiny PosBert preset, and GLUE's tables with a few made-up rows."""

import gzip
import os
from pathlib import Path

import keras
import keras_hub
import nltk
import pytest

from keras_taskrobust.downstream import GLUE_TASKS
from keras_taskrobust.text import WordPieceEncoder, train_vocabulary
from keras_taskrobust.text.pos_bert import PosBert

SHARED = Path(__file__).parents[3] / "shared" / "data"
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


@pytest.fixture
def glue_folder(tmp_path):
    """A folder with all tasks; CoLA as GLUE has it, without header; RTE in gzip."""
    for task in GLUE_TASKS:
        folder = tmp_path / "glue" / task.name
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
    return tmp_path / "glue"


@pytest.fixture(scope="session")
def preset(tmp_path_factory):
    """The folder of a PosBert of one layer of 8, as `save_to_preset` writes it."""
    keras.utils.set_random_seed(0)
    encoder = WordPieceEncoder(train_vocabulary([s.split() for s in SENTENCES] * 2, size=100))
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=encoder.vocabulary_size,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=32,
    )
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        encoder.to_tokenizer(), sequence_length=32
    )
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    PosBert(backbone, preprocessor).save_to_preset(folder)
    return str(folder)


@pytest.fixture
def shared_glue():
    """GLUE's tables beside the repository; the test is skipped where there are none."""
    folder = SHARED / "glue"
    if not folder.is_dir():
        pytest.skip("needs GLUE's tables in ../shared/data/glue")
    return folder


@pytest.fixture
def nltk_data(monkeypatch):
    """The folder of NLTK's data; the test is skipped where there is none."""
    folders = [Path(folder) for folder in os.environ.get("NLTK_DATA", "").split(os.pathsep)]
    for folder in [*folders, SHARED / "nltk_data"]:
        if (folder / "corpora").is_dir():
            monkeypatch.setattr(nltk.data, "path", [str(folder)])
            return folder
    pytest.skip("needs NLTK's data: set NLTK_DATA")
