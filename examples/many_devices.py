# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Many devices
#
# One device and eight take the same step. Here a processor plays four devices. On Kaggle's TPU,
# which JAX drives, the same cells use its eight cores.
#
# | at full size | one CPU core | T4 | TPU v3-8 |
# | --- | --- | --- | --- |
# | time | 3 minutes | 2 minutes (estimated) | 3 minutes (estimated) |
# | memory | 2 GB | 2 GB (estimated) | 1 GB a core (estimated) |

# %% tags=["skip-execution"]
# The wheel is what `make wheel` builds. On Kaggle, attach it: its path begins with /kaggle/input.
# %pip install -q "keras_taskrobust-0.1.0-py3-none-any.whl[models]"

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", "torch"

import dataclasses
import tempfile
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_taskrobust as ktr
from keras_taskrobust.recipes.image_settings import TINY
from keras_taskrobust.recipes.images import IMAGES, ImageFamily
from keras_taskrobust.recipes.pretraining import pretrain

SMOKE = os.environ.get("SMOKE") == "1"
EPOCHS, STEPS = (2, 8) if SMOKE else (20, 40)

# %% [markdown]
# ## Start
#
# Before any model is made. `devices="all"` takes what is there: on a TPU or a machine with several
# GPUs write that. PyTorch has one process a device: there the whole script is started by
# `torchrun --nproc-per-node 4`, and here it is one process.

# %%
DEVICES = 1 if keras.backend.backend() == "torch" else 4
ktr.distribution.start(devices=DEVICES)
print(f"{ktr.distribution.replicas()} devices share each batch")

# %% [markdown]
# ## The same step
#
# Three groups of unequal size, sorted, so that each device has other tasks. What is made and
# trained under `scope()` is on all devices, under `alone()` on one.

# %%
rng = np.random.default_rng(0)
x = rng.normal(size=(512, 8)).astype("float32")
groups = np.sort(rng.choice(3, 512, p=[0.7, 0.2, 0.1])).astype("int32")
labels = (x[:, :3].argmax(axis=1) + groups) % 3
y = {"labels": labels.astype("int32"), "groups": groups}
order = rng.permutation(512).reshape(8, 64)
x, y = x[np.sort(order).ravel()], {name: one[np.sort(order).ravel()] for name, one in y.items()}


def train():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(32, activation="tanh")(inputs)
    network = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    model = ktr.MinimaxModel(network)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    grouped = ktr.GroupedLoss(loss, ("large", "small", "smallest"))
    model.compile(keras.optimizers.SGD(0.3), loss=grouped, weighting="minimax")
    history = model.fit(x, y, batch_size=64, epochs=EPOCHS, shuffle=False, verbose=0).history
    return np.concatenate([one.ravel() for one in network.get_weights()]), history


with ktr.distribution.alone():
    of_one, history = train()
with ktr.distribution.scope():
    of_all, history_of_all = train()
print(f"largest difference of a weight: {np.abs(of_all - of_one).max():.0e}")

# %%
plt.figure(figsize=(6, 3), layout="constrained")
for name in ("large", "small", "smallest"):
    (line,) = plt.plot(history[f"{name}_loss"], label=f"{name}, one device")
    plt.plot(history_of_all[f"{name}_loss"], "o", color=line.get_color(), markersize=3)
plt.xlabel("epoch")
plt.ylabel("loss (dots: all devices)")
plt.legend()
plt.show()

# %% [markdown]
# ## Models that are cut
#
# With JAX the weights of one model may lie on several devices, too: here each of two copies on two.
# In the recipes `model_parallel` is all there is to say; for your own models see `ktr.layout_map`.

# %%
if keras.backend.backend() == "jax":
    ktr.distribution.start(devices=DEVICES, model_parallel=2)
    print(f"{ktr.distribution.replicas()} models, each on two devices")

# %% [markdown]
# ## A session that ends
#
# Kaggle ends a session after some hours. A run is saved every ten minutes, and at the end of some
# reports; the same call goes on from there. The number of devices may be another one by then. This
# session ends half-way.


# %%
class EndsHalfWay(ImageFamily):
    """MM-MAE's pre-training, in a session that is too short."""

    def draw(self, model, recipe, data, directory, stage):
        if stage == "half_way":
            raise KeyboardInterrupt
        super().draw(model, recipe, data, directory, stage)


recipe = dataclasses.replace(
    TINY,
    steps=STEPS,
    warmup_steps=STEPS // 8,
    steps_per_report=STEPS // 8,
    reports_per_checkpoint=1,
    workers=0,
    scenes=40,
    batch_size=8,
)
folder = Path(tempfile.mkdtemp()) / "run"  # on Kaggle: /kaggle/working/run, which is kept
try:
    pretrain(EndsHalfWay(), recipe, folder)
except KeyboardInterrupt:
    print("kept:", *sorted(path.name for path in folder.glob("checkpoint-*.h5")))

# %%
ktr.distribution.start(devices=min(DEVICES, 2))
run = pretrain(IMAGES, recipe, folder)
print("steps:", run.history["step"])

# %%
plt.figure(figsize=(6, 3), layout="constrained")
for task in run.scores.task_names:
    plt.plot(run.history["step"], run.history[f"{task}_trivial_ratio"], "o-", label=task)
plt.axvline(run.history["step"][2], color="gray", linestyle=":")
plt.xlabel("step (dotted: where the second session began)")
plt.ylabel("loss over the best constant's")
plt.legend()
plt.show()

# %% [markdown]
# From the command line it is `taskrobust pretrain images mm-mae-tiny --devices 4`, and the same
# again. Lines for several machines, Slurm and TPUs are in the documentation, under Devices.
