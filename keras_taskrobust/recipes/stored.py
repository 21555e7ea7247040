"""JSON that a command wrote, read as if anybody had written it."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

#: The most characters of a name.
_LONGEST_NAME = 200


class DamagedFileError(ValueError):
    """A file does not hold what the command wrote that is said to have written it."""


class Kind(NamedTuple):
    """What a field may hold.

    Attributes:
        words: string. What it is called in errors.
        accepts: from a value to whether it is of the kind.
    """

    words: str
    accepts: Callable[[Any], bool]


def is_name(value: Any) -> bool:
    """Whether it is a string that can be shown in a line: characters that are printed."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= _LONGEST_NAME
        and value.isprintable()
        and not value.isspace()
    )


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


NAME = Kind(f"a name of up to {_LONGEST_NAME} printable characters", is_name)
TEXT = Kind("a text", lambda value: isinstance(value, str))
SEED = Kind(
    "an integer from 0 to 2**32 - 1", lambda value: type(value) is int and 0 <= value < 2**32
)
COUNT = Kind("an integer >= 0", lambda value: type(value) is int and 0 <= value < 2**63)
SECONDS = Kind("a number >= 0", lambda value: _is_number(value) and value >= 0)
#: Not a number where a metric has no value.
FIGURE = Kind(
    "a number", lambda value: _is_number(value) or (type(value) is float and math.isnan(value))
)


def one_of(*values: str) -> Kind:
    """One of some strings."""
    return Kind(" or ".join(map(repr, values)), lambda value: value in values)


def list_of(kind: Kind) -> Kind:
    """A list of values of a kind."""
    return Kind(
        f"a list, each {kind.words}",
        lambda value: isinstance(value, list | tuple) and all(map(kind.accepts, value)),
    )


def mapping_to(kind: Kind, keys: Kind = NAME) -> Kind:
    """An object of names to values of a kind."""
    return Kind(
        f"an object, each key {keys.words}, each value {kind.words}",
        lambda value: (
            isinstance(value, dict)
            and all(map(keys.accepts, value))
            and all(map(kind.accepts, value.values()))
        ),
    )


def read_object(
    path: Path, kinds: Mapping[str, Kind], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: the file.
        kinds: names of its fields to what they hold. Other fields are left out.
        defaults: what fields have that are not there.

    Returns:
        dict of all names to values of their kinds.

    Raises:
        DamagedFileError: it is no such object.
        FileNotFoundError: there is no such file.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, "a JSON object", f"no JSON: {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise damaged(path, "a JSON object", repr(content))
    fields = {**defaults, **content}
    for name, kind in kinds.items():
        if name not in fields:
            raise damaged(path, f"`{name}`, {kind.words}", "none")
        if not kind.accepts(fields[name]):
            raise damaged(path, f"`{name}`, {kind.words}", repr(fields[name]))
    return {name: fields[name] for name in kinds}


def damaged(path: Path, expected: str, received: str) -> DamagedFileError:
    """The error on a file that does not hold what is expected of it."""
    shown = received if len(received) <= 80 else f"{received[:77]}..."
    return DamagedFileError(
        f"{path} must hold {expected}. Received: {shown}. The command that wrote the folder makes "
        "anew what is damaged: run it again"
    )
