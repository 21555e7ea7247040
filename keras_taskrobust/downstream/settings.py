"""The settings of a fine-tuning run."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal, Self, get_args

from keras_taskrobust import checks

DtypePolicy = Literal["float32", "mixed_bfloat16", "mixed_float16"]
Method = Literal["full", "linear_probe", "probe_then_full", "l2_sp", "ewc", "lwf", "lora"]
Soup = Literal["uniform", "greedy", "model_stock"]
Head = Literal["standard", "linear"]
Pooling = Literal["mean", "global"]

#: Image tasks, and the key of a record that each predicts.
TARGETS = {"classification": "label", "semseg": "semseg", "depth": "depth"}

#: The methods that train the head alone beforehand.
_PROBING = ("probe_then_full", "ewc")
_OF_CLASSIFICATION = (
    "pooling",
    "least_crop",
    "rand_augment",
    "mixup",
    "cutmix",
    "label_smoothing",
)
#: What is of a method of fine-tuning, and not of the head that is trained beforehand.
_OF_A_METHOD = ("strength", "fisher_examples", "lora_rank", "wise_share", "soup_size", "soup")
#: [CLS], a word, [SEP], a word, [SEP].
_SHORTEST_PAIR = 5


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """Fine-tunes a pre-trained encoder on a downstream task: what texts and images share."""

    #: What a batch has several of.
    unit: ClassVar[str] = "examples"
    #: Further settings that differ for the head.
    probe_changes: ClassVar[Mapping[str, Any]] = {}
    #: The first setting of each section of the help.
    SECTIONS: ClassVar[Mapping[str, str]] = {"learning_rate": "training", "method": "robustness"}

    learning_rate: float = 2e-5
    """Largest learning rate."""
    batch_size: int = 32
    """Examples in a step."""
    weight_decay: float = 0.1
    """AdamW's weight decay; biases, normalisations and what l2_sp or ewc pulls are spared."""
    epochs: int = 3
    """Passes over the training examples; the held-out ones are scored after each."""
    max_steps: int | None = None
    """Steps, at most."""
    dtype_policy: DtypePolicy = "float32"
    """Keras's dtype policy."""

    method: Method = "full"
    """What is trained, and what keeps it near the pre-trained weights."""
    strength: float = 0.01
    """Factor of the penalty of l2_sp, ewc or lwf."""
    probe_epochs: int = 1
    """Passes that train the head alone before probe_then_full and ewc train everything."""
    probe_learning_rate: float = 1e-3
    """Largest learning rate of those passes."""
    fisher_examples: int = 256
    """Training examples that ewc estimates the Fisher information from."""
    lora_rank: int = 8
    """Rank of lora's matrices."""
    wise_share: float = 1.0
    """WiSE-FT: how far to go from the pre-trained weights to the fine-tuned ones; 1 is all."""
    soup_size: int = 1
    """Fine-tuned models, of other orders and dropout, that are averaged into one."""
    soup: Soup = "uniform"
    """How they are averaged."""

    def __post_init__(self):
        checks.integers(self, ("batch_size", "epochs", "probe_epochs"))
        checks.integers(self, ("fisher_examples", "lora_rank", "soup_size"))
        checks.integer_or_none("max_steps", self.max_steps, least=1)
        for name in ("learning_rate", "probe_learning_rate"):
            checks.positive(name, getattr(self, name))
        for name in ("weight_decay", "strength"):
            checks.nonnegative(name, getattr(self, name))
        checks.choice("dtype_policy", self.dtype_policy, get_args(DtypePolicy))
        checks.choice("method", self.method, get_args(Method))
        checks.choice("soup", self.soup, get_args(Soup))
        checks.between("wise_share", self.wise_share, 0, 1)
        self._refuse_unused()
        if self.method == "lora" and (self.wise_share != 1 or self.soup_size != 1):
            raise ValueError(
                "`wise_share` and `soup_size` must be 1 with method='lora': averages of its "
                "factors are not averages of weights. "
                f"Received: wise_share={self.wise_share}, soup_size={self.soup_size}"
            )

    def unused(self, tasks: Collection[str] = ()) -> dict[str, str]:
        """The settings that change nothing under the others.

        Args:
            tasks: names of the tasks that are fine-tuned on.

        Returns:
            dict of names to what they are for.
        """
        uses = {
            "strength": (("l2_sp", "ewc", "lwf"), "the penalty of method l2_sp, ewc or lwf"),
            "fisher_examples": (("ewc",), "method ewc"),
            "lora_rank": (("lora",), "method lora"),
            "probe_epochs": (_PROBING, "method probe_then_full or ewc"),
            "probe_learning_rate": (_PROBING, "method probe_then_full or ewc"),
        }
        unused = {name: what for name, (users, what) in uses.items() if self.method not in users}
        return unused if self.soup_size > 1 else unused | {"soup": "a `soup_size` above 1"}

    @property
    def probe(self) -> Self:
        """The settings that the head alone is trained with, the encoder being frozen."""
        fields = Adaptation.__dataclass_fields__
        changes: dict[str, Any] = {name: fields[name].default for name in _OF_A_METHOD}
        return dataclasses.replace(
            self,
            method="linear_probe",
            epochs=self.probe_epochs,
            learning_rate=self.probe_learning_rate,
            **changes,
            **self.probe_changes,
        )

    def in_words(self) -> str:
        """How it is trained, for a report."""
        steps = f", at most {self.max_steps} steps" if self.max_steps else ""
        return (
            f"{self.epochs} epochs{steps} of {self.batch_size} {self.unit}, AdamW, "
            f"peak rate {self.learning_rate:g}, {self._decays_in_words()}"
        )

    def method_in_words(self) -> str:
        """The method, for a report: what is used and is not the default."""
        is_used = {
            "method": True,
            "strength": self.method in ("l2_sp", "ewc", "lwf"),
            "lora_rank": self.method == "lora",
            "wise_share": True,
            "soup_size": True,
            "soup": self.soup_size > 1,
        }
        values = {name: getattr(self, name) for name, used in is_used.items() if used}
        defaults = type(self).__dataclass_fields__
        special = [f"{name} {v}" for name, v in values.items() if v != defaults[name].default]
        return ", ".join(special) or "full"

    def _decays_in_words(self):
        return f"weight decay {self.weight_decay:g}"

    def _refuse_unused(self):
        """But for those of the probe, with which others train a head, too."""
        for name, what in Adaptation.unused(self).items():
            value = getattr(self, name)
            is_given = value != Adaptation.__dataclass_fields__[name].default
            if is_given and not name.startswith("probe_"):
                raise ValueError(
                    f"`{name}` is for {what}. Received: {name}={value}, method={self.method}, "
                    f"soup_size={self.soup_size}"
                )


