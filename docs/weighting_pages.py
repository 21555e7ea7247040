"""The table of the weightings, and a page for each, from its facts and its docstring."""

from docstrings import parse, signature_of
from when_to_use import WHEN_TO_USE

from keras_taskrobust import weighting
from keras_taskrobust.weighting._facts import MethodFacts

_COSTS = {
    "none": "none beside the weighted sum",
    "Gramian": "the task gradients and their inner products; the rest stays inside the step",
    "gradients": "the task gradients, looked at one element at a time",
    "gradients, kept": "the task gradients, and `K` times the memory of the shared weights",
}
_TOTALS = {"one": "1", "number": "the number of present tasks", "free": "anything"}
_SCALES = {
    "same": "does not change the weights",
    "inverse": "divides the weights by it",
    "free": "may change the weights in any way",
}


def pages() -> dict[str, str]:
    """File names to Markdown."""
    layers = {name: weighting.get(name) for name in weighting.available()}
    told = {name: layer for name, layer in layers.items() if layer.facts is not None}
    return {f"{name}.md": _page(name, layer) for name, layer in told.items()}


def _page(name: str, layer: weighting.TaskWeighting) -> str:
    cls, found = type(layer), parse(type(layer))
    path = f"keras_taskrobust.weighting.{cls.__name__}"
    sections = {title: text for title, text in found.sections.items() if title != "Args"}
    options = found.sections.get("Args", "None.")
    parts = [
        f"# {name}",
        f"::::{{py:class}} {path}{signature_of(cls)}\n\n{found.summary}\n::::",
        f"**When to use.** {WHEN_TO_USE[name]}",
        f'```python\nmodel.compile("adam", loss=loss, weighting="{name}")\n```',
        f"## Formula\n\n{found.body}" if found.body else "",
        f"## Options\n\n{options}",
        f"## What holds\n\n{_facts(layer.needs, layer.facts)}",
        *(f"## {title}\n\n{text}" for title, text in sections.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(needs: str, facts: MethodFacts) -> str:
    rows = {
        "source": facts.reference,
        "cost of a step": _COSTS[facts.cost],
        "balances magnitudes": _yes(facts.balances_magnitudes),
        "balances learning": _yes(facts.balances_learning),
        "needs gradients": _yes(needs != "losses"),
        "needs no tuning": _yes(facts.needs_no_tuning),
        "weights sum to": _TOTALS[facts.total],
        "weights may be negative": _yes(not facts.nonnegative),
        "a task alone has weight 1": _yes(facts.lone_task),
        "one factor on all losses": _SCALES[facts.scale],
    }
    lines = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(lines)


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"
