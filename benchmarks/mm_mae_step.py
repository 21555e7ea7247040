"""The cost of a minimax step of MM-MAE over Keras's own step on the unweighted sum of its losses.

Run it once a backend:

    KERAS_BACKEND=jax python benchmarks/mm_mae_step.py

ViT-Tiny: 12 layers of 192, 224 pixels, 98 visible patches of RGB, depth and 133 classes at 1/4
of the size, three decoders of 256 x 2, batches of 8. Timed as `step_time.py` does.
"""

from pathlib import Path

import keras
import keras_hub
import numpy as np
import tyro
from step_time import Case, run_cases

from keras_taskrobust.vision import Modality, MultiModalMAE

MODALITIES = (
    Modality("rgb", channels=3),
    Modality("depth", channels=1),
    Modality("semseg", num_classes=133, stride=4),
)


class SummedLosses(keras.Model):
    """The network of an MM-MAE under Keras's own train step, on the sum of the task losses."""

    def __init__(self, mm_mae):
        super().__init__()
        self.network = mm_mae.network
        self._totals_of = mm_mae.compute_task_totals

    def call(self, inputs, training=None):
        return self.network(inputs, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        totals, counts, _ = self._totals_of(x, y, y_pred, sample_weight)
        return keras.ops.sum(totals / keras.ops.maximum(counts, 1.0))


def build() -> MultiModalMAE:
    """The model, not yet compiled."""
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(224, 224, 3),
        patch_size=16,
        num_layers=12,
        num_heads=3,
        hidden_dim=192,
        mlp_dim=768,
    )
    return MultiModalMAE(backbone, MODALITIES, visible_tokens=98, encoder_norm=False, seed=0)


def vit_tiny_case(steps=2, batch_size=8) -> Case:
    """Random images, depths and labels."""
    rng = np.random.default_rng(0)
    number = steps * batch_size
    x = {
        "rgb": rng.normal(size=(number, 224, 224, 3)).astype("float32"),
        "depth": rng.normal(size=(number, 224, 224, 1)).astype("float32"),
        "semseg": rng.integers(0, 133, (number, 56, 56), dtype="int32"),
    }

    def minimax():
        model = build()
        model.compile(keras.optimizers.AdamW(1e-4), weighting="minimax")
        return model

    def stock():
        model = SummedLosses(build())
        model.compile(keras.optimizers.AdamW(1e-4))
        return model

    return Case(steps, batch_size, minimax, stock, x, None, None, None)


def main(rounds: int = 15, output: Path | None = None):
    """Prints a line, and appends it to a csv file.

    Args:
        rounds: rounds of three blocks.
        output: csv file; by default none.
    """
    run_cases({"mm_mae_vit_tiny_224": vit_tiny_case}, rounds, output)


if __name__ == "__main__":
    tyro.cli(main)
