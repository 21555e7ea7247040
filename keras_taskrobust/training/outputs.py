"""The outputs of a network by name, and what is given for them in structures like theirs."""

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any

import keras


def names_of_outputs(network) -> list[str] | None:
    """The names of a network's outputs in Keras's order, `None` if only a call can tell them.

    Outputs in a dict are named by their keys, joined by `/` where dicts nest; all others by their
    layers.
    """
    if isinstance(network, keras.Sequential):
        return [network.layers[-1].name] if network.layers else None
    names = getattr(network, "output_names", None)
    if names is None or not isinstance(network.output, Mapping):
        return names
    return ["/".join(map(str, path)) for path, _ in keras.tree.flatten_with_path(network.output)]


def map_named(function, structure, is_leaf=None, name=""):
    """`function(name, leaf)` of every leaf of nested dicts, or of a list, in a structure like it.

    Args:
        function: what to call.
        structure: a leaf, a list or tuple of leaves, or dicts of leaves or dicts.
        is_leaf: function of the name and a dict that tells whether this is a leaf; `None`: none is.
        name: the keys on the way to the structure, joined by `/`.
    """
    if isinstance(structure, Mapping) and not (is_leaf and is_leaf(name, structure)):
        prefix = f"{name}/" if name else ""
        return {
            key: map_named(function, value, is_leaf, f"{prefix}{key}")
            for key, value in structure.items()
        }
    if isinstance(structure, list | tuple) and not name:
        return [function(str(index), leaf) for index, leaf in enumerate(structure)]
    return function(name, structure)


def by_name(structure: Mapping, is_leaf=None) -> dict[str, Any]:
    """The leaves of nested dicts by their names, as `map_named` forms them."""
    found: dict[str, Any] = {}
    map_named(found.__setitem__, structure, is_leaf)
    return found


@contextlib.contextmanager
def untrained_outputs():
    """A step in which variables get no gradient on purpose: Keras's optimizers warn of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gradients do not exist for variables")
        yield
