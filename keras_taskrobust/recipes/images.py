"""What MM-MAE's pre-training does in its own way, and its names."""

import dataclasses
import functools
import os
import warnings

import keras
import keras_hub
import numpy as np

from keras_taskrobust.data_loading import WHOLE, read_ahead, with_workers
from keras_taskrobust.evaluation.held_out import score_reconstructions
from keras_taskrobust.evaluation.reconstructions import (
    Reconstructions,
    paint_reconstructions,
    plot_reconstructions,
)
from keras_taskrobust.files import folder_to_write, replacing
from keras_taskrobust.recipes.comparison import compare
from keras_taskrobust.recipes.image_settings import TINY, ImagePretraining
from keras_taskrobust.recipes.pretraining import PretrainingFamily, compile_with, pretrain
from keras_taskrobust.recipes.training_run import RECONSTRUCTIONS, FromTheStart
from keras_taskrobust.training.rematerialization import rematerialize
from keras_taskrobust.vision import (
    ImageSource,
    ImageSubset,
    Modality,
    MultiModalMAE,
    PatchMasking,
    export_vit_backbone,
    image_batches,
)
from keras_taskrobust.vision.vit_layers import encoder_of

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
    images = OpenedImages(*recipe.open((), recipe.image_size, **options))
    _say_what_is_left_out(recipe, images)
    return images


def _say_what_is_left_out(recipe, images):
    used = recipe.with_modalities(images.train.modalities).modalities
    if used != recipe.modalities:
        left_out = [name for name in recipe.modalities if name not in used]
        warnings.warn(
            f"The images have no {' and no '.join(left_out)}: trained on {' and '.join(used)}.",
            stacklevel=3,
        )


def build_mm_mae(
    recipe: ImagePretraining,
    class_names: tuple[str, ...],
    kind: type[MultiModalMAE] = MultiModalMAE,
) -> MultiModalMAE:
    """A compiled `MultiModalMAE` with the recipe's initial weights, optimizer and weighting.

    Args:
        recipe: the settings.
        class_names: tuple of strings, the classes of the label maps.
        kind: the class, of the same arguments.
    """
    keras.utils.set_random_seed(recipe.seed)
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(*recipe.image_size, 3),
        patch_size=recipe.patch_size,
        num_layers=recipe.num_layers,
        num_heads=recipe.num_heads,
        hidden_dim=recipe.hidden_dim,
        mlp_dim=recipe.mlp_dim,
        dtype=keras.dtype_policies.get(recipe.on_device().dtype_policy),
    )
    if recipe.rematerialize:
        rematerialize(encoder_of(backbone).encoder_layers)
    model = kind(
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
    compile_with(model, recipe, schedule, beta_1=recipe.beta_1)
    return model


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


class ImageFamily(PretrainingFamily[ImagePretraining, OpenedImages]):
    """MM-MAE on images with depth and labels."""

    model = "MM-MAE"
    unit = "images"
    preset = "model.keras"
    introduction = (
        "Each row is the same small MM-MAE, trained on the same batches from the same initial "
        "weights. Only the weighing of its tasks, one a modality, differs: uniform is the mean "
        "over the tasks, minimax weighs the largest loss most. The losses are of different kinds, "
        "and on different scales: squared errors of RGB, absolute errors of depth, cross-entropy "
        "of labels. So scale_free_minimax weighs by how far each is below that of the best "
        "constant prediction."
    )
    weightings = {
        name: {"weighting": name} for name in ("uniform", "minimax", "scale_free_minimax")
    }
    demo = dataclasses.replace(TINY, steps=240, warmup_steps=24)

    def prepare(self, recipe, directory):
        return open_images(recipe)

    def settled(self, recipe, data):
        return super().settled(recipe.with_modalities(data.train.modalities), data)

    def build(self, recipe, data):
        return build_mm_mae(recipe, data.train.class_names)

    def batches(self, recipe, data, part=WHOLE):
        workers = (os.cpu_count() or 1) if recipe.workers is None else recipe.workers
        batches = image_batches(
            data.train,
            recipe.batch_size,
            recipe.image_size,
            seed=recipe.seed,
            modalities=recipe.modalities,
            strides={"semseg": recipe.semseg_stride},
            masking=_masking(recipe),
            part=part,
        )
        return lambda step: with_workers(batches[step:], workers)

    def score(self, model, recipe, data):
        constants = model.fit_constants(FromTheStart(self.batches(recipe, data)))
        return score_reconstructions(model, _held_out_batches(recipe, data), _MASK_SEED, constants)

    def draw(self, model, recipe, data, directory, stage):
        path = directory / RECONSTRUCTIONS[stage]
        painted = reconstruct_held_out(model, recipe, data)
        painted.save(path)
        plot_reconstructions(painted, path.with_suffix(".png"))

    def export(self, model, directory):
        with replacing(directory / self.preset) as partial:
            model.save(partial)
        if model.network.image_modality is not None:
            export_vit_backbone(model, folder_to_write(directory, "preset"))

    def describe(self, recipe, data):
        height, width = recipe.image_size
        return {
            "images": f"{recipe.data}, {len(data.train)} to train on and {len(data.held_out)} "
            f"held out, {height} x {width} pixels, {', '.join(recipe.modalities)}",
            "model": f"{recipe.num_layers} layers of {recipe.hidden_dim}, {recipe.num_heads} "
            f"heads, decoders of {recipe.decoder_dim} x {recipe.decoder_depth}, "
            f"{recipe.visible_tokens} visible patches of {recipe.patch_size} x "
            f"{recipe.patch_size}",
        }


IMAGES = ImageFamily()
pretrain_images = functools.partial(pretrain, IMAGES)
compare_images = functools.partial(compare, IMAGES)


def _modalities(recipe, class_names):
    kinds = {
        "rgb": {"channels": 3, "normalized_twin": recipe.normalized_twin},
        "depth": {"channels": 1},
        "semseg": {"num_classes": len(class_names), "stride": recipe.semseg_stride},
    }
    return [Modality(name, **kinds[name]) for name in recipe.modalities]


def _masking(recipe):
    """What training shows of each record in each epoch, whatever it is computed on."""
    height, width = recipe.image_size
    return PatchMasking(
        recipe.modalities,
        (height // recipe.patch_size) * (width // recipe.patch_size),
        recipe.visible_tokens,
        recipe.visible_concentration,
        seed=recipe.seed,
    )


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
