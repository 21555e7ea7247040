"""Downstream tasks over images: their class names, metrics and trivial baselines."""

import dataclasses

import numpy as np

from keras_taskrobust.downstream.metrics import ERRORS
from keras_taskrobust.downstream.settings import TARGETS
from keras_taskrobust.downstream.task import DownstreamTask, mean_score

_METRICS = {"label": ("accuracy",), "semseg": ("mean_iou",), "depth": ("delta_1",)}


@dataclasses.dataclass(frozen=True)
class ImageTask(DownstreamTask):
    """A task over images.

    Labels and predictions are `(N,)` class ids for the target `"label"`, `(N, H, W)` class ids, 255
    where there is none, for `"semseg"`, and `(N, H, W)` metres, NaN where missing, for `"depth"`.

    Args:
        name: as in `DownstreamTask`.
        metrics: as in `DownstreamTask`.
        label_names: as in `DownstreamTask`.
        target: string, the key of a record that is predicted.

    Example:

    >>> task = image_task("depth", ())
    >>> labels = np.array([[[1.0, 2.0, np.nan]]])
    >>> task.evaluate(labels, np.array([[[1.1, 4.0, 3.0]]]))
    {'delta_1': 0.5}
    >>> task.evaluate_trivial(np.array([[[1.0, 1.2, 9.0]]]), labels)
    {'delta_1': 0.5}
    """

    target: str = "label"

    def errors(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Measures that enter no score: RMSE and REL of depth."""
        if self.target != "depth":
            return {}
        return {name: function(labels, predictions) for name, function in ERRORS.items()}

    def evaluate_trivial(self, train_labels: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Scores the best prediction that does not look at the image.

        That is the majority class, or for maps the better of two: the most frequent class or the
        median depth of all training pixels, and those of each pixel.
        """
        if self.target == "label":
            return super().evaluate_trivial(train_labels, labels)
        guess = self._depths if self.target == "depth" else self._majorities
        scores = [
            self.evaluate(labels, np.broadcast_to(maps, labels.shape))
            for maps in guess(train_labels)
        ]
        return max(scores, key=mean_score)

    def _depths(self, labels):
        """The median of all depths, and `(H, W)` that of each pixel, of all where it has none."""
        overall = np.nanmedian(labels)
        unknown = np.isnan(labels).all(axis=0)
        return overall, np.nanmedian(np.where(unknown, overall, labels), axis=0)

    def _majorities(self, labels):
        """The most frequent class, and `(H, W)` that of each pixel, of all where it has none."""
        counts = np.stack([(labels == index).sum(axis=0) for index in range(self.num_outputs)])
        overall = counts.sum(axis=(1, 2)).argmax()
        return overall, np.where(counts.any(axis=0), counts.argmax(axis=0), overall)


def image_task(name: str, label_names: tuple[str, ...]) -> ImageTask:
    """Finds an image task.

    Args:
        name: string, one of "classification", "semseg" and "depth".
        label_names: tuple of strings, the classes; none for depth.

    Returns:
        `ImageTask`.

    Raises:
        ValueError: there is no task of that name, or it lacks its classes.
    """
    if name not in TARGETS:
        raise ValueError(f"A task must be one of {', '.join(TARGETS)}. Received: {name!r}")
    target = TARGETS[name]
    names = () if target == "depth" else tuple(label_names)
    if target != "depth" and len(names) < 2:
        raise ValueError(
            f"The task {name!r} must have at least two classes. Received: {label_names}"
        )
    return ImageTask(name, _METRICS[target], names, target)
