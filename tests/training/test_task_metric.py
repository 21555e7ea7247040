"""The figures read beside a step are those of the metric."""

import keras
import numpy as np
import pytest

from keras_taskrobust.training import task_metric
from keras_taskrobust.training.gradient_metric import GradientMetric
from keras_taskrobust.training.task_metric import TaskMetric

NAN, INF = float("nan"), float("inf")


def _steps(*rows):
    return [keras.ops.convert_to_tensor(row, "float32") for row in rows]


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [_steps([3.0, 0.0, 1.0], [2.0, 0.0, 4.0], [0.7, 0.0, 0.3])],
        [_steps([3.0, 0.0, NAN], [2.0, 0.0, 4.0], [1.0, 0.0, 0.0])],
        [_steps([-INF, 1.0, INF], [2.0, 1.0, 4.0], [0.2, 0.3, 0.5])],
        [
            _steps([3.0, 0.0, 1.0], [2.0, 0.0, 4.0], [0.7, 0.0, 0.3]),
            _steps([-1.0, 5.0, 0.0], [1.0, 3.0, 0.0], [0.1, 0.9, 0.0]),
        ],
    ],
    ids=["nothing_seen", "absent", "nan", "infinite", "two_steps"],
)
@pytest.mark.parametrize("has_trivial_losses", [False, True])
def test_unpacked_logs_are_the_result(steps, has_trivial_losses):
    metric = TaskMetric(("a", "b", "c"), has_trivial_losses)
    trivial = keras.ops.convert_to_tensor([2.0, NAN, 0.3])
    for totals, counts, weights in steps:
        metric.update_state(totals, counts, weights, trivial)
    logs = metric.unpack({"loss": 1.0, **metric.packed()})
    assert set(logs) == {"loss", *metric.log_names}
    for name, value in metric.result().items():
        expected = float(keras.ops.convert_to_numpy(value))
        np.testing.assert_allclose(float(logs[name]), expected, rtol=1e-6, err_msg=name)


def test_unpacked_logs_stay_those_of_their_step():
    metric = TaskMetric(("a",))
    metric.update_state(*_steps([3.0], [2.0], [1.0]))
    logs = metric.unpack(metric.packed())
    metric.reset_state()
    assert float(logs["a_loss"]) == 1.5


def test_unpacked_logs_are_read_once_they_are_asked_for(monkeypatch):
    """A step waits for no device; Keras gets floats, which it need not turn into any."""
    metric = TaskMetric(("a", "b"))
    metric.update_state(*_steps([3.0, 1.0], [2.0, 1.0], [0.4, 0.6]))
    reads = []
    figures = task_metric._figures
    monkeypatch.setattr(task_metric, "_figures", lambda sums: reads.append(sums) or figures(sums))
    logs = metric.unpack({"loss": 1.0, **metric.packed()})
    assert len(logs) == 7
    assert not reads
    assert {type(value) for _, value in logs.items()} == {float}
    assert dict(logs) == dict(logs.items())
    assert len(reads) == 1


@pytest.mark.parametrize("has_trivial_losses", [False, True])
def test_figures_read_outside_a_compiled_function_are_floats(has_trivial_losses):
    """Tensors would have JAX compile a program for each of them."""
    tasks = TaskMetric(("a", "b"), has_trivial_losses)
    tasks.update_state(*_steps([3.0, 1.0], [2.0, 1.0], [0.4, 0.6], [2.0, 1.0]))
    gradients = GradientMetric(("a", "b"))
    gradients.update_state(*_steps(np.array([[4.0, 1.0], [1.0, 9.0]]), [2.0, 1.0]))
    for metric in (tasks, gradients):
        assert {type(value) for value in metric.result().values()} == {float}
    assert gradients.result()["b_gradient_norm"] == 3.0
