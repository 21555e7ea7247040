"""The reference MultiMAE's checkpoints, read and written."""

import argparse
import os
import pickle
import struct
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_taskrobust.vision.mm_mae import MultiModalMAE
from keras_taskrobust.vision.modalities import tasks_of
from keras_taskrobust.vision.patches import resize_positions
from keras_taskrobust.vision.vit_layers import attention_inputs_of, encoder_of, patching_of

_SHOWN = 5
# What torch raises on files that are not its own.
_BROKEN = (pickle.UnpicklingError, struct.error, EOFError, LookupError, RuntimeError, ValueError)


class Parameter(NamedTuple):
    """One parameter of the reference, and where its numbers are in the model.

    Attributes:
        variables: the Keras variables that hold it; several for a merged matrix.
        to_keras: the reference's array to a list of one array a variable.
        to_reference: the inverse.
        interpolation: how a position table is brought to another grid. `None`: it is no table.
    """

    variables: tuple[Any, ...]
    to_keras: Callable[[np.ndarray], list[np.ndarray]]
    to_reference: Callable[..., np.ndarray]
    interpolation: str | None = None

    def read(self) -> np.ndarray:
        """The model's numbers in the reference's layout."""
        return self.to_reference(*(ops.convert_to_numpy(v) for v in self.variables))

    def write(self, array: np.ndarray) -> None:
        """Puts the reference's numbers into the model."""
        for variable, value in zip(self.variables, self.to_keras(array), strict=True):
            variable.assign(value)


class LoadReport(NamedTuple):
    """What `load_multimae_weights` did with every parameter.

    Attributes:
        loaded: the parameters that were read.
        resized: those among them whose position table was interpolated.
        missing: parameters of the model that the checkpoint lacks; they are as they were.
        unused: parameters of the checkpoint that the model lacks, and as `"name[row]"` the
            padding row of a class embedding.
    """

    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]


def load_multimae_weights(
    model: MultiModalMAE, state_dict: Mapping[str, Any] | str | os.PathLike
) -> LoadReport:
    """Reads weights of the reference MultiMAE into a `MultiModalMAE`.

    Position tables of another grid are interpolated as the reference does (bicubic with the
    coefficient -0.75 for images, bilinear for labels and decoders). An extra last row of a
    class embedding, the reference's padding index, is left out: its place here has the ignore
    label. The reference has no normalisation after its encoder: build the model with
    `encoder_norm=False`.

    Args:
        model: `MultiModalMAE` of the checkpoint's widths; its modalities may be fewer or more.
        state_dict: mapping of the reference's parameter names to arrays, possibly under the key
            `"model"`, or the path of such a PyTorch file (needs `torch`).

    Returns:
        `LoadReport`, which lists every parameter. Where the checkpoint lacks some of the model's,
        a warning says so.

    Raises:
        ValueError: if the file is no PyTorch checkpoint, if shapes do not fit, or if no parameter
            has a name of the model's. Nothing is changed then.

    Example:

    >>> # model = MultiModalMAE(backbone, modalities, visible_tokens=98, encoder_norm=False)
    >>> # report = load_multimae_weights(model, "multimae-b_98_rgb+-depth-semseg_1600e.pth")
    >>> # report.unused
    """
    arrays = _arrays_of(state_dict)
    parameters = reference_parameters(model)
    common = [name for name in parameters if name in arrays]
    if not common:
        raise ValueError(
            "`state_dict` must have parameter names of the reference MultiMAE, such as "
            f"{list(parameters)[:_SHOWN]}. Received: {list(arrays)[:_SHOWN]}"
        )
    fitted = {name: _fit(name, parameters[name], arrays[name]) for name in common}
    expected = {name: parameters[name].read().shape for name in common}
    wrong = [name for name in common if fitted[name].shape != expected[name]]
    if wrong:
        shown = "; ".join(
            f"{name}: {arrays[name].shape} instead of {expected[name]}" for name in wrong[:_SHOWN]
        )
        raise ValueError(
            f"The shapes of `state_dict` must be those of the model. Received {len(wrong)} that "
            f"do not fit: {shown}"
        )
    for name in common:
        parameters[name].write(fitted[name])
    report = LoadReport(
        loaded=tuple(common),
        resized=tuple(
            name
            for name in common
            if parameters[name].interpolation and arrays[name].shape != fitted[name].shape
        ),
        missing=tuple(name for name in parameters if name not in arrays),
        unused=(
            *(name for name in arrays if name not in parameters),
            *(f"{n}[{len(fitted[n])}]" for n in common if len(fitted[n]) < len(arrays[n])),
        ),
    )
    if report.missing:
        warnings.warn(
            f"{len(report.missing)} parameters of the model are not in `state_dict` and stay as "
            f"they were: {', '.join(report.missing[:_SHOWN])}, ... (see `LoadReport.missing`)",
            stacklevel=2,
        )
    return report


