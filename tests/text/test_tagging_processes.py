"""Tagging in several processes: light, replaced when killed, gone with their parent."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest

from keras_taskrobust.text import (
    SPECIAL_TOKENS,
    WordPieceEncoder,
    annotate,
    load_corpus,
    tagging_process,
)
from keras_taskrobust.text import tagging_processes as processes

pytestmark = [
    pytest.mark.backend_free,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc"),
]

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ENCODER = WordPieceEncoder([*SPECIAL_TOKENS, *LETTERS, *("##" + c for c in LETTERS)])
ANNOTATION = ("textblob", "rules", "nine")
DOCUMENT = "Mr. Fox sleeps. He does not run."
MOST_MEGABYTES = 150


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children_of(pid):
    """The processes that a process has started, and that have not ended."""
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stats.append(path.read_text().rpartition(")"))
        except OSError:  # it has ended
            continue
    return [
        int(name.split()[0])
        for name, _, rest in stats
        if rest.split()[1] == str(pid) and rest.split()[0] != "Z"
    ]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def started(monkeypatch):
    """The ids of the processes that were started."""
    pids = []
    start = processes.subprocess.Popen

    def popen(*arguments, **options):
        process = start(*arguments, **options)
        pids.append(process.pid)
        return process

    monkeypatch.setattr(processes.subprocess, "Popen", popen)
    return pids


def test_a_process_that_tags_is_light(nltk_data, monkeypatch, capfd, tmp_path, started):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    process = processes._TaggingProcess(("nltk", "punkt", "nine"))
    assert process.annotate(tmp_path / "shard.npz", [DOCUMENT] * 1000) is None
    status = Path(f"/proc/{started[0]}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) < MOST_MEGABYTES * 1024
    assert process.end() == 0
    imported = {line.rpartition("|")[2].strip() for line in capfd.readouterr().err.splitlines()}
    assert "keras_taskrobust.text.annotator" in imported
    packages = {name.partition(".")[0] for name in imported}
    forbidden = {"keras", "keras_hub", "torch", "tensorflow", "jax", "grain"}
    assert packages & forbidden == set()


def test_a_process_ends_when_its_parent_is_killed(tmp_path):
    requests = tmp_path / "requests"
    with requests.open("wb") as file:
        for request in ((sys.path, []), ANNOTATION, (tmp_path / "shard.npz", [DOCUMENT] * 100_000)):
            pickle.dump(request, file)
    code = (
        "import subprocess, sys, time\n"
        "arguments = [sys.executable, sys.argv[1]]\n"
        "process = subprocess.Popen(arguments, stdin=subprocess.PIPE)\n"
        "process.stdin.write(open(sys.argv[2], 'rb').read())\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    script = [sys.executable, "-c", code, tagging_process.__file__, str(requests)]
    with subprocess.Popen(script, stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.5)
        assert is_running(pid)
        parent.kill()
    until(lambda: not is_running(pid), seconds=10)
    assert not (tmp_path / "shard.npz").exists()


def test_a_killed_process_is_replaced(tmp_path, monkeypatch, started, documents):
    arguments = {
        "encoder": ENCODER,
        "tagger": "textblob",
        "progress": False,
        "shard_characters": 10_000,
    }
    annotate(documents, tmp_path / "whole", workers=1, **arguments)
    collect = processes._collect

    killed = []

    def kill_the_first(*rest):
        if started and not killed:
            killed.append(started[0])
            os.kill(started[0], signal.SIGKILL)
        return collect(*rest)

    monkeypatch.setattr(processes, "_collect", kill_the_first)
    with pytest.warns(UserWarning, match="has ended with status -9; another one takes over"):
        annotate(documents, tmp_path / "killed", workers=2, **arguments)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert len(started) > 2
    until(lambda: not any(map(is_running, started)))


def test_processes_that_end_again_and_again_end_it(tmp_path, monkeypatch, started):
    script = tmp_path / "ends.py"
    script.write_text("raise SystemExit(3)")
    monkeypatch.setattr(tagging_process, "__file__", str(script))
    shards = iter([(tmp_path / "0.npz", [DOCUMENT])])
    with (
        pytest.warns(UserWarning, match="another one takes over"),
        pytest.raises(ChildProcessError, match=r"2 in a row.*at 0.npz, the last with status 3"),
    ):
        processes.annotate_in_processes(shards, ANNOTATION, 1, lambda: None)
    assert len(started) == 2


def test_an_error_in_a_process_is_raised(tmp_path, started):
    (tmp_path / "file").write_text("no folder")
    shards = iter([(tmp_path / "file" / "0.npz", [DOCUMENT])])
    with pytest.raises(OSError, match="file") as caught:
        processes.annotate_in_processes(shards, ANNOTATION, 1, lambda: None)
    assert "write_shard" in caught.value.__notes__[0]
    assert len(started) == 1
    assert not is_running(started[0])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_run_after_a_killed_one_is_right(tmp_path, workers):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n\n".join(islice(load_corpus("bundled").raw_documents(), 100)))
    arguments = {"tagger": "textblob", "shard_characters": 10_000, "progress": False}
    annotate(corpus, tmp_path / "whole", ENCODER, workers=1, **arguments)
    script = tmp_path / "run.py"  # nothing guards its call: processes that tag do not load it
    script.write_text(
        "import sys\n"
        "from keras_taskrobust.text import WordPieceEncoder, annotate\n"
        f"encoder = WordPieceEncoder({ENCODER.vocabulary})\n"
        f"annotate(sys.argv[1], sys.argv[2], encoder, workers={workers}, **{arguments})\n"
    )
    words = [sys.executable, str(script), str(corpus), str(tmp_path / "killed")]
    process = subprocess.Popen(words)
    until(lambda: len(list((tmp_path / "killed").glob("shards/0*.npz"))) > 3, seconds=300)
    children = children_of(process.pid)
    assert len(children) == (workers if workers > 1 else 0)
    process.kill()
    process.wait()
    until(lambda: not any(map(is_running, children)), seconds=10)
    assert not (tmp_path / "killed" / "manifest.json").exists()
    annotate(corpus, tmp_path / "killed", ENCODER, workers=workers, **arguments)
    assert contents(tmp_path / "whole") == contents(tmp_path / "killed")
