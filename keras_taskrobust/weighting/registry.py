"""The weightings by name."""

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import keras

from keras_taskrobust import checks
from keras_taskrobust.weighting.base import PACKAGE, TaskWeighting

_REGISTRY: dict[str, type[TaskWeighting]] = {}
_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

Weighting = TypeVar("Weighting", bound=type[TaskWeighting])


def register(name: str) -> Callable[[Weighting], Weighting]:
    """Class decorator: makes a `TaskWeighting` known to `get`, to `compile` and to saved models.

    Args:
        name: str. The name for `get(name)` and `compile(weighting=name)`.

    Returns:
        A class decorator.

    Example:

    >>> @register("always_first")
    ... class AlwaysFirst(TaskWeighting):
    ...     def weigh(self, tasks):
    ...         return keras.ops.one_hot(0, tasks.losses.shape[0])
    >>> get("always_first")
    <AlwaysFirst name=always_first, built=False>
    """

    if not isinstance(name, str):
        raise TypeError(f'`register` expects a name: `@register("mine")`. Received: {name}')

    def add(cls: Weighting) -> Weighting:
        if not (inspect.isclass(cls) and issubclass(cls, TaskWeighting)):
            raise TypeError(f"`register` expects a subclass of TaskWeighting. Received: {cls}")
        known = _REGISTRY.get(name)
        if known is not None and _origin(known) != _origin(cls):
            raise ValueError(
                f"The weighting {name!r} is registered already, as {_origin(known)}. "
                f"Received: {_origin(cls)}"
            )
        _REGISTRY[name] = cls
        # Under its name, not its class name: a user's own `GradNorm` does not replace ours.
        return keras.saving.register_keras_serializable(PACKAGE, name)(cls)

    return add


def _origin(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def available() -> tuple[str, ...]:
    """The names `get` knows, sorted.

    Example:

    >>> "minimax" in available()
    True
    """
    return tuple(sorted(_REGISTRY))


def options_of(name: str) -> tuple[str, ...]:
    """The names of the options that a weighting has: what its constructor takes, beside a layer's.

    Args:
        name: str. One of `available()`.

    Returns:
        tuple of str.

    Raises:
        ValueError: if the name is unknown.

    Example:

    >>> options_of("dwa")
    ('temperature', 'window')
    >>> options_of("uniform")
    ()
    """
    names: dict[str, None] = {}
    cls = _class_of(name)
    for kind in cls.__mro__[: cls.__mro__.index(TaskWeighting)]:
        if "__init__" not in vars(kind):
            continue
        _, *parameters = inspect.signature(vars(kind)["__init__"]).parameters.values()
        names |= dict.fromkeys(one.name for one in parameters if one.kind not in _STARRED)
        if all(one.kind is not one.VAR_KEYWORD for one in parameters):
            break
    return tuple(names)


def create(name: str, options: Mapping[str, Any]) -> TaskWeighting:
    """Makes a weighting by its name, with options.

    Args:
        name: str. One of `available()`.
        options: names out of `options_of(name)` to values, as its constructor takes them.

    Returns:
        A `TaskWeighting`.

    Raises:
        ValueError: if the name is unknown, the weighting has no such option, or refuses its value.

    Example:

    >>> create("group_dro", {"step_size": 0.1}).step_size
    0.1
    """
    known = options_of(name)
    unknown = [option for option in options if option not in known]
    if unknown:
        known_ones = f"the options {', '.join(known)}" if known else "no options"
        raise ValueError(
            f"The weighting {name!r} has {known_ones}. "
            f"Received: {', '.join(f'{option}={options[option]}' for option in unknown)}"
        )
    try:
        return _class_of(name)(name=name, **options)
    except (TypeError, LookupError) as error:
        raise ValueError(
            f"The weighting {name!r} must have options that it takes: {error}. Received: {options}"
        ) from error


def _class_of(name: str) -> type[TaskWeighting]:
    if name not in _REGISTRY:
        raise ValueError(
            f"Unknown weighting. Expected one of {', '.join(available())}. "
            f"Received: {name!r}{checks.did_you_mean(name.lower(), _REGISTRY)}"
        )
    return _REGISTRY[name]


def get(identifier: str | dict | TaskWeighting) -> TaskWeighting:
    """Returns a weighting, as `keras.optimizers.get` returns an optimizer.

    Args:
        identifier: a name out of `available()`, a layer's `{"class_name", "config"}` dict, or a
            `TaskWeighting`, which is returned as it is.

    Returns:
        A `TaskWeighting`.

    Raises:
        ValueError: if the name is unknown.
        TypeError: if `identifier` is something else.

    Example:

    >>> get("group_dro").step_size
    0.01
    """
    if isinstance(identifier, dict) and "class_name" in identifier:
        identifier = keras.saving.deserialize_keras_object(copy.deepcopy(identifier))
    if isinstance(identifier, TaskWeighting):
        return identifier
    if isinstance(identifier, str):
        return _class_of(identifier)(name=identifier)
    raise TypeError(
        "A weighting must be a name, a config dict or a TaskWeighting. "
        f"Received: {identifier!r} (of type {type(identifier).__name__}){_way_out(identifier)}"
    )


def _way_out(identifier: Any) -> str:
    if inspect.isclass(identifier) and issubclass(identifier, TaskWeighting):
        return f". Give an instance: `{identifier.__name__}()`"
    if isinstance(identifier, Mapping):
        return '. Options go by `keras_taskrobust.weighting.create("minimax", {"alpha": 2.0})`'
    if callable(identifier):
        return ". Weights of your own are a subclass of TaskWeighting with `weigh(self, tasks)`"
    return ""
