"""Pre-training MM-MAE: open images, train, score, draw, save."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import keras
import keras_hub
import numpy as np

from keras_taskrobust.data_loading import read_ahead, with_workers
from keras_taskrobust.evaluation.held_out import score_reconstructions
from keras_taskrobust.evaluation.reconstructions import (
    Reconstructions,
    paint_reconstructions,
    plot_reconstructions,
)
from keras_taskrobust.evaluation.runs import Run
from keras_taskrobust.files import folder_to_write, replacing
from keras_taskrobust.locks import locks_directory
from keras_taskrobust.recipes.fingerprints import check_fingerprints
from keras_taskrobust.recipes.image_settings import ImagePretraining
from keras_taskrobust.recipes.training_run import (
    RECONSTRUCTIONS,
    claim_data,
    claim_folder,
    finish_run,
    finished_run,
    load_run,
    train,
)
from keras_taskrobust.vision import (
    ImageSource,
    ImageSubset,
    Modality,
    MultiModalMAE,
    export_vit_backbone,
    image_batches,
)

_MASK_SEED = 0


@dataclasses.dataclass(frozen=True)
class OpenedImages:
    """The images of a recipe."""

    train: ImageSource
    held_out: ImageSource

    def fingerprints(self) -> dict[str, str]:
        """Digests of what a run reads."""
        return {"images": self.train.fingerprint, "held-out images": self.held_out.fingerprint}


def open_images(recipe: ImagePretraining) -> OpenedImages:
    """Opens the images that `recipe` names, once for several runs."""
    options = {"strict": recipe.strict, "verify": recipe.verify}
    return OpenedImages(*recipe.open(recipe.modalities, recipe.image_size, **options))


def build_mm_mae(recipe: ImagePretraining, class_names: tuple[str, ...]) -> MultiModalMAE:
    """A compiled `MultiModalMAE` with the recipe's initial weights, optimizer and weighting."""
    keras.utils.set_random_seed(recipe.seed)
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(*recipe.image_size, 3),
        patch_size=recipe.patch_size,
        num_layers=recipe.num_layers,
        num_heads=recipe.num_heads,
        hidden_dim=recipe.hidden_dim,
        mlp_dim=recipe.mlp_dim,
        dtype=keras.dtype_policies.get(recipe.dtype_policy),
    )
    model = MultiModalMAE(
        backbone,
        _modalities(recipe, class_names),
        recipe.visible_tokens,
        decoder_dim=recipe.decoder_dim,
        decoder_depth=recipe.decoder_depth,
        decoder_heads=recipe.decoder_heads,
        encoder_norm=recipe.encoder_norm,
        visible_concentration=recipe.visible_concentration,
        class_embedding_dim=recipe.class_embedding_dim,
        seed=recipe.seed,
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=recipe.steps - recipe.warmup_steps,
        alpha=recipe.least_learning_rate / recipe.peak_learning_rate,
        warmup_target=recipe.peak_learning_rate,
        warmup_steps=recipe.warmup_steps,
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=recipe.weight_decay,
        beta_1=recipe.beta_1,
        beta_2=recipe.beta_2,
        epsilon=recipe.epsilon,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(
        optimizer,
        weighting=recipe.make_weighting(),
        gradient_diagnostics=recipe.gradient_diagnostics,
    )
    return model


def train_batches(recipe: ImagePretraining, images: OpenedImages) -> Callable:
    """From the number of a step to the batches from there on, as `fit` takes them."""
    workers = (os.cpu_count() or 1) if recipe.workers is None else recipe.workers
    batches = image_batches(
        images.train,
        recipe.batch_size,
        recipe.image_size,
        seed=recipe.seed,
        modalities=recipe.modalities,
        strides={"semseg": recipe.semseg_stride},
    )
    return lambda step: with_workers(batches[step:], workers)


@locks_directory
def pretrain_images(
    recipe: ImagePretraining,
    directory: Path,
    images: OpenedImages | None = None,
    label: str = "",
) -> Run:
    """One run: open the images, train, score, draw, save.

    A finished run is not computed again; a killed one goes on from its checkpoint.

    Args:
        recipe: the settings.
        directory: the folder of the run: `recipe.json`, `history.csv`, `scores.npz`, the pictures
            of reconstructions before and after training, `model.keras`, and `preset/`, which
            `keras_hub.models.ViTImageClassifier.from_preset` opens.
        images: those of `open_images(recipe)`, or `None` to open them.
        label: what progress bar and report call the run; by default its weighting.

    Returns:
        `Run`.

    Raises:
        ValueError: `directory` holds a run with other settings or images, another process is in
            it, or the images do not fit.
    """
    label = label or recipe.weighting
    claim_folder(directory, recipe)
    run = finished_run(directory, label)
    if run is not None:
        if images is not None:
            check_fingerprints(directory, images.fingerprints(), is_finished=True)
        return run
    images = images or open_images(recipe)
    claim_data(directory, images.fingerprints())
    recipe = recipe.with_steps(len(images.train))
    model = build_mm_mae(recipe, images.train.class_names)
    pictures = _Pictures(recipe, images, directory)
    pictures.draw(model, "at_start")
    batches = train_batches(recipe, images)
    seconds = train(model, recipe, batches, directory, label, [pictures])
    scores = score_reconstructions(model, _held_out_batches(recipe, images), _MASK_SEED)
    pictures.draw(model, "at_end")
    with replacing(directory / "model.keras") as partial:
        model.save(partial)
    if model.network.image_modality is not None:
        export_vit_backbone(model, folder_to_write(directory, "preset"))
    finish_run(directory, scores, seconds)
    return load_run(directory, label)


def reconstruct_held_out(
    model: MultiModalMAE, recipe: ImagePretraining, images: OpenedImages
) -> Reconstructions:
    """Reconstructs some held-out images, with masks that depend on neither seed nor weighting."""
    number = min(recipe.pictures, len(images.held_out))
    chosen = np.linspace(0, len(images.held_out) - 1, number).astype(int).tolist()
    shown = OpenedImages(images.train, ImageSubset(images.held_out, chosen))
    (batch,) = _held_out_batches(dataclasses.replace(recipe, batch_size=number), shown)
    masks = model.draw_masks(batch, _MASK_SEED)
    return paint_reconstructions(model, batch, masks, images.held_out.class_names)


class _Pictures(keras.callbacks.Callback):
    """Reconstructions before, half-way through and after training."""

    def __init__(self, recipe, images, directory):
        super().__init__()
        self._recipe = recipe
        self._images = images
        self._directory = directory

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self.params["epochs"] // 2:
            self.draw(self.model, "half_way")

    def draw(self, model, stage):
        path = self._directory / RECONSTRUCTIONS[stage]
        painted = reconstruct_held_out(model, self._recipe, self._images)
        painted.save(path)
        plot_reconstructions(painted, path.with_suffix(".png"))


def _modalities(recipe, class_names):
    kinds = {
        "rgb": {"channels": 3, "normalized_twin": recipe.normalized_twin},
        "depth": {"channels": 1},
        "semseg": {"num_classes": len(class_names), "stride": recipe.semseg_stride},
    }
    return [Modality(name, **kinds[name]) for name in recipe.modalities]


def _held_out_batches(recipe, images):
    batches = image_batches(
        images.held_out,
        recipe.batch_size,
        recipe.image_size,
        epochs=1,
        augment=False,
        shuffle=False,
        modalities=recipe.modalities,
        strides={"semseg": recipe.semseg_stride},
        drop_remainder=False,
    )
    return read_ahead(batches)
