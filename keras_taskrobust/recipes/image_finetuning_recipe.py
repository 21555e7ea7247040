"""The settings of fine-tuning on images, the paper's and small ones, and which images."""

from keras_taskrobust.downstream.settings import ImageFineTuning
from keras_taskrobust.recipes.image_settings import ImageData

_CLASSIFICATION = ImageFineTuning(
    learning_rate=4e-3,
    epochs=100,
    warmup_epochs=5,
    layer_decay=0.65,
    rand_augment=9,
    mixup=0.8,
    cutmix=1.0,
    label_smoothing=0.1,
)
_SEMSEG = ImageFineTuning(learning_rate=1e-4, epochs=100, warmup_epochs=20, layer_decay=0.75)
_DEPTH = ImageFineTuning(
    learning_rate=1e-4,
    batch_size=2048,
    epochs=2000,
    warmup_epochs=100,
    least_learning_rate=0.0,
    weight_decay=1e-4,
    layer_decay=0.75,
    drop_path=0.0,
    image_size=(256, 256),
)
SMALL = ImageFineTuning(
    learning_rate=1e-3,
    batch_size=32,
    epochs=20,
    warmup_epochs=2,
    max_steps=400,
    drop_path=0.0,
    image_size=None,
    head_width=32,
    least_crop=0.5,
    jitter=(0.5, 2.0),
    reports=5,
)
_TABLE = "Wang et al. 2023, fine-tuning table"
FINETUNING_RECIPES = {
    "imagenet-classification": (
        f"{_TABLE}, ImageNet-1K: RandAugment(9, 0.5) is Keras's, whose strengths are uniform up to "
        "9 of 10. Mixup, cutmix and label smoothing are not given there: MultiMAE's.",
        _CLASSIFICATION,
    ),
    "imagenet-s50-classification": (
        f"{_TABLE}, ImageNetS-50: as imagenet-classification.",
        _CLASSIFICATION,
    ),
    "imagenet-s50-semseg": (
        f"{_TABLE}, ImageNetS-50. Head and loss are not given there: MultiMAE's.",
        _SEMSEG,
    ),
    "nyuv2-semseg": (
        f"{_TABLE}, NYUv2. Head and loss are not given there: MultiMAE's.",
        _SEMSEG,
    ),
    "nyuv2-depth": (
        f"{_TABLE}, NYUv2. Head and loss are not given there: MultiMAE's, whose augmentation is "
        "random crops, flips and changes of colour; here flips and large-scale jitter.",
        _DEPTH,
    ),
    "small": ("For models of a few layers: 1e-3, narrow heads, at most 400 steps.", SMALL),
}

#: The images of downstream tasks.
TaskImages = ImageData
