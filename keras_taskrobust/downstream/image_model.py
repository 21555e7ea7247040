"""A pre-trained encoder with a head, and its optimizer with layer-wise decay."""

from collections.abc import Iterable, Sequence

import keras
import numpy as np
from keras import ops

from keras_taskrobust.downstream.classification import ClassificationHead
from keras_taskrobust.downstream.depth import DPTHead, dpt_hooks
from keras_taskrobust.downstream.image_encoder import ImageEncoder, OpenedModel
from keras_taskrobust.downstream.image_task import ImageTask
from keras_taskrobust.downstream.robust import FeatureDistillation, pulled_variables
from keras_taskrobust.downstream.segmentation import ConvNeXtHead, LinearMapHead
from keras_taskrobust.downstream.settings import ImageFineTuning
from keras_taskrobust.training.optimizers import ScaledAdamW

_UNDECAYED = ("bias", "gamma", "beta", "class_token", "embeddings")


class ImageModel(keras.Model):
    """An encoder and the head of one task.

    Args:
        encoder: `ImageEncoder`.
        head: layer that takes `Features`.

    Call arguments:
        inputs: `{modality: maps}`.

    Returns:
        The head's output.
    """

    def __init__(self, encoder: ImageEncoder, head: keras.layers.Layer):
        super().__init__(dtype=encoder.dtype_policy)
        self.encoder = encoder
        self.head = head
        self.built = True

    @property
    def backbone(self) -> ImageEncoder:
        """The pre-trained part."""
        return self.encoder

    def call(self, inputs, training=None):
        return self.head(self.encoder(inputs, training=training))


class DistilledModel(keras.Model):
    """A model in training whose encoder's output is kept near the pre-trained encoder's.

    It has the model's variables and adds `strength * mean (tokens - former tokens)^2` to its
    losses.

    Args:
        model: `ImageModel`.
        former: `ImageEncoder` with the pre-trained weights.
        strength: float.
    """

    def __init__(self, model: ImageModel, former: ImageEncoder, strength: float):
        super().__init__(dtype=model.dtype_policy)
        former.trainable = False
        self.model = model
        self.former = former
        self.penalty = FeatureDistillation(strength)
        self.built = True

    def call(self, inputs, training=None):
        features = self.model.encoder(inputs, training=training)
        former = self.former(inputs, training=False).tokens
        mask = ops.ones(ops.shape(former)[:2], "float32")
        return self.penalty(self.model.head(features), features.tokens, former, mask)


def build_encoder(
    opened: OpenedModel, task: ImageTask, settings: ImageFineTuning, drop_path: float | None = None
) -> ImageEncoder:
    """The encoder that a task is fine-tuned on.

    Args:
        opened: `OpenedModel`.
        task: `ImageTask`.
        settings: `ImageFineTuning`.
        drop_path: float; by default the settings'.

    Returns:
        `ImageEncoder`.
    """
    source = opened.model
    backbone = getattr(source, "backbone", source)
    is_dpt = task.target == "depth" and settings.head == "standard"
    return ImageEncoder(
        source,
        settings.modalities,
        settings.image_size,
        settings.drop_path if drop_path is None else drop_path,
        dpt_hooks(backbone.num_layers) if is_dpt else (-1,),
        opened.rescaling,
    )


def build_image_model(
    opened: OpenedModel, task: ImageTask, settings: ImageFineTuning
) -> ImageModel:
    """A pre-trained encoder with a new head for a task.

    Args:
        opened: `OpenedModel`.
        task: `ImageTask`.
        settings: `ImageFineTuning`.

    Returns:
        `ImageModel`.

    Raises:
        ValueError: the task's target is among the modalities, or there is no global token.
    """
    if task.target in settings.modalities:
        raise ValueError(
            f"`modalities` must not have {task.target!r}, which the task {task.name!r} predicts. "
            f"Received: modalities={settings.modalities}"
        )
    encoder = build_encoder(opened, task, settings)
    size, policy = encoder.image_size, encoder.dtype_policy
    head: keras.layers.Layer
    if task.target == "label":
        if settings.pooling == "global" and not encoder.backbone.use_class_token:
            raise ValueError(
                "`pooling` must be 'mean' for a ViT without a class token. "
                "Received: pooling='global'"
            )
        head = ClassificationHead(task.num_outputs, settings.pooling, dtype=policy)
        head.build(encoder.backbone.hidden_dim)
        return ImageModel(encoder, head)
    if settings.head == "linear":
        head = LinearMapHead(task.num_outputs, size, dtype=policy)
    elif task.target == "semseg":
        head = ConvNeXtHead(task.num_outputs, size, settings.head_width or 384, dtype=policy)
    else:
        head = DPTHead(size, width=settings.head_width or 256, dtype=policy)
    head.build(encoder.feature_dim)
    return ImageModel(encoder, head)


