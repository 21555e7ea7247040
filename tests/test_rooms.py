"""The direction of imports, and the confinement of the backends."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "keras_taskrobust"
ROOMS = (
    "checks",
    "files",
    "locks",
    "reading",
    "weighting",
    "training",
    "text",
    "vision",
    "downstream",
    "evaluation",
    "recipes",
    "cli_options",
    "cli",
)
BACKENDS = {"tensorflow", "jax", "torch"}
# The reader of PyTorch checkpoints imports torch inside its function.
EXCEPTIONS = {("vision/interchange.py", "torch")}
FILES = sorted(PACKAGE.rglob("*.py"))


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


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_before_it(path):
    own = room_of(path.relative_to(PACKAGE).parts)
    if own not in ROOMS:
        return
    for module in imported_modules(path):
        first, *rest = module.split(".")
        if first != "keras_taskrobust" or not rest or rest[0] not in ROOMS:
            continue
        assert ROOMS.index(rest[0]) <= ROOMS.index(own), module
        assert {own, rest[0]} != {"text", "vision"}, module


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_backends_are_imported_in_one_place(path):
    name = path.relative_to(PACKAGE).as_posix()
    if name.startswith("training/backends/"):
        return
    for module in imported_modules(path):
        backend = module.split(".")[0]
        assert backend not in BACKENDS or (name, backend) in EXCEPTIONS, module


def test_weighting_imports_keras_only():
    allowed = {"keras", "keras_taskrobust"} | set(sys.stdlib_module_names)
    for path in (PACKAGE / "weighting").glob("*.py"):
        for module in imported_modules(path):
            assert module.split(".")[0] in allowed, (path.name, module)


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


@pytest.mark.parametrize("path", sorted((PACKAGE / "weighting").glob("*.py")), ids=lambda p: p.name)
def test_no_weighting_multiplies_matrices(path):
    """Accelerators round the factors to ten bits, which is too little for a small exact problem."""
    products = {"matmul", "dot", "vdot", "inner", "tensordot", "einsum"}
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.MatMult), path
        assert not (isinstance(node, ast.Attribute) and node.attr in products), path
