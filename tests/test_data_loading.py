"""Batches prepared while the model trains."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import grain
import keras
import numpy as np
import pytest

from keras_taskrobust.data_loading import batches_for_fit, read_ahead, with_workers


class Counting:
    """A source that counts what was read of it."""

    def __init__(self, length=100):
        self._length = length
        self._lock = threading.Lock()
        self.read = 0

    def __len__(self):
        return self._length

    def __getitem__(self, number):
        with self._lock:
            self.read += 1
        x = np.full((2, 1), number, "float32")
        return x, x


def test_the_batches_are_those_of_the_data_set():
    numbers = [int(x[0, 0]) for x, _ in read_ahead(grain.MapDataset.source(Counting(7)))]
    assert numbers == list(range(7))


def test_a_position_is_saved_and_restored():
    dataset = grain.MapDataset.source(Counting())
    iterator = iter(read_ahead(dataset))
    for _ in range(5):
        next(iterator)
    resumed = iter(read_ahead(dataset))
    resumed.set_state(iterator.get_state())
    assert next(resumed)[0][0, 0] == 5


def test_few_batches_are_ready():
    source = Counting(10_000)
    iterator = iter(read_ahead(grain.MapDataset.source(source)))
    next(iterator)
    time.sleep(0.2)
    assert source.read <= 17


def test_fit_reads_every_batch_once():
    source = Counting(6)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    batches = batches_for_fit(grain.MapDataset.source(source))
    model.fit(batches, steps_per_epoch=3, epochs=2, shuffle=False, verbose=0)
    assert source.read == 6


def test_what_is_left_is_closed():
    before = set(threading.enumerate())
    batches = batches_for_fit(grain.MapDataset.source(Counting()))
    next(batches)
    started = set(threading.enumerate()) - before
    batches.close()
    for thread in started:
        thread.join(timeout=10)
    assert started
    assert not any(thread.is_alive() for thread in started)


@pytest.mark.slow
def test_processes_give_the_same_batches_and_few_of_them_are_ready(tmp_path):
    dataset = grain.MapDataset.range(1000).map(_Noting(tmp_path))
    batches = batches_for_fit(with_workers(dataset, 2))
    assert [next(batches) for _ in range(4)] == [(0,), (1,), (2,), (3,)]
    time.sleep(1)
    batches.close()
    assert len(list(tmp_path.iterdir())) <= 20


class _Noting:
    """Leaves a file for each number."""

    def __init__(self, folder):
        self._folder = folder

    def __call__(self, number):
        (self._folder / str(number)).touch()
        return number


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_processes_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "read.py"
    script.write_text(
        "import multiprocessing, time\n"
        "import grain\n"
        "from keras_taskrobust.data_loading import with_workers\n"
        "if __name__ == '__main__':\n"
        "    iterator = iter(with_workers(grain.MapDataset.range(1000), 2))\n"
        "    next(iterator)\n"
        "    print(*(child.pid for child in multiprocessing.active_children()), flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as parent:
        workers = parent.stdout.readline().split()
        parent.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while any(is_running(worker.decode()) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
