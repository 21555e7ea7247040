"""Checks of a grid's parts, before anything is trained."""

from collections.abc import Collection, Iterable

from keras_taskrobust import checks
from keras_taskrobust.recipes.stored import NAME

SCRATCH = "scratch"


def check_rows(name: str, rows: Collection[str], from_scratch: bool = False) -> None:
    """Refuses rows of a report that cannot be told apart, or none.

    Args:
        name: string. What the rows come from.
        rows: their names.
        from_scratch: bool. Whether the row of `SCRATCH` will join them.

    Raises:
        ValueError: they are none, one is no name, or one is there twice, that of `SCRATCH`
            included.
    """
    checks.distinct(name, rows)
    check_names(f"`{name}`", rows)
    if from_scratch and SCRATCH in rows:
        raise ValueError(
            f"`{name}` must have other names than {SCRATCH!r}, the row without pre-training. "
            f"Received: {', '.join(rows)}"
        )


def check_names(what: str, names: Iterable[str]) -> None:
    """Refuses names that could not be read back from the files of a grid.

    Args:
        what: string. What the names are of.
        names: the names.

    Raises:
        ValueError: one cannot be shown, or is too long.
    """
    for name in names:
        if not NAME.accepts(name):
            raise ValueError(f"{what} must each be {NAME.words}. Received: {name!r}")
