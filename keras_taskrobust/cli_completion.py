"""Completion of all commands in a shell, by tyro."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union

from keras_taskrobust.cli_parsing import option_registry, recipe_markers, with_recipes

FLAGS = ("--tyro-print-completion", "--tyro-write-completion")


def complete(options: Mapping[str, tuple[Any, Any]], words: Sequence[str]) -> None:
    """Prints or writes the script of a shell that completes commands, recipes and flags.

    Args:
        options: names of commands, of one or two words, to their dataclass and recipes, or `None`.
        words: one of `FLAGS`, the shell (bash, zsh, fish or tcsh) and, to write, a path.

    Raises:
        SystemExit: always, when it is done or the words say no shell.
    """
    import tyro

    groups: dict[str, dict[str, Any]] = {}
    for command, (kind, recipes) in options.items():
        first, _, second = command.partition(" ")
        groups.setdefault(first, {})[second] = with_recipes(kind, recipes) if recipes else kind
    tyro.cli(
        _one_of({name: _group(name, kinds) for name, kinds in groups.items()}),
        prog="taskrobust",
        args=list(words),
        config=recipe_markers(),
        registry=option_registry(),
    )


def _group(name, kinds):
    """A command of one word, or those that begin with the same word."""
    if "" in kinds:
        return kinds[""]
    return dataclasses.make_dataclass(name, [("of", _one_of(kinds))])


def _one_of(kinds):
    import tyro

    named = [Annotated[kind, tyro.conf.subcommand(name)] for name, kind in kinds.items()]
    # A second one, which is not shown, makes it a choice where there is one.
    return Union[(*named, Annotated[None, tyro.conf.Suppress])]