def layer_decay_optimizer(
    model: ImageModel,
    settings: ImageFineTuning,
    learning_rate: float,
    steps: int,
    warmup_steps: int,
) -> keras.optimizers.Optimizer:
    """AdamW with layer-wise decay, warm-up and half a cosine.

    Of L blocks, block l (from 1) has the learning rate times `layer_decay^(L + 1 - l)`; patch
    embedding, tokens and positions count as l = 0; what comes after the blocks has all of it.
    Weight decay spares biases, normalisations, tokens, positions and what is pulled to its start.

    Args:
        model: `ImageModel`.
        settings: `ImageFineTuning`.
        learning_rate: float, the largest.
        steps: int, after which the rate is `settings.least_learning_rate`.
        warmup_steps: int, over which it rises from 0.

    Returns:
        `ScaledAdamW`, or `keras.optimizers.AdamW` if all blocks have one rate.

    Reference:
        [BEiT](https://arxiv.org/abs/2106.08254), section B.
    """
    least = min(settings.least_learning_rate, learning_rate)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup_steps else learning_rate,
        decay_steps=max(steps - warmup_steps, 1),
        alpha=least / learning_rate,
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    variables = model.trainable_variables
    undecayed = [variable for variable in variables if variable.name in _UNDECAYED]
    undecayed += pulled_variables(model)
    betas = {"beta_1": settings.beta_1, "beta_2": settings.beta_2, "epsilon": 1e-8}
    if settings.layer_decay == 1:  # Keras's own updates all variables at once in PyTorch
        optimizer = keras.optimizers.AdamW(schedule, settings.weight_decay, **betas)
        optimizer.exclude_from_weight_decay(var_list=undecayed)
        return optimizer
    last = len(model.encoder.blocks) + 1
    depths = layer_depths(model, variables)
    spared = set(map(id, undecayed))
    return ScaledAdamW(
        schedule,
        multipliers=[settings.layer_decay ** (last - depth) for depth in depths],
        weight_decays=[
            0.0 if id(variable) in spared else settings.weight_decay for variable in variables
        ],
        **betas,
    )


def layer_depths(model: ImageModel, variables: Sequence[keras.Variable]) -> list[int]:
    """The block that each variable belongs to: 1 to L, 0 below them, L + 1 above them.

    Args:
        model: `ImageModel`.
        variables: variables of it.

    Returns:
        list of ints.
    """
    encoder = model.encoder
    blocks = encoder.blocks
    depth_of = {
        id(variable): index
        for index, block in enumerate(blocks, start=1)
        for variable in block.variables
    }
    above = [encoder.backbone.get_layer("vit_encoder").layer_norm, model.head]
    depth_of |= {id(variable): len(blocks) + 1 for layer in above for variable in layer.variables}
    return [depth_of.get(id(variable), 0) for variable in variables]


def examples_of(batches: Iterable, number: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The first examples of batches, joined.

    Args:
        batches: iterable of `(inputs, targets)`.
        number: int, at most.

    Returns:
        `(inputs, targets)`.
    """
    found, total = [], 0
    for inputs, targets in batches:
        found.append((inputs, targets))
        total += len(targets)
        if total >= number:
            break
    names = found[0][0]
    return (
        {name: np.concatenate([inputs[name] for inputs, _ in found])[:number] for name in names},
        np.concatenate([targets for _, targets in found])[:number],
    )
