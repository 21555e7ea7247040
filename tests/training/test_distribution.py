"""One device and two take the same step, with unequal groups on the two."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

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
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="see `test_torch_replicas`")
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
