"""One device and two take the same step, with unequal groups on the two."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from networks import cross_entropy, two_headed_data, two_headed_model

PROGRAM = """
import json, os, sys
import numpy as np
replicas, weighting, backend = int(sys.argv[1]), sys.argv[2], os.environ["KERAS_BACKEND"]
import keras
scope = None
if backend == "jax" and replicas > 1:
    keras.distribution.set_distribution(keras.distribution.DataParallel())
if backend == "tensorflow" and replicas > 1:
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    scope = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
    scope.__enter__()
import keras_taskrobust as ktr
rng = np.random.default_rng(0)
x = rng.normal(size=(16, 5)).astype("float32")
labels = rng.integers(0, 4, 16).astype("int32")
groups = np.array([0] * 7 + [-1] + [1] * 6 + [0, 2], "int32")
initializer = keras.initializers.RandomNormal(seed=3)
inputs = keras.Input((5,))
hidden = keras.layers.Dense(6, activation="tanh", kernel_initializer=initializer,
                            kernel_regularizer=keras.regularizers.L2(0.01))(inputs)
network = keras.Model(inputs, keras.layers.Dense(4, kernel_initializer=initializer)(hidden))
model = ktr.MinimaxModel(network)
cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
loss = ktr.GroupedLoss(cross_entropy, ("a", "b", "c"))
model.compile(keras.optimizers.SGD(0.5), loss=loss, weighting=weighting)
history = model.fit(x, {"labels": labels, "groups": groups}, batch_size=16, epochs=5,
                    shuffle=False, verbose=0).history
print("RESULT", json.dumps(history))
"""


def run(replicas, weighting):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if replicas > 1:
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(replicas), weighting],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("RESULT")]
    return json.loads(line.removeprefix("RESULT"))


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras distributes no torch model")
@pytest.mark.parametrize(
    "weighting", ["minimax", "scale_free_minimax", "uncertainty", "group_dro", "gradnorm"]
)
def test_two_replicas_equal_one(weighting):
    if weighting == "gradnorm" and keras.backend.backend() == "tensorflow":
        with pytest.raises(AssertionError, match="GradNorm needs the tasks' gradients, which are"):
            run(2, weighting)
        return
    one, two = run(1, weighting), run(2, weighting)
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=2e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "torch", reason="tests torch.distributed")
def test_torch_sums_over_processes(tmp_path):
    program = """
import sys, torch
from torch import distributed, multiprocessing
def work(rank):
    address = "tcp://127.0.0.1:29621"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    from keras_taskrobust.training.backends import backend
    local = torch.tensor([1.0 + rank, 3.0], requires_grad=True)
    totals, counts = backend.sum_over_replicas(2.0 * local, torch.tensor([2.0, rank * 4.0]))
    (totals / counts).sum().backward()
    gradient = local.grad.clone()
    distributed.all_reduce(gradient)
    if rank == 0:
        print("RESULT", totals.tolist(), counts.tolist(), (gradient / 2).tolist())
    distributed.destroy_process_group()
if __name__ == "__main__":
    multiprocessing.spawn(work, nprocs=2)
"""
    path = tmp_path / "program.py"
    path.write_text(program)
    result = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, check=False
    )
    # Sums: 2 (1 + 2) and 2 (3 + 3); averaged over the processes, the gradient is that of the sum.
    assert "RESULT [6.0, 12.0] [4.0, 4.0] [1.0, 1.0]" in result.stdout, result.stderr[-2000:]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="tests torch.distributed")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weighting": "minimax"}, "SoftmaxWeightedLoss must train in one process .* 2 processes"),
        ({"weighting": "uncertainty"}, "UncertaintyWeighting must train in one process"),
        ({"weighting": "upgrad", "metrics": {"level": "mae"}}, "compiled metrics are those of one"),
        (
            {"weighting": "upgrad", "loss": {"level": "mse"}, "auxiliary": {"kind": cross_entropy}},
            "`auxiliary` losses and compiled metrics",
        ),
    ],
)
def test_torch_refuses_what_it_does_not_sum_over_processes(arguments, message, monkeypatch):
    from keras_taskrobust.training.backends import torch

    monkeypatch.setattr(torch, "_replicas", lambda: 2)
    model = two_headed_model(**arguments)
    x, y = two_headed_data(4)
    before = model.network.get_weights()
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, verbose=0)
    for kept, now in zip(before, model.network.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)
