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
from keras_taskrobust.locks import locked
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
