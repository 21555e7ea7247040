"""What a modality is: the kind of its maps, their size, and how they are scored."""

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import keras

from keras_taskrobust import checks
from keras_taskrobust.vision.image_source import IGNORE_LABEL
from keras_taskrobust.weighting.base import PACKAGE

#: The losses by the names they may be given, and the name they are kept under.
LOSSES = {
    "mse": "mse",
    "mean_squared_error": "mse",
    "mae": "mae",
    "l1": "mae",
    "mean_absolute_error": "mae",
    "cross_entropy": "cross_entropy",
    "sparse_categorical_crossentropy": "cross_entropy",
}


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class Modality:
    """One kind of map a sample has: an image with channels, or a map of class labels.

    Images are float arrays `(B, H / stride, W / stride, channels)`, already normalised by the
    input pipeline. A pixel with a NaN or infinite channel is missing. Label maps are integer
    arrays `(B, H / stride, W / stride)`; a pixel with the ignore label is missing. Missing pixels
    enter the network as zeros and count in no loss. A sample that lacks the modality has a map
    of nothing but missing pixels.

    Args:
        name: str. The key of its maps in a batch, and the name of its task.
        channels: int, for an image. Give either `channels` or `num_classes`.
        num_classes: int, for a label map.
        loss: `"mse"` or `"mae"` for images, `"cross_entropy"` for labels. `None`: cross-entropy
            for labels, `"mae"` for one channel (depth), `"mse"` for several (RGB).
        stride: int, image pixels per pixel of the map: 4 for labels kept at a quarter of the size.
        normalized_twin: bool. Whether the modality has a second task, `norm_<name>`: the squared
            error to targets normalised by the mean and variance of their patch. Images only.
        ignore_label: int, the label of missing pixels.
        is_input: bool. Whether its patches are among the tokens. If not, it is only predicted.
        is_target: bool. Whether it is predicted. If not, it has no task.

    Raises:
        ValueError: if an argument is not as said.

    Example:

    >>> depth = Modality("depth", channels=1)
    >>> depth.loss
    'mae'
    >>> Modality("rgb", channels=3, normalized_twin=True).task_names
    ('rgb', 'norm_rgb')
    """

    name: str
    channels: int | None = None
    num_classes: int | None = None
    loss: str | None = None
    stride: int = 1
    normalized_twin: bool = False
    ignore_label: int = IGNORE_LABEL
    is_input: bool = True
    is_target: bool = True

    def __post_init__(self):
        self._check_kind()
        loss = self._default_loss() if self.loss is None else LOSSES.get(self.loss)
        allowed = ("cross_entropy",) if self.is_labels else ("mse", "mae")
        if loss not in allowed:
            raise ValueError(
                f"`loss` of the modality {self.name!r} must be one of {allowed}. "
                f"Received: loss={self.loss!r}"
            )
        object.__setattr__(self, "loss", loss)

    @property
    def is_labels(self) -> bool:
        """Whether its maps hold class labels."""
        return self.num_classes is not None

    @property
    def output_channels(self) -> int:
        """Numbers predicted for a pixel: channels, or logits."""
        return self.num_classes or self.channels or 0

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of its tasks: its own, and that of its normalised twin."""
        if not self.is_target:
            return ()
        return (self.name, f"norm_{self.name}") if self.normalized_twin else (self.name,)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Modality":
        """The modality of a config."""
        return cls(**config)

    def _default_loss(self) -> str:
        if self.is_labels:
            return "cross_entropy"
        return "mae" if self.channels == 1 else "mse"

    def _check_kind(self):
        if not isinstance(self.name, str) or not self.name or "/" in self.name:
            raise ValueError(
                f"`name` must be a non-empty string without '/'. Received: name={self.name!r}"
            )
        if (self.channels is None) == (self.num_classes is None):
            raise ValueError(
                f"The modality {self.name!r} must have either `channels` or `num_classes`. "
                f"Received: channels={self.channels}, num_classes={self.num_classes}"
            )
        for argument in ("channels", "num_classes", "stride"):
            if getattr(self, argument) is not None:
                checks.integer(argument, getattr(self, argument), least=1)
        if self.is_labels and self.normalized_twin:
            raise ValueError(
                "`normalized_twin` is for images: labels have no mean. "
                f"Received: normalized_twin=True for the labels {self.name!r}"
            )
        if not (self.is_input or self.is_target):
            raise ValueError(
                f"The modality {self.name!r} must be an input, a target or both. "
                "Received: is_input=False, is_target=False"
            )
        if self.normalized_twin and not self.is_target:
            raise ValueError(
                f"`normalized_twin` needs a target. Received: is_target=False for {self.name!r}"
            )


class Task(NamedTuple):
    """One task of the model.

    Attributes:
        name: the modality's, or `norm_<name>` for its normalised twin.
        modality: the `Modality` that it predicts.
        loss: `"mse"`, `"mae"` or `"cross_entropy"`.
        normalized: whether the targets are normalised patch by patch.
    """

    name: str
    modality: Modality
    loss: str | None
    normalized: bool


def tasks_of(modalities: Iterable[Modality]) -> tuple[Task, ...]:
    """All tasks in order: the target modalities' own, then the normalised twins."""
    own = [Task(m.name, m, m.loss, False) for m in modalities if m.is_target]
    twins = [Task(m.task_names[1], m, "mse", True) for m in modalities if m.normalized_twin]
    return (*own, *twins)
