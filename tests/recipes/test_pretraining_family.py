"""A third modality: all that pre-training and comparisons ask of one, on a line of numbers."""

import dataclasses

import grain
import keras
import numpy as np
import pytest

import keras_taskrobust as ktr
from keras_taskrobust.evaluation import TaskScores
from keras_taskrobust.recipes.comparison import compare
from keras_taskrobust.recipes.pretraining import PretrainingFamily, compile_with, pretrain
from keras_taskrobust.recipes.settings import Pretraining

TASKS = ("double", "negative")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumberPretraining(Pretraining):
    noise: float = 0.0

    def with_steps(self, records):
        return dataclasses.replace(self, steps=records)


@dataclasses.dataclass(frozen=True)
class Numbers:
    train: np.ndarray
    held_out: np.ndarray

    def fingerprints(self):
        return {"numbers": str(self.train.sum())}


class NumberFamily(PretrainingFamily[NumberPretraining, Numbers]):
    model = "number line"
    unit = "numbers"
    preset = "model.keras"
    introduction = "Each row is the same line."
    weightings = {name: {"weighting": name} for name in ("uniform", "minimax")}
    demo = NumberPretraining(
        batch_size=2,
        steps=2,
        warmup_steps=0,
        peak_learning_rate=0.1,
        weight_decay=0.0,
        beta_2=0.999,
        epsilon=1e-6,
        steps_per_report=1,
    )

    def __init__(self):
        self.calls = []

    def prepare(self, recipe, directory):
        self.calls.append("prepare")
        return Numbers(np.ones((4, 1), "float32"), np.ones((3, 1), "float32"))

    def build(self, recipe, data):
        self.calls.append(f"build {recipe.weighting} {recipe.seed}")
        keras.utils.set_random_seed(recipe.seed)
        inputs = keras.Input((1,))
        outputs = {name: keras.layers.Dense(1, name=name)(inputs) for name in TASKS}
        model = ktr.MinimaxModel(keras.Model(inputs, outputs))
        rate = recipe.peak_learning_rate
        weighting = recipe.make_weighting()
        losses = dict.fromkeys(TASKS, "mean_squared_error")
        model.compile(keras.optimizers.SGD(rate), losses, weighting=weighting)
        return model

    def batches(self, recipe, data, part=(0, 1)):
        batch = (data.train[:2], {"double": 2 * data.train[:2], "negative": -data.train[:2]})
        batches = grain.MapDataset.source([batch]).repeat()
        return lambda step: batches[step:]

    def score(self, model, recipe, data):
        predicted = model.predict_on_batch(data.held_out)
        losses = [
            np.square(factor * data.held_out - predicted[name])[:, 0]
            for name, factor in zip(TASKS, (2, -1), strict=True)
        ]
        return TaskScores(TASKS, np.stack(losses, 1), np.ones((len(data.held_out), 2), int))

    def export(self, model, directory):
        model.save(directory / self.preset)

    def describe(self, recipe, data):
        return {"numbers": f"{len(data.train)} to train on"}

    def draw(self, model, recipe, data, directory, stage):
        self.calls.append(stage)


@pytest.fixture
def family():
    return NumberFamily()


def test_a_run_asks_for_everything_once_and_a_finished_one_for_nothing(family, tmp_path):
    run = pretrain(family, family.demo, tmp_path, label="mine")
    assert family.calls == ["prepare", "build minimax 0", "at_start", "half_way", "at_end"]
    assert run.row == "mine"
    assert run.history["step"] == [1, 2, 3, 4]  # as many as there are numbers
    assert run.history["loss"][-1] < run.history["loss"][0]
    assert run.scores.task_names == TASKS
    assert (tmp_path / "model.keras").exists()
    guide = (tmp_path / "README.txt").read_text()
    for name in ("model.keras", "history.csv", "recipe.json", "fingerprints.json", "checkpoint-*"):
        assert f"  {name} " in guide
    family.calls.clear()
    again = pretrain(family, family.demo, tmp_path)
    np.testing.assert_array_equal(again.scores.totals, run.scores.totals)
    assert family.calls == []
    other = Numbers(np.zeros((4, 1)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="holds a run with another numbers"):
        pretrain(family, family.demo, tmp_path, other)


def test_a_comparison_prepares_once_and_says_what_the_family_says(family, tmp_path):
    drawn = compare(family, family.demo, tmp_path, seeds=(0, 1), minimum_targets=1)
    assert family.calls.count("prepare") == 1
    assert [(run.row, run.seed) for run in drawn.runs] == [
        ("uniform", 0), ("minimax", 0), ("uniform", 1), ("minimax", 1)
    ]  # fmt: skip
    report = (tmp_path / "report.md").read_text()
    for words in (
        "# number line: who pays for the mean?",
        "Each row is the same line.",
        "uniform; minimax: alpha 1",
        "4 to train on",
        "4 steps of 2 numbers, AdamW, peak rate 0.1",
    ):
        assert words in report


@pytest.mark.parametrize(("on_nonfinite", "compiled"), [("raise", None), ("skip", "skip")])
def test_steps_are_skipped_on_request(family, on_nonfinite, compiled):
    class Model:
        def compile(self, optimizer, **arguments):
            self.arguments = arguments

    recipe = dataclasses.replace(family.demo, on_nonfinite=on_nonfinite)
    assert recipe.decisive() == family.demo.decisive()
    model = Model()
    compile_with(model, recipe, 0.1)
    assert model.arguments["on_nonfinite"] == compiled
