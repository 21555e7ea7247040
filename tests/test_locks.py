"""One process at a time in a folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from keras_taskrobust.locks import locked, locks_directory

pytestmark = pytest.mark.backend_free

PACKAGE = Path(__file__).parent.parent / "keras_taskrobust"
# The modules without the package's own imports, which take seconds.
HOLD = """
import sys, time, types
sys.modules["keras_taskrobust"] = types.ModuleType("keras_taskrobust")
sys.modules["keras_taskrobust"].__path__ = [sys.argv[1]]
from keras_taskrobust.locks import locked, locks_directory
with locked(sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_process_is_told_who_is_there_until_that_dies(tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(PACKAGE), str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            expected = rf"Received: {run}, in use by process {holder.pid} on \S+ since 2"
            with pytest.raises(ValueError, match=expected), locked(run):
                pass
            with locked(tmp_path / "another"):
                pass
            for content in ("", "[]", "{}", "\0", "[" * 10**5):
                (run / ".lock").write_text(content)
                with pytest.raises(ValueError, match="in use by another process"), locked(run):
                    pass
            abandoned = run / ".0.partial-history.csv"
            abandoned.write_text("half")
        finally:
            holder.kill()
    with locked(run):
        assert not abandoned.exists()


def test_who_holds_a_folder_may_take_it_again(tmp_path, monkeypatch):
    @locks_directory
    def write(name, directory="run"):
        (directory / name).write_text(name)

    monkeypatch.chdir(tmp_path)
    with locked("run"):
        write("a", tmp_path / "run")
        write(directory=tmp_path / "run", name="b")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "a", "b"]


def fail_in(folder, *files):
    @locks_directory
    def fail(directory):
        for name, content in files:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(content)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fail(folder)


def test_a_start_that_fails_leaves_no_folder(tmp_path):
    settings, empty = ("recipe.json", "{}"), ("text/annotated/history.csv", "")
    fail_in(tmp_path / "runs" / "mine", settings, empty)
    assert list(tmp_path.iterdir()) == []
    fail_in(tmp_path / "runs" / "mine", settings, ("text/vocabulary.txt", "the"))
    assert (tmp_path / "runs" / "mine" / "recipe.json").exists()
    fail_in(tmp_path / "runs" / "other", settings)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine"]


def test_a_folder_that_was_there_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    fail_in(tmp_path / "mine", ("recipe.json", "{}"))
    assert (tmp_path / "mine" / "recipe.json").exists()
    with locked(tmp_path / "new"):
        pass
    assert (tmp_path / "new" / ".lock").exists()
