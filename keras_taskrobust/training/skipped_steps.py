"""Steps that would break a model, and are not taken."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_taskrobust.types import Tensor

#: What `compile(on_nonfinite=)` takes.
ON_NONFINITE = ("raise", "skip")
#: Under "skip", as many steps in a row raise.
MOST_IN_A_ROW = 10


class StepSkipped(Exception):
    """Ends a step that is not taken, where steps are eager."""


class SkippedSteps(keras.metrics.Metric):
    """Counts the steps since the last reset that were not taken, and raises for those not allowed.

    Args:
        task_names: the K names.
        on_nonfinite: "raise" or "skip".

    Raises:
        ValueError: for another `on_nonfinite`.
    """

    def __init__(self, task_names: Sequence[str], on_nonfinite: str):
        super().__init__(name="skipped_steps", dtype="float32")
        if on_nonfinite not in ON_NONFINITE:
            raise ValueError(
                f'`on_nonfinite` must be "raise", "skip" or None. Received: {on_nonfinite!r}'
            )
        self.task_names = tuple(task_names)
        #: The names of the figures in `unpack`.
        self.log_names = (self.name,)
        self._allowed = 0 if on_nonfinite == "raise" else MOST_IN_A_ROW - 1
        #: Skipped since the last reset, skipped in a row, and which tasks the last one was of.
        # The replicas count alike.
        self.counts = self.add_variable(
            (2 + len(self.task_names),), "zeros", aggregation="only_first_replica", name="counts"
        )
        self._told = 0.0

    def update_state(self, is_taken: Any, totals: Tensor) -> None:
        """Counts a step.

        Args:
            is_taken: scalar bool.
            totals: `(K,)`, the sums of the tasks' losses with those of the step.
        """
        counts = ops.convert_to_tensor(self.counts)
        skipped = 1.0 - ops.cast(is_taken, "float32")
        broken = ops.where(skipped > 0, ops.cast(~ops.isfinite(totals), "float32"), counts[2:])
        numbers = ops.stack([counts[0] + skipped, (counts[1] + 1.0) * skipped])
        self.counts.assign(ops.concatenate([numbers, broken]))

    def reset_state(self):
        """Those in a row may have begun in a former epoch."""
        counts = ops.convert_to_numpy(self.counts).copy()
        counts[0] = 0.0
        self.counts.assign(counts)
        self._told = 0.0

    def result(self):
        return ops.convert_to_tensor(self.counts)[0]

    def packed(self) -> dict:
        """All counts, as one entry of a compiled step's logs."""
        return {self.name: ops.copy(self.counts)}

    def unpack(self, logs: dict) -> dict:
        """The logs of a compiled step with the number in the place of `packed`'s counts.

        Raises:
            FloatingPointError: as many steps in a row were skipped as are not allowed.
        """
        skipped, in_a_row, *broken = ops.convert_to_numpy(logs[self.name]).tolist()
        is_new, self._told = skipped > self._told, skipped
        if is_new and in_a_row > self._allowed:
            names = [name for name, flag in zip(self.task_names, broken, strict=True) if flag]
            tasks = f"a non-finite loss of task {', '.join(map(repr, names))}"
            what = tasks if names else "non-finite gradients, or a loss outside the tasks"
            raise FloatingPointError(
                f"The loss and its gradients must be finite. Received: {what}, {int(in_a_row)} "
                f"step{'s' * (in_a_row > 1)} in a row. The model is that of before. Missing labels "
                "need the sample weight 0, and group ids their range; else lower the learning rate."
            )
        return {**logs, self.name: skipped}


def what_must_be_finite(
    optimizer: keras.optimizers.Optimizer, loss: Tensor, gradients: Iterable
) -> list:
    """What decides whether a step is taken.

    Args:
        optimizer: the model's. A `LossScaleOptimizer` looks at scaled gradients itself.
        loss: the unscaled loss.
        gradients: those that the optimizer gets.

    Returns:
        list of tensors.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return [loss]
    return [loss, *(gradient for gradient in gradients if gradient is not None)]
