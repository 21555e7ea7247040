"""Related text tasks, and what fine-tuning on one of them leaves of the others."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_taskrobust.downstream import text_task
from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.downstream.text_finetuning import (
    EncodedTask,
    encode_task,
    finetune_text,
    open_bert,
    score_text,
)
from keras_taskrobust.recipes.inheritance import Inherited, RelatedTasks, inherit

#: Tasks whose classes are the same, in the same order: negative and positive; entailment and not;
#: other and same meaning.
LABEL_SPACES = (
    ("SST-2", "sentence_polarity", "movie_reviews"),
    ("QNLI", "RTE"),
    ("QQP", "MRPC"),
)


@dataclasses.dataclass(frozen=True)
class RelatedTexts(RelatedTasks):
    """Text tasks that share a label space.

    Args:
        tasks: as in `RelatedTasks`, names of text tasks.
        head_task: as in `RelatedTasks`.
        settings: `FineTuning`.
        data_dir: folder of GLUE's tables, or `None` for TFDS.

    Raises:
        ValueError: there is no such task, or they share no label space.
    """

    settings: FineTuning
    data_dir: str | None = None
    _encoded: dict = dataclasses.field(default_factory=dict, init=False, compare=False)

    def __post_init__(self):
        super().__post_init__()
        wanted = {text_task(name).name for name in (*self.tasks, self.head_task)}
        if not any(wanted <= set(names) for names in LABEL_SPACES):
            spaces = "; or ".join(", ".join(names) for names in LABEL_SPACES)
            raise ValueError(
                f"The tasks, that of the head too, must share their classes: {spaces}. "
                f"Received: {', '.join((*self.tasks, self.head_task))}"
            )

    @property
    def data(self) -> Mapping[str, Any]:
        return {"data_dir": self.data_dir}

    def finetune(self, start, task, settings, head):
        backbone, _ = open_bert(start.preset, settings.dtype_policy)
        data = self._data(start.preset, task)
        result = finetune_text(backbone, text_task(task), data, settings, start.seed, head)
        return result, result.classifier

    def score(self, model, start, task):
        return score_text(model, text_task(task), self._data(start.preset, task))

    def _data(self, preset, name) -> EncodedTask:
        """Tokenized once a preset."""
        if (preset, name) not in self._encoded:
            backbone, encoder = open_bert(preset, from_scratch=True)
            positions = backbone.max_sequence_length
            data = text_task(name).load(self.data_dir)
            self._encoded[preset, name] = encode_task(data, encoder, positions, self.settings)
        return self._encoded[preset, name]


def inherit_text(
    presets: Mapping[str, str],
    seeds: Sequence[int],
    related: RelatedTexts,
    directory: Path,
    select: str = "last",
) -> Inherited:
    """Runs the protocol of ImageNet-RIB on BERTs, and writes a report.

    Args:
        presets: rows of the report to presets.
        seeds: each fixes the head's initial weights, the order and dropout.
        related: `RelatedTexts`.
        directory: the folder for the report, the cells and the heads.
        select: "last" or "best": the epoch of fine-tuning whose weights are scored.

    Returns:
        `Inherited`.

    Raises:
        ValueError: of no preset and seed all cells are finished.
    """
    settings = related.settings
    steps = f", at most {settings.max_steps} steps" if settings.max_steps else ""
    lines = {
        "tasks": ", ".join(related.tasks),
        "fine-tuning": f"{settings.epochs} epochs{steps} of {settings.batch_size} examples, AdamW, "
        f"peak rate {settings.learning_rate:g}, weight decay {settings.weight_decay:g}",
    }
    return inherit(presets, seeds, related, directory, lines, select)
