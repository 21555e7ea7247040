"""The options of the commands, as dataclasses that tyro turns into flags."""

import ast
import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from keras_taskrobust import checks
from keras_taskrobust.distribution import Devices
from keras_taskrobust.downstream import NLTK_TASKS
from keras_taskrobust.downstream.own_tables import is_own_table
from keras_taskrobust.downstream.settings import Adaptation
from keras_taskrobust.parts import Part
from keras_taskrobust.recipes import finetuning_settings
from keras_taskrobust.recipes.image_settings import ImageData, ImagePretraining
from keras_taskrobust.recipes.settings import Pretraining, WeightingName

#: The flags that a comparison has none of: they are those of a row.
OF_A_ROW = ("alpha", "loss_momentum", "weighting_options")

Recipe = TypeVar("Recipe", bound=Pretraining)
ImageRecipe = TypeVar("ImageRecipe", bound=ImagePretraining)
Settings = TypeVar("Settings", bound=Adaptation)
Images = TypeVar("Images", bound=ImageData)


@dataclasses.dataclass(frozen=True)
class Demo:
    """Trains small models from the same initial weights and batches under several weightings, and
    reports the worst task: an MM-MAE on procedural scenes, a PoS-BERT on the text shipped with
    Python."""

    part: Literal["images", "text", "all"] = "images"
    """Which of the models. A PoS-BERT takes a quarter of an hour until it has learnt more than how
    frequent words are."""
    output: Path = Path("runs/demo")
    """Folder of the reports, plots and presets. Finished runs in it are kept."""
    steps: int | None = None
    """Training steps under each weighting; by default 240 for images and 1,200 for text."""

    def __post_init__(self):
        if self.steps is not None:
            checks.integer("steps", self.steps, least=1)


@dataclasses.dataclass(frozen=True)
class Run(Generic[Recipe]):
    """One run."""

    recipe: Recipe
    output: Path = Path("runs/pretraining")
    """Folder of the run. A killed run in it goes on."""


@dataclasses.dataclass(frozen=True)
class PrepareText(Run[Recipe]):
    """Tags and tokenizes a corpus, once for all commands with the same output."""

    part: str | None = None
    """Tag only the I-th of N parts of the corpus, I/N, on this machine. Once all are there, the
    same command without it joins them."""

    def __post_init__(self):
        if self.part is not None:
            Part.read(self.part)


@dataclasses.dataclass(frozen=True)
class TrainedRun(Run[Recipe]):
    """One run."""

    devices: Devices = dataclasses.field(default_factory=Devices)


@dataclasses.dataclass(frozen=True)
class Comparison(Generic[Recipe]):
    """Runs that differ in weighting and seed."""

    recipe: Recipe
    output: Path = Path("runs/comparison")
    """Folder of the report and the runs. Finished runs in it are kept."""
    weightings: tuple[WeightingName, ...] = tuple(
        map(WeightingName, ("pooled", "uniform", "minimax"))
    )
    """One or more, each with its options if need be: minimax:alpha=3
    group_dro:step_size=0.1,loss_momentum=0.9."""
    seeds: tuple[int, ...] = (0,)
    """Each seed gives a run of every weighting."""
    minimum_targets: int = 1000
    """Held-out targets that a task needs to count for worst and mean."""
    devices: Devices = dataclasses.field(default_factory=Devices, kw_only=True)

    def __post_init__(self):
        self.rows()
        checks.seeds("seeds", self.seeds)
        checks.integer("minimum_targets", self.minimum_targets, least=0)

    def unused(self) -> dict[str, str]:
        """The flags that change nothing beside the others, and what they are for."""
        names = {"finetuning", "data_dir", "select"} & set(vars(self))
        has_tasks = getattr(self, "tasks", ())
        unused = {} if has_tasks else dict.fromkeys(sorted(names), "fine-tuning on `tasks`")
        return self.recipe.unused() | unused

    def rows(self) -> dict[str, dict]:
        """Rows of the report to the fields of the recipe that differ."""
        rows = [_row(entry) for entry in self.weightings]
        checks.distinct("weightings", [name for name, _ in rows])
        return dict(rows)


@dataclasses.dataclass(frozen=True)
class TextComparison(Comparison[Recipe]):
    """Runs that differ in weighting and seed, fine-tuned if there are `--tasks`."""

    tasks: tuple[str, ...] = ()
    """Downstream tasks to fine-tune on, such as SST-2 STS-B ppattach or a table of your own; by
    default none."""
    finetuning: Literal["glue", "small"] = "small"
    """The recipe of fine-tuning."""
    data_dir: Path | None = None
    """Folder of GLUE's tables; by default GLUE comes from TensorFlow Datasets."""
    select: Literal["last", "best"] = "last"
    """The epoch of fine-tuning whose scores are reported."""

    def __post_init__(self):
        super().__post_init__()
        checks.distinct("tasks", self.tasks, least=0)

    def unused(self) -> dict[str, str]:
        return super().unused() | (_unused_tables(self.tasks) if self.tasks else {})


