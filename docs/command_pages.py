"""One page for each command: what `--help` says, and what the recipes set."""

import contextlib
import dataclasses
import io
import os
from typing import Any
from unittest import mock

from keras_taskrobust import cli
from keras_taskrobust.cli_modalities import IMAGES, TEXT

#: Columns of the help.
_WIDTH = "88"

_RECIPES = {
    "prepare": "pretraining",
    "pretrain": "pretraining",
    "compare": "pretraining",
    "finetune": "finetuning",
    "inherit": "inheritance",
}


def pages() -> dict[str, str]:
    """File names to Markdown."""
    return {f"{_file_name(name)}.md": _page(name) for name in cli.COMMANDS}


def _page(name: str) -> str:
    summary = cli.COMMANDS[name].summary
    parts = [f"# taskrobust {name}", f"{summary[0].upper()}{summary[1:]}."]
    recipes = _recipes(name)
    parts.append(_help(name))
    if recipes:
        *_, last = recipes
        parts += [f"## Options, with the recipe {last}", _help(f"{name} {last}")]
        parts += [_differences(recipes)]
    return "\n\n".join(parts) + "\n"


def _recipes(name: str) -> dict[str, tuple[str, Any]]:
    verb, _, noun = name.partition(" ")
    modality = {"text": TEXT, "images": IMAGES}.get(noun)
    if modality is None or verb not in _RECIPES:
        return {}
    return dict(getattr(modality, _RECIPES[verb]))


def _help(words: str) -> str:
    said = io.StringIO()
    environment = {"COLUMNS": _WIDTH, "NO_COLOR": "1", "TERM": "dumb"}
    with (
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
    ):
        cli.main([*words.split(), "--help"])
    return f"```text\n{said.getvalue().strip()}\n```"


def _differences(recipes: dict[str, tuple[str, Any]]) -> str:
    """A table of the settings in which the recipes differ."""
    settings = {name: _flat(recipe) for name, (_, recipe) in recipes.items()}
    fields = [field for field in next(iter(settings.values())) if _differs(field, settings)]
    if not fields:
        return ""
    rows = [("setting", *(f"`{name}`" for name in settings)), ("---",) * (1 + len(settings))]
    rows += [
        (f"`--{field.replace('_', '-')}`", *(str(one.get(field, "")) for one in settings.values()))
        for field in fields
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"## What the recipes set\n\nAll other settings are the same in all of them.\n\n{table}"


def _flat(recipe: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        found |= _flat(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return found


def _differs(field: str, settings: dict[str, dict[str, Any]]) -> bool:
    return len({repr(one.get(field)) for one in settings.values()}) > 1


def _file_name(name: str) -> str:
    return name.replace(" ", "-")
