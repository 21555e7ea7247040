"""The private names of Keras that the library leans on are there, and are used in one place."""

import ast
import importlib
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_taskrobust.training import keras_internals
from keras_taskrobust.training.keras_internals import PRIVATE_NAMES

PACKAGE = Path(keras_internals.__file__).parents[1]
INTERNALS = Path(keras_internals.__file__)
BACKENDS = sorted((INTERNALS.parent / "backends").glob("*.py"))
NAMES = {name for names in PRIVATE_NAMES.values() for name in names}


def trained_model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(use_ema=True), "mse")
    model.train_on_batch(np.ones((1, 2)), np.ones((1, 1)))
    return model


def adam_with_state():
    optimizer = keras.optimizers.Adam(amsgrad=True)
    optimizer.build([keras.Variable(1.0)])
    return optimizer


def built_attention():
    layer = keras.layers.MultiHeadAttention(2, 4, dropout=0.1)
    layer.build((1, 3, 4), (1, 3, 4))
    return layer


#: One of each kind in `PRIVATE_NAMES`, and the backend that has it, if it is one alone.
EXAMPLES = {
    "model": (trained_model, None),
    "optimizer": (lambda: trained_model().optimizer, None),
    "optimizer of optimizers": (
        lambda: keras.optimizers.MultiOptimizer(lambda variable: keras.optimizers.SGD()),
        None,
    ),
    "Adam": (adam_with_state, None),
    "attention": (built_attention, None),
    "variable": (lambda: keras.Variable(1.0), None),
    "loss": (lambda: keras.losses.CategoricalCrossentropy(axis=1), None),
    "model on JAX": (trained_model, "jax"),
    "model on TensorFlow": (trained_model, "tensorflow"),
    "probabilities on TensorFlow": (
        lambda: keras.activations.softmax(keras.ops.ones((1, 2))),
        "tensorflow",
    ),
    "graph of TensorFlow": (
        lambda: importlib.import_module("tensorflow").compat.v1.get_default_graph(),
        "tensorflow",
    ),
    "jax.interpreters.partial_eval": (
        lambda: importlib.import_module("jax.interpreters.partial_eval"),
        "jax",
    ),
}


@pytest.mark.parametrize("kind", PRIVATE_NAMES)
def test_keras_has_the_names(kind):
    make, backend = EXAMPLES[kind]
    if backend not in (None, keras.backend.backend()):
        pytest.skip(f"of the backend {backend}")
    example = make()
    missing = [name for name in PRIVATE_NAMES[kind] if not hasattr(example, name)]
    assert not missing


def names_in(tree):
    """Attributes, methods and strings, and modules that names are imported from."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.Constant(value=str(name)):
                yield name
            case ast.ClassDef(body=body):
                yield from (one.name for one in body if isinstance(one, ast.FunctionDef))
            case ast.ImportFrom(module=str(name)):
                yield name


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name.isidentifier()


def test_they_are_used_in_one_file_and_behind_the_backends():
    elsewhere = [
        (path.relative_to(PACKAGE).as_posix(), name)
        for path in sorted(PACKAGE.rglob("*.py"))
        if path not in (INTERNALS, *BACKENDS)
        for name in names_in(ast.parse(path.read_text()))
        if name in NAMES or name.startswith(("keras.src", "keras_hub.src"))
    ]
    assert not elsewhere


def test_the_table_has_those_that_are_used_and_no_others():
    tree = ast.parse(INTERNALS.read_text())
    tree.body = [one for one in tree.body if "PRIVATE_NAMES" not in ast.unparse(one)]
    here = set(names_in(tree))
    behind = {name for path in BACKENDS for name in names_in(ast.parse(path.read_text()))}
    assert {name for name in here if is_private(name)} <= NAMES
    assert here | behind >= NAMES
