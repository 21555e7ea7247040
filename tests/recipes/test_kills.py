"""Runs that are killed, wherever they are, end as if nothing had been.

`TASKROBUST_KILLS=20` kills as often; by default it is once a moment.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("TASKROBUST_KILLS", "3"))
PATIENCE = 600.0
# The command line, in processes that are forked from one which has imported everything already.
STARTER = """
import json, os, sys, traceback
from keras_taskrobust import cli
import keras_taskrobust.evaluation
import keras_taskrobust.recipes.images, keras_taskrobust.recipes.text
print("ready", flush=True)
for line in sys.stdin:
    words, log = json.loads(line)
    process = os.fork()
    if not process:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1), os.dup2(file, 2)
        try:
            cli.main(words)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""
SIZE = [
    *("--num-layers", "1", "--num-heads", "2", "--hidden-dim", "8", "--batch-size", "4"),
    *("--steps", "16", "--warmup-steps", "2", "--steps-per-report", "4"),
    *("--checkpoint-minutes", "0", "--weighting", "uncertainty", "--workers", "2"),
]
WORDS = {
    "text": [
        *("pretrain", "text", "pos-bert-tiny", *SIZE, "--tagger", "textblob"),
        *("--vocabulary-size", "120", "--sequence-length", "24", "--max-predictions", "4"),
        *("--intermediate-dim", "16", "--held-out", "0.01", "--corpus"),
    ],
    "images": [
        *("pretrain", "images", "mm-mae-tiny", *SIZE, "--image-size", "16", "24"),
        *("--scenes", "20", "--visible-tokens", "4", "--mlp-dim", "16", "--pictures", "1"),
        *("--decoder-dim", "8", "--decoder-heads", "2", "--class-embedding-dim", "4"),
    ],
}
BACKENDS = {"text": ("torch", "jax"), "images": ("torch",)}
#: The moments at which a run is killed, each with the files that it shows by. There is a checkpoint
#: at every step; "report" is inside one.
MOMENTS = {
    "tagging": ("text/annotated/shards/*",),
    "report": ("checkpoint-step-0000000[1-3].json", "checkpoint-step-000000*[13579].json"),
    "checkpoint": (".*.partial-checkpoint-*",),
    "training": ("history.csv",),
    "results": ("preset", ".*.partial-scores.npz", ".*.partial-finished.json"),
}


@pytest.fixture(scope="module")
def starter():
    command = [sys.executable, "-c", STARTER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Text of several parts, each of which one process tags at a time."""
    words = ["the", "a", "old", "dog", "house", "she", "saw", "quickly", "and", "in", "very", "oh"]
    folder = tmp_path_factory.mktemp("texts")
    rng = random.Random(0)
    for number in range(200):
        sentences = (" ".join(rng.choices(words, k=9)).capitalize() for _ in range(120))
        (folder / f"{number}.txt").write_text(". ".join(sentences))
    return folder


class Started:
    """A run that has just been started."""

    def __init__(self, starter, words, folder):
        self._starter = starter
        self._log = folder.with_suffix(".log")
        self._began = time.monotonic()
        starter.stdin.write(json.dumps([[*words, "--output", str(folder)], str(self._log)]) + "\n")
        starter.stdin.flush()
        self.process = int(starter.stdout.readline())
        self.folder = folder

    def is_alive(self):
        assert time.monotonic() - self._began < PATIENCE, self._log.read_text()
        return _state(self.process) not in ("", "Z")

    def end(self):
        """Its exit status, once nothing of it is left."""
        status = int(self._starter.stdout.readline())
        deadline = time.monotonic() + 30
        while left := _members(self.process):
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.05)
        return status

    def finish(self):
        assert self.end() == 0, self._log.read_text()

    def kill_while(self, moment, rng):
        """Kills it some time after it comes to a moment; whether it came to it."""
        while self.is_alive():
            if any(any(self.folder.glob(pattern)) for pattern in MOMENTS[moment]):
                time.sleep(rng.choice((0.0, rng.uniform(0, 0.02), rng.uniform(0, 1))))
                break
            time.sleep(0.001)
        if _state(self.process) not in ("", "Z"):
            os.kill(self.process, signal.SIGKILL)
        return self.end() == -signal.SIGKILL


def _stat(process):
    """State and session of a process, as Linux says them; nothing if there is none."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    return fields[0], fields[3]


def _state(process):
    return _stat(process)[0]


def _members(session):
    """The living processes of a session."""
    numbers = [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]
    states = {number: _stat(number) for number in numbers}
    return [one for one, (state, of) in states.items() if of == str(session) and state not in "Z"]


def read_arrays(path):
    arrays = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    return arrays


def assert_same_results(folder, whole):
    assert (folder / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
    assert (folder / "scores.npz").read_bytes() == (whole / "scores.npz").read_bytes()
    weights = ["preset/model.weights.h5", "checkpoint-step-00000016.weights.h5"]
    for name in weights:
        ours, theirs = read_arrays(folder / name), read_arrays(whole / name)
        assert ours.keys() == theirs.keys()
        for key, array in theirs.items():
            np.testing.assert_array_equal(ours[key], array, err_msg=f"{name}: {key}")
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("kind", ["text", "images"])
def test_killed_runs_end_as_if_nothing_had_been(kind, starter, corpus, tmp_path):
    if keras.backend.backend() not in BACKENDS[kind]:
        pytest.skip(f"{kind}: {', '.join(BACKENDS[kind])}")
    words = WORDS[kind] + ([str(corpus)] if kind == "text" else [])
    whole = tmp_path / "whole"
    Started(starter, words, whole).finish()

    rng = random.Random(1)
    moments = list(MOMENTS)[kind == "images" :]
    planned = sorted((moments[number % len(moments)] for number in range(KILLS)), key=moments.index)
    folder, killed, tries = tmp_path / "killed-0", [], 0
    while len(killed) < KILLS:
        tries += 1
        assert tries < 10 * KILLS, killed
        moment = planned[len(killed)]
        if Started(starter, words, folder).kill_while(moment, rng):
            killed.append(moment)
            continue
        assert_same_results(folder, whole)  # it ended first, or had not to do it again
        folder = tmp_path / f"killed-{tries}"
    Started(starter, words, folder).finish()
    assert_same_results(folder, whole)
    print(f"{kind}: {len(killed)} kills in {tries} starts")
