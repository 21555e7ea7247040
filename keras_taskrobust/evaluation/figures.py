"""Numbers, intervals and names in words."""

import math
from collections.abc import Iterable, Iterator, Mapping

from keras_taskrobust.evaluation.intervals import LEVEL, Interval
from keras_taskrobust.evaluation.rendering import Entry

#: The level of the intervals.
PERCENT = f"{LEVEL:.0%}"
#: Stands where there is no figure.
NOTHING = "–"  # noqa: RUF001
#: Before a negative figure: no line breaks after it, as one may after a hyphen.
MINUS = "−"  # noqa: RUF001


def worst_names(worst_tasks: Mapping[str, int]) -> str:
    """The worst task's name; with the number of seeds each, if it is not the same for all.

    Example:

    >>> worst_names({"noun": 3}), worst_names({"noun": 2, "verb": 1})
    ('noun', 'noun 2x, verb 1x')
    """
    if len(worst_tasks) == 1:
        return next(iter(worst_tasks))
    return ", ".join(f"{name} {times}x" for name, times in worst_tasks.items()) or NOTHING


def worst_legend(rows: Iterable[Mapping[str, int]]) -> Iterator[str]:
    """The note on numbers of seeds behind the names of worst tasks, if there are any.

    Args:
        rows: of each row the worst tasks, to the number of seeds.
    """
    several = next((one for one in rows if len(one) > 1), None)
    if several:
        name, times = next(iter(several.items()))
        yield (
            f'"{name} {times}x" in the column of worst tasks: {name} was the worst task with '
            f"{times} of the {sum(several.values())} seeds."
        )


def about_seeds(numbers: Iterable[int], held_out: str) -> str:
    """What intervals over seeds are, and what they leave out.

    Args:
        numbers: how many seeds the rows have.
        held_out: what the figures of all seeds are measured on.

    Returns:
        Two sentences.
    """
    several = {number for number in numbers if number > 1}
    seeds = f"{several.pop()} seeds" if len(several) == 1 else "the seeds"
    return (
        f"{PERCENT} intervals of Student's t over {seeds}. They take the seeds' figures for "
        f"normally distributed, and do not cover the choice of the {held_out}, which all seeds "
        "share."
    )


def interval_entry(interval: Interval, mark: str = "") -> Entry:
    """A figure with its interval in small print."""
    return Entry(number(interval.estimate), bounds(interval), mark)


def difference_entry(interval: Interval) -> Entry:
    """A difference with its interval, starred if that excludes 0."""
    star = "*" if interval.excludes_zero else ""
    return Entry(signed(interval.estimate) + star, bounds(interval, signed_figures=True))


def bounds(interval: Interval, signed_figures: bool = False) -> str:
    """The interval in brackets; nothing if there is none.

    Where it excludes 0, so do its bounds as they are written.

    Example:

    >>> bounds(Interval(0.2, 0.1, 0.3)), bounds(Interval(0.01, 0.00007, 0.02), True)
    ('[0.100, 0.300]', '[+0.00007, +0.02000]')
    """
    if math.isnan(interval.lower):
        return ""
    form = signed if signed_figures else number
    nearest = min(abs(interval.lower), abs(interval.upper))
    decimals = 3
    if interval.excludes_zero and nearest < 0.0005:
        decimals = min(-math.floor(math.log10(nearest)), 9)
    return f"[{form(interval.lower, decimals)}, {form(interval.upper, decimals)}]"


def number(value: float, decimals: int = 3) -> str:
    """Three decimals, or as many as are given; what rounds to 0 has no sign.

    Example:

    >>> number(0.25), number(-0.0001)
    ('0.250', '0.000')
    """
    return signed(value, decimals).removeprefix("+")


def signed(value: float, decimals: int = 3) -> str:
    """Three decimals, or as many as are given, with a sign.

    Example:

    >>> signed(0.25), signed(-0.0001)
    ('+0.250', '0.000')
    """
    if math.isnan(value):
        return NOTHING
    text = f"{abs(value):.{decimals}f}"
    if float(text) == 0:
        return text
    return (MINUS if value < 0 else "+") + text


def percentage(share: float) -> str:
    """A share in percent, without the sign."""
    return NOTHING if math.isnan(share) else f"{100 * share:.1f}"
