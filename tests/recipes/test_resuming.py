"""A run that goes on: to the same numbers, and with nothing else than it began with."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_taskrobust as ktr
from keras_taskrobust import cli
from keras_taskrobust.locks import locked
from keras_taskrobust.recipes import training_run
from keras_taskrobust.recipes.history import read_history
from keras_taskrobust.recipes.text import compare_text, prepare_text, pretrain_text
from keras_taskrobust.recipes.training_run import claim_folder, finished_run


@pytest.fixture(scope="module")
def begun(write_text_recipe, tmp_path_factory):
    """The recipe, the folder of a run that was killed after four of eight steps, and its corpus."""
    folder = tmp_path_factory.mktemp("begun")
    recipe = dataclasses.replace(write_text_recipe(folder / "texts"), steps=8, warmup_steps=4)
    pretrain_killed(recipe, folder / "run")
    return recipe, folder / "run"


def pretrain_killed(recipe, folder):
    class Killed(training_run.ProgressBar):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_run, "ProgressBar", Killed)
        with pytest.raises(KeyboardInterrupt):
            pretrain_text(recipe, folder)


@pytest.fixture
def copy(begun, tmp_path):
    """The recipe and a copy of the folder, for a copy of the corpus."""
    recipe, run = begun
    shutil.copytree(run, tmp_path / "run")
    return recipe, tmp_path / "run"


def assert_same_run(folder, whole):
    """History to the byte, scores and the whole last state to the bit."""
    names = ("history.csv", "scores.npz")
    assert [(folder / name).read_bytes() for name in names] == [
        (whole / name).read_bytes() for name in names
    ]
    last = max(path.name for path in whole.glob("checkpoint-*.weights.h5"))
    ours, theirs = (load_arrays(one / last) for one in (folder, whole))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def load_arrays(path):
    import h5py

    arrays = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return arrays


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_killed_run_goes_on_to_the_same_numbers(copy, tmp_path):
    """With another number of workers, a torn line of history and a damaged checkpoint."""
    recipe, run = copy
    longer = dataclasses.replace(recipe, steps=10)
    whole = pretrain_text(longer, tmp_path / "whole")
    os.truncate(run / "checkpoint-step-00000004.weights.h5", 1000)
    with (run / "history.csv").open("ab") as file:
        file.write(b"6")  # of a line of step 6
    stored = run / "checkpoint-step-00000002.json"
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"seconds": 1000.0}))
    other = dataclasses.replace(longer, workers=2, reports_per_checkpoint=2)
    with pytest.warns(UserWarning, match=r"checkpoint-step-00000004\.weights\.h5 is damaged"):
        continued = pretrain_text(other, run)
    assert_same_run(run, tmp_path / "whole")
    assert whole.history["step"] == continued.history["step"] == [2, 4, 6, 8, 10]
    assert 1000 < continued.seconds < 1000 + 600
    assert json.loads((run / "recipe.json").read_text())["workers"] == 2

    for name in ("scores.npz", "finished.json"):  # a damaged end is no end
        os.truncate(run / name, 5)
        with pytest.warns(UserWarning, match=rf"ends anew.*{run}/{name}"):
            assert finished_run(run, "minimax") is None
    with pytest.warns(UserWarning, match="ends anew"):
        again = pretrain_text(other, run)
    assert_same_run(run, tmp_path / "whole")
    assert again.seconds == continued.seconds
    os.truncate(run / "history.csv", 300)
    with (
        pytest.warns(UserWarning, match="ends anew"),
        pytest.warns(UserWarning, match=rf"{run}/history\.csv lacks 5 of the 5 lines"),
        pytest.raises(ValueError, match=rf"{run}/history\.csv must hold.*remove the run's folder"),
    ):
        pretrain_text(other, run)


def test_a_run_goes_on_inside_a_report(write_text_recipe, tmp_path):
    """Killed in the first and in the last, shorter report, after a checkpoint at every step."""
    recipe = dataclasses.replace(
        write_text_recipe(tmp_path / "texts"), steps=8, steps_per_report=3, checkpoint_minutes=0.0
    )
    pretrain_text(recipe, tmp_path / "whole")

    class Killed(training_run.ProgressBar):
        at = 0

        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch)
            step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
            if step == Killed.at:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_run, "ProgressBar", Killed)
        for Killed.at in (2, 7):
            with pytest.raises(KeyboardInterrupt):
                pretrain_text(recipe, tmp_path / "run")
            assert (tmp_path / "run" / f"checkpoint-step-0000000{Killed.at}.weights.h5").exists()
    assert pretrain_text(recipe, tmp_path / "run").history["step"] == [3, 6, 8]
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("step", [1, 2])
def test_a_signal_saves_at_the_next_step_and_ends_the_command(
    step, begun, tmp_path, monkeypatch, capsys
):
    """Inside a report, and at its end."""
    recipe, _ = begun

    class Signalled(training_run.ProgressBar):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == step - 1:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training_run, "ProgressBar", Signalled)
    words = ["pretrain", "text", "pos-bert-tiny", "--output", str(tmp_path / "run")]
    for name, value in dataclasses.asdict(recipe).items():
        if isinstance(value, bool):
            words += [f"--{name.replace('_', '-')}"] if value else []
        elif isinstance(value, int | float | str):
            words += [f"--{name.replace('_', '-')}", str(value)]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 75
    assert "interrupted, go on with the same command" in capsys.readouterr().err
    files = sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*.h5"))
    assert files == [f"checkpoint-step-0000000{step}.weights.h5"]


def as_of_before(run):
    """The folder as former versions left it: history and checkpoints count reports."""
    for path in run.glob("checkpoint-step-*"):
        step = int(path.name[16:24])
        path.rename(run / path.name.replace(f"step-{step:08d}", f"{step // 2:08d}"))
    names, *rows = csv.reader((run / "history.csv").read_text().splitlines())
    table = [["epoch", *names[1:], *(f"val_{name}" for name in names[1:])]]
    table += [[str(int(row[0]) // 2 - 1), *row[1:], *["NA"] * (len(row) - 1)] for row in rows]
    (run / "history.csv").write_text("".join(f"{','.join(row)}\r\n" for row in table))


def test_a_run_of_before_goes_on_to_the_same_numbers(copy, tmp_path):
    recipe, run = copy
    pretrain_text(recipe, tmp_path / "whole")
    before = read_history(run / "history.csv", recipe.steps_per_report)
    as_of_before(run)
    assert sorted(path.name for path in run.glob("checkpoint-*.h5")) == [
        f"checkpoint-0000000{number}.weights.h5" for number in (1, 2)
    ]
    np.testing.assert_equal(read_history(run / "history.csv", recipe.steps_per_report), before)
    pretrain_text(recipe, run)
    assert_same_run(run, tmp_path / "whole")
    header = (run / "history.csv").read_text().split("\n")[0]
    assert header.startswith("step,")
    assert "val_" not in header


def edit_corpus(recipe, run):
    path = next(Path(recipe.corpus).iterdir())
    path.write_text(path.read_text().replace("house", "zoo"))


def alter_shards(recipe, run):
    flip_a_bit(run / "text" / "annotated" / "token_ids.bin")


def change_fingerprint(name, value):
    def change(recipe, run):
        path = run / "fingerprints.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    return change


BACKEND = keras.backend.backend()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit_corpus, r"another corpus, vocabulary, annotated text.*Received: corpus \w{12} in pl"),
        (change_fingerprint("vocabulary", "0" * 64), r"vocabulary \w{12} in place of 0{12}"),
        (alter_shards, r"another annotated text, annotated held-out text: go on with the former"),
        (change_fingerprint("backend", "mxnet"), rf"backend {BACKEND} in place of mxnet"),
        (change_fingerprint(f"version of {BACKEND}", "0"), rf"{BACKEND} [\d.]+\S* in place of 0"),
        (change_fingerprint("version of numpy", "0"), r"another version of numpy.* place of 0"),
        (lambda recipe, run: (run / "fingerprints.json").unlink(), "fingerprints.json must be"),
        (lambda recipe, run: os.truncate(run / "fingerprints.json", 9), "remove the run's folder"),
        (lambda recipe, run: (run / "fingerprints.json").write_text("[" * 10**5), "must be JSON"),
    ],
)
def test_nothing_else_is_gone_on_with(copy, tmp_path, change, message):
    recipe, run = copy
    shutil.copytree(recipe.corpus, tmp_path / "texts")
    recipe = dataclasses.replace(recipe, corpus=str(tmp_path / "texts"))
    settings = json.loads((run / "recipe.json").read_text()) | {"corpus": recipe.corpus}
    (run / "recipe.json").write_text(json.dumps(settings))
    kept = {path: path.read_bytes() for path in [*run.glob("checkpoint-*"), run / "history.csv"]}
    change(recipe, run)
    with pytest.raises(ValueError, match=message) as error:
        pretrain_text(recipe, run)
    assert str(run) in str(error.value)
    assert {path: path.read_bytes() for path in kept} == kept


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"steps": 6}, r"steps \(`steps` decides how the learning rate falls\)"),
        ({"steps": 10, "alpha": 2.0}, "alpha, steps"),
        ({"steps_per_report": 4}, "steps_per_report$"),
        ({"seed": 1, "workers": 3}, "seed$"),
    ],
)
def test_settings_that_change_numbers_stay(begun, fields, names):
    recipe, run = begun
    with pytest.raises(ValueError, match=f"{run} holds a run with other settings.*of: {names}"):
        claim_folder(run, dataclasses.replace(recipe, **fields))


def test_steps_grow_only_while_the_rate_rises(begun):
    recipe, run = begun
    former = json.loads((run / "recipe.json").read_text())
    longer = dataclasses.replace(recipe, steps=10)
    assert [longer.changes(former, done) for done in (0, 4, 6)] == [[], [], ["steps"]]


def test_the_last_report_may_be_shorter(write_text_recipe, tmp_path):
    recipe = dataclasses.replace(write_text_recipe(tmp_path / "texts"), steps=5)
    pretrain_killed(recipe, tmp_path / "cut")
    run = pretrain_text(recipe, tmp_path / "cut")
    whole = pretrain_text(dataclasses.replace(recipe, steps_per_report=5), tmp_path / "whole")
    assert (run.history["step"], whole.history["step"]) == ([2, 4, 5], [5])
    ours, theirs = (
        load_arrays(tmp_path / name / "checkpoint-step-00000005.weights.h5")
        for name in ("cut", "whole")
    )
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
    former = json.loads((tmp_path / "cut" / "recipe.json").read_text())
    longer = dataclasses.replace(recipe, steps=8, warmup_steps=7)
    assert longer.changes(former | {"warmup_steps": 7}, 6) == ["steps"]
    assert longer.changes(former | {"warmup_steps": 7}, 4) == []


def test_a_finished_run_of_another_corpus_does_not_join_a_comparison(copy, tmp_path):
    recipe, _ = copy
    recipe = dataclasses.replace(recipe, steps=2, warmup_steps=0)
    shutil.copytree(recipe.corpus, tmp_path / "texts")
    recipe = dataclasses.replace(recipe, corpus=str(tmp_path / "texts"))
    cases = {"uniform": {"weighting": "uniform"}}
    compare_text(recipe, tmp_path / "compared", cases, minimum_targets=1)
    (folder,) = (tmp_path / "compared" / "runs").iterdir()
    # An upgrade is no other data: what is finished stays.
    change_fingerprint("version of numpy", "0")(recipe, folder)
    other = dataclasses.replace(recipe, workers=2)
    compare_text(other, tmp_path / "compared", cases, minimum_targets=1)
    assert list((tmp_path / "compared" / "runs").iterdir()) == [folder]
    edit_corpus(recipe, folder)
    with pytest.raises(ValueError, match="holds a run with another corpus"):
        compare_text(recipe, tmp_path / "compared", cases, minimum_targets=1)


HOLD = """
import sys, types
sys.modules["keras_taskrobust"] = types.ModuleType("keras_taskrobust")
sys.modules["keras_taskrobust"].__path__ = [sys.argv[2]]
from keras_taskrobust.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_in_use_is_refused_at_once(begun, tmp_path):
    recipe, _ = begun
    package = Path(ktr.__file__).parent
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run"), str(package)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        for start in (prepare_text, pretrain_text, compare_text):
            with pytest.raises(ValueError, match=f"in use by process {holder.pid} on"):
                start(recipe, tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
        holder.stdin.close()
    with locked(tmp_path / "run"):
        assert finished_run(tmp_path / "run", "uniform") is None
