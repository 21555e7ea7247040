"""The settings of fine-tuning on related tasks: those of fine-tuning, with a longer probe."""

import dataclasses
from collections.abc import Collection

from keras_taskrobust.downstream.settings import Adaptation
from keras_taskrobust.recipes import image_finetuning_recipe, text_finetuning_recipe

TEXT_RECIPES = {
    name: (text, dataclasses.replace(settings, probe_epochs=settings.epochs))
    for name, (text, settings) in text_finetuning_recipe.FINETUNING_RECIPES.items()
}
IMAGE_RECIPES = {
    name: (text, dataclasses.replace(settings, probe_epochs=settings.epochs))
    for name, (text, settings) in image_finetuning_recipe.FINETUNING_RECIPES.items()
    if name in ("imagenet-classification", "small")
}


def unused_of_settings(settings: Adaptation, tasks: Collection[str] = ()) -> dict[str, str]:
    """As `Adaptation.unused`, but for the settings of the head, which every method has here."""
    unused = settings.unused(tasks)
    return {name: what for name, what in unused.items() if not name.startswith("probe_")}
