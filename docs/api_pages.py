"""One page for each room of the library: its public names, with what their docstrings say."""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from docstrings import parse, signature_of, to_markdown

from keras_taskrobust import weighting

_PACKAGE = "keras_taskrobust"

_ROOMS = ("training", "weighting", "text", "vision", "downstream", "evaluation")

#: The recipes have no names of their own at the top: what takes any family, by module.
_RECIPES = {
    "recipes.pretraining": ("PretrainingFamily", "pretrain"),
    "recipes.comparison": ("compare",),
    "recipes.finetuning": ("finetune",),
    "recipes.inheritance": ("inherit",),
}

_DISTRIBUTION = {
    "distribution": (
        *("start", "scope", "alone", "processes", "process_id", "replicas", "part"),
        *("is_main", "main_first", "barrier", "gather", "check_alike"),
    )
}


def pages() -> dict[str, str]:
    """File names to Markdown."""
    rooms = {f"{room}.md": _page(room, {room: _public(room)}) for room in _ROOMS}
    others = {"recipes": _RECIPES, "distribution": _DISTRIBUTION}
    return rooms | {f"{title}.md": _page(title, names) for title, names in others.items()}


def _page(title: str, names: Mapping[str, Sequence[str]]) -> str:
    """A page of names by module."""
    parts = [f"# {title}", f"`{_PACKAGE}.{title}`. {parse(_module(title)).summary}"]
    if title == "weighting":
        parts.append("Each method has a page of its own: [Weightings](../../weightings.md).")
    parts += [_described(module, name) for module, some in names.items() for name in some]
    return "\n\n".join(parts) + "\n"


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{_PACKAGE}.{name}")


def _public(room: str) -> list[str]:
    module = _module(room)
    return [name for name in module.__all__ if not _is_method_of_weighing(getattr(module, name))]


def _is_method_of_weighing(thing: Any) -> bool:
    is_weighting = inspect.isclass(thing) and issubclass(thing, weighting.TaskWeighting)
    return is_weighting and thing.facts is not None


def _described(module: str, name: str) -> str:
    thing, path = getattr(_module(module), name), f"{_PACKAGE}.{module}.{name}"
    if inspect.isclass(thing):
        return _directive("class", path + signature_of(thing), _class_body(thing))
    if callable(thing):
        return _directive("function", path + signature_of(thing), to_markdown(thing))
    return _directive("data", path, _value(thing))


def _class_body(cls: type) -> str:
    own = {name: one for name, one in vars(cls).items() if not name.startswith("_")}
    members = [_member(name, one) for name, one in own.items()]
    return "\n\n".join([to_markdown(cls), *filter(None, members)])


def _member(name: str, one: Any) -> str:
    function = one.__func__ if isinstance(one, classmethod | staticmethod) else one
    if isinstance(one, property) and one.__doc__:
        return _directive("property", name, to_markdown(one), ":::")
    if inspect.isfunction(function) and function.__doc__ and name != "get_config":
        return _directive("method", name + signature_of(function), to_markdown(function), ":::")
    return ""


def _value(thing: Any) -> str:
    text = repr(thing if not isinstance(thing, dict) else tuple(thing))
    return f"```python\n{text}\n```" if len(text) < 1000 else ""


def _directive(kind: str, signature: str, body: str, fence: str = "::::") -> str:
    return f"{fence}{{py:{kind}}} {signature}\n\n{body}\n{fence}"
