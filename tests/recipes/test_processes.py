"""A run on several devices is that on one, and goes on with another number of them."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import h5py
import keras
import numpy as np
import process_cases
import pytest
from downstream_data import save_tiny_preset, write_glue_folder

from keras_taskrobust.distribution import free_addresses
from keras_taskrobust.recipes.text import pretrain_text

pytestmark = pytest.mark.slow

BACKEND = keras.backend.backend()
#: Processes, and devices of each: TensorFlow fine-tunes in one process.
PROCESSES, DEVICES = 2, 1
FINE_TUNING = {"torch": (2, 1), "jax": (2, 1), "tensorflow": (1, 2)}[BACKEND]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def recipe(write_text_recipe, folder):
    steps = {"steps": 10, "warmup_steps": 4, "steps_per_report": 1, "reports_per_checkpoint": 5}
    return dataclasses.replace(write_text_recipe(folder / "texts"), dropout=0.0, **steps)


def run(recipe, folder, cases, number=PROCESSES, **start):
    """What each process found in each case."""
    # TensorFlow's processes have an address each.
    addresses = free_addresses(number if BACKEND == "tensorflow" else 1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = []
    for rank in range(number):
        own = {"processes": number, "process_id": rank, "coordinator": ",".join(addresses)}
        settings = {
            "start": start | (own if number > 1 else {}),
            "recipe": dataclasses.asdict(recipe),
            "folder": str(folder),
            "cases": cases,
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, process_cases.__file__, json.dumps(settings)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=500)[0] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(outputs)[-6000:]
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(number)]


@pytest.fixture(scope="module")
def one(recipe, folder):
    """The folder of the run of one process on one device."""
    pretrain_text(recipe, folder / "one")
    return folder / "one"


@pytest.fixture(scope="module")
def found(one, recipe, folder):
    """All cases in one pair of processes, whose start takes longer than they."""
    process_cases.cut(folder / "one", folder / "after_one")
    refused = ["other_settings", "other_data", "no_corpus", "odd_batch"]
    cases = [*refused, "whole", "again", "after_one"]
    return run(recipe, folder, cases, devices=DEVICES)


def weights_of(folder, step):
    arrays = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer"):
            arrays[name] = item[()].astype("float64").ravel()

    with h5py.File(folder / f"checkpoint-step-{step:08d}.weights.h5") as file:
        file.visititems(visit)
    return np.concatenate([arrays[name] for name in sorted(arrays)])


def distance(first, second):
    """That of the weights after ten steps, in sizes of the last five."""
    update = np.linalg.norm(weights_of(second, 10) - weights_of(second, 5))
    assert update > 0.01
    return np.linalg.norm(weights_of(first, 10) - weights_of(second, 10)) / update


def test_a_run_is_that_of_one_process(found, folder):
    assert distance(folder / "whole", folder / "one") < 2e-5
    for name in ("history.csv", "finished.json", "scores.npz", "preset", "model.keras"):
        assert (folder / "whole" / name).exists()
    assert [one["whole"]["steps"] for one in found] == [list(range(1, 11))] * PROCESSES


def test_it_goes_on_to_the_bit(found, folder):
    np.testing.assert_array_equal(
        weights_of(folder / "again", 10), weights_of(folder / "whole", 10)
    )
    histories = [(folder / name / "history.csv").read_bytes() for name in ("again", "whole")]
    assert histories[0] == histories[1]


def test_it_goes_on_with_another_number(found, folder, recipe):
    assert distance(folder / "after_one", folder / "one") < 2e-5
    process_cases.cut(folder / "whole", folder / "then_one")
    pretrain_text(recipe, folder / "then_one")
    assert distance(folder / "then_one", folder / "one") < 2e-5


@pytest.fixture(scope="module")
def found_downstream(recipe, folder):
    """Fine-tuning and a comparison, whose figures must be those of one device."""
    write_glue_folder(folder / "glue")
    save_tiny_preset(folder / "tiny", dropout=0.0)
    cases = ["finetuned", "compared", "refused_method"]
    processes, devices = FINE_TUNING
    return run(recipe, folder, cases, processes, devices=devices)


def test_fine_tuning_is_that_on_one_device(found_downstream, folder):
    expected = process_cases.finetuned(folder, "finetuned on one")
    first, *others = (one["finetuned"] for one in found_downstream)
    for other in others:
        assert other == first
    moves = np.array(expected["moves"])
    assert np.linalg.norm(moves) > 0.01
    assert np.linalg.norm(first["moves"] - moves) / np.linalg.norm(moves) < 2e-5
    assert first["scores"] == expected["scores"]
    for one, other in zip(first["history"], expected["history"], strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_a_comparison_is_that_on_one_device(found_downstream, recipe, folder):
    expected = process_cases.compared(recipe, folder, "compared on one")
    assert not expected["failures"]
    for one in (one["compared"] for one in found_downstream):
        assert one["scores"] == expected["scores"]
        assert list(expected["scores"]) == ["scratch", "uniform", "upgrad"]
        for row, losses in expected["losses"].items():
            assert one["losses"][row] == pytest.approx(losses, rel=1e-5)
    assert (folder / "compared" / "report.html").exists()


def test_a_method_for_one_device_is_refused(found_downstream):
    main, *others = (one["refused_method"] for one in found_downstream)
    assert "`method` must be none of lwf, ewc on several devices" in main
    assert all(other.startswith("FailedElsewhereError") for other in others)


@pytest.mark.skipif(BACKEND != "jax", reason="JAX cuts models")
def test_models_are_cut(one, recipe, folder):
    cases = ["cut_models", "odd_heads"]
    (found,) = run(recipe, folder, cases, number=1, devices=4, model_parallel=2)
    assert distance(folder / "cut_models", one) < 2e-5
    message = "`num_heads` must be a multiple of `model_parallel`.*num_heads=1, model_parallel=2"
    assert re.search(message, found["odd_heads"])
    assert not (folder / "odd heads").exists()


@pytest.mark.skipif(BACKEND != "jax", reason="JAX cuts models")
@pytest.mark.parametrize("devices", [1, 2])
def test_models_are_cut_over_processes(devices, one, recipe, folder):
    run(recipe, folder, ["cut_over_processes"], devices=devices, model_parallel=2)
    for name in (f"cut in {devices}", f"cut in {devices}, again"):
        assert distance(folder / name, one) < 2e-5


def test_no_process_reads_the_part_of_another(found):
    first, second = (one["whole"]["read"] for one in found)
    assert len(first) == len(second) == 10
    for ours, theirs in zip(first, second, strict=True):
        assert len(ours) == len(theirs) == 2
        assert not set(ours) & set(theirs)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("other_settings", "the same settings.*Received: seed 0 in process 0, 1 in process 1"),
        ("other_data", 'same data and versions.*corpus "that of 0" in process 0, "that of 1" in'),
        ("odd_batch", "`batch_size` must be a multiple of 2"),
        ("no_corpus", "nowhere"),
    ],
)
def test_what_is_refused(found, case, message):
    main, other = (one[case] for one in found)
    assert main.startswith(("ValueError", "FileNotFoundError"))
    assert other.startswith("FailedElsewhereError")
    for text in (main, other):
        assert re.search(message, text), text
