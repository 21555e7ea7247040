"""DualProj: the mean gradient, freed of its conflicts."""

from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._gradient_based import GramianWeighting
from keras_taskrobust.weighting._solvers import dual_cone_weights
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate, mean_weights
from keras_taskrobust.weighting.registry import register


@register("dualproj")
class DualProj(GramianWeighting):
    """Projection of the mean gradient onto the dual cone of all (Lopez-Paz and Ranzato 2017).

    `w = argmin_v v' G v` over `v >= 1 / n`: the nearest direction to the mean gradient that
    conflicts with no task, GEM's projection (eq. 11) with the tasks as its memories. The mean
    itself where nothing conflicts.

    Solved for the cosines with 1e-6 added to their diagonal; torchjd's solver adds 1e-4 to that of
    `G / trace(G)`.

    Example:

    >>> import numpy as np
    >>> gramian = np.array([[1.0, -2.0], [-2.0, 9.0]])
    >>> weights = DualProj().compute_weights(np.array([1.0, 1.0]), gramian=gramian)
    >>> np.asarray(weights).round(4).tolist()
    [1.0, 0.5]

    Reference:
        [Gradient Episodic Memory for Continual Learning](https://arxiv.org/abs/1706.08840),
        NeurIPS 2017.
    """

    facts = MethodFacts(
        "mean gradient, projected off its conflicts",
        "Lopez-Paz and Ranzato 2017",
        2017,
        needs_no_tuning=True,
        cost="Gramian",
        total="free",
        scale="same",
    )

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        combination = mean_weights(tasks)[None]
        return TaskUpdate(dual_cone_weights(tasks.gramian, combination)[0])
