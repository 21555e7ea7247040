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
# # Choose a weighting
#
# The comparison report, read aloud: the same model, the same batches, the same initial weights, and
# only the weighting differs. Its figures decide for your data. Those below are of 100 steps and two
# seeds, too few to decide; in them scale-free minimax is below `uniform` on the worst task, and of
# minimax and uncertainty the intervals hold 0.
#
# | at full size | one CPU core | T4 | TPU v3-8 |
# | --- | --- | --- | --- |
# | time | 6 minutes | 2 minutes (estimated) | 4 minutes (estimated) |
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

import matplotlib.pyplot as plt

from keras_taskrobust.evaluation import print_report
from keras_taskrobust.recipes.image_settings import TINY
from keras_taskrobust.recipes.images import compare_images

SMOKE = os.environ.get("SMOKE") == "1"

# %% [markdown]
# ## What is compared
#
# A recipe is a dataclass; change what you like. The default images are procedural scenes: for your
# own, say `data="my-images/"`. For texts take `keras_taskrobust.recipes.text`, with
# `corpus="my-texts/"` and `compare_text`.
#
# A row is a name and what is different in it. More than one seed is what tells a difference from
# chance.

# %%
recipe = dataclasses.replace(TINY, steps=100, warmup_steps=10, scenes=480, num_layers=2)
if SMOKE:
    recipe = dataclasses.replace(
        recipe,
        **{"steps": 4, "warmup_steps": 1, "steps_per_report": 2, "batch_size": 8, "scenes": 40},
        **{"image_size": (32, 32), "visible_tokens": 8, "num_layers": 1, "decoder_dim": 16},
        **{"hidden_dim": 32, "mlp_dim": 64, "pictures": 1},
    )
rows = {
    "uniform": {"weighting": "uniform"},
    "uncertainty": {"weighting": "uncertainty"},
    "minimax": {"weighting": "minimax"},
    "scale-free minimax": {"weighting": "scale_free_minimax"},
}
folder = Path(tempfile.mkdtemp())
drawn = compare_images(recipe, folder, rows, seeds=range(1 if SMOKE else 2), minimum_targets=1)

# %% [markdown]
# ## Read the shares first
#
# The losses of three modalities are in three units. So the report goes by the *share* that was
# learnt, `1 - L / T`, where `T` is the loss of the best constant prediction: 0 is nothing, 1 is
# everything, below 0 is worse than not to look.
#
# 1. Which task is the worst under `uniform`? If its share is near that of the others, no weighting
#    will do much for you: stay with `uniform`.
# 2. Does a row lift it by more than its interval? If not, it is chance, or more steps are needed.
# 3. Who pays? Look at the mean, and at the tasks one by one.

# %%
print_report(drawn.runs, minimum_targets=1)

# %%


def show(*names):
    for name in names:
        picture = plt.imread(folder / name)
        plt.figure(figsize=(10, 10 * picture.shape[0] / picture.shape[1]), layout="constrained")
        plt.imshow(picture)
        plt.axis("off")
    plt.show()


show("final_shares.png")

# %% [markdown]
# ## Then the weights
#
# They tell why. A task that holds all of the weight from the first step to the last is a task in
# large units, not a hard one: that is plain `minimax` on losses of different kinds. Weights that
# move are an answer to what was learnt.

# %%
show("task_losses.png", "task_weights.png")

# %% [markdown]
# ## In five lines
#
# - Losses of one kind and size: `"minimax"`; `alpha` from about 1 (gentle) to 10 (sharp).
# - Losses of different kinds: `"scale_free_minimax"` for the worst, `"uncertainty"` for a balance.
#   Here neither beats uniform on the worst share: run it beside them.
# - Some tasks cannot be learnt better than they are: `reference_losses`, the losses of a model of
#   the task alone.
# - Rare tasks: `loss_momentum=0.9`.
# - The mean is what counts: `"uniform"` or `"pooled"`.
#
# The whole report, with all tables, is `report.html` in the folder. The same from the command line:
#
# ```
# taskrobust compare images mm-mae-tiny --weightings uniform uncertainty minimax \
#     scale_free_minimax --seeds 0 1 --output runs/weightings
# ```
