"""The outputs of a network by name, and what is given for them in structures like theirs."""

import contextlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras


def names_of_outputs(network: keras.Model) -> list[str] | None:
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


def names_in_logs(network: keras.Model) -> dict[str, str]:
    """What Keras calls outputs in nested dicts in the logs of their metrics: after their layers."""
    names, layers = names_of_outputs(network) or [], getattr(network, "output_names", [])
    if not any("/" in name for name in names) or len(set(layers)) < len(layers):
        return {}
    return dict(zip(names, layers, strict=True))


def flat_metrics(metrics, network):
    """Metrics in nested dicts as Keras takes them in one dict.

    In nested dicts, Keras 3.15 on PyTorch pairs the metrics of some outputs with others.
    """
    if not isinstance(metrics, Mapping):
        return metrics
    logged = names_in_logs(network)
    return {logged.get(name, name): metric for name, metric in by_name(metrics).items()}


def by_name(
    structure: Mapping, is_leaf: Callable[[str, Mapping], bool] | None = None, prefix: str = ""
) -> dict[str, Any]:
    """The leaves of nested dicts by the keys on the way to them, joined by `/`.

    Args:
        structure: dict of leaves or dicts.
        is_leaf: function of the name and a dict that tells whether this is a leaf; `None`: none is.
        prefix: what all names begin with.
    """
    found: dict[str, Any] = {}
    for key, value in structure.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and not (is_leaf and is_leaf(name, value)):
            found.update(by_name(value, is_leaf, f"{name}/"))
        else:
            found[name] = value
    return found


def weights_by_target(targets: Any, weights: Any) -> Any:
    """Weights in the structure of their targets, as Keras wants them.

    Args:
        targets: dicts of targets, or one.
        weights: dicts likewise, from which targets may be left out; or one for all of them.

    Returns:
        `weights` for each target, `None` for those that were left out.
    """
    if not isinstance(targets, Mapping):
        return weights
    if not isinstance(weights, Mapping):
        return keras.tree.map_structure(lambda target: weights, targets)
    unknown = sorted(set(weights) - set(targets))
    if unknown:
        raise ValueError(
            "The keys of `sample_weight` must be among those of the targets. "
            f"Received: {unknown}, for targets of {sorted(targets)}"
        )
    return {name: weights_by_target(one, weights.get(name)) for name, one in targets.items()}


@contextlib.contextmanager
def untrained_outputs():
    """A step in which variables get no gradient on purpose: Keras's optimizers warn of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gradients do not exist for variables")
        yield
