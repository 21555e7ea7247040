"""The table of methods in the documentation, from what each method says of itself."""

from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.registry import available, get

_COLUMNS = (
    "`compile(weighting=...)`",
    "what it does",
    "balances magnitudes",
    "balances learning",
    "needs gradients",
    "needs no tuning",
    "cost",
    "source",
)


def methods_table() -> str:
    """A Markdown table of all methods that state their `facts`: those on losses first, then by year
    and name.

    Example:

    >>> print(methods_table().splitlines()[2])
    | `"pooled"` | mean over all elements: no tasks |  |  |  | yes | none | - |
    """
    layers = {name: get(name) for name in available()}
    told = {name: layer.facts for name, layer in layers.items() if layer.facts is not None}
    names = sorted(
        told, key=lambda name: (layers[name].needs != "losses", told[name].year or 0, name)
    )
    rows = [_COLUMNS, tuple("---" for _ in _COLUMNS)]
    rows += [_row(name, layers[name].needs, told[name]) for name in names]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(name: str, needs: str, facts: MethodFacts) -> tuple[str, ...]:
    marks = (
        facts.balances_magnitudes,
        facts.balances_learning,
        needs != "losses",
        facts.needs_no_tuning,
    )
    marked = ("yes" if mark else "" for mark in marks)
    return (f'`"{name}"`', facts.summary, *marked, facts.cost, facts.reference)
