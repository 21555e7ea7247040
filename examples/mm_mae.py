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
# # MM-MAE: your own modalities, from aligned files
#
# A masked autoencoder that sees a few patches of several maps of a scene and predicts the rest of
# all of them. Each modality is a task. What comes out is an ordinary ViT of KerasHub.
#
# | at full size | one CPU core | T4 | TPU v3-8 |
# | --- | --- | --- | --- |
# | time | 5 minutes | 2 minutes (estimated) | 4 minutes (estimated) |
# | memory | 2 GB | 2 GB (estimated) | 1 GB a core (estimated) |

# %% tags=["skip-execution"]
# The wheel is what `make wheel` builds. On Kaggle, attach it: its path begins with /kaggle/input.
# %pip install -q "keras_taskrobust-0.1.0-py3-none-any.whl[models]"

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", "torch"

import json
import tempfile
from pathlib import Path

import keras
import keras_hub
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import keras_taskrobust as ktr
from keras_taskrobust.downstream import finetune_images, open_image_model, open_image_task
from keras_taskrobust.downstream.settings import ImageFineTuning
from keras_taskrobust.evaluation.reconstructions import paint_reconstructions, plot_reconstructions

SMOKE = os.environ.get("SMOKE") == "1"
SCENES, STEPS, FINE_TUNING_STEPS = (20, 4, 2) if SMOKE else (240, 120, 60)
SIZE, BATCH_SIZE = (32, 8) if SMOKE else (64, 16)

# %% [markdown]
# ## Aligned files
#
# `rgb/0001.png`, `depth/0001.png` (16 bits, millimetres) and `semseg/0001.png` (labels) belong
# together; `semseg.json` names the labels. Here they are procedural scenes, rendered on the spot;
# for your own, set `root`.

# %%
work = Path(tempfile.mkdtemp())
root = work / "my-images"
scenes = ktr.vision.generate_scenes(SCENES, SIZE, SIZE)
maps = {
    "rgb": scenes["rgb"],
    "depth": np.round(scenes["depth"][..., 0] * 1000).astype("uint16"),
    "semseg": scenes["semseg"],
}
for name, arrays in maps.items():
    (root / name).mkdir(parents=True)
    for number, array in enumerate(arrays):
        Image.fromarray(array).save(root / name / f"{number:04}.png")

class_names = ktr.vision.ProceduralScenes(1).class_names
(root / "semseg.json").write_text(json.dumps({"class_names": class_names}))

images = ktr.vision.AlignedFolder(root)
split = len(images) * 4 // 5
train = ktr.vision.ImageSubset(images, list(range(split)))
held_out = ktr.vision.ImageSubset(images, list(range(split, len(images))))

# %% [markdown]
# ## A modality of your own
#
# Anything with the shape of an image will do: name it, and put its maps into the batches. Here it
# is the slope of the depth, computed on the way; it could as well be a thermal image.

# %%


def with_slope(batch):
    depth = batch["depth"][..., 0]
    slope = np.stack(np.gradient(depth, axis=(1, 2)), axis=-1)
    return {**batch, "slope": np.clip(4 * slope, -2, 2).astype("float32")}


def batches_of(source, **options):
    batches = ktr.vision.image_batches(
        source, BATCH_SIZE, SIZE, strides={"semseg": 2}, drop_remainder=False, **options
    )
    return batches.map(with_slope)


modalities = [
    ktr.vision.Modality("rgb", channels=3),
    ktr.vision.Modality("depth", channels=1),
    ktr.vision.Modality("semseg", num_classes=len(class_names), stride=2),
    ktr.vision.Modality("slope", channels=2),
]

# %% [markdown]
# ## Pre-training
#
# Squared errors, absolute errors and a cross-entropy: the losses are of different kinds, so they
# are weighed by `L / T`, their share of what the best constant map scores.
#
# So few steps show that it runs, not what it can do: `L / T` near 1 says so. Give `STEPS` some
# thousands for pictures worth looking at and an encoder worth fine-tuning: an hour on one CPU core.