def save_multimae_weights(
    model: MultiModalMAE, path: str | os.PathLike | None = None
) -> dict[str, np.ndarray]:
    """The model's weights under the reference MultiMAE's names and in its layout.

    Args:
        model: `MultiModalMAE`.
        path: where to write them as a PyTorch file with the key `"model"` (needs `torch`), as the
            reference reads. `None`: they are only returned.

    Returns:
        `{name: float32 array}`.
    """
    arrays = {name: parameter.read() for name, parameter in reference_parameters(model).items()}
    if path is not None:
        import torch

        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        torch.save({"model": tensors}, os.fspath(path))
    return arrays


def reference_parameters(model: MultiModalMAE) -> dict[str, Parameter]:
    """Every parameter of the model under the reference's name.

    Args:
        model: `MultiModalMAE`, whose backbone has biases throughout.
    """
    network = model.network
    backbone = network.backbone
    if not (backbone.use_mha_bias and backbone.use_mlp_bias and backbone.use_patch_bias):
        raise ValueError(
            "The reference MultiMAE has biases everywhere: `backbone` needs use_mha_bias=True, "
            "use_mlp_bias=True and use_patch_bias=True."
        )
    parameters = {}
    if backbone.use_class_token:
        parameters["global_tokens"] = _as_is(patching_of(backbone).class_token)
    for modality in network.modalities:
        if modality.is_input:
            found = _input_adapter(network, modality)
            parameters.update(_prefixed(f"input_adapters.{modality.name}", found))
    for index, block in enumerate(encoder_of(backbone).encoder_layers):
        parameters.update(_prefixed(f"encoder.{index}", _encoder_block(block)))
    for task in tasks_of(network.modalities):
        found = _output_adapter(network.decoders[task.name], network)
        parameters.update(_prefixed(f"output_adapters.{task.name}", found))
    return parameters


def _arrays_of(state_dict: Mapping[str, Any] | str | os.PathLike) -> dict[str, np.ndarray]:
    found = state_dict if isinstance(state_dict, Mapping) else _read_torch_file(state_dict)
    if isinstance(found.get("model"), Mapping):
        found = found["model"]
    return {
        name: np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        for name, value in found.items()
    }


def _read_torch_file(path):
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Reading a PyTorch checkpoint needs `torch`: pip install 'keras-taskrobust[torch]'. "
            f"Received: {path}",
            name="torch",
        ) from error
    # The published files hold the command line of their run beside the weights.
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            content = torch.load(os.fspath(path), map_location="cpu", weights_only=True)
        except _BROKEN as error:
            raise _not_a_checkpoint(path, "a file that torch cannot read") from error
    if not isinstance(content, Mapping):
        raise _not_a_checkpoint(path, f"a file of a {type(content).__name__}")
    return content


def _not_a_checkpoint(path, found):
    return ValueError(
        "`state_dict` must be a PyTorch checkpoint, a mapping of parameter names to tensors. "
        f"Received: {os.fspath(path)!r}, {found}"
    )


def _fit(name, parameter, array):
    """Brings a position table to the model's grid, and drops a class embedding's padding row."""
    shape = parameter.read().shape
    if parameter.interpolation and array.ndim == 4 and array.shape[:2] == shape[:2]:
        table = np.transpose(array[0], (1, 2, 0))
        table = resize_positions(table, shape[2:], parameter.interpolation)
        return np.transpose(table, (2, 0, 1))[None]
    is_padded = name.endswith("class_emb.weight") and array.shape == (shape[0] + 1, *shape[1:])
    return array[:-1] if is_padded else array


def _prefixed(prefix, parameters):
    return {f"{prefix}.{name}": parameter for name, parameter in parameters.items()}


def _as_is(variable):
    return Parameter((variable,), lambda array: [array], lambda value: value)


def _transposed(variable):
    return Parameter((variable,), lambda array: [array.T], lambda kernel: kernel.T)


def _linear(dense):
    return {"weight": _transposed(dense.kernel), "bias": _as_is(dense.bias)}


def _norm(layer):
    return {"weight": _as_is(layer.gamma), "bias": _as_is(layer.beta)}


def _layers(**layers):
    """The parameters of dense and normalisation layers, by the reference's names."""
    parameters = {}
    for name, layer in layers.items():
        found = _norm(layer) if hasattr(layer, "gamma") else _linear(layer)
        parameters.update(_prefixed(name, found))
    return parameters


def _positions(variable, grid, interpolation, first=0):
    """A table `(first + rows * columns, D)` as `(1, D, rows, columns)`; `first` rows stay."""
    dim = variable.shape[1]

    def to_keras(array):
        table = np.transpose(array[0], (1, 2, 0)).reshape(-1, dim)
        return [np.concatenate([ops.convert_to_numpy(variable)[:first], table])]

    def to_reference(table):
        return np.transpose(table[first:].reshape(*grid, dim), (2, 0, 1))[None]

    return Parameter((variable,), to_keras, to_reference, interpolation)