@dataclasses.dataclass(frozen=True)
class FineTuning(Adaptation):
    """Fine-tunes a pre-trained BERT on a text task."""

    SECTIONS = {"warmup_share": "training", "sequence_length": "model"}

    warmup_share: float = 0.06
    """Share of the steps over which the learning rate rises; then it falls linearly to 0."""
    sequence_length: int | None = None
    """Tokens of an example, at most; by default 128, or what the encoder has positions for."""
    dropout: float = 0.1
    """Dropout rate before the head."""

    def __post_init__(self):
        super().__post_init__()
        checks.integer_or_none("sequence_length", self.sequence_length, _SHORTEST_PAIR)
        for name in ("warmup_share", "dropout"):
            checks.share(name, getattr(self, name))


@dataclasses.dataclass(frozen=True)
class ImageFineTuning(Adaptation):
    """Fine-tunes a pre-trained ViT or MM-MAE on an image task."""

    unit: ClassVar[str] = "images"
    probe_changes: ClassVar[Mapping[str, Any]] = {"warmup_epochs": 0}
    SECTIONS = {
        "warmup_epochs": "training",
        "image_size": "model",
        "least_crop": "augmentation",
        "reports": "training",
    }

    learning_rate: float = 1e-4
    """Largest learning rate."""
    batch_size: int = 1024
    """Images in a step."""
    weight_decay: float = 0.05
    """AdamW's weight decay; biases, normalisations and what l2_sp or ewc pulls are spared."""
    epochs: int = 100
    """Passes over the training images; the held-out ones are scored after each report."""
    warmup_epochs: int = 20
    """Of these, those over which the learning rate rises; then it falls by half a cosine."""
    least_learning_rate: float = 1e-6
    """Learning rate at the end."""
    beta_1: float = 0.9
    """AdamW's first beta."""
    beta_2: float = 0.999
    """AdamW's second beta."""
    layer_decay: float = 0.75
    """Factor of the learning rate from each transformer block to the one below."""
    drop_path: float = 0.1
    """Chance that the last block's residuals are left out of a sample; it rises from 0 linearly."""
    image_size: tuple[int, int] | None = (224, 224)
    """Height and width, pixels; None: those of the pre-trained model."""
    modalities: tuple[str, ...] = ("rgb",)
    """What the model sees of an image."""
    head: Head = "standard"
    """For dense tasks: standard is ConvNeXt blocks for semseg and a DPT for depth."""
    head_width: int | None = None
    """Width of the standard heads; by default 384 for semseg and 256 for depth."""
    pooling: Pooling = "mean"
    """For classification: what of the encoder's tokens the head sees."""
    least_crop: float = 0.08
    """For classification: the least share of an image that a random crop shows."""
    jitter: tuple[float, float] = (0.1, 2.0)
    """Large-scale jitter of dense tasks: least and largest factor of an image's size."""
    rand_augment: float = 0.0
    """For classification: RandAugment's largest magnitude, 0 to 10; needs RGB alone."""
    mixup: float = 0.0
    """For classification: alpha of mixup; needs RGB alone."""
    cutmix: float = 0.0
    """For classification: alpha of cutmix; with mixup, either is taken for half of the batches."""
    label_smoothing: float = 0.0
    """For classification: share of the target that is spread over all classes."""
    reports: int = 10
    """How often the held-out images are scored during training."""

    def __post_init__(self):
        super().__post_init__()
        checks.integer("reports", self.reports, least=1)
        checks.integer_or_none("head_width", self.head_width, least=1)
        checks.choice("head", self.head, get_args(Head))
        checks.choice("pooling", self.pooling, get_args(Pooling))
        for name in ("least_learning_rate", "mixup", "cutmix"):
            checks.nonnegative(name, getattr(self, name))
        for name in ("beta_1", "beta_2"):
            checks.share(name, getattr(self, name))
        self._check_ranges()
        self._check_images()

    def unused(self, tasks: Collection[str] = ()) -> dict[str, str]:
        unused = super().unused(tasks)
        targets = {TARGETS.get(task) for task in tasks}
        if "label" not in targets:
            unused |= dict.fromkeys(_OF_CLASSIFICATION, "classification")
        if not {"semseg", "depth"} & targets:
            unused |= dict.fromkeys(("head", "head_width", "jitter"), "semseg and depth")
        elif self.head != "standard":
            unused["head_width"] = "the head standard"
        return unused

    def _decays_in_words(self):
        return f"layer decay {self.layer_decay:g}, {super()._decays_in_words()}"

    def _check_ranges(self):
        for name, least, most in (
            ("layer_decay", 0, 1),
            ("drop_path", 0, 0.999),
            ("least_crop", 1e-6, 1),
            ("rand_augment", 0, 10),
            ("label_smoothing", 0, 0.999),
        ):
            checks.between(name, getattr(self, name), least, most)
        if not (checks.is_integer(self.warmup_epochs, 0) and self.warmup_epochs < self.epochs):
            raise ValueError(
                "`warmup_epochs` must be at least 0 and less than `epochs`. "
                f"Received: warmup_epochs={self.warmup_epochs}, epochs={self.epochs}"
            )

    def _check_images(self):
        if self.image_size is not None:
            checks.size("image_size", self.image_size)
        if not 0 < self.jitter[0] <= self.jitter[1]:
            raise ValueError(
                "`jitter` must be two positive factors, the smaller first. "
                f"Received: jitter={self.jitter}"
            )
        checks.distinct("modalities", self.modalities)
        mixes = self.rand_augment or self.mixup or self.cutmix
        if mixes and tuple(self.modalities) != ("rgb",):
            raise ValueError(
                "`rand_augment`, `mixup` and `cutmix` must be 0 unless `modalities` is rgb alone: "
                "they would tear maps apart. Received: "
                f"modalities={self.modalities}, rand_augment={self.rand_augment}, "
                f"mixup={self.mixup}, cutmix={self.cutmix}"
            )