# %%
keras.utils.set_random_seed(0)
backbone = keras_hub.models.ViTBackbone(
    image_shape=(SIZE, SIZE, 3),
    patch_size=8,
    num_layers=2,
    num_heads=4,
    hidden_dim=32 if SMOKE else 128,
    mlp_dim=64 if SMOKE else 512,
)
model = ktr.vision.MultiModalMAE(
    backbone,
    modalities,
    visible_tokens=12 if SMOKE else 48,
    decoder_dim=32 if SMOKE else 64,
    decoder_depth=1,
    decoder_heads=4,
    encoder_norm=False,
    seed=0,
)
model.compile(keras.optimizers.AdamW(1e-3, weight_decay=0.05), weighting="scale_free_minimax")
history = model.fit(
    batches_of(train), steps_per_epoch=STEPS // 4, epochs=4, shuffle=False, verbose=0
).history

print(f"{'task':8}{'loss':>8}{'L / T':>8}{'weight':>8}")
for task in model.task_names:
    figures = (history[f"{task}_{what}"][-1] for what in ("loss", "trivial_ratio", "weight"))
    print(f"{task:8}" + "".join(f"{figure:>8.3f}" for figure in figures))

# %% [markdown]
# ## Reconstructions of held-out scenes

# %%
batch = batches_of(held_out, augment=False, shuffle=False, epochs=1)[0]
shown = {name: array[:3] for name, array in batch.items() if name != "slope"}
masks = model.draw_masks(shown, seed=0)
painted = paint_reconstructions(model, shown, masks, class_names)
plot_reconstructions(painted, work / "reconstructions.png")
plt.figure(figsize=(12, 4), layout="constrained")
plt.imshow(plt.imread(work / "reconstructions.png"))
plt.axis("off")
plt.show()

# %% [markdown]
# ## Weights of MultiMAE
#
# The other way in: start from the checkpoint of MultiMAE's authors. It needs a ViT-B/16, and
# `encoder_norm=False`. With `MULTIMAE = None` the same is shown on weights that we write here.

# %%
MULTIMAE = None  # "multimae-b_98_rgb+-depth-semseg_1600e.pth"
weights = ktr.vision.save_multimae_weights(model) if MULTIMAE is None else MULTIMAE
report = ktr.vision.load_multimae_weights(model, weights)
print(len(report.loaded), "arrays read,", len(report.missing), "missing")

# %% [markdown]
# ## Fine-tuning for depth
#
# From RGB alone. `delta_1` is the share of pixels less than 25 % off.

# %%
model.save(work / "model.keras")
task = open_image_task("depth", train, held_out, size=(SIZE, SIZE))
settings = ImageFineTuning(
    learning_rate=1e-3,
    batch_size=BATCH_SIZE,
    epochs=20,
    warmup_epochs=2,
    max_steps=FINE_TUNING_STEPS,
    drop_path=0.0,
    image_size=None,
    head_width=16 if SMOKE else 32,
    reports=1,
)
for name, from_scratch in {"pre-trained": False, "from scratch": True}.items():
    keras.utils.set_random_seed(0)
    opened = open_image_model(str(work / "model.keras"), from_scratch=from_scratch)
    found = finetune_images(opened, task, settings)
    print(f"{name:14}delta_1 {found.scores['last']['delta_1']:.3f}")
print(f"{'best constant':14}delta_1 {found.trivial_scores['delta_1']:.3f}")

# %% [markdown]
# `ktr.vision.export_vit_backbone(model, folder)` writes the encoder alone, as a preset of KerasHub.
# The same from the command line, with checkpoints and reports:
#
# ```
# taskrobust pretrain images mm-mae-tiny --data my-images/ --output runs/mine
# taskrobust finetune images small --preset mine=runs/mine --data my-images/ --tasks depth
# ```
