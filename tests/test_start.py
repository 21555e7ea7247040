"""How quickly and how quietly the package and its commands start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from weighting_cases import NAMES

import keras_taskrobust as ktr
from keras_taskrobust import keras_start
from keras_taskrobust.weighting_names import WEIGHTINGS

pytestmark = pytest.mark.backend_free

HEAVY = {"keras", "jax", "torch", "tensorflow", "scipy", "sklearn", "matplotlib", "keras_hub"}
HEAVY |= {"grain", "nltk", "PIL", "h5py", "safetensors", "transformers"}
ROOMS = {"weighting", "training", "text", "vision", "downstream", "evaluation", "recipes"}


def run_python(code, **environment):
    ours = ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL")
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        capture_output=True,
        text=True,
    )


COMMANDS = [
    "--help",
    "--version",
    "nonsense",
    "pretrain --help",
    "demo --help",
    "demo --nonsense",
    "report --help",
    "export --help",
    "export nowhere --to nonsense",
    "prepare text pos-bert-tiny --help",
    "pretrain text --help",
    "pretrain text pos-bert-tiny --help",
    "pretrain text pos-bert-tiny --weighting nonsense",
    "pretrain text pos-bert-tiny --steps 0",
    "pretrain text --tyro-print-completion bash",
    "pretrain images nonsense",
    "pretrain images mm-mae-tiny --help",
    "finetune text small --help",
    "finetune images small --help",
    "inherit text small --help",
    "inherit images small --help",
    "compare text pos-bert-tiny --weightings uniform nonsense",
    "compare text pos-bert-tiny --help",
    "compare images mm-mae-tiny --help",
]


def test_help_and_wrong_words_load_nothing_heavy():
    code = (
        "import sys\n"
        "from keras_taskrobust import cli\n"
        f"for words in {COMMANDS!r}:\n"
        "    try: cli.main(words.split())\n"
        "    except SystemExit: pass\n"
        f"    loaded = sorted({HEAVY!r} & set(sys.modules))\n"
        "    assert not loaded, (words, loaded)\n"
        "print('nothing')"
    )
    result = run_python(code)
    assert result.stdout.endswith("nothing\n"), result.stderr
    assert f"taskrobust {ktr.__version__}\n" in result.stdout


def test_the_rooms_are_there_and_load_when_they_are_used():
    code = (
        "import sys\n"
        "import keras_taskrobust as ktr\n"
        "names = dir(ktr)\n"
        f"assert not {HEAVY!r} & set(sys.modules)\n"
        "loaded = [name for name in sys.modules if name.startswith('keras_taskrobust.')]\n"
        "assert loaded == ['keras_taskrobust.moved_modules'], loaded\n"
        "print(*names)"
    )
    result = run_python(code)
    assert ROOMS | {"GroupedLoss", "MinimaxModel", "__version__"} <= set(result.stdout.split())
    for name in ROOMS:
        assert getattr(ktr, name).__name__ == f"keras_taskrobust.{name}"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ktr.nonsense


def test_importing_the_package_adds_nothing_to_importing_keras():
    """But for the classes that Keras opens saved models with."""
    code = (
        "import sys, keras\n"
        "before = {name.split('.')[0] for name in sys.modules}\n"
        "import keras_taskrobust\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} - before))\n"
        "print(keras.saving.get_registered_object('keras_taskrobust>MinimaxModel'))"
    )
    result = run_python(code, KERAS_BACKEND="torch")
    names, model = result.stdout.splitlines()
    assert names == "['keras_taskrobust']"
    assert "MinimaxModel" in model


def test_the_names_of_the_weightings_are_those_of_the_registry():
    assert sorted(NAMES) == list(WEIGHTINGS)


@pytest.fixture
def choose(tmp_path, monkeypatch, capsys):
    """What is chosen with these backends and this keras.json, and what is said."""

    def choose(installed, settings=None, backend=None):
        monkeypatch.delitem(sys.modules, "keras", raising=False)
        monkeypatch.setenv("KERAS_BACKEND", backend or "")
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.setattr(keras_start.importlib.util, "find_spec", installed.__contains__)
        if settings is not None:
            (tmp_path / "keras.json").write_text(settings)
        keras_start.choose_backend()
        return os.environ["KERAS_BACKEND"], capsys.readouterr().err

    return choose


BY_KERAS = json.dumps(
    {
        "floatx": "float32",
        "epsilon": 1e-07,
        "backend": "tensorflow",
        "image_data_format": "channels_last",
    }
)


@pytest.mark.parametrize(
    ("installed", "settings", "chosen"),
    [
        (("tensorflow", "torch", "jax"), None, "jax"),
        (("tensorflow", "torch"), None, "torch"),
        (("tensorflow",), None, "tensorflow"),
        (("tensorflow", "jax"), BY_KERAS, "jax"),
        (("torch",), '{"floatx": "float32"}', "torch"),
        (("torch",), "{", "torch"),
    ],
)
def test_an_installed_backend_is_taken_and_named(choose, installed, settings, chosen):
    said = f"KERAS_BACKEND is not set: {chosen} is used.\n"
    assert choose(installed, settings) == (chosen, said)


def test_a_backend_that_is_named_is_left(choose):
    assert choose(("jax", "torch"), backend="torch") == ("torch", "")
    assert choose(("jax", "torch"), '{"backend": "torch"}') == ("", "")


def test_no_backend_is_an_error(choose):
    with pytest.raises(ModuleNotFoundError, match=r"Install one: pip install .*\[jax\]"):
        choose(())


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch", "tensorflow"])
def test_an_error_is_all_that_is_said(backend, tmp_path):
    words = ["pretrain", "text", "pos-bert-tiny", "--corpus", str(tmp_path / "nowhere")]
    words += ["--output", str(tmp_path / "run")]
    code = f"from keras_taskrobust import cli; cli.main({words!r})"
    result = run_python(code, KERAS_BACKEND=backend)
    (line,) = result.stderr.splitlines()
    assert line.startswith("taskrobust pretrain text: ")
    assert "nowhere" in line


@pytest.mark.parametrize("room", ["text import PosBert", "vision import MultiModalMAE"])
def test_with_a_model_comes_what_its_saved_optimizer_names(room):
    code = (
        f"from keras_taskrobust.{room}\n"
        "import keras\n"
        "print(sorted(keras.saving.get_custom_objects()))"
    )
    result = run_python(code, KERAS_BACKEND=os.environ.get("KERAS_BACKEND", "torch"))
    assert "'keras_taskrobust>LinearWarmupDecay'" in result.stdout, result.stderr


def test_a_command_keeps_what_jax_compiles(tmp_path, monkeypatch):
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_COMPILATION_CACHE_MAX_SIZE"):
        monkeypatch.setenv(name, "")  # which monkeypatch puts back, whatever is done to it
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    keras_start.keep_programs()
    assert Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).is_relative_to(tmp_path)
    assert int(os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"]) == 2 * 2**30


@pytest.mark.parametrize("reason", ["the environment names a folder", "the folder is a file"])
def test_programs_are_not_kept_where_they_may_not_be(reason, tmp_path, monkeypatch):
    named = reason == "the environment names a folder"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    if not named:
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        tmp_path = tmp_path / "file"
        tmp_path.touch()
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    keras_start.keep_programs()
    assert os.environ.get("JAX_COMPILATION_CACHE_DIR") == ("elsewhere" if named else None)
