"""Files are read without pickle and without code: checkpoints, presets, data, whoever made them."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "keras_taskrobust"
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
#: Pickles of the process itself, through a pipe to those that it started.
PIPES = {"text/tagging_process.py", "text/tagging_processes.py"}
#: Functions that read, with the argument that makes them safe.
READERS = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "load_model": ("safe_mode", True),
    "deserialize_keras_object": ("safe_mode", True),
}
#: What must be stated: in older versions the default was another one.
STATED = ("torch.load",)
RUNNING = ("eval", "exec", "enable_unsafe_deserialization")
UNPICKLING = ("pickle.load", "pickle.loads", "pickle.Unpickler")

pytestmark = pytest.mark.backend_free


def faults_in(code):
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        words = {word.arg: ast.unparse(word.value) for word in node.keywords}
        for reader, (word, safe) in READERS.items():
            default = "" if reader in STATED else str(safe)
            if f".{function}".endswith(f".{reader}") and words.get(word, default) != str(safe):
                yield ast.unparse(node)
        if function.split(".")[-1] in RUNNING or function in UNPICKLING:
            yield ast.unparse(node)


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "keras.saving.load_model(path, safe_mode=False)",
        "pickle.loads(content)",
        "eval(text)",
    ],
)
def test_a_fault_is_seen(code):
    assert list(faults_in(code)) == [code]


def test_nothing_that_is_read_runs():
    found = {name: list(faults_in(path.read_text())) for name, path in FILES.items()}
    assert {name for name, faults in found.items() if faults} == PIPES
    assert all("pickle.load(" in fault for name in PIPES for fault in found[name])
