"""Checks of arguments that several methods share. They return the value as it is kept."""

from collections.abc import Sequence

from keras_taskrobust.weighting.base import _is_integer, _is_number, _is_positive


def positive(name: str, value) -> float:
    """A positive number."""
    if not _is_positive(value):
        raise ValueError(f"`{name}` must be a positive number. Received: {name}={value}")
    return float(value)


def nonnegative(name: str, value) -> float:
    """A number >= 0."""
    if not (_is_positive(value) or (_is_number(value) and value == 0)):
        raise ValueError(f"`{name}` must be a number >= 0. Received: {name}={value}")
    return float(value)


def fraction(name: str, value) -> float:
    """A number above 0 and at most 1."""
    if not (_is_positive(value) and value <= 1):
        raise ValueError(
            f"`{name}` must be a number above 0 and at most 1. Received: {name}={value}"
        )
    return float(value)


def share(name: str, value) -> float:
    """A number of at least 0 and less than 1."""
    if not (_is_number(value) and 0 <= value < 1):
        raise ValueError(f"`{name}` must be at least 0 and less than 1. Received: {name}={value}")
    return float(value)


def integer(name: str, value, least: int) -> int:
    """An integer of at least `least`."""
    if not _is_integer(value) or value < least:
        raise ValueError(f"`{name}` must be an integer >= {least}. Received: {name}={value}")
    return int(value)


def choice(name: str, value, known: Sequence) -> str:
    """One of the `known` names."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"`{name}` must be one of {', '.join(known)}. Received: {name}={value}")
    return value


def one_per_task(name: str, values: Sequence[float] | None, num_tasks: int) -> None:
    """Refuses a list whose length is not the number of tasks."""
    if values is not None and len(values) != num_tasks:
        raise ValueError(
            f"`{name}` must hold one value for each of the {num_tasks} tasks. "
            f"Received: {name}={values}"
        )
