"""What the commands on texts, and those on images, have of their own."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

from keras_taskrobust.cli_options import (
    FineTune,
    FineTuneImages,
    ImageComparison,
    InheritImages,
    InheritText,
    PrepareText,
    Settings,
    TextComparison,
    TrainedRun,
)
from keras_taskrobust.cli_parsing import field_names
from keras_taskrobust.distribution import Devices
from keras_taskrobust.downstream.own_tables import named_tasks
from keras_taskrobust.recipes import (
    finetuning_settings,
    image_settings,
    text_settings,
)
from keras_taskrobust.recipes.image_settings import ImageData

Recipes = Mapping[str, tuple[str, Any]]

_ARGUMENTS = {"presets": "preset"}


class Modality(abc.ABC):
    """A modality. Its methods need Keras.

    Attributes:
        pretraining, finetuning, inheritance: names of recipes to a description and the settings.
        runs: the options of the commands on one run, to be parametrised.
        comparison, finetune, inherit: those of these commands.
        arguments: arguments of the library, other than fields, to those that set them.
        left: string. What fine-tuning leaves beside its report.
    """

    pretraining: ClassVar[Recipes]
    finetuning: ClassVar[Recipes]
    inheritance: ClassVar[Recipes]
    runs: ClassVar[tuple] = (TrainedRun,)
    comparison: ClassVar[Any]
    finetune: ClassVar[Any]
    inherit: ClassVar[Any]
    arguments: ClassVar[Mapping[str, str]]
    left: ClassVar[str]

    def names(self) -> set[str]:
        """Those of all that flags set."""
        recipes = (self.pretraining, self.finetuning, self.inheritance)
        settings = [recipe for one in recipes for _, recipe in one.values()]
        commands = (*self.runs, self.comparison, self.finetune, self.inherit)
        options = (*commands, Devices, *map(type, settings))
        return set().union(*map(field_names, options))

    @abc.abstractmethod
    def family(self):
        """The `PretrainingFamily`."""

    def tasks(self, arguments, settings):
        """The `TaskFamily` of a comparison or of fine-tuning, with the settings of the latter."""
        raise NotImplementedError

    def related(self, arguments):
        """The `TaskFamily` whose tasks share their classes."""
        raise NotImplementedError


class _Text(Modality):
    pretraining = text_settings.RECIPES
    finetuning = finetuning_settings.TEXT_RECIPES
    inheritance = finetuning_settings.RELATED_TEXT_RECIPES
    runs = (TrainedRun, PrepareText)
    comparison = TextComparison
    finetune = FineTune
    inherit = InheritText
    arguments = _ARGUMENTS | {"source": "corpus"}
    left = "predictions"

    def family(self):
        from keras_taskrobust.recipes.text import TEXTS

        return TEXTS

    def tasks(self, arguments, settings):
        from keras_taskrobust.downstream.text import TextTasks

        names, tables = named_tasks(arguments.tasks)
        return TextTasks(names, settings, _data_dir(arguments), tables)

    def related(self, arguments):
        from keras_taskrobust.downstream.text import RelatedTexts

        names, tables = named_tasks((*arguments.tasks, arguments.head_task or ""))
        *tasks, head_task = names
        data_dir = _data_dir(arguments)
        return RelatedTexts(tuple(tasks), arguments.recipe, data_dir, tables, head_task=head_task)


class _Images(Modality):
    pretraining = image_settings.RECIPES
    finetuning = finetuning_settings.IMAGE_RECIPES
    inheritance = finetuning_settings.RELATED_IMAGE_RECIPES
    comparison = ImageComparison
    finetune = FineTuneImages[Settings, ImageData]
    inherit = InheritImages[Settings, ImageData]
    arguments = _ARGUMENTS | {"source": "data", "path": "data"}
    left = "cells"

    def family(self):
        from keras_taskrobust.recipes.images import IMAGES

        return IMAGES

    def tasks(self, arguments, settings):
        from keras_taskrobust.downstream.images import ImageTasks

        return ImageTasks(arguments.tasks, settings, arguments.images)

    def related(self, arguments):
        from keras_taskrobust.downstream.images import RelatedImages, all_tasks

        images = arguments.images
        sets = finetuning_settings.named_sets(arguments.sets)
        return RelatedImages(
            arguments.tasks or all_tasks(sets),
            arguments.recipe,
            images,
            {name: finetuning_settings.related_images(images, one) for name, one in sets.items()},
            arguments.severity,
            head_task=arguments.head_task,
        )


TEXT = _Text()
IMAGES = _Images()


def _data_dir(arguments):
    return None if arguments.data_dir is None else str(arguments.data_dir)
