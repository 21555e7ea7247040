"""The reference MultiMAE's forward pass and losses in NumPy float64, in its own names and layout.

Written from its description alone, to compare the Keras model with: images `(B, C, H, W)`, weights
as PyTorch keeps them, masks `(B, N)` with 1 for masked patches.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.special import erf


@dataclass
class Spec:
    """A modality of the reference: `classes` is None for images."""

    stride: int = 1
    classes: int | None = None
    loss: str = "mse"


def forward(weights, inputs, masks, specs, patch, heads, decoder_heads, outputs):
    """Runs the reference.

    `specs`: `{input or task: Spec}`; `outputs`: `{task: the modality it belongs to}`; `patch`:
    `(ph, pw)`. Returns a dict with `input_tokens`, `encoder_tokens`, `stages` and `predictions`.
    """
    weights = {name: np.asarray(value, "float64") for name, value in weights.items()}
    names = list(inputs)
    tokens, grid = {}, None
    for name, maps in inputs.items():
        tokens[name], grid = embed(weights, name, maps, specs[name], patch)
    mask = np.concatenate([masks[name] for name in names], axis=1)
    number = (mask == 0).sum(1)
    assert (number == number[0]).all()
    keep = np.argsort(mask, axis=1, kind="stable")[:, : number[0]]
    encoded = np.take_along_axis(np.concatenate(list(tokens.values()), 1), keep[..., None], 1)
    globals_ = weights.get("global_tokens")
    if globals_ is not None:
        encoded = np.concatenate([encoded, np.repeat(globals_, len(mask), 0)], 1)
    depth = 1 + max(int(n.split(".")[1]) for n in weights if n.startswith("encoder."))
    for index in range(depth):
        encoded = block(weights, f"encoder.{index}", encoded, heads)
    predictions, stages = {}, {}
    for task, modality in outputs.items():
        predictions[task], stages[task] = decode(
            weights, task, modality, names, encoded, mask, keep, grid, decoder_heads
        )
        ph, pw = patch[0] // specs[modality].stride, patch[1] // specs[modality].stride
        rows, columns = grid
        image = predictions[task].reshape(len(mask), rows, columns, -1, ph, pw)
        image = np.einsum("brkcyx->bcrykx", image)
        predictions[task] = image.reshape(len(mask), -1, rows * ph, columns * pw)
    return {
        "input_tokens": tokens,
        "encoder_tokens": encoded,
        "stages": stages,
        "predictions": predictions,
    }


def embed(weights, name, maps, spec, patch):
    prefix = f"input_adapters.{name}"
    if spec.classes is not None:
        maps = weights[f"{prefix}.class_emb.weight"][maps].transpose(0, 3, 1, 2)
    ph, pw = patch[0] // spec.stride, patch[1] // spec.stride
    batch, channels, height, width = maps.shape
    grid = height // ph, width // pw
    cells = maps.reshape(batch, channels, grid[0], ph, grid[1], pw)
    tokens = np.einsum("bcrykx,dcyx->brkd", cells, weights[f"{prefix}.proj.weight"])
    tokens = tokens.reshape(batch, grid[0] * grid[1], -1) + weights[f"{prefix}.proj.bias"]
    a = None if spec.classes is not None else -0.75
    return tokens + flat_positions(weights[f"{prefix}.pos_emb"], grid, a), grid


def decode(weights, task, modality, names, encoded, mask, keep, grid, heads):
    prefix = f"output_adapters.{task}"
    number = grid[0] * grid[1]

    def w(name):
        return weights[f"{prefix}.{name}"]

    projected = linear(weights, f"{prefix}.proj_context", encoded)
    batch, visible = keep.shape
    dim = projected.shape[-1]
    full = np.broadcast_to(w("mask_token"), (batch, mask.shape[1], dim)).copy()
    np.put_along_axis(full, keep[..., None], projected[:, :visible], 1)
    positions = flat_positions(w("pos_emb"), grid, None)
    for index, name in enumerate(names):
        full[:, index * number : (index + 1) * number] += positions + w(f"task_embeddings.{name}")
    if modality in names:
        start = names.index(modality) * number
        queries = full[:, start : start + number]
    else:
        queries = np.repeat(w("mask_token") + positions, batch, 0)
    context = np.take_along_axis(full, keep[..., None], 1)
    context = np.concatenate([context, projected[:, visible:]], 1)
    q = linear(weights, f"{prefix}.decoder.q", norm(weights, f"{prefix}.query_norm", queries))
    kv = linear(weights, f"{prefix}.decoder.kv", norm(weights, f"{prefix}.context_norm", context))
    x = attend(q, kv[..., :dim], kv[..., dim:], heads)
    x = linear(weights, f"{prefix}.decoder.proj", x)
    stages = {"xattn": x}
    x = x + mlp(weights, f"{prefix}.mlp", norm(weights, f"{prefix}.out_norm", x))
    stages["after_mlp"] = x
    for index in itertools.count():
        if f"{prefix}.decoder_transformer.{index}.norm1.weight" not in weights:
            break
        x = block(weights, f"{prefix}.decoder_transformer.{index}", x, heads)
    return linear(weights, f"{prefix}.out_proj", x), stages


def block(weights, prefix, x, heads):
    qkv = linear(weights, f"{prefix}.attn.qkv", norm(weights, f"{prefix}.norm1", x))
    x = x + linear(weights, f"{prefix}.attn.proj", attend(*np.split(qkv, 3, -1), heads))
    return x + mlp(weights, f"{prefix}.mlp", norm(weights, f"{prefix}.norm2", x))


def attend(q, k, v, heads):
    q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (q, k, v))
    scores = np.einsum("bnhd,bmhd->bhnm", q, k) * q.shape[-1] ** -0.5
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return np.einsum("bhnm,bmhd->bnhd", shares, v).reshape(*q.shape[:2], -1)


def linear(weights, prefix, x):
    return x @ weights[f"{prefix}.weight"].T + weights[f"{prefix}.bias"]


def norm(weights, prefix, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * weights[f"{prefix}.weight"] + weights[f"{prefix}.bias"]


def mlp(weights, prefix, x):
    x = linear(weights, f"{prefix}.fc1", x)
    return linear(weights, f"{prefix}.fc2", 0.5 * x * (1 + erf(x / np.sqrt(2))))


def flat_positions(table, grid, a):
    """`(1, D, h, w)` to `(1, rows * columns, D)`, interpolated: bicubic with `a`, or bilinear."""
    table = table[0]
    if table.shape[1:] != tuple(grid):
        table = _resize(_resize(table, grid[0], 1, a), grid[1], 2, a)
    return table.reshape(len(table), -1).T[None]


def _resize(table, size, axis, a):
    """Point by point, as PyTorch's interpolate with align_corners=False."""
    old = table.shape[axis]
    pieces = []
    for index in range(size):
        x = (index + 0.5) * old / size - 0.5
        if a is None:
            x = max(x, 0.0)
            left = int(np.floor(x))
            taps = {left: 1 - (x - left), left + 1: x - left}
        else:
            left = int(np.floor(x))
            taps = {i: _cubic(abs(x - i), a) for i in range(left - 1, left + 3)}
        piece = sum(
            weight * np.take(table, min(max(i, 0), old - 1), axis) for i, weight in taps.items()
        )
        pieces.append(piece)
    return np.stack(pieces, axis)


def _cubic(x, a):
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def loss(prediction, target, mask, spec, patch, normalized=False):
    """The masked loss: per-sample means over masked pixels, then their mean."""
    ph, pw = patch[0] // spec.stride, patch[1] // spec.stride
    batch, _, height, width = prediction.shape
    rows, columns = height // ph, width // pw
    if spec.classes is not None:
        shifted = prediction - prediction.max(1, keepdims=True)
        log_shares = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        pixels = -np.take_along_axis(log_shares, target[:, None], 1)[:, 0]
    else:
        target = np.asarray(target, "float64")
        if normalized:
            cells = target.reshape(batch, -1, rows, ph, columns, pw)
            mean = cells.mean((1, 3, 5), keepdims=True)
            variance = cells.var((1, 3, 5), keepdims=True, ddof=1)
            target = ((cells - mean) / np.sqrt(variance + 1e-6)).reshape(target.shape)
        difference = prediction - target
        pixels = (difference**2 if spec.loss == "mse" or normalized else abs(difference)).mean(1)
    if mask is None:
        return pixels.mean()
    masked = np.kron(mask.reshape(batch, rows, columns), np.ones((1, ph, pw)))
    return np.nanmean((pixels * masked).sum((1, 2)) / masked.sum((1, 2)))
