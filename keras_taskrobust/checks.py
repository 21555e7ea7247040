"""Checks of arguments. They return the value as it is kept, or say what was expected."""

import codecs
import difflib
import math
import numbers
from collections.abc import Collection, Iterable, Sequence
from typing import Any

LARGEST_FLOAT32 = 3.4028235e38
_LARGEST_SEED = 2**32 - 1


def is_number(value: Any) -> bool:
    """Whether `value` is a real number, and no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_integer(value: Any, least: int | None = None) -> bool:
    """Whether `value` is an integer, of at least `least`, and no bool."""
    is_one = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_one and (least is None or value >= least)


def is_positive(value: Any) -> bool:
    """Whether `value` is a positive number that float32 can hold."""
    return is_number(value) and 0 < value <= LARGEST_FLOAT32


def positive(name: str, value: Any) -> float:
    """A positive number."""
    if not is_positive(value):
        raise ValueError(f"`{name}` must be a positive number. Received: {name}={value}")
    return float(value)


def nonnegative(name: str, value: Any) -> float:
    """A number >= 0."""
    if not (is_positive(value) or (is_number(value) and value == 0)):
        raise ValueError(f"`{name}` must be a number >= 0. Received: {name}={value}")
    return float(value)


def fraction(name: str, value: Any) -> float:
    """A number above 0 and at most 1."""
    if not (is_positive(value) and value <= 1):
        raise ValueError(
            f"`{name}` must be a number above 0 and at most 1. Received: {name}={value}"
        )
    return float(value)


def share(name: str, value: Any) -> float:
    """A number of at least 0 and less than 1."""
    if not (is_number(value) and 0 <= value < 1):
        raise ValueError(f"`{name}` must be at least 0 and less than 1. Received: {name}={value}")
    return float(value)


def open_share(name: str, value: Any) -> float:
    """A number above 0 and less than 1."""
    if not (is_number(value) and 0 < value < 1):
        raise ValueError(f"`{name}` must lie strictly between 0 and 1. Received: {name}={value}")
    return float(value)


def between(name: str, value: Any, least: float, most: float) -> float:
    """A number from `least` to `most`."""
    if not (is_number(value) and least <= value <= most):
        raise ValueError(
            f"`{name}` must lie between {least:g} and {most:g}. Received: {name}={value}"
        )
    return float(value)


def above(name: str, value: Any, least: float) -> float:
    """A number above `least`."""
    if not (is_number(value) and least < value < math.inf):
        raise ValueError(f"`{name}` must be a number above {least:g}. Received: {name}={value}")
    return float(value)


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """An integer of at least `least` and at most `most`."""
    if not is_integer(value, least) or (most is not None and value > most):
        wanted = f">= {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"`{name}` must be an integer {wanted}. Received: {name}={value}")
    return int(value)


def integer_or_none(name: str, value: Any, least: int) -> int | None:
    """An integer of at least `least`, or `None`."""
    if value is not None and not is_integer(value, least):
        raise ValueError(
            f"`{name}` must be an integer >= {least} or None. Received: {name}={value}"
        )
    return value


def boolean(name: str, value: Any) -> bool:
    """A bool."""
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be a bool. Received: {name}={value}")
    return value


def integers(settings: Any, names: Iterable[str], least: int = 1) -> None:
    """Integers of at least `least`, all of them."""
    for name in names:
        integer(name, getattr(settings, name), least)


def seed(name: str, value: Any) -> int:
    """What NumPy and Keras take for a seed."""
    return integer(name, value, 0, _LARGEST_SEED)


def multiple(name: str, value: int, of: str, factor: int) -> None:
    """A multiple of another setting; both are known to be positive integers."""
    if value % factor:
        raise ValueError(
            f"`{name}` must be a positive multiple of `{of}`. "
            f"Received: {name}={value}, {of}={factor}"
        )


def size(name: str, value: Any) -> tuple[int, int]:
    """A height and a width."""
    is_pair = isinstance(value, Sequence) and len(value) == 2
    if not (is_pair and all(is_integer(side, 1) for side in value)):
        raise ValueError(
            f"`{name}` must be a height and a width, integers >= 1. Received: {name}={value}"
        )
    return tuple(value)


def choice(name: str, value: Any, known: Collection[str]) -> str:
    """One of the `known` names."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(
            f"`{name}` must be one of {', '.join(known)}. "
            f"Received: {name}={value}{did_you_mean(value, known)}"
        )
    return value


def encoding(name: str, value: Any) -> str:
    """A name of an encoding of text that Python knows."""
    try:
        codecs.lookup(value)
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be an encoding that Python knows, such as utf-8, latin-1 or utf-16. "
            f"Received: {name}={value}"
        ) from error
    return value


def did_you_mean(value: Any, known: Iterable[str]) -> str:
    """A question that ends a message on an unknown name; "" if it is like none of the known.

    Example:

    >>> did_you_mean("minmax", ["uniform", "minimax"]), did_you_mean("x", ["uniform"])
    (". Did you mean 'minimax'?", '')
    """
    close = difflib.get_close_matches(str(value), list(known), n=1)
    return f". Did you mean {close[0]!r}?" if close else ""


def distinct(name: str, values: Collection[Any], least: int = 1) -> None:
    """Refuses fewer than `least` values, and one that is there twice."""
    if len(values) < least or len(set(values)) < len(values):
        number = {0: "", 1: "one or more ", 2: "two or more "}[least]
        received = ", ".join(map(str, values)) or "none"
        raise ValueError(f"`{name}` must be {number}different values. Received: {received}")


def finite_floats(name: str, values: Any) -> list[float] | None:
    """Finite numbers, or `None`."""
    if values is None:
        return None
    if not (
        isinstance(values, Iterable)
        and all(is_number(value) and math.isfinite(value) for value in values)
    ):
        raise ValueError(f"`{name}` must be finite numbers. Received: {name}={values}")
    return [float(value) for value in values]


def seeds(name: str, values: Collection[int]) -> None:
    """Refuses what are no seeds, none of them, and one that is there twice."""
    distinct(name, values)
    for value in values:
        seed(name, value)


def one_per_task(name: str, values: Sequence[float] | None, num_tasks: int) -> None:
    """Refuses a list whose length is not the number of tasks."""
    if values is not None and len(values) != num_tasks:
        raise ValueError(
            f"`{name}` must hold one value for each of the {num_tasks} tasks. "
            f"Received: {name}={values}"
        )
