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
# # Minimax in ten lines
#
# Your own Keras model with two outputs, trained for the output that is worst off.
#
# | at full size | one CPU core | T4 | TPU v3-8 |
# | --- | --- | --- | --- |
# | time | 1 minute | 2 minutes (estimated) | 3 minutes (estimated) |
# | memory | 1 GB | 1 GB (estimated) | 1 GB a core (estimated) |

# %% tags=["skip-execution"]
# The wheel is what `make wheel` builds. On Kaggle, attach it: its path begins with /kaggle/input.
# %pip install -q "keras_taskrobust-0.1.0-py3-none-any.whl[models]"

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", "torch"

import keras
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import rotate
from sklearn.datasets import load_digits

import keras_taskrobust as ktr

SMOKE = os.environ.get("SMOKE") == "1"
EPOCHS = 3 if SMOKE else 60

# %% [markdown]
# ## Data: which digit, and by how many degrees is it turned?
#
# The digits come with scikit-learn. For your own data, put any arrays into `x` and `y`.

# %%
images, digits = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8).astype("float32") / 16
rng = np.random.default_rng(0)
order = rng.permutation(len(images))
degrees = rng.uniform(-45, 45, len(images)).astype("float32")
turned = [rotate(images[i], degrees[i], reshape=False, order=1) for i in order]
x = np.stack(turned).reshape(len(order), 64)
y = {"digit": digits[order], "angle": degrees[order, None]}
number = 400 if SMOKE else 1200


def part(rows):
    return x[rows], {name: values[rows] for name, values in y.items()}


train, held_out = part(slice(number)), part(slice(1200, None))

# %% [markdown]
# ## The model, and the two lines that change
#
# ```diff
#   losses = {"digit": SparseCategoricalCrossentropy(from_logits=True), "angle": "mse"}
# - model = network()
# - model.compile("adam", loss=losses)
# + model = ktr.MinimaxModel(network())
# + model.compile("adam", loss=losses, weighting="scale_free_minimax")
#   model.fit(x, y, validation_data=held_out)
# ```
#
# The losses are of different kinds: a cross-entropy of about 2 and a squared error of several
# hundred square degrees. So the larger is not the worse. `trivial_losses="measure"` finds what the
# best constant prediction scores, `T`; a task's `L / T` is 1 if the model has learnt nothing, and 0
# if it is perfect. `"scale_free_minimax"` weighs by `L / T`, plain `"minimax"` by `L`.

# %%
LOSSES = {
    "digit": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "angle": "mse",
}


def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64,))
    trunk = keras.layers.Dense(64, activation="relu")(inputs)
    trunk = keras.layers.Dense(64, activation="relu")(trunk)
    outputs = {
        "digit": keras.layers.Dense(10, name="digit")(trunk),
        "angle": keras.layers.Dense(1, name="angle")(trunk),
    }
    return keras.Model(inputs, outputs)


def train_with(weighting):
    model = ktr.MinimaxModel(network())
    model.compile(
        keras.optimizers.Adam(3e-3),
        loss=LOSSES,
        weighting=weighting,
        metrics={"digit": "accuracy"},
        trivial_losses="measure",
    )
    # Losses of one kind? Then "val_worst_loss" is the one to watch.
    stopping = keras.callbacks.EarlyStopping(
        "val_worst_trivial_ratio", mode="min", patience=15, restore_best_weights=True
    )
    history = model.fit(
        *train,
        validation_data=held_out,
        batch_size=64,
        epochs=EPOCHS,
        callbacks=[stopping],
        verbose=0,
    )
    return model, history.history


WEIGHTINGS = ("uniform", "minimax", "scale_free_minimax")
results = {name: train_with(name) for name in WEIGHTINGS}

# %% [markdown]
# ## What came out
#
# Held-out figures of the best epoch. The worst task is the one with the largest `L / T`.

# %%
TASKS = ("digit", "angle")
print(f"{'weighting':20}{'digits right':>14}{'degrees off':>13}{'L/T digit':>11}{'L/T angle':>11}")
for name, (model, _) in results.items():
    logs = model.evaluate(*held_out, verbose=0, return_dict=True)
    right, off = logs["digit_accuracy"], logs["angle_loss"] ** 0.5
    digit, angle = (logs[f"{task}_trivial_ratio"] for task in TASKS)
    print(f"{name:20}{right:>14.1%}{off:>13.1f}{digit:>11.3f}{angle:>11.3f}")

# %% [markdown]
# ## What the weights do
#
# Above, the held-out `L / T` of each task; below, each task's share of `w T`, its weight in units
# of its own scale. Plain minimax sees the square degrees alone. Scale-free minimax turns to
# whichever task lags behind in training, and lets go of it once it does not.

# %%
figure, axes = plt.subplots(2, 3, figsize=(10, 5), sharex=True, sharey="row", layout="constrained")
for column, (name, (model, history)) in zip(axes.T, results.items(), strict=True):
    scaled = {
        task: np.array(history[f"{task}_weight"]) * model.trivial_losses[task] for task in TASKS
    }
    for task in TASKS:
        column[0].plot(history[f"val_{task}_trivial_ratio"], label=task)
        column[1].plot(scaled[task] / sum(scaled.values()), label=task)
    column[0].axhline(1, color="grey", linestyle=":", label="best constant")
    column[0].set(title=name, ylim=(0, 1.5))
    column[1].set(xlabel="epoch", ylim=(-0.05, 1.05))
axes[0, 0].set_ylabel("held-out L / T")
axes[1, 0].set_ylabel("share of w T")
axes[0, 0].legend()
plt.show()