@dataclasses.dataclass(frozen=True)
class ImageComparison(Comparison[ImageRecipe]):
    """Runs that differ in weighting and seed, fine-tuned on their images if there are `--tasks`."""

    tasks: tuple[Literal["classification", "semseg", "depth"], ...] = ()
    """Downstream tasks to fine-tune on, from RGB alone; by default none."""
    finetuning: Literal[
        "imagenet-classification",
        "imagenet-s50-classification",
        "imagenet-s50-semseg",
        "nyuv2-semseg",
        "nyuv2-depth",
        "small",
    ] = "small"
    """The recipe of fine-tuning."""
    select: Literal["last", "best"] = "last"
    """The report of a fine-tuning run whose scores are shown."""

    def __post_init__(self):
        super().__post_init__()
        checks.distinct("tasks", self.tasks, least=0)

    @property
    def images(self) -> ImageData:
        """The images of the tasks: those of pre-training."""
        return self.recipe.images


@dataclasses.dataclass(frozen=True)
class FineTuneImages(Generic[Settings, Images]):
    """Fine-tuning of finished models on images."""

    recipe: Settings
    images: Images
    preset: tuple[str, ...]
    """Pre-trained models: folders of runs, their model.keras or their presets, or folders, names
    or URIs (hf://...) of KerasHub ViTs, each PRESET or NAME=PRESET."""
    tasks: tuple[Literal["classification", "semseg", "depth"], ...] = ("semseg", "depth")
    """Downstream tasks."""
    output: Path = Path("runs/finetune-images")
    """Folder of the report. Finished cells in it are kept."""
    seeds: tuple[int, ...] = (0,)
    """Each fixes the head's initial weights, the order and augmentation."""
    from_scratch: bool = False
    """Add a row of the same network without pre-training."""
    select: Literal["last", "best"] = "last"
    """The report of a run whose scores are shown; both are recorded."""
    devices: Devices = dataclasses.field(default_factory=Devices)

    def __post_init__(self):
        _check_grid(self)

    def unused(self) -> dict[str, str]:
        """The flags that change nothing beside the others, and what they are for."""
        return self.recipe.unused(self.tasks) | self.images.unused()


@dataclasses.dataclass(frozen=True)
class FineTune(Generic[Settings]):
    """Fine-tuning of finished presets."""

    recipe: Settings
    preset: tuple[str, ...]
    """Pre-trained models: folders of runs or their presets, or folders, names or URIs (hf://...)
    of KerasHub BERTs, each PRESET or NAME=PRESET."""
    tasks: tuple[str, ...] = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE")
    """Downstream tasks: GLUE's, sentence_polarity, movie_reviews, ppattach, and your own: a .csv or
    .tsv with the columns text and label, or a folder with train.csv and dev.csv."""
    data_dir: Path | None = None
    """Folder of GLUE's tables; by default GLUE comes from TensorFlow Datasets."""
    output: Path = Path("runs/finetune")
    """Folder of the report and the predictions. Finished cells in it are kept."""
    seeds: tuple[int, ...] = (0,)
    """Each fixes the head's initial weights, the order and dropout."""
    from_scratch: bool = False
    """Add a row of the same network without pre-training."""
    select: Literal["last", "best"] = "last"
    """The epoch whose scores are reported; both are recorded."""
    devices: Devices = dataclasses.field(default_factory=Devices)

    def __post_init__(self):
        _check_grid(self)

    def unused(self) -> dict[str, str]:
        """The flags that change nothing beside the others, and what they are for."""
        return self.recipe.unused(self.tasks) | _unused_tables(self.tasks)


@dataclasses.dataclass(frozen=True)
class InheritText(Generic[Settings]):
    """ImageNet-RIB's protocol on texts: a head trained beforehand, fine-tuning on each of several
    related tasks, and what that does to the others. `--probe-epochs` and `--probe-learning-rate`
    are those of the head."""

    recipe: Settings
    preset: tuple[str, ...]
    """Pre-trained models: folders of runs or their presets, or folders, names or URIs (hf://...)
    of KerasHub BERTs, each PRESET or NAME=PRESET."""
    tasks: tuple[str, ...] = ("SST-2", "sentence_polarity", "movie_reviews")
    """Two or more tasks of the same classes: these, QNLI and RTE, QQP and MRPC, or tables of your
    own with the same labels."""
    head_task: str | None = None
    """The task that the head is trained on beforehand; by default the first."""
    data_dir: Path | None = None
    """Folder of GLUE's tables; by default GLUE comes from TensorFlow Datasets."""
    output: Path = Path("runs/inherit-text")
    """Folder of the report. Finished cells in it are kept."""
    seeds: tuple[int, ...] = (0,)
    """Each fixes the head's initial weights, the order and dropout."""
    select: Literal["last", "best"] = "last"
    """The epoch whose weights are scored; both are recorded."""

    def __post_init__(self):
        _check_grid(self, least=2)

    def unused(self) -> dict[str, str]:
        """The flags that change nothing beside the others, and what they are for."""
        tables = _unused_tables((*self.tasks, self.head_task))
        return finetuning_settings.unused_to_inherit(self.recipe) | tables


