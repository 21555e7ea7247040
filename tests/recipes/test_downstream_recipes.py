"""Fine-tuning as commands run it: cells computed once, failures marked, the report redrawn."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from downstream_data import save_tiny_preset, write_glue_folder
from marks import slow

from keras_taskrobust import cli
from keras_taskrobust.downstream import text
from keras_taskrobust.downstream.finetuning_run import FineTuned
from keras_taskrobust.downstream.preset_files import preset_files
from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.downstream.text import TextTasks
from keras_taskrobust.downstream.text_finetuning import open_bert
from keras_taskrobust.evaluation import TaskScores
from keras_taskrobust.recipes import comparison, finetuning, text_preparation
from keras_taskrobust.recipes.finetuning import finetune
from keras_taskrobust.recipes.finetuning_settings import GLUE
from keras_taskrobust.recipes.reporting import draw
from keras_taskrobust.recipes.starts import start_from_preset
from keras_taskrobust.recipes.text import compare_text
from keras_taskrobust.recipes.text_settings import TINY
from keras_taskrobust.recipes.training_run import claim_folder, finish_run, load_run

SETTINGS = FineTuning(learning_rate=1e-2, batch_size=4, epochs=1, max_steps=2)
REPORT = ("report.md", "report.html", "downstream.csv", "downstream.png")


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    return save_tiny_preset(tmp_path_factory.mktemp("presets") / "tiny")


@pytest.fixture
def family(tmp_path):
    return TextTasks(("RTE", "STS-B"), SETTINGS, str(write_glue_folder(tmp_path / "glue")))


def finetuned(preset, seeds, family, output, select="last"):
    return finetune({"mine": preset}, seeds, family, output, False, select)


@pytest.fixture
def counted(monkeypatch):
    """The cells that are computed, as (row, seed, task)."""
    computed = []
    compute = finetuning._compute

    def count(cell, *arguments):
        computed.append((cell.start.row, cell.start.seed, cell.task))
        return compute(cell, *arguments)

    monkeypatch.setattr(finetuning, "_compute", count)
    return computed


@pytest.fixture
def untrained(monkeypatch):
    """Predictions that the seed decides, in place of training: what the grid does is tested."""

    def predict(task, splits, seed):
        rng = np.random.default_rng(seed)
        return {name: rng.integers(0, 2, len(examples)) for name, (_, examples) in splits.items()}

    def finetune_text(backbone, task, data, settings, seed, head):
        labels = data.dev["dev"][1].labels
        seeds = {"last": (seed, settings.epochs), "best": (seed, settings.epochs, 1)}
        dev = {epoch: predict(task, data.dev, one) for epoch, one in seeds.items()}
        test = {epoch: predict(task, data.test, one) for epoch, one in seeds.items()}
        scores = {epoch: task.evaluate(labels, found["dev"]) for epoch, found in dev.items()}
        trivial = task.evaluate_trivial(data.train[1].labels, labels)
        return FineTuned(None, [], scores, {}, trivial, dev, test, {}, 1.0)

    monkeypatch.setattr(text, "finetune_text", finetune_text)


def without_times(directory):
    cells = [json.loads(path.read_text()) for path in sorted(directory.glob("cells/*.json"))]
    return [{k: v for k, v in cell.items() if "seconds" not in k} for cell in cells]


def test_the_recipe_glue_has_the_settings_of_the_paper():
    assert (GLUE.learning_rate, GLUE.batch_size) == (2e-5, 32)
    assert (GLUE.weight_decay, GLUE.warmup_share) == (0.1, 0.06)


def test_finetuning_writes_report_cells_and_predictions(
    preset, family, tmp_path, counted, untrained
):
    output = tmp_path / "out"
    drawn = finetuned(preset, (0, 1), family, output)
    assert len(counted) == 4
    assert all(set(one.scores) == set(one.trivial) for one in drawn.results)
    assert all((output / name).stat().st_size > 100 for name in REPORT)
    lines = (output / "predictions/mine/seed-1/RTE.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert lines[1].split("\t")[0] == "100"
    assert {line.split("\t")[1] for line in lines[1:]} <= {"entailment", "not_entailment"}
    assert (output / "predictions/mine/seed-0/STS-B-dev.tsv").exists()
    before = without_times(output)
    assert set(before[0]["scores"]) == {"last", "best"}
    finetuned(preset, (0, 1), family, output)
    assert len(counted) == 4
    finetuned(preset, (0, 1, 2), family, output)
    assert counted[4:] == [("mine", 2, "RTE"), ("mine", 2, "STS-B")]


def fails_on(name, monkeypatch):
    """Has fine-tuning fail on the task of this name."""
    finetune_text = text.finetune_text

    def failing(backbone, task, *arguments):
        if task.name == name:
            raise FloatingPointError("The loss is not a number.")
        return finetune_text(backbone, task, *arguments)

    monkeypatch.setattr(text, "finetune_text", failing)


def test_the_predictions_are_those_of_the_report(
    preset, family, tmp_path, counted, untrained, monkeypatch
):
    labels = {f"{row + 100}": ("entailment", "not_entailment")[row % 2] for row in range(12)}
    family = dataclasses.replace(family, tasks=("RTE",))
    longer = dataclasses.replace(SETTINGS, epochs=2)

    def check(settings=SETTINGS, select="last"):
        case = dataclasses.replace(family, settings=settings)
        drawn = finetuned(preset, (0,), case, tmp_path / "out", select)
        (path,) = (tmp_path / "out" / "predictions").glob("mine/seed-0/RTE-dev.tsv")
        rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
        share = np.mean([labels[index] == label for index, label in rows])
        assert drawn.results[0].scores["accuracy"] == share
        return path.read_text()

    last, best = check(), check(select="best")
    others = check(settings=longer), check(settings=longer, select="best")
    assert len({last, best, *others}) == 4
    assert check() == last
    assert len(counted) == 2
    fails_on("RTE", monkeypatch)
    both = dataclasses.replace(family, tasks=("RTE", "STS-B"), settings=GLUE)
    drawn = finetuned(preset, (0,), both, tmp_path / "out")
    assert [bool(one.failure) for one in drawn.results] == [True, False]
    written = {path.stem for path in (tmp_path / "out" / "predictions").glob("mine/seed-0/*")}
    assert written == {"STS-B", "STS-B-dev"}


def test_a_failing_cell_is_marked_and_tried_again(
    preset, family, tmp_path, counted, untrained, monkeypatch
):
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        fails_on("STS-B", patch)
        drawn = finetuned(preset, (0,), family, output)
    assert [bool(one.failure) for one in drawn.results] == [False, True]
    report = (output / "report.md").read_text()
    assert "## Failed" in report
    assert "The loss is not a number." in report
    drawn = finetuned(preset, (0,), family, output)
    assert counted[2:] == [("mine", 0, "STS-B")]
    assert not any(one.failure for one in drawn.results)


def test_a_missing_table_is_refused_before_the_first_cell(preset, family, tmp_path, counted):
    (tmp_path / "glue" / "STS-B" / "dev.tsv").unlink()
    with pytest.raises(ValueError, match=r"must hold dev\.tsv or dev\.tsv\.gz"):
        finetuned(preset, (0,), family, tmp_path / "out")
    assert not counted


def test_a_start_is_known_by_its_content(preset, tmp_path):
    copy = save_tiny_preset(tmp_path / "copy", seed=1)
    assert start_from_preset("a", 0, preset).identity == start_from_preset("b", 1, preset).identity
    assert start_from_preset("a", 0, preset).identity != start_from_preset("a", 0, copy).identity


def identity_of(folder):
    return start_from_preset("row", 0, str(folder)).identity


def test_a_start_is_known_by_what_is_read_of_it(preset, family, tmp_path, counted, untrained):
    folder = tmp_path / "preset"
    shutil.copytree(preset, folder)
    family = dataclasses.replace(family, tasks=("RTE",))
    for _ in range(2):
        finetuned(str(folder), (0,), family, folder)
    assert len(counted) == 1
    assert identity_of(folder) == identity_of(preset)
    read = preset_files(folder)
    assert {path.name for path in read} == {
        "config.json",
        "model.weights.h5",
        "tokenizer.json",
        "vocabulary.txt",
    }
    for path in read:
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        assert identity_of(folder) != identity_of(preset), path
        path.write_bytes(content)


def test_the_files_of_a_preset_are_all_that_is_opened(preset, tmp_path):
    folder = tmp_path / "preset"
    for path in preset_files(Path(preset)):
        copy = folder / path.relative_to(preset)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (backbone, encoder), (given, vocabulary) = open_bert(str(folder)), open_bert(preset)
    assert encoder.hash == vocabulary.hash
    for one, other in zip(backbone.get_weights(), given.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "full"),
        ({"method": "lora", "lora_rank": 4}, "method lora, lora_rank 4"),
        ({"method": "l2_sp", "strength": 0.5}, "method l2_sp, strength 0.5"),
        (
            {"wise_share": 0.5, "soup_size": 3, "soup": "greedy"},
            "wise_share 0.5, soup_size 3, soup greedy",
        ),
    ],
)
def test_a_report_names_the_settings_that_were_used(fields, words):
    assert dataclasses.replace(GLUE, **fields).method_in_words() == words


@pytest.fixture
def recipe(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(8):
        (texts / f"{number}.txt").write_text("The old dog quickly ran to the red house. " * 8)
    return dataclasses.replace(
        TINY,
        corpus=str(texts),
        tagger="textblob",
        vocabulary_size=120,
        held_out=0.25,
        sequence_length=24,
        max_predictions=4,
        num_layers=1,
        hidden_dim=8,
        intermediate_dim=16,
        batch_size=4,
        steps=2,
        warmup_steps=1,
        steps_per_report=2,
        reports_per_checkpoint=1,
        workers=1,
    )


@pytest.mark.parametrize("pretraining", [slow("real"), "none"])
def test_a_comparison_of_both_stages_outlives_a_failed_row(
    pretraining, preset, recipe, family, tmp_path, counted, untrained, monkeypatch
):
    pretrain = comparison.pretrain

    def fail(family, cell, folder, texts, label):
        if cell.weighting == "hard_max":
            raise FloatingPointError("The loss must be finite.")
        if pretraining == "real":
            return pretrain(family, cell, folder, texts, label)
        claim_folder(folder, cell)
        shutil.copytree(preset, folder / "preset", dirs_exist_ok=True)
        (folder / "history.csv").write_text("epoch,loss,verb_loss,verb_weight\n0,1.0,1.0,1.0\n")
        finish_run(folder, TaskScores(("verb",), np.ones((4, 1)), np.ones((4, 1))), 1.0)
        return load_run(folder, label)

    monkeypatch.setattr(comparison, "pretrain", fail)
    output = tmp_path / "out"
    cases = {name: {"weighting": name} for name in ("uniform", "hard_max")}
    family = dataclasses.replace(family, tasks=("RTE",))
    drawn = compare_text(recipe, output, cases, (0,), 1, downstream=family)
    assert [run.row for run in drawn.runs] == ["uniform"]
    assert counted == [("scratch", 0, "RTE"), ("uniform", 0, "RTE")]
    report = (output / "report.md").read_text()
    assert "hard\\_max, seed 0: The loss" in report or "hard_max, seed 0: The loss" in report
    assert "Downstream: summary" in report
    assert "| scratch |" in report
    for name in ("report.md", "report.html"):
        (output / name).unlink()
    cli.main(["report", str(output)])
    assert (output / "report.md").read_text() == report
    compare_text(recipe, output, cases, (0,), 1, downstream=family)
    assert len(counted) == 2


def test_the_command_fine_tunes(preset, tmp_path, capsys):
    folder = write_glue_folder(tmp_path / "glue")
    own = tmp_path / "mood.csv"
    own.write_text("label,text\n" + "good,a fine day\nbad,a grey day\n" * 10)
    arguments = ["small", "--preset", f"mine={preset}", "--max-steps", "1", "--tasks", "WNLI"]
    arguments.append(str(own))
    output = tmp_path / "out"
    cli.main(["finetune", "text", *arguments, "--data-dir", str(folder), "--output", str(output)])
    printed = capsys.readouterr().out
    assert "WNLI" in printed
    assert "mood" in printed
    assert "mine" in printed
    predicted = output / "predictions" / "mine" / "seed-0" / "mood-dev.tsv"
    assert len(predicted.read_text().splitlines()) == 3
    assert (output / "report.html").exists()


def test_an_output_that_cannot_be_written_to_is_refused_first(
    preset, recipe, family, tmp_path, counted, monkeypatch
):
    output = tmp_path / "file"
    output.write_text("")
    message = f"The output must be a folder that can be written to. Received: {output}: "
    with pytest.raises(ValueError, match=message):
        finetuned(preset, (0,), family, output)
    monkeypatch.delattr(text_preparation, "load_corpus")
    with pytest.raises(ValueError, match=message):
        compare_text(recipe, output)
    assert not counted


def test_doubles_and_empty_lists_are_refused(preset, tmp_path, counted):
    def message(*flags):
        words = ["--preset", preset, "--tasks", "RTE", "--output", str(tmp_path / "out"), *flags]
        with pytest.raises(SystemExit) as error:
            cli.main(["finetune", "text", "small", *words])
        return str(error.value)

    assert "`--seeds` must be one or more different values. Rec" in message("--seeds", "0", "0")
    assert message("--seeds").endswith(
        "`--seeds` must be one or more different values. Received: none"
    )
    assert message("--tasks", "RTE", "RTE").endswith("Received: RTE, RTE")
    assert "`--tasks` must be one or more" in message("--tasks")
    assert "`--preset` must be one or more" in message("--preset")
    said = message("--preset", f"scratch={preset}", "--from-scratch")
    assert "other names than 'scratch', the row without pre-training" in said
    said = message("--preset", preset, "elsewhere/tiny")
    assert f"with NAME=PRESET if need be. Received: {preset} and elsewhere/tiny" in said
    assert not counted


def test_a_comparison_refuses_a_row_called_scratch(recipe, family, tmp_path):
    cases = {"scratch": {"weighting": "uniform"}}
    with pytest.raises(ValueError, match="`weightings` must have other names than 'scratch'"):
        compare_text(recipe, tmp_path, cases, downstream=family)


def test_bad_input_is_one_sentence(preset, tmp_path):
    def message(*arguments):
        with pytest.raises(SystemExit) as error:
            cli.main([*arguments])
        assert "\n" not in str(error.value)
        return str(error.value)

    finetune = ("finetune", "text", "small", "--output", str(tmp_path / "out"))
    nowhere = str(tmp_path / "nowhere")
    assert "must be one of MNLI" in message(*finetune, "--preset", preset, "--tasks", "X")
    said = message(*finetune, "--preset", nowhere, "--tasks", "WNLI", "--data-dir", nowhere)
    assert f"KerasHub BERT with its tokenizer. Received: preset={nowhere!r}: no such folder" in said
    assert not (tmp_path / "out" / "cells").exists()
    said = message(*finetune, "--preset", preset, "--tasks", "WNLI", "--data-dir", nowhere)
    assert "nowhere must be a folder of GLUE's tables with a folder 'WNLI'" in said
    assert "comparison.json" in message("report", nowhere)
    with pytest.raises(ValueError, match="with comparison.json"):
        draw(tmp_path)
