"""The settings that all pre-training has."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

from keras_taskrobust import checks
from keras_taskrobust import weighting as weightings

DtypePolicy = Literal["float32", "mixed_bfloat16", "mixed_float16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Steps of AdamW under a weighting."""

    #: The settings that change no number: a run is the same, and goes on, with others.
    FREE: ClassVar[frozenset[str]] = frozenset({"workers", "reports_per_checkpoint", "strict"})

    weighting: str = "minimax"
    """How the tasks are weighed: one of keras_taskrobust.weighting.available()."""
    alpha: float = 1.0
    """Sharpness of minimax's softmax, over the tasks or over adaptive groups of them."""
    loss_momentum: float = 0.0
    """Moving average of the losses that minimax's weights come from; 0 for none."""
    gradient_diagnostics: bool = False
    """Whether norms, cosines and conflicts of the task gradients are logged and drawn."""

    batch_size: int
    """Sequences or images in a step."""
    steps: int
    """Optimizer steps."""
    warmup_steps: int
    """Steps over which the learning rate rises; then it falls."""
    peak_learning_rate: float
    """Largest learning rate."""
    weight_decay: float
    """AdamW's weight decay; biases and normalisations are spared."""
    beta_2: float
    """AdamW's second beta."""
    epsilon: float
    """AdamW's epsilon."""
    dtype_policy: DtypePolicy = "float32"
    """Keras's dtype policy."""

    steps_per_report: int
    """Steps between two lines of history."""
    reports_per_checkpoint: int = 10
    """Lines of history between two checkpoints."""
    seed: int = 0
    """Fixes initial weights, order, masks and dropout."""
    workers: int | None = None
    """Processes that prepare the data; by default one a core."""

    def __post_init__(self):
        if self.weighting not in weightings.available():
            raise ValueError(
                f"`weighting` must be one of {', '.join(weightings.available())}. "
                f"Received: weighting={self.weighting!r}"
            )
        checks.integers(self, ("batch_size", "steps", "steps_per_report", "reports_per_checkpoint"))
        checks.multiple("steps", self.steps, "steps_per_report", self.steps_per_report)
        if not (checks.is_integer(self.warmup_steps, 0) and self.warmup_steps < self.steps):
            raise ValueError(
                "`warmup_steps` must be at least 0 and less than `steps`. "
                f"Received: warmup_steps={self.warmup_steps}, steps={self.steps}"
            )
        for name in ("peak_learning_rate", "epsilon"):
            checks.positive(name, getattr(self, name))
        checks.nonnegative("weight_decay", self.weight_decay)
        checks.share("beta_2", self.beta_2)
        checks.choice("dtype_policy", self.dtype_policy, get_args(DtypePolicy))
        checks.seed("seed", self.seed)

    def decisive(self) -> dict[str, Any]:
        """The settings that decide the numbers of a run."""
        settings = dataclasses.asdict(self)
        return {name: value for name, value in settings.items() if name not in self.FREE}

    def changes(self, former: Mapping[str, Any], done: int) -> list[str]:
        """The settings that keep a run from going on with these.

        Args:
            former: its settings, as JSON.
            done: int. Its steps so far.

        Returns:
            list of strings, the names of the settings.
        """
        settings = json.loads(json.dumps(self.decisive()))
        changed = sorted(name for name in settings if former.get(name) != settings[name])
        is_rising = done <= self.warmup_steps  # where the rate does not depend on `steps`
        if changed == ["steps"] and is_rising and self.steps > former["steps"]:
            return []
        return changed

    def make_weighting(self) -> weightings.TaskWeighting:
        """The weighting, not yet built."""
        minimax = weightings.SoftmaxWeightedLoss(self.alpha, self.loss_momentum)
        if self.weighting == "minimax":
            return minimax
        if self.weighting == "adaptive_groups":
            return weightings.AdaptiveGroups(weighting=minimax)
        return weightings.get(self.weighting)
