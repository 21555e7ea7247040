"""What the figures of a report were computed with, each of them when it was computed."""

from collections.abc import Mapping, Sequence

from keras_taskrobust.evaluation.downstream_comparison import DownstreamResult
from keras_taskrobust.evaluation.rendering import Block, Entry, Paragraph, Table
from keras_taskrobust.evaluation.runs import Run

MIXED = (
    "These figures were not all computed with the same backend, device and versions: differences "
    'may come from those. "Computed with" says which were computed with which.'
)
_NOT_RECORDED = "not recorded"


def environments(
    runs: Sequence[Run] = (), results: Sequence[DownstreamResult] = ()
) -> dict[str, Mapping[str, str]]:
    """What each run and each cell, in words, was computed with; failed cells are left out."""
    found = {f"{one.row}, seed {one.seed}": one.environment for one in runs}
    cells = [one for one in results if not one.failure]
    return found | {f"{one.task}, {one.row}, seed {one.seed}": one.environment for one in cells}


def mixed_blocks(found: Mapping[str, Mapping[str, str]]) -> list[Block]:
    """The warning of a report whose figures were not all computed with the same."""
    return [Paragraph(MIXED, important=True)] if len(_groups(found)) > 1 else []


def environment_blocks(found: Mapping[str, Mapping[str, str]]) -> list[Block]:
    """The table of what the figures were computed with; empty if there are none."""
    groups = _groups(found)
    if not groups:
        return []
    names = list(dict.fromkeys(name for group in groups for name, _ in group)) or ["versions"]
    rows = []
    for group, members in groups.items():
        values = dict(group)
        which = "all" if len(groups) == 1 else "; ".join(members)
        entries = (Entry(values.get(name, _NOT_RECORDED)) for name in names)
        rows.append((Entry(which), *entries))
    columns = tuple(range(len(names) + 1))
    return [Table(("figures of", *names), tuple(rows), columns, title="Computed with")]


def _groups(found):
    groups: dict[tuple, list[str]] = {}
    for member, environment in found.items():
        groups.setdefault(tuple(environment.items()), []).append(member)
    return groups
