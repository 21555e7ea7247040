"""What a model knows of its tasks."""

from typing import Any, NamedTuple, Protocol

from keras_taskrobust.types import Tensor


class TaskTotals(NamedTuple):
    """The sums over one batch, from which task losses are formed.

    Attributes:
        totals: `(K,)` float32, the summed loss of each task's elements.
        counts: `(K,)` float32, the number (or the summed sample weight) of those elements.
        auxiliary: the same of the losses outside the weighting, two `(A,)` float32; `None` if there
            are none.
    """

    totals: Tensor
    counts: Tensor
    auxiliary: tuple[Tensor, Tensor] | None


class Tasks(Protocol):
    """The tasks of a network's outputs. For Keras losses they are `TaskLosses`."""

    task_names: tuple[str, ...]

    def outputs_of_tasks(self, y_pred: Any) -> list[Tensor]:
        """The outputs that carry tasks, out of all of them."""

    def tasks_per_output(self) -> list[int]:
        """The number of tasks in each of `outputs_of_tasks`."""

    def for_metrics(self, y: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Any, Any, Any]:
        """Targets, outputs and sample weights as Keras's compiled metrics are to see them."""


class ConstantPredictor(Protocol):
    """The best predictions that do not look at the input, fitted to batches."""

    def add(self, x: Any, y: Any, sample_weight: Any) -> None:
        """Takes a batch into account."""

    def predict(self, x: Any, y: Any) -> Any:
        """What stands for the network's outputs in a batch."""
