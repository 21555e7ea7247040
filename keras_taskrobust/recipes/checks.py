"""Checks of a grid's parts, before anything is trained."""

from collections.abc import Collection

from keras_taskrobust import checks

SCRATCH = "scratch"


def check_rows(name: str, rows: Collection[str], from_scratch: bool = False) -> None:
    """Refuses rows of a report that cannot be told apart, or none.

    Args:
        name: string. What the rows come from.
        rows: their names.
        from_scratch: bool. Whether the row of `SCRATCH` will join them.

    Raises:
        ValueError: they are none, or one is there twice, that of `SCRATCH` included.
    """
    checks.distinct(name, rows)
    if from_scratch and SCRATCH in rows:
        raise ValueError(
            f"`{name}` must have other names than {SCRATCH!r}, the row without pre-training. "
            f"Received: {', '.join(rows)}"
        )