@dataclasses.dataclass(frozen=True)
class InheritImages(Generic[Settings, Images]):
    """ImageNet-RIB's protocol on images: a head trained beforehand, fine-tuning on each of several
    sets of the same classes, and what that does to the others. `--probe-epochs` and
    `--probe-learning-rate` are those of the head."""

    recipe: Settings
    images: Images
    preset: tuple[str, ...]
    """Pre-trained models: folders of runs, their model.keras or their presets, or folders, names
    or URIs (hf://...) of KerasHub ViTs, each PRESET or NAME=PRESET."""
    tasks: tuple[str, ...] = ()
    """clean (the images as they are), gaussian_noise, shot_noise, impulse_noise, defocus_blur,
    brightness, contrast, pixelate, jpeg_compression, names of `--sets`; by default all."""
    sets: tuple[str, ...] = ()
    """Other sets with the same classes or some of them, such as tfds:imagenet_a, tfds:imagenet_r
    or a folder of classes, each SOURCE or NAME=SOURCE. A share of each is held out."""
    severity: int = 3
    """Severity of the corruptions, 1 to 5."""
    head_task: str = "clean"
    """The task that the head is trained on beforehand; it need not be among the tasks."""
    output: Path = Path("runs/inherit-images")
    """Folder of the report. Finished cells in it are kept."""
    seeds: tuple[int, ...] = (0,)
    """Each fixes the head's initial weights, the order and augmentation."""
    select: Literal["last", "best"] = "last"
    """The report of a run whose weights are scored; both are recorded."""

    def __post_init__(self):
        _check_grid(self, least=2 if self.tasks else 0)
        checks.integer("severity", self.severity, 1, 5)

    def unused(self) -> dict[str, str]:
        """The flags that change nothing beside the others, and what they are for."""
        found = finetuning_settings.unused_to_inherit_images(self.recipe, self.tasks, self.images)
        idle = finetuning_settings.named_sets(self.sets).keys() - {*self.tasks, self.head_task}
        if self.tasks and idle:
            found["sets"] = f"sets that `tasks` name, unlike {', '.join(sorted(idle))}"
        return found


@dataclasses.dataclass(frozen=True)
class Redraw:
    """Draws a report again from what is finished."""

    directory: Path
    """Folder that `compare` or `finetune` wrote."""


@dataclasses.dataclass(frozen=True)
class Export:
    """Hands the model of a finished run on, with a model card beside it."""

    run: Path
    """Folder of a run of `pretrain` or `compare`, or its preset."""
    to: Literal["huggingface", "keras", "multimae"] = "huggingface"
    """What opens it: Transformers, KerasHub, or, for images, the reference MultiMAE."""
    output: Path | None = None
    """A new or empty folder; by default one of that name in the run's."""


def _unused_tables(tasks: Collection[str | None]) -> dict[str, str]:
    """The folder of GLUE's tables, where no task is of GLUE."""
    elsewhere = {task.name for task in NLTK_TASKS}
    is_used = any(task and task not in elsewhere and not is_own_table(task) for task in tasks)
    return {} if is_used else {"data_dir": "tasks of GLUE among the `tasks`"}


def _check_grid(options, least=1):
    checks.distinct("preset", options.preset)
    checks.distinct("tasks", options.tasks, least)
    checks.seeds("seeds", options.seeds)


def parse_options(text: str) -> dict[str, Any]:
    """Names and values of a weighting's options, as Python writes the arguments of a call.

    Args:
        text: string. A word without quotes is a string.

    Returns:
        dict of names to values, sequences as lists.

    Raises:
        ValueError: it is something else.

    Example:

    >>> parse_options("radius=0.5, weights=[1, 2], scale=median")
    {'radius': 0.5, 'weights': [1, 2], 'scale': 'median'}
    """
    try:
        call = ast.parse(f"options({text})", mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
            found = [(one.arg, _value(one.value)) for one in call.keywords if one.arg]
            if len(dict(found)) == len(call.keywords):
                return dict(found)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    raise ValueError(f"Options must be NAME=VALUE, each once. Received: {text}")


def _value(node):
    if isinstance(node, ast.Name):
        return node.id
    value = ast.literal_eval(node)
    return list(value) if isinstance(value, tuple) else value


def _row(entry):
    """The row of a report, and its settings, from NAME or NAME:OPTION=VALUE,OPTION=VALUE."""
    name, _, text = entry.partition(":")
    options = parse_options(text)
    words = [f"{option}={value}" for option, value in options.items()]
    fields = {"weighting": name, "weighting_options": options} if options else {"weighting": name}
    return " ".join([name, *words]), fields
