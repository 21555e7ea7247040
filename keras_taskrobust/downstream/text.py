"""The kind of downstream task that texts are, and texts whose tasks share their classes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from keras_taskrobust.downstream import TextTask, text_task
from keras_taskrobust.downstream.own_tables import OwnTask, open_table
from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.downstream.tasks import TaskFamily
from keras_taskrobust.downstream.text_finetuning import (
    EncodedTask,
    encode_task,
    find_bert,
    finetune_text,
    open_bert,
    score_text,
)
from keras_taskrobust.downstream.text_task import TaskData

#: Tasks whose classes are the same, in the same order: negative and positive; entailment and not;
#: other and same meaning.
LABEL_SPACES = (
    ("SST-2", "sentence_polarity", "movie_reviews"),
    ("QNLI", "RTE"),
    ("QQP", "MRPC"),
)


@dataclasses.dataclass(frozen=True)
class TextTasks(TaskFamily):
    """Text tasks, for BERTs.

    A cell leaves the predictions of the last and the best epoch, those for test sets in the format
    that GLUE's site takes.

    Args:
        tasks: names of text tasks.
        settings: `FineTuning`.
        data_dir: folder of GLUE's tables, or `None` for TFDS.
        tables: tasks of one's own to the paths of their tables, as `open_table` reads them.

    Raises:
        ValueError: there is no such task or table, no task, or one twice.

    Example:

    >>> TextTasks(("RTE", "CoLA"), FineTuning(epochs=2), "glue").describe()["fine-tuning"]
    '2 epochs of 32 examples, AdamW, peak rate 2e-05, weight decay 0.1, warm-up 6%'
    """

    settings: FineTuning
    data_dir: str | None = None
    tables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    _own: dict[str, OwnTask] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self):
        super().__post_init__()
        self._own.update({name: open_table(name, path) for name, path in self.tables.items()})
        for name in self.tasks:
            self._task(name)

    def identity(self, task):
        own = self._own.get(task)
        return {"data_dir": self.data_dir} if own is None else {"table": own.digest}

    def find(self, preset):
        return find_bert(preset)

    def check(self, tasks):
        for task in tasks:
            self.load(task)

    def open(self, preset, from_scratch=False):
        return open_bert(preset, self.settings.dtype_policy, from_scratch)

    def finetune(self, opened, task, settings, seed, head=None):
        backbone, _ = opened
        data = self._data(opened, task)
        return finetune_text(backbone, self._task(task), data, settings, seed, head)

    def score(self, model, opened, task):
        return score_text(model, self._task(task), self._data(opened, task))

    def describe(self):
        warmup = f"warm-up {self.settings.warmup_share:.0%}"
        return {"fine-tuning": f"{self.settings.in_words()}, {warmup}"}

    def files(self, result, opened, task):
        data, known = self._data(opened, task), self._task(task)
        ids = {f"{task}-{split}": examples.ids for split, (_, examples) in data.dev.items()}
        ids |= {file: examples.ids for file, (_, examples) in data.test.items()}
        texts = {}
        for epoch, dev in result.predictions.items():
            predictions = {f"{task}-{split}": found for split, found in dev.items()}
            predictions |= result.test_predictions[epoch]
            for name, found in predictions.items():
                lines = known.prediction_lines(name, found)
                texts[f"{epoch}/{name}.tsv"] = _prediction_table(ids[name], lines)
        return texts

    def load(self, task: str) -> TaskData:
        """Reads the examples of a task."""
        return self._task(task).load(self.data_dir)

    def _task(self, name: str) -> TextTask:
        return self._own.get(name) or text_task(name)

    def _data(self, opened: Any, task: str) -> EncodedTask:
        backbone, encoder = opened
        positions = backbone.max_sequence_length

        def encode():
            return encode_task(self.load(task), encoder, positions, self.settings)

        return self.once(task, (encoder.hash, positions), encode)


@dataclasses.dataclass(frozen=True)
class RelatedTexts(TextTasks):
    """Text tasks that share a label space.

    Args:
        tasks: as in `TextTasks`.
        settings: as in `TextTasks`. `probe_epochs` and `probe_learning_rate` are those of the head.
        data_dir: as in `TextTasks`.
        tables: as in `TextTasks`.
        head_task: as in `TaskFamily`.

    Raises:
        ValueError: there is no such task, or they share no label space.
    """

    keeps_all = True

    def __post_init__(self):
        super().__post_init__()
        wanted = {self._task(name).name for name in (*self.tasks, self.head_task)}
        own = [task.label_names for name, task in self._own.items() if name in wanted]
        if own:
            is_shared = len(own) == len(wanted) and len(set(own)) == 1
        else:
            is_shared = any(wanted <= set(names) for names in LABEL_SPACES)
        if not is_shared:
            spaces = "; ".join(", ".join(names) for names in LABEL_SPACES)
            raise ValueError(
                f"The tasks, that of the head too, must share their classes: {spaces}; or tables "
                "of your own with the same labels. "
                f"Received: {', '.join((*self.tasks, self.head_task))}"
            )

    def describe(self):
        return {"tasks": ", ".join(self.tasks), "fine-tuning": self.settings.in_words()}


def _prediction_table(ids: Sequence[str], lines: Sequence[str]) -> str:
    rows = [f"{index}\t{line}" for index, line in zip(ids, lines, strict=True)]
    return "".join(f"{row}\n" for row in ["index\tprediction", *rows])
