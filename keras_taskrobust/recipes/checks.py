"""Checks of a grid's parts and its folder, before anything is trained."""

from collections.abc import Collection

SCRATCH = "scratch"


def check_distinct(name: str, values: Collection) -> None:
    """Refuses an empty list, and one with an entry twice.

    Args:
        name: string. What the list is called.
        values: its entries.

    Raises:
        ValueError: it is one of these.
    """
    if not values or len(set(values)) < len(values):
        received = ", ".join(map(str, values)) or "none"
        raise ValueError(f"`{name}` must be one or more different values. Received: {received}")


def check_rows(name: str, rows: Collection[str], from_scratch: bool = False) -> None:
    """Refuses rows of a report that cannot be told apart, or none.

    Args:
        name: string. What the rows come from.
        rows: their names.
        from_scratch: bool. Whether the row of `SCRATCH` will join them.

    Raises:
        ValueError: they are none, or one is there twice, that of `SCRATCH` included.
    """
    check_distinct(name, rows)
    if from_scratch and SCRATCH in rows:
        raise ValueError(
            f"`{name}` must have other names than {SCRATCH!r}, the row without pre-training. "
            f"Received: {', '.join(rows)}"
        )
