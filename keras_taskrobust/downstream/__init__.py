"""Downstream tasks: their data, metrics and trivial baselines, and fine-tuning on them."""

import importlib
from typing import Any

from keras_taskrobust.checks import did_you_mean
from keras_taskrobust.downstream.glue import GLUE_TASKS, GlueTask
from keras_taskrobust.downstream.image_task import ImageTask, image_task
from keras_taskrobust.downstream.nltk_tasks import NLTK_TASKS, NltkTask
from keras_taskrobust.downstream.own_tables import OwnTask, open_table
from keras_taskrobust.downstream.task import DownstreamTask
from keras_taskrobust.downstream.text_task import Examples, TaskData, TextTask

__all__ = [
    "GLUE_TASKS",
    "NLTK_TASKS",
    "TEXT_TASKS",
    "DownstreamTask",
    "Examples",
    "GlueTask",
    "ImageTask",
    "NltkTask",
    "OwnTask",
    "TaskData",
    "TextTask",
    "image_task",
    "open_table",
    "text_task",
]

TEXT_TASKS: dict[str, TextTask] = {task.name: task for task in (*GLUE_TASKS, *NLTK_TASKS)}
"""The text tasks that commands and recipes know, by name."""


def text_task(name: str) -> TextTask:
    """Finds a text task.

    Args:
        name: string, such as "CoLA" or "sentence_polarity".

    Returns:
        `TextTask`.

    Raises:
        ValueError: there is no task of that name; the error lists those there are.

    Example:

    >>> text_task("CoLA").metrics
    ('matthews',)
    """
    if name not in TEXT_TASKS:
        raise ValueError(
            f"A downstream task must be one of {', '.join(TEXT_TASKS)}, or a table of your own. "
            f"Received: {name!r}{did_you_mean(name, TEXT_TASKS)}"
        )
    return TEXT_TASKS[name]


_LAZY = {
    "FineTuned": "finetuning_run",
    "ImageTasks": "images",
    "RelatedImages": "images",
    "RelatedTexts": "text",
    "TaskFamily": "tasks",
    "TextTasks": "text",
    "encode_task": "text_finetuning",
    "finetune_text": "text_finetuning",
    "open_bert": "text_finetuning",
    "finetune_images": "image_finetuning",
    "open_image_model": "image_encoder",
    "open_image_task": "image_examples",
}


def __getattr__(name: str) -> Any:
    """Loads what needs KerasHub on first use: data and metrics do without."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_LAZY[name]}")
    return getattr(module, name)