def _input_adapter(network, modality):
    height, width = network.patch_size_of(modality)
    if modality is network.image_modality:
        patching = patching_of(network.backbone)
        convolution = patching.patch_embedding
        first = int(network.backbone.use_class_token)
        table = patching.position_embedding.embeddings
        return {
            "proj.weight": Parameter(
                (convolution.kernel,),
                lambda array: [np.transpose(array, (2, 3, 1, 0))],
                lambda kernel: np.transpose(kernel, (3, 2, 0, 1)),
            ),
            "proj.bias": _as_is(convolution.bias),
            "pos_emb": _positions(table, network.grid, "bicubic", first),
        }
    layer = network.embeddings[modality.name]
    if not modality.is_labels:
        kernel = _channel_first_kernel(layer.kernel, (modality.channels, height, width))
        return _projection(layer, kernel, network.grid, "bicubic")
    inner = layer.patch_embedding
    kernel = _channel_last_kernel(inner.kernel, (height, width, layer.class_dim))
    return {
        "class_emb.weight": _as_is(layer.class_embeddings),
        **_projection(inner, kernel, network.grid, "bilinear"),
    }


def _projection(layer, kernel, grid, interpolation):
    return {
        "proj.weight": kernel,
        "proj.bias": _as_is(layer.bias),
        "pos_emb": _positions(layer.positions, grid, interpolation),
    }


def _channel_first_kernel(variable, shape):
    """`(C * ph * pw, D)` here, `(D, C, ph, pw)` there."""
    return Parameter(
        (variable,),
        lambda array: [array.reshape(len(array), -1).T],
        lambda kernel: kernel.T.reshape(-1, *shape),
    )


def _channel_last_kernel(variable, shape):
    """`(ph * pw * E, D)` here, `(D, E, ph, pw)` there."""
    return Parameter(
        (variable,),
        lambda array: [np.transpose(array, (2, 3, 1, 0)).reshape(-1, len(array))],
        lambda kernel: np.transpose(kernel.reshape(*shape, -1), (3, 2, 0, 1)),
    )


def _encoder_block(block):
    """A KerasHub ViT block, whose attention has separate query, key and value layers."""
    merged = attention_inputs_of(block)
    heads, output = block.mha.num_heads, block.mha.output_dense
    return {
        **_layers(norm1=block.layer_norm_1, norm2=block.layer_norm_2),
        "attn.qkv.weight": Parameter(
            tuple(layer.kernel for layer in merged),
            lambda array: [w.T.reshape(w.shape[1], heads, -1) for w in np.split(array, 3)],
            lambda *kernels: np.concatenate([k.reshape(len(k), -1).T for k in kernels]),
        ),
        "attn.qkv.bias": Parameter(
            tuple(layer.bias for layer in merged),
            lambda array: [bias.reshape(heads, -1) for bias in np.split(array, 3)],
            lambda *biases: np.concatenate([bias.ravel() for bias in biases]),
        ),
        "attn.proj.weight": Parameter(
            (output.kernel,),
            lambda array: [array.T.reshape(heads, -1, len(array))],
            lambda kernel: kernel.reshape(-1, kernel.shape[-1]).T,
        ),
        "attn.proj.bias": _as_is(output.bias),
        **_layers(**{"mlp.fc1": block.mlp.dense_1, "mlp.fc2": block.mlp.dense_2}),
    }


def _output_adapter(decoder, network):
    attention = decoder.cross_attention
    parameters = {
        "mask_token": _as_is(decoder.mask_token),
        "pos_emb": _positions(decoder.positions, network.grid, "bilinear"),
    }
    for name, embedding in zip(network.input_names, decoder.modality_embeddings, strict=True):
        parameters[f"task_embeddings.{name}"] = _as_is(embedding)
    parameters |= _layers(
        **{
            "proj_context": decoder.context_projection,
            "query_norm": decoder.query_norm,
            "context_norm": decoder.context_norm,
            "decoder.q": attention.inputs["q"],
            "decoder.kv": attention.inputs["kv"],
            "decoder.proj": attention.projection,
            "out_norm": decoder.out_norm,
            "mlp.fc1": decoder.mlp.fc1,
            "mlp.fc2": decoder.mlp.fc2,
            "out_proj": decoder.out_projection,
        }
    )
    for index, block in enumerate(decoder.blocks):
        found = _layers(
            **{
                "norm1": block.norm1,
                "attn.qkv": block.attention.inputs["qkv"],
                "attn.proj": block.attention.projection,
                "norm2": block.norm2,
                "mlp.fc1": block.mlp.fc1,
                "mlp.fc2": block.mlp.fc2,
            }
        )
        parameters.update(_prefixed(f"decoder_transformer.{index}", found))
    return parameters
