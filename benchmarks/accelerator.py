"""Tokens a second, and what share of the device's own matrix products, at the size of the paper.

    KERAS_BACKEND=jax python benchmarks/accelerator.py --output results/accelerator_h200.csv

PosBert of BERT-base under each weighting, 256 x 128 tokens, dropout 0.1, in half precision. The
share is of the floating-point operations that forward and backward need (6 for each weight of a
product and token, and those of attention), over what one large product reaches on the same device.
"""

import time
from pathlib import Path

import keras
import keras_hub
import numpy as np
import tyro
from keras import ops
from step_time import pos_bert_case
from timing import append_row

from keras_taskrobust.text.pos_bert import PosBert
from keras_taskrobust.training.backends import backend
from keras_taskrobust.training.rematerialization import rematerialize

_PREDICTIONS = 20
_SIZE = 8192


def main(
    weightings: tuple[str, ...] = ("pooled", "minimax", "upgrad"),
    batch_size: int = 256,
    sequence_length: int = 128,
    num_layers: int = 12,
    hidden_dim: int = 768,
    vocabulary_size: int = 30_522,
    steps: int = 30,
    rounds: int = 5,
    dtype_policy: str = "mixed_bfloat16",
    again: bool = False,
    output: Path | None = None,
):
    """Prints a line for each weighting, and appends it to a csv file.

    Args:
        weightings: names.
        batch_size: sequences.
        sequence_length: tokens of each.
        num_layers: blocks.
        hidden_dim: width; a head has 64.
        vocabulary_size: word pieces.
        steps: of a round.
        rounds: of steps, after one that is not counted.
        dtype_policy: Keras's.
        again: whether blocks are computed again in the backward pass.
        output: csv file; by default none.
    """
    peak = _peak(keras.dtype_policies.get(dtype_policy).compute_dtype)
    case = pos_bert_case(steps, batch_size, sequence_length, _PREDICTIONS, vocabulary_size)
    tokens = steps * batch_size * sequence_length
    for name in weightings:
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            num_heads=hidden_dim // 64,
            hidden_dim=hidden_dim,
            intermediate_dim=4 * hidden_dim,
            max_sequence_length=sequence_length,
            dtype=keras.dtype_policies.get(dtype_policy),
        )
        if again:
            rematerialize(backbone.transformer_layers)
        model = PosBert(backbone)
        model.compile(keras.optimizers.AdamW(1e-4), weighting=name)
        seconds = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            model.fit(case.x, case.y, batch_size=batch_size, shuffle=False, verbose=0)
            seconds.append(time.perf_counter() - start)
        speeds = tokens / np.array(seconds[1:])
        needed = _operations(backbone, sequence_length)
        row = {
            "device": backend.accelerator() or "processor",
            "backend": keras.backend.backend(),
            "model": f"BERT {num_layers}x{hidden_dim}, {batch_size}x{sequence_length}",
            "weighting": name,
            "dtype_policy": dtype_policy,
            "computed_again": again,
            "rounds": rounds,
            **_quartiles("tokens_a_second", speeds, "{:.0f}"),
            "products_teraflops": f"{peak / 1e12:.2f}",
            **_quartiles("share_of_products", speeds * needed / peak, "{:.3f}"),
        }
        print(row, flush=True)
        if output is not None:
            append_row(output, row)


def _quartiles(name, values, form):
    found = np.percentile(values, [25, 50, 75])
    return {f"{name}_{q}": form.format(v) for q, v in zip((25, 50, 75), found, strict=True)}


def _operations(backbone: keras.Model, length: int) -> float:
    """Floating-point operations of a training step for one token."""
    kernels = sum(
        int(np.prod(variable.shape))
        for layer in backbone.transformer_layers
        for variable in layer.trainable_variables
        if len(variable.shape) > 1
    )
    dim = backbone.hidden_dim
    logits = (dim * dim + dim * backbone.vocabulary_size) * _PREDICTIONS / length
    attention = 2 * backbone.num_layers * length * dim
    return 6.0 * (kernels + logits + attention)


def _peak(dtype: str) -> float:
    """Floating-point operations a second of a large product, the best of some."""
    rng = np.random.default_rng(0)
    size = _SIZE if backend.accelerator() else _SIZE // 8
    a = ops.cast(ops.convert_to_tensor(rng.normal(size=(size, size)).astype("float32")), dtype)
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        b = a
        for _ in range(10):
            b = ops.matmul(a, b)
        ops.convert_to_numpy(ops.cast(b[0, 0], "float32"))
        best = min(best, (time.perf_counter() - start) / 10)
    return 2.0 * size**3 / best


if __name__ == "__main__":
    tyro.cli(main)
