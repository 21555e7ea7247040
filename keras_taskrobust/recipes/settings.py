"""The settings that all pre-training has."""

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

from keras_taskrobust import checks
from keras_taskrobust.keras_start import starting_keras
from keras_taskrobust.weighting_names import WEIGHTINGS

if TYPE_CHECKING:
    from keras_taskrobust.weighting import TaskWeighting

    WeightingName = str
else:

    class WeightingName(str):
        """The name of a weighting. That it has a type lets the command line list them."""


WeightingOptions = Mapping[str, Any]
OnNonfinite = Literal["raise", "skip"]
DtypePolicy = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]

_MINIMAX = WeightingName("minimax")
#: The options with a field of their own, and what they were before there were options.
_SHORTHANDS = {"alpha": 1.0, "loss_momentum": 0.0}
_OPTION = "weighting option "


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Steps of AdamW under a weighting."""

    #: The settings that change no number: a run is the same, and goes on, with others.
    FREE: ClassVar[frozenset[str]] = frozenset(
        {
            "workers",
            "reports_per_checkpoint",
            "checkpoint_minutes",
            "on_nonfinite",
            "strict",
            "tensorboard",
        }
    )
    #: Settings that had another name: that name, by which runs are still found, to that of now.
    RENAMED: ClassVar[Mapping[str, str]] = {}
    #: Settings that came later. At their default they say nothing: runs from before are found.
    ADDED: ClassVar[frozenset[str]] = frozenset({"rematerialize"})
    #: Settings of which the devices that share a model have equal parts.
    CUT: ClassVar[tuple[str, ...]] = ()
    #: The first setting of each section of the help.
    SECTIONS: ClassVar[Mapping[str, str]] = {
        "weighting": "weighting",
        "batch_size": "training",
        "steps_per_report": "run",
    }

    weighting: WeightingName = _MINIMAX
    """How the tasks are weighed."""
    weighting_options: WeightingOptions = dataclasses.field(default_factory=dict)
    """Options of that weighting and their values, such as step_size=0.1."""
    alpha: float | None = None
    """The option alpha: sharpness of minimax's softmax, over the tasks or over adaptive groups."""
    loss_momentum: float | None = None
    """The option loss_momentum: moving average of the losses that the weights come from."""
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
    """Keras's dtype policy; auto is mixed_bfloat16 on an accelerator that has it, else float32."""
    rematerialize: bool = False
    """Whether the encoder's blocks are computed again in the backward pass, to save memory."""

    steps_per_report: int
    """Steps between two lines of history; there may be fewer before the last."""
    reports_per_checkpoint: int = 10
    """Lines of history between two checkpoints."""
    checkpoint_minutes: float = 10.0
    """Minutes after which there is a checkpoint even between two lines of history."""
    on_nonfinite: OnNonfinite = "raise"
    """Whether a step with NaN or infinity ends the run, or is skipped; ten in a row end it."""
    seed: int = 0
    """Fixes initial weights, order, masks and dropout."""
    workers: int | None = None
    """Processes that prepare the data; by default one a core."""
    tensorboard: bool = False
    """Whether history is written for TensorBoard, too, by the package tensorboardX."""

    def __post_init__(self):
        checks.integers(self, ("batch_size", "steps", "steps_per_report", "reports_per_checkpoint"))
        if not (checks.is_integer(self.warmup_steps, 0) and self.warmup_steps < self.steps):
            raise ValueError(
                "`warmup_steps` must be at least 0 and less than `steps`. "
                f"Received: warmup_steps={self.warmup_steps}, steps={self.steps}"
            )
        checks.nonnegative("checkpoint_minutes", self.checkpoint_minutes)
        for name in ("peak_learning_rate", "epsilon"):
            checks.positive(name, getattr(self, name))
        checks.nonnegative("weight_decay", self.weight_decay)
        checks.share("beta_2", self.beta_2)
        checks.choice("dtype_policy", self.dtype_policy, get_args(DtypePolicy))
        checks.choice("on_nonfinite", self.on_nonfinite, get_args(OnNonfinite))
        checks.seed("seed", self.seed)
        checks.choice("weighting", self.weighting, _known_weightings())
        if self.tensorboard and importlib.util.find_spec("tensorboardX") is None:
            raise ValueError(
                "`tensorboard` needs the package tensorboardX: pip install tensorboardX. "
                "Received: tensorboard=True"
            )
        if self.has_options:
            self.make_weighting()

    def unused(self) -> dict[str, str]:
        """The settings that change nothing under the others, and what they are for."""
        return {}

    @property
    def has_options(self) -> bool:
        """Whether an option of the weighting is given."""
        return bool(self.weighting_options or self._shorthands())

    def decisive(self) -> dict[str, Any]:
        """The settings that decide the numbers of a run, each by its first name."""
        first_names = {new: old for old, new in self.RENAMED.items()}
        defaults = self._defaults()
        return {
            first_names.get(name, name): value
            for name, value in self._decisive().items()
            if not (name in self.ADDED and value == defaults[name])
        }

    def changes(self, former: Mapping[str, Any], done: int) -> list[str]:
        """The settings that keep a run from going on with these.

        Args:
            former: its settings, as JSON.
            done: int. Its steps so far, those of a last report that was shorter counted as whole.

        Returns:
            list of strings, the names of the settings.
        """
        settings = json.loads(json.dumps(self._decisive()))
        former = {self.RENAMED.get(name, name): value for name, value in former.items()}
        found = self._defaults() | _with_flat_options(former)
        names = {name for name in found if name.startswith(_OPTION)} | {*settings, *_SHORTHANDS}
        changed = sorted(name for name in names if found.get(name) != settings.get(name))
        is_rising = done <= self.warmup_steps  # where the rate does not depend on `steps`
        if changed == ["steps"] and is_rising and done <= former["steps"] < self.steps:
            return []
        return changed

    def with_steps(self, records: int) -> Self:
        """The same settings with the number of steps, where the data decide it.

        Args:
            records: int, those to train on.
        """
        return self

    def on_device(self) -> Self:
        """The same settings with the dtype policy that "auto" is on the device in use."""
        if self.dtype_policy != "auto":
            return self
        with starting_keras():
            from keras_taskrobust.training.backends import backend
        policy: DtypePolicy = "mixed_bfloat16" if backend.has_bfloat16() else "float32"
        return dataclasses.replace(self, dtype_policy=policy)

    def make_weighting(self) -> "TaskWeighting":
        """The weighting with its options, not yet built.

        Raises:
            ValueError: there is no such weighting, or it has no such options.
        """
        with starting_keras():
            from keras_taskrobust import weighting as weightings

        _check_json("weighting_options", self.weighting_options)
        given = self._shorthands()
        if given and self.weighting == "adaptive_groups":  # they are those of what weighs them
            given = {"weighting": weightings.create("minimax", given)}
        if given.keys() & self.weighting_options.keys():
            raise ValueError(
                "`weighting_options` must not have what `alpha` or `loss_momentum` say, too. "
                f"Received: weighting_options={dict(self.weighting_options)}, alpha={self.alpha}, "
                f"loss_momentum={self.loss_momentum}"
            )
        return weightings.create(str(self.weighting), {**self.weighting_options, **given})

    def _decisive(self) -> dict[str, Any]:
        settings = _with_flat_options(dataclasses.asdict(self))
        return {name: value for name, value in settings.items() if name not in self.FREE}

    def _defaults(self) -> dict[str, Any]:
        """What a setting is, as JSON, in what was written before there was such a setting."""
        defaults = {one.name: one.default for one in dataclasses.fields(self)}
        known = {k: v for k, v in defaults.items() if v is not dataclasses.MISSING}
        return json.loads(json.dumps(known))

    def _shorthands(self) -> dict[str, float]:
        """The options that have a field of their own, where they are given."""
        named = {name: getattr(self, name) for name in _SHORTHANDS}
        return {name: value for name, value in named.items() if value is not None}


def _known_weightings() -> tuple[str, ...]:
    """Those of the library, and what the process has registered. Keras need not be loaded."""
    if "keras_taskrobust.weighting" not in sys.modules:
        return WEIGHTINGS
    from keras_taskrobust import weighting as weightings

    return weightings.available()


def _with_flat_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with one entry for each option of the weighting, however it was given.

    Before there were options, `alpha` and `loss_momentum` had these values if they were not given,
    and were those of minimax under every weighting.
    """
    flat = dict(settings)
    named = {name: flat.pop(name, None) for name in _SHORTHANDS}
    if "weighting_options" not in settings:
        was_used = settings.get("weighting") in ("minimax", "adaptive_groups")
        named = {k: v for k, v in named.items() if was_used and v != _SHORTHANDS[k]}
    given = {k: v for k, v in named.items() if v is not None}
    options = {**flat.pop("weighting_options", {}), **given}
    return flat | {k if k in _SHORTHANDS else f"{_OPTION}{k}": v for k, v in options.items()}


def _check_json(name, values):
    try:
        json.dumps(dict(values))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be names and values that JSON can hold: numbers, strings, lists; a "
            "schedule as keras.saving.serialize_keras_object gives it. "
            f"Received: {name}={values}"
        ) from error
