"""From words to the dataclasses of `cli_options`, by tyro."""

import contextlib
import dataclasses
import io
import re
import sys
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from keras_taskrobust.cli_help import add_help
from keras_taskrobust.cli_options import parse_options
from keras_taskrobust.plain_text import one_line
from keras_taskrobust.recipes.settings import WeightingName, WeightingOptions
from keras_taskrobust.weighting_names import WEIGHTINGS


def parse_with_recipe(words, program, kind, recipes):
    """As `parse`: a recipe's name, its fields and those of `kind`, in any order after the name.

    Args:
        words: list of strings.
        program: string.
        kind: a dataclass that takes the settings of a recipe as its parameter.
        recipes: names to a description and the settings.

    Returns:
        One of `kind`.
    """
    about = one_line((typing.get_origin(kind) or kind).__doc__)
    settings = f"{program} {list(recipes)[-1]} --help"
    description = f"{about} The settings of a recipe are listed by `{settings}`."
    words = _with_warmup(words, recipes)
    return parse(with_recipes(kind, recipes), words, program, recipe_markers(), description)


def with_recipes(kind, recipes):
    """A dataclass whose parameter is chosen by a recipe's name, as tyro takes it."""
    import tyro

    chosen = tyro.extras.subcommand_type_from_defaults(
        {name: recipe for name, (_, recipe) in recipes.items()},
        descriptions={name: description for name, (description, _) in recipes.items()},
    )
    return kind[chosen]


def recipe_markers():
    """How tyro shows what has a recipe: flags without prefix, in any order after its name."""
    import tyro

    return (
        tyro.conf.OmitArgPrefixes,
        tyro.conf.OmitSubcommandPrefixes,
        tyro.conf.CascadeSubcommandArgs,
    )


def _with_warmup(words, recipes):
    """The words, with the recipe's share of warm-up where what is given leaves no room for its own.

    `--steps` is given, or `--epochs`.
    """
    recipe = next((recipes[word][1] for word in words if word in recipes), None)
    for name in ("steps", "epochs"):
        given = re.search(rf"--{name}[ =](\d+)", " ".join(words))
        whole, warmup = (getattr(recipe, one, None) for one in (name, f"warmup_{name}"))
        if not (given and whole and warmup) or flag(f"warmup_{name}") in flags_of(words):
            continue
        number = int(given[1])
        if number <= warmup:
            words = [*words, flag(f"warmup_{name}"), str(warmup * number // whole)]
    return words


def parse(kind, words, program, config=(), description=None):
    """What the words of a command say.

    Args:
        kind: a dataclass.
        words: list of strings.
        program: string. What is run, for the help.
        config: sequence of tyro's markers.
        description: string, what help begins with; by default what the dataclass is.

    Returns:
        One of `kind`.

    Raises:
        ValueError: a dataclass refuses what they say; it is named by its flag.
        SystemExit: they are no words of the command, or ask for its help.
    """
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                prog=program,
                description=description,
                args=words,
                config=config,
                registry=option_registry(),
            )
    except SystemExit as stop:
        refusal = _refusal(stop)
        if refusal is None:
            sys.stderr.write(said.getvalue())
            raise
    raise ValueError(with_flags(refusal, field_names(kind)))


def flags_of(words: Iterable[str]) -> set[str]:
    """The flags among the words of a command."""
    return {word.split("=")[0].replace("_", "-") for word in words if word.startswith("--")}


def flag(name: str) -> str:
    """The flag of a field."""
    return f"--{name.replace('_', '-')}"


def refuse_unused(words: Sequence[str], unused: Mapping[str, str]) -> None:
    """Refuses flags that change nothing beside the others.

    Args:
        words: list of strings, those of the command.
        unused: names of fields that change nothing, to what they are for.

    Raises:
        ValueError: there is one of them.
    """
    given = flags_of(words)
    for name, what in unused.items():
        if flag(name) in given or flag(f"no_{name}") in given:
            raise ValueError(
                f"`{flag(name)}` is for {with_flags(what)}, and would change nothing here. "
                f"Received: {' '.join(words)}"
            )


def with_flags(
    text: str, names: Collection[str] | None = None, others: Mapping[str, str] | None = None
) -> str:
    """A text in which names in backquotes are flags.

    Args:
        text: string.
        names: the names that have a flag; by default all.
        others: names to those whose flag they have.

    Returns:
        string.

    Example:

    >>> with_flags("`source` and `batch_size`, not `x`", {"batch_size"}, {"source": "corpus"})
    '`--corpus` and `--batch-size`, not `x`'
    """

    def replaced(found):
        name = (others or {}).get(found[1], found[1])
        is_known = names is None or name in names or name != found[1]
        return f"`{flag(name)}`" if is_known else found[0]

    return re.sub(r"`(\w+)`", replaced, text)


def option_registry():
    """How flags say options, NAME=VALUE NAME=VALUE, and weightings, whose names help lists."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

    registry = ConstructorRegistry()
    add_help(registry)

    @registry.primitive_rule
    def options(info):
        if info.type != WeightingOptions:
            return None
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar="[OPTION=VALUE ...]",
            instance_from_str=lambda words: parse_options(",".join(words)),
            is_instance=lambda value: isinstance(value, Mapping),
            str_from_instance=lambda value: [f"{k}={v!r}" for k, v in value.items()],
        )

    @registry.primitive_rule
    def weighting(info):
        if info.type is not WeightingName:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=f"{{{','.join(WEIGHTINGS)}}}",
            instance_from_str=lambda words: words[0],
            is_instance=lambda value: isinstance(value, str),
            str_from_instance=lambda value: [value],
        )

    return registry


def _refusal(stop):
    """What a dataclass said that tyro could not make; `None` if it was not even tried."""
    error = stop.__context__
    while error is not None:
        if isinstance(error, ValueError) and "Received: " in str(error):
            return str(error)
        error = error.__context__
    return None


def field_names(kind: Any) -> set[str]:
    """The fields of a dataclass, and of those that it is parametrised with."""
    parts = [kind, typing.get_origin(kind), *typing.get_args(kind)]
    kinds = [one for one in parts if isinstance(one, type) and dataclasses.is_dataclass(one)]
    names = {field.name for one in kinds for field in dataclasses.fields(one)}
    return names.union(*(field_names(one) for one in typing.get_args(kind)))
