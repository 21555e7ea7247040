"""What is refused: arguments and batches that do not fit, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_taskrobust import checks
from keras_taskrobust.vision.modalities import Modality, tasks_of

#: The key of a batch under which the visible tokens may be given.
VISIBLE_IDS = "visible_ids"


def check_arguments(
    *,
    backbone: Any,
    modalities: Sequence[Modality],
    visible_tokens: int,
    decoder_dim: int,
    decoder_heads: int,
    visible_concentration: float | Mapping[str, float],
    positions: str,
    **integers: Any,
) -> None:
    """Raises a `ValueError` if the arguments of a `MultiModalMAE` do not fit each other."""
    _check_modalities(modalities)
    tokens = _check_backbone(backbone, modalities)
    inputs = [m.name for m in modalities if m.is_input]
    total = tokens * len(inputs)
    if not checks.is_integer(visible_tokens, 1) or visible_tokens > total:
        raise ValueError(
            f"`visible_tokens` must be an integer from 1 to {total}: {tokens} patches in each of "
            f"the input modalities {inputs}. Received: visible_tokens={visible_tokens}"
        )
    for name, value in {
        "decoder_dim": decoder_dim,
        "decoder_heads": decoder_heads,
        "class_embedding_dim": integers["class_embedding_dim"],
    }.items():
        checks.integer(name, value, least=1)
    checks.integer("decoder_depth", integers["decoder_depth"], least=0)
    if decoder_dim % decoder_heads or decoder_dim % 4:
        raise ValueError(
            "`decoder_dim` must be a multiple of `decoder_heads` and of 4. "
            f"Received: decoder_dim={decoder_dim}, decoder_heads={decoder_heads}"
        )
    checks.choice("positions", positions, ("sin_cos", "backbone"))
    check_concentration(visible_concentration, inputs)


def check_concentration(
    visible_concentration: float | Mapping[str, float], inputs: Sequence[str]
) -> None:
    """Raises a `ValueError` if concentrations are not positive, or not those of the inputs."""
    values: Any = visible_concentration
    if isinstance(values, Mapping):
        if set(values) != set(inputs):
            raise ValueError(
                f"`visible_concentration` as a dict must have the keys {list(inputs)}. "
                f"Received: {sorted(values)}"
            )
        values = list(values.values())
    if not np.all(np.array(values, dtype=float) > 0):
        raise ValueError(
            "`visible_concentration` must be positive. "
            f"Received: visible_concentration={visible_concentration}"
        )


def check_shapes(inputs: Any, network: Any) -> None:
    """Raises a `ValueError` if a batch has unknown keys or maps of another size."""
    if not isinstance(inputs, Mapping):
        raise ValueError(
            f"A batch must be a dict of modality names to arrays. Received: {type(inputs).__name__}"
        )
    known = {modality.name: modality for modality in network.modalities}
    unknown = sorted(set(inputs) - set(known) - {VISIBLE_IDS})
    if unknown:
        raise ValueError(
            f"The keys of a batch must be among the modalities {list(known)} and "
            f"{VISIBLE_IDS!r}. Received: {unknown}"
        )
    if not set(inputs) & set(network.input_names):
        raise ValueError(
            f"A batch must have at least one of the input modalities {network.input_names}. "
            f"Received: {sorted(inputs)}"
        )
    for name in known.keys() & inputs.keys():
        expected = network.map_shape_of(known[name])
        received = tuple(inputs[name].shape)
        if received[1:] != expected:
            raise ValueError(
                f"The modality {name!r} must have the shape (batch, "
                f"{', '.join(map(str, expected))}), for images of "
                f"{network.backbone.image_shape[:2]} pixels. Received: shape {received}"
            )


def check_arrays(inputs: Any, network: Any) -> None:
    """As `check_shapes`, and raises a `ValueError` for a label outside the classes."""
    check_shapes(inputs, network)
    sizes = {name: len(array) for name, array in inputs.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"All modalities must have as many samples. Received: {sizes}")
    for modality in network.modalities:
        if modality.is_labels and modality.name in inputs:
            _check_labels(modality, keras.ops.convert_to_numpy(inputs[modality.name]))


def check_masks(
    masks: Any, input_names: Sequence[str], grid: tuple[int, int]
) -> tuple[np.ndarray, int]:
    """Stacks masks, and raises a `ValueError` if their shapes or visible patches differ.

    Args:
        masks: `{modality: (B, N)}`, 1 for masked patches; one left out is masked.
        input_names: the M names.
        grid: `(rows, columns)` of patches.

    Returns:
        `(B, M, N)` int32, and the number of visible patches in every sample.
    """
    tokens = grid[0] * grid[1]
    if not isinstance(masks, Mapping) or not masks or set(masks) - set(input_names):
        keys = sorted(masks) if isinstance(masks, Mapping) else type(masks).__name__
        raise ValueError(
            f"`masks` must be a dict whose keys are among {list(input_names)}. Received: {keys}"
        )
    arrays = {name: keras.ops.convert_to_numpy(mask) for name, mask in masks.items()}
    batch = len(next(iter(arrays.values())))
    for name, array in arrays.items():
        if array.shape != (batch, tokens) or not np.isin(array, (0, 1)).all():
            raise ValueError(
                f"A mask must hold 0 (visible) and 1 (masked) in the shape ({batch}, {tokens}). "
                f"Received for {name!r}: shape {array.shape}, values from {array.min()} to "
                f"{array.max()}"
            )
    absent = np.ones((batch, tokens))
    stacked = np.stack([arrays.get(name, absent) for name in input_names], axis=1)
    visible = np.unique((stacked == 0).sum((1, 2)))
    if len(visible) != 1 or visible[0] == 0:
        raise ValueError(
            "`masks` must leave the same number of patches, at least one, visible in every "
            f"sample. Received: {visible.tolist()} visible patches"
        )
    return stacked.astype("int32"), int(visible[0])


def _check_modalities(modalities):
    wrong = [m for m in modalities if not isinstance(m, Modality)]
    if not modalities or wrong:
        raise ValueError(
            f"`modalities` must be a sequence of at least one Modality. Received: {modalities}"
        )
    names = [m.name for m in modalities]
    tasks = [task.name for task in tasks_of(modalities)]
    for found in (names, tasks):
        if len(set(found)) < len(found) or VISIBLE_IDS in found:
            raise ValueError(
                "The names of modalities and tasks must be distinct, and none of them "
                f"{VISIBLE_IDS!r}. Received: {found}"
            )
    for what, found in (
        ("an input", [m for m in modalities if m.is_input]),
        ("a target", tasks),
    ):
        if not found:
            raise ValueError(f"At least one modality must be {what}. Received: {names}")


def _check_backbone(backbone: Any, modalities: Sequence[Modality]) -> int:
    """Returns the number of patches of a modality."""
    needed = ("image_shape", "patch_size", "hidden_dim", "use_class_token")
    missing = [name for name in needed if not hasattr(backbone, name)]
    if missing:
        raise ValueError(
            "`backbone` must be a keras_hub.models.ViTBackbone. "
            f"Received: {type(backbone).__name__}, which has no {missing}"
        )
    if backbone.data_format != "channels_last":
        raise ValueError(
            "`backbone` must have the data format 'channels_last'. "
            f"Received: {backbone.data_format!r}"
        )
    if backbone.hidden_dim % 4:
        raise ValueError(
            "The width of `backbone` must be a multiple of 4. "
            f"Received: hidden_dim={backbone.hidden_dim}"
        )
    height, width = backbone.patch_size
    for modality in modalities:
        if height % modality.stride or width % modality.stride:
            raise ValueError(
                f"The stride of a modality must divide the patch size {(height, width)}. "
                f"Received: stride={modality.stride} for {modality.name!r}"
            )
    return (backbone.image_shape[0] // height) * (backbone.image_shape[1] // width)


def _check_labels(modality, labels):
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"The labels {modality.name!r} must be integers. Received: dtype {labels.dtype}"
        )
    inside = (labels >= 0) & (labels < modality.num_classes) | (labels == modality.ignore_label)
    if not inside.all():
        raise ValueError(
            f"The labels {modality.name!r} must lie between 0 and {modality.num_classes - 1}, or "
            f"be the ignore label {modality.ignore_label}. "
            f"Received: {np.unique(labels[~inside])[:5].tolist()}"
        )
