"""One trained model of a comparison, and what failed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from keras_taskrobust.evaluation.scores import TaskScores

#: What has no figures: its row of the report, its seed, its task, and why.
Failure = tuple[str, int, str, str]


@dataclass(frozen=True, eq=False)
class Run:
    """What one training run under one weighting left behind.

    Args:
        row: string. The name of its row in the report.
        seed: int. Runs of different weightings with the same seed are compared in pairs.
        scores: `TaskScores` on the held-out data.
        history: dict of series over training, all of one length: `"step"`, `"<task>_loss"`,
            `"<task>_weight"`, `"worst_loss"`, `"mean_loss"`. A task absent from a step is NaN
            there. Empty: the run is in no plot of training.
        seconds: float. What the training took.
        environment: names to values: the backend, device and versions that it was computed with.
    """

    row: str
    seed: int
    scores: TaskScores
    history: dict[str, list[float]] = field(repr=False)
    seconds: float
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        lengths = {name: len(series) for name, series in self.history.items()}
        if lengths and ("step" not in lengths or len(set(lengths.values())) > 1):
            raise ValueError(
                "`history` must hold 'step' and other series of its length. Received: series of "
                f"the lengths {lengths}"
            )
