"""The protocol of a kind of downstream task: all that fine-tuning on it asks of it."""

import abc
import dataclasses
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from keras_taskrobust import checks
from keras_taskrobust.downstream.finetuning_run import FineTuned
from keras_taskrobust.downstream.settings import Adaptation

Data = TypeVar("Data")


@dataclasses.dataclass(frozen=True)
class TaskFamily(abc.ABC):
    """Downstream tasks of one kind, and how models are fine-tuned on them.

    This is all that a new kind of downstream task has to say: what decides its data, how a
    pre-trained model is opened, fine-tuned and scored, and what a report says of it.

    Args:
        tasks: names of tasks.
        settings: `Adaptation`, the same for all tasks.
        head_task: string, for tasks that share a label space. The one that a head is trained on
            beforehand; by default the first.

    Raises:
        ValueError: there is no task, or one twice.
    """

    #: What a report calls the tasks.
    kind: ClassVar[str] = "downstream tasks"
    #: What of a run is scored, in words for a report.
    scored: ClassVar[str] = "epoch"
    #: Whether the data of all tasks are kept in memory, or those of the task at hand alone.
    keeps_all: ClassVar[bool] = False

    tasks: tuple[str, ...]
    settings: Adaptation
    head_task: str = dataclasses.field(default="", kw_only=True)
    _kept: dict = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self):
        checks.distinct("tasks", self.tasks)
        if not self.head_task:
            object.__setattr__(self, "head_task", self.tasks[0])

    @abc.abstractmethod
    def identity(self, task: str) -> Mapping[str, Any]:
        """What decides which data a task has: names to JSON values, for the key of a cell."""

    @abc.abstractmethod
    def open(self, preset: str, from_scratch: bool = False) -> Any:
        """Opens a pre-trained model.

        Args:
            preset: string. Folder, file, name or URI.
            from_scratch: bool. Whether it gets new random weights.

        Returns:
            What `finetune` and `score` take as `opened`.

        Raises:
            ValueError: there is no such model.
        """

    @abc.abstractmethod
    def finetune(
        self,
        opened: Any,
        task: str,
        settings: Adaptation,
        seed: int,
        head: Sequence[np.ndarray] | None = None,
    ) -> FineTuned:
        """Fine-tunes an opened model on a task.

        Args:
            opened: what `open` returned. It may be changed.
            task: string.
            settings: `Adaptation`, those of the family or their `probe`.
            seed: int. Chooses the order of the examples.
            head: the weights of a head trained beforehand, as `head_variables` orders them; by
                default the head is new.

        Returns:
            `FineTuned`.

        Raises:
            FloatingPointError: the loss became infinite or not a number.
            ValueError: settings, model and data do not fit each other.
        """

    @abc.abstractmethod
    def score(self, model: Any, opened: Any, task: str) -> float:
        """Scores a trained model on a task's held-out examples.

        Args:
            model: that of a `FineTuned`.
            opened: what it was fine-tuned from.
            task: string, which need not be the one that it was fine-tuned on.

        Returns:
            The score, higher being better.
        """

    @abc.abstractmethod
    def describe(self) -> Mapping[str, str]:
        """The lines of a report's settings that say which data there are and how it is trained."""

    def find(self, preset: str) -> str:
        """What `open` opens for a preset, such as the preset in the folder of a run.

        Raises:
            ValueError: there is no such model on this machine. A URI is not looked up.
        """
        return preset

    def check(self, tasks: Collection[str]) -> None:  # noqa: B027
        """Refuses tasks whose data are not there, before anything is computed.

        Args:
            tasks: strings.

        Raises:
            ValueError: there are none as said.
        """

    def files(self, result: FineTuned, opened: Any, task: str) -> Mapping[str, str]:
        """What a cell leaves beside its figures: names of files to their texts."""
        return {}

    def once(self, task: str, form: Hashable, prepare: Callable[[], Data]) -> Data:
        """The data of a task, prepared once for all models that take them in the same form.

        Args:
            task: string.
            form: what of a model decides how the data are prepared, such as its vocabulary.
            prepare: makes them.
        """
        if (task, form) not in self._kept:
            if not self.keeps_all:
                for key in [key for key in self._kept if key[0] != task]:
                    del self._kept[key]
            self._kept[task, form] = prepare()
        return self._kept[task, form]
