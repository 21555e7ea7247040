"""How the worst task fares: held-out scores, intervals, reports and plots."""

from keras_taskrobust.evaluation.downstream_comparison import (
    DownstreamComparison,
    DownstreamResult,
    compare_downstream,
)
from keras_taskrobust.evaluation.downstream_report import (
    print_downstream,
    write_downstream_report,
)
from keras_taskrobust.evaluation.inheritance import Inheritance, measure_inheritance
from keras_taskrobust.evaluation.intervals import (
    Interval,
    Intervals,
    bootstrap_difference,
    bootstrap_intervals,
)
from keras_taskrobust.evaluation.loss_comparison import Comparison, compare
from keras_taskrobust.evaluation.loss_report import print_report, write_report
from keras_taskrobust.evaluation.measures import Measure
from keras_taskrobust.evaluation.plots import (
    plot_final_bars,
    plot_gradient_conflicts,
    plot_gradient_norms,
    plot_task_losses,
    plot_task_weights,
)
from keras_taskrobust.evaluation.runs import Run
from keras_taskrobust.evaluation.scores import TaskScores

__all__ = [
    "Comparison",
    "DownstreamComparison",
    "DownstreamResult",
    "Inheritance",
    "Interval",
    "Intervals",
    "Measure",
    "Run",
    "TaskScores",
    "bootstrap_difference",
    "bootstrap_intervals",
    "compare",
    "compare_downstream",
    "measure_inheritance",
    "plot_final_bars",
    "plot_gradient_conflicts",
    "plot_gradient_norms",
    "plot_task_losses",
    "plot_task_weights",
    "print_downstream",
    "print_report",
    "write_downstream_report",
    "write_report",
]
