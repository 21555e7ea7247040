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
# # Your own weighting
#
# A weighting is a class with one method: task losses in, weights out. It then works with every
# model of the library, on every backend, and is saved with the model.
#
# | at full size | one CPU core | T4 | TPU v3-8 |
# | --- | --- | --- | --- |
# | time | 1 minute | 1 minute (estimated) | 2 minutes (estimated) |
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
from keras import ops

import keras_taskrobust as ktr

SMOKE = os.environ.get("SMOKE") == "1"
EPOCHS = 3 if SMOKE else 60

# %% [markdown]
# ## One method
#
# `tasks.losses` are the `K` losses of the batch, `tasks.present` says which tasks it has. No
# gradient flows through the weights; those of absent tasks become 0.

# %%


@ktr.weighting.register("power")
class PowerWeighting(ktr.weighting.TaskWeighting):
    """Weights proportional to a power of the losses: 0 is uniform, large ones near the maximum."""

    def __init__(self, power=2.0, **kwargs):
        super().__init__(**kwargs)
        self.power = power

    def weigh(self, tasks):
        powers = ops.where(tasks.present, tasks.losses**self.power, 0.0)
        return powers / ops.maximum(ops.sum(powers), 1e-12)

    def get_config(self):
        return {**super().get_config(), "power": self.power}


# %% [markdown]
# It needs no model to be tried.

# %%
losses = np.array([1.0, 2.0, 3.0])
print("weights:", ops.convert_to_numpy(PowerWeighting().compute_weights(losses)).round(3))

# %% [markdown]
# ## One with a memory
#
# State is created in `create_state`, and what becomes of it is said in `next_state`. The base class
# moves it in training only. This one weighs by how far each loss still is from its first value.

# %%


@ktr.weighting.register("laggards")
class Laggards(ktr.weighting.TaskWeighting):
    """Weights proportional to `L / L_first`: the tasks that have come down least."""

    def create_state(self, num_tasks):
        self.first = self.add_state("first")

    def weigh(self, tasks):
        ratios = ops.where(tasks.present, tasks.losses / (self._first(tasks) + 1e-12), 0.0)
        return ratios / ops.maximum(ops.sum(ratios), 1e-12)

    def next_state(self, tasks):
        return [(self.first, self._first(tasks))]

    def _first(self, tasks):
        """The first losses; 0 for a task that was never there."""
        known = ops.convert_to_tensor(self.first)
        return ops.where(known > 0, known, tasks.losses)


# %% [markdown]
# ## In training
#
# Three regressions from the same inputs, of one scale, one harder than the other: sines of one, two
# and four times the frequency. For your own data, replace `x` and `y`.
#
# `"minimax"` has its default `alpha` of 1 here, which is for losses of about 1: as the losses fall,
# its weights even out. A ratio of losses, as in the two above, does not know their size.

# %%
rng = np.random.default_rng(0)
x = rng.uniform(-1, 1, (600 if SMOKE else 3000, 1)).astype("float32")
FREQUENCIES = {"slow": 2.0, "middle": 4.0, "fast": 8.0}
y = {name: np.sin(frequency * x) for name, frequency in FREQUENCIES.items()}


def train_with(weighting):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((1,))
    trunk = keras.layers.Dense(32, activation="tanh")(inputs)
    trunk = keras.layers.Dense(32, activation="tanh")(trunk)
    network = keras.Model(inputs, {name: keras.layers.Dense(1, name=name)(trunk) for name in y})
    model = ktr.MinimaxModel(network)
    model.compile(keras.optimizers.Adam(3e-3), loss=dict.fromkeys(y, "mse"), weighting=weighting)
    return model, model.fit(x, y, batch_size=64, epochs=EPOCHS, verbose=0).history


WEIGHTINGS = ("uniform", "minimax", "power", "laggards")
results = {name: train_with(name) for name in WEIGHTINGS}

print(f"{'weighting':12}" + "".join(f"{name:>10}" for name in (*FREQUENCIES, "worst", "mean")))
for name, (_, history) in results.items():
    last = [history[f"{task}_loss"][-1] for task in FREQUENCIES]
    print(f"{name:12}" + "".join(f"{value:>10.4f}" for value in (*last, max(last), np.mean(last))))

# %%
figure, axes = plt.subplots(2, 4, figsize=(11, 5), sharex=True, sharey="row", layout="constrained")
for column, (name, (_, history)) in zip(axes.T, results.items(), strict=True):
    for task in FREQUENCIES:
        column[0].semilogy(history[f"{task}_loss"], label=task)
        column[1].plot(history[f"{task}_weight"], label=task)
    column[0].set_title(name)
    column[1].set_xlabel("epoch")
axes[0, 0].set_ylabel("loss")
axes[1, 0].set_ylabel("weight")
axes[0, 0].legend()
plt.show()

# %% [markdown]
# ## Saved, and opened again
#
# With its options and its state; training goes on from there.

# %%
model, _ = results["laggards"]
model.save("own_weighting.keras")
opened = keras.saving.load_model("own_weighting.keras")
os.remove("own_weighting.keras")
print("first losses kept:", ops.convert_to_numpy(opened.weighting.first).round(3))

# %% [markdown]
# Weights that come from the gradients' inner products are a `ktr.weighting.GramianWeighting`, those
# from the gradients themselves a `ktr.weighting.GradientWeighting`. To add one to the library, see
# CONTRIBUTING.md.
