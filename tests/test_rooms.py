"""The direction of imports, and the confinement of the backends."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "keras_taskrobust"
ROOMS = (
    "moved_modules",
    "types",
    "checks",
    "keras_start",
    "weighting_names",
    "parts",
    "plain_text",
    "files",
    "map_folders",
    "locks",
    "interruption",
    "hugging_face_files",
    "data_loading",
    "randomness",
    "weighting",
    "training",
    "devices",
    "distribution",
    "text",
    "vision",
    "downstream",
    "evaluation",
    "recipes",
    "cli_options",
    "cli_parsing",
    "cli_processes",
    "cli_errors",
    "cli_modalities",
    "cli_completion",
    "cli",
)
BACKENDS = {"tensorflow", "jax", "torch"}
# The reader of PyTorch checkpoints imports torch inside its function.
EXCEPTIONS = {("vision/multimae_checkpoints.py", "torch")}
FILES = sorted(PACKAGE.rglob("*.py"))
WEIGHTINGS = sorted((PACKAGE / "weighting").glob("*.py"))

pytestmark = pytest.mark.backend_free


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"{path}: relative import")
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(parts):
    return parts[0].removesuffix(".py")


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def test_a_room_imports_only_rooms_before_it():
    offenders = []
    for path in FILES:
        own = room_of(path.relative_to(PACKAGE).parts)
        for module in imported_modules(path) if own in ROOMS else ():
            first, *rest = module.split(".")
            if first != "keras_taskrobust" or not rest or rest[0] not in ROOMS:
                continue
            strangers = {own, rest[0]} == {"text", "vision"}
            if strangers or ROOMS.index(rest[0]) > ROOMS.index(own):
                offenders.append((name_of(path), module))
    assert not offenders


def private(name):
    return name.startswith("_") and not name.startswith("__")


def test_no_private_name_is_imported_across_files():
    """And a private module only in its own folder."""
    offenders = []
    for path in FILES:
        folder = ".".join(["keras_taskrobust", *path.relative_to(PACKAGE).parts[:-1]])
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                parent, _, module = node.module.rpartition(".")
                names = [alias.name for alias in node.names if private(alias.name)]
                names += [node.module] if private(module) and parent != folder else []
                offenders += [(name_of(path), name) for name in names]
    assert not offenders


def test_backends_are_imported_in_one_place():
    offenders = [
        (name_of(path), module)
        for path in FILES
        if not name_of(path).startswith("training/backends/")
        for module in imported_modules(path)
        if (backend := module.split(".")[0]) in BACKENDS
        and (name_of(path), backend) not in EXCEPTIONS
    ]
    assert not offenders


def test_beam_is_imported_in_one_place_which_nothing_imports():
    importing = {
        (name_of(path), module.split(".")[0])
        for path in FILES
        for module in imported_modules(path)
        if module.startswith(("apache_beam", "keras_taskrobust.text.beam"))
    }
    assert importing == {("text/beam.py", "apache_beam")}


def test_weighting_imports_keras_only():
    allowed = {"keras", "keras_taskrobust"} | set(sys.stdlib_module_names)
    offenders = [
        (name_of(path), module)
        for path in WEIGHTINGS
        for module in imported_modules(path)
        if module.split(".")[0] not in allowed
    ]
    assert not offenders


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_importing_the_package_loads_no_second_backend_and_no_keras_hub(backend):
    others = BACKENDS - {backend} | {"keras_hub", "nltk"}
    code = (
        "import sys, keras\n"
        "before = set(sys.modules)\n"
        "import keras_taskrobust\n"
        f"print(sorted({others!r} & set(sys.modules) - before), 'tensorflow' in sys.modules)"
    )
    environment = {**os.environ, "KERAS_BACKEND": backend}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[] False"


def test_a_corpus_is_prepared_without_keras(tmp_path):
    (tmp_path / "text.txt").write_text("\n\n".join(["The old cat sat on a mat. It slept."] * 40))
    words = ["prepare", "text", "pos-bert-tiny", "--corpus", "text.txt", "--output", "run"]
    code = (
        "import sys\n"
        "from keras_taskrobust.cli import main\n"
        f"main({[*words, '--workers', '1', '--vocabulary-size', '60']!r})\n"
        "print([name for name in ('keras', 'jax', 'torch', 'tensorflow') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_rooms_are_there_and_shown():
    code = (
        "import sys, keras_taskrobust as ktr\n"
        "print('keras_taskrobust.evaluation' in sys.modules)\n"
        "print(set(ktr.__all__) <= set(dir(ktr)))\n"
        "print(ktr.evaluation.TaskScores.__module__)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["False", "True", "keras_taskrobust.evaluation.scores"]


def test_a_missing_extra_is_named():
    code = (
        "import sys; sys.modules['grain'] = None\n"
        "import keras_taskrobust as ktr\n"
        "try: ktr.text\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "keras-taskrobust[models]" in result.stdout
    assert "not installed: grain." in result.stdout


def test_no_weighting_multiplies_matrices():
    """Accelerators round the factors to ten bits, which is too little for a small exact problem."""
    products = {"matmul", "dot", "vdot", "inner", "tensordot", "einsum"}
    offenders = [
        (name_of(path), node.lineno)
        for path in WEIGHTINGS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(getattr(node, "op", None), ast.MatMult)
        or (isinstance(node, ast.Attribute) and node.attr in products)
    ]
    assert not offenders
