"""`README.md` beside an exported model: what it is, was trained on and scores, as hubs show it."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from keras_taskrobust import __version__
from keras_taskrobust.evaluation.figures import number
from keras_taskrobust.evaluation.loss_comparison import Comparison, compare
from keras_taskrobust.evaluation.runs import Run
from keras_taskrobust.files import write_atomically

#: The settings of a run that its card shows, and what it calls them.
_SETTINGS = {
    "corpus": "corpus",
    "data": "images",
    "maps": "maps of the images",
    "modalities": "modalities",
    "image_size": "image size",
    "tokenizer": "vocabulary of",
    "tagger": "tagger",
    "tag_set": "tag set",
    "task_loss": "task loss",
    "next_sentence": "next-sentence prediction",
    "sequence_length": "tokens in a sequence",
    "num_layers": "layers",
    "hidden_dim": "width",
    "batch_size": "batch size",
    "epochs": "epochs",
    "steps": "steps",
    "peak_learning_rate": "peak learning rate",
    "dtype_policy": "dtype policy",
    "seed": "seed",
}
#: Those that may be paths: a card does not say where somebody keeps them.
_PATHS = ("corpus", "data", "maps", "tokenizer")
_ENVIRONMENT = ("backend", "versions", "device")
_LICENCE = (
    "None is stated: it is yours to choose, and the terms of the data may bind the weights. Hubs "
    "read it from `license:` at the top of this file."
)
_SHARE = (
    "The share of a task is 1 - L / T: L is its loss, T that of the best constant prediction, "
    "which does not look at the input. 0: no better than that constant; 1: perfect."
)


@dataclasses.dataclass(frozen=True)
class Exported:
    """A model that was written in another format.

    Attributes:
        what: string. What it is there.
        library: string. What hubs call the library that opens it; `None` if they have no name.
        pipeline: string. What hubs call what it does, or `None`.
        usage: string. Python that opens it, `{folder}` standing for the folder.
        left_out: what of the run's model is not in it, in words.
        folder: where it is.
    """

    what: str
    library: str | None
    pipeline: str | None
    usage: str
    left_out: tuple[str, ...] = ()
    folder: Path = Path()


def write_model_card(path: Path, exported: Exported, run: Run, settings: Mapping[str, Any]) -> None:
    """Writes the model card.

    Args:
        path: the file.
        exported: the model.
        run: that which it is from.
        settings: of the run, as its `recipe.json` has them.
    """
    weighting = _weighting(settings)
    sections = {
        "Use": f"```python\n{exported.usage.format(folder=exported.folder.name)}\n```",
        "Not in it": _list(exported.left_out),
        "Data and training": _table(("setting", "value"), _shown(settings)),
        "Weighting": f"`{weighting}`, as `taskrobust` names it.",
        "Held-out figures": _figures(compare([run])),
        "Versions": _list([*_environment(run), f"exported by keras_taskrobust {__version__}"]),
        "Licence": _LICENCE,
    }
    title = f"# {exported.what}, pre-trained under {weighting}"
    body = [f"## {name}\n\n{text}" for name, text in sections.items() if text]
    text = "\n\n".join([_front_matter(exported), title, *body]) + "\n"
    write_atomically(path, text.encode())


def _front_matter(exported):
    lines = [
        "# license: yours to choose; the terms of the data may bind the weights",
        *([f"library_name: {exported.library}"] if exported.library else []),
        *([f"pipeline_tag: {exported.pipeline}"] if exported.pipeline else []),
        "tags:",
        "- keras-taskrobust",
    ]
    return "\n".join(["---", *lines, "---"])


def _weighting(settings):
    options = dict(settings.get("weighting_options", {}))
    options |= {name: settings.get(name) for name in ("alpha", "loss_momentum")}
    words = [f"{name}={value}" for name, value in options.items() if value is not None]
    return " ".join([str(settings.get("weighting")), *words])


def _shown(settings: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """The names and values of the table; epochs, where they are given, decide the steps."""
    hidden = {"steps"} if settings.get("epochs") is not None else {"epochs"}
    for name, words in _SETTINGS.items():
        value = settings.get(name)
        if name not in hidden and value is not None:
            yield words, _value(name, value)


def _value(name, value):
    if isinstance(value, list | tuple):
        return (" x " if name == "image_size" else ", ").join(map(str, value))
    if name not in _PATHS:
        return str(value)
    return " + ".join(_public(part) for part in str(value).split("+"))


def _public(name: str) -> str:
    """A name of data, of a path its last part.

    Example:

    >>> _public("/home/me/letters"), _public("nltk:brown")
    ('letters', 'nltk:brown')
    """
    path = Path(name)
    return path.name if len(path.parts) > 1 else name


def _figures(comparison: Comparison) -> str:
    measure, row = comparison.measure, comparison.rows[0]
    losses = row.losses_of(measure.part)
    trivial = comparison.trivial.get(measure.part, {})
    columns = {
        "task": lambda task: task,
        "targets": lambda task: f"{comparison.targets[task]:,}",
        dataclasses.replace(measure, name="loss").words: lambda task: number(
            losses.tasks[task].estimate
        ),
    }
    if measure.is_share:
        columns["best constant"] = lambda task: number(trivial[task])
        columns["share"] = lambda task: number(row.figures.tasks[task].estimate)
    rows = [[column(task) for column in columns.values()] for task in comparison.tasks]
    paragraphs = [
        f"Worst {measure.words}: {number(row.figures.worst.estimate)} ({row.worst_task}). "
        f"Mean over the tasks: {number(row.figures.mean.estimate)}.",
        _table(tuple(columns), rows),
        _SHARE if measure.is_share else "",
        f"Too few held-out targets to count: {', '.join(comparison.apart)}."
        if comparison.apart
        else "",
    ]
    return "\n\n".join(filter(None, paragraphs))


def _environment(run):
    return [f"{name}: {run.environment[name]}" for name in _ENVIRONMENT if name in run.environment]


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(header: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(entry) for entry in line)} |" for line in lines)


def _cell(text: str) -> str:
    """An entry of a table, in which a bar would begin the next one."""
    return " ".join(text.replace("|", r"\|").split())
