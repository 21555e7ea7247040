"""Recipes of the smallest size."""

import dataclasses

import pytest

from keras_taskrobust.evaluation import drawing
from keras_taskrobust.recipes.text_settings import TINY

SENTENCES = [
    "The old dog quickly ran to the red house.",
    "She and her sister bought a very small boat in the harbour.",
    "Oh, they saw it, but he never liked that slow train.",
    "A teacher reads the long letter and smiles.",
]


@pytest.fixture(autouse=True, scope="module")
def small_pictures():
    """Pictures are looked at in `tests/evaluation`; here they need only be there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "DOTS_PER_INCH", 20)
        yield


@pytest.fixture(scope="session")
def write_text_recipe():
    """A function: writes a text of some sentences to a new folder, and returns its recipe."""

    def write(folder):
        folder.mkdir()
        for number in range(12):
            order = [SENTENCES[(number * k + k) % 4] for k in range(1, 9)]
            (folder / f"{number}.txt").write_text(" ".join(order))
        return dataclasses.replace(
            TINY,
            corpus=str(folder),
            tagger="textblob",
            vocabulary_size=120,
            held_out=0.25,
            sequence_length=24,
            max_predictions=4,
            num_layers=1,
            hidden_dim=8,
            intermediate_dim=16,
            batch_size=4,
            steps=6,
            warmup_steps=2,
            steps_per_report=2,
            reports_per_checkpoint=1,
            workers=1,
        )

    return write
