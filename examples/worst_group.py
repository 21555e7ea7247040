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
# # The worst class of a long-tailed set
#
# Many groups inside one output: here the ten classes of an image set whose classes get rarer and
# rarer. A `GroupedLoss` makes a task of each group, and every weighting applies.
#
# | at full size | one CPU core | T4 | TPU v3-8 |
# | --- | --- | --- | --- |
# | time | 3 minutes | 2 minutes (estimated) | 4 minutes (estimated) |
# | time, CIFAR-10 | 5 hours (estimated) | 20 minutes (estimated) | 10 minutes (estimated) |
# | memory | 1 GB; 2 GB (estimated) | 2 GB (estimated) | 1 GB a core (estimated) |

# %% tags=["skip-execution"]
# The wheel is what `make wheel` builds. On Kaggle, attach it: its path begins with /kaggle/input.
# %pip install -q "keras_taskrobust-0.1.0-py3-none-any.whl[models]"

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", "torch"

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import keras_taskrobust as ktr

SMOKE = os.environ.get("SMOKE") == "1"
DATA = "digits"  # "cifar10" downloads it, once
EPOCHS = 4 if SMOKE else 60
SEEDS = 1 if SMOKE else 3
IMBALANCE = 20  # how many times rarer the last class is than the first

# %% [markdown]
# ## Data: the rarer the class, the fewer examples
#
# The held-out part stays balanced, so that each class counts the same there. A group is any integer
# an example has: its class, the hospital that it comes from, its class times its background. For
# your own, make three arrays: `x`, `labels` and `groups`; group -1 belongs to no task.

# %%
rng = np.random.default_rng(0)
if DATA == "cifar10":
    (x, labels), (x_test, labels_test) = keras.datasets.cifar10.load_data()
    x, x_test = x.astype("float32") / 255, x_test.astype("float32") / 255
    labels, labels_test = labels[:, 0], labels_test[:, 0]
else:
    x, labels = load_digits(return_X_y=True)
    order = rng.permutation(len(x))
    x, labels = x[order].reshape(-1, 8, 8, 1).astype("float32") / 16, labels[order]
    x, x_test, labels, labels_test = x[:1000], x[1000:], labels[:1000], labels[1000:]

largest = np.bincount(labels).min()
sizes = (largest * IMBALANCE ** (-np.arange(10) / 9)).astype(int)
kept = np.concatenate([np.flatnonzero(labels == c)[: sizes[c]] for c in range(10)])
x, labels = x[kept], labels[kept].astype("int32")
print("examples of each class:", sizes.tolist())

# %% [markdown]
# ## The model
#
# The labels come with their groups, and the loss with the groups' names; that is all.
#
# A rare class is absent from many batches, and where it is present, its loss is that of one or two
# examples. `loss_momentum` weighs by moving averages of the losses instead.

# %%
GROUPS = tuple(f"class {c}" for c in range(10))
WEIGHTINGS = {
    "pooled": {},  # plain Keras: every example counts the same
    "uniform": {},  # every class present counts the same
    "group_dro": {"step_size": 0.05},
    "minimax": {"alpha": 3.0, "loss_momentum": 0.9},
}


def network():
    inputs = keras.Input(x.shape[1:])
    hidden = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(inputs)
    hidden = keras.layers.Conv2D(64, 3, strides=2, padding="same", activation="relu")(hidden)
    hidden = keras.layers.MaxPooling2D()(hidden)
    hidden = keras.layers.Dropout(0.5)(keras.layers.Flatten()(hidden))
    return keras.Model(inputs, keras.layers.Dense(10)(hidden))


def train_with(weighting, options, seed):
    keras.utils.set_random_seed(seed)
    model = ktr.MinimaxModel(network())
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=0.01),
        loss=ktr.GroupedLoss(cross_entropy, groups=GROUPS),
        weighting=ktr.weighting.create(weighting, options),
    )
    targets = {"labels": labels, "groups": labels}
    history = model.fit(x, targets, batch_size=64, epochs=EPOCHS, verbose=0).history
    right = model.predict(x_test, verbose=0).argmax(axis=-1) == labels_test
    accuracies = [right[labels_test == c].mean() for c in range(10)]
    return accuracies, [history[f"{group}_weight"] for group in GROUPS]


results = {
    name: [train_with(name, options, seed) for seed in range(SEEDS)]
    for name, options in WEIGHTINGS.items()
}
accuracies = {name: np.array([run[0] for run in runs]) for name, runs in results.items()}
weights = {name: np.mean([run[1] for run in runs], axis=0) for name, runs in results.items()}

# %% [markdown]
# ## What came out
#
# Held-out accuracy; `+-` is the standard deviation over the seeds. Differences smaller than that
# say nothing.

# %%
print(f"{'weighting':12}{'mean':>16}{'worst class':>18}")
for name, values in accuracies.items():
    mean, worst = values.mean(axis=1), values.min(axis=1)
    print(
        f"{name:12}{mean.mean():>8.1%} +-{mean.std():>5.1%}"
        f"{worst.mean():>10.1%} +-{worst.std():>5.1%}"
    )

# %% [markdown]
# ## Who pays, and where the weight goes

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for shift, (name, values) in enumerate(accuracies.items()):
    axes[0].bar(np.arange(10) + 0.2 * (shift - 1.5), values.mean(axis=0), 0.2, label=name)
    axes[1].plot(weights[name].mean(axis=1), "o-", label=name)
ticks = [f"{c}\n{size}" for c, size in enumerate(sizes)]
for axis, title in zip(axes, ("Held-out accuracy", "Weight, mean of all steps"), strict=True):
    axis.set(title=title, xlabel="class, and its examples")
    axis.set_xticks(range(10), ticks)
axes[1].legend()
plt.show()
