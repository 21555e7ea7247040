"""Our steps over those of other libraries' own code, in CPU time, and what matrix products take.

    KERAS_BACKEND=jax taskset -c 0 python benchmarks/peers.py --cases pretraining

The peers are PyTorch's, whatever our backend: Hugging Face's BERT (`transformers`, in the extra
`bench`) and MultiMAE (a clone of its repository, `--multimae FOLDER`). Both sides have the same
sizes, batches and dropout, and random weights. Hugging Face's loops update by PyTorch's fused
AdamW, as its `Trainer` does, MultiMAE's by AdamW as its own code makes it.

- `pretraining`: PosBert under minimax, 4 layers of 256, 8 x 128 tokens of 8,000, dropout 0.1,
  over `BertForPreTraining` with logits at the masked positions alone (`gathered`), and at all as
  shipped.
- `finetuning`: `finetune_text` of that BERT, 32 x 64 tokens, over a plain loop. What a step more
  takes: the difference of a long and a short run, so that building and compiling have no part.
- `images`: MM-MAE under minimax, ViT-Tiny at 224 pixels, as in `mm_mae_step.py`, over MultiMAE.

A round runs a block of each in an order that rotates, the first peer twice; ratios are taken within
a round. `matrix_products` runs a step's products alone, by the backend itself. Give it one core.
"""

import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import torch
import tyro
from finetuning import BATCH_SIZE, EPOCHS, HELD_OUT, LENGTH, RATE, VOCABULARY, texts
from mm_mae_step import vit_tiny_case
from step_time import pos_bert_case
from timing import append_row, time_in_turn

Blocks = dict[str, Callable[[], float]]
cross_entropy = torch.nn.functional.cross_entropy


def pretraining(steps: int, multimae: Path | None) -> Blocks:
    """Seconds a step of PosBert, of its peers, and of its matrix products."""
    batch_size, length = 8, 128
    case = pos_bert_case(steps, batch_size, length)
    positions = case.x["mask_positions"]
    labels, next_sentence = case.y["masked_lm"]["labels"], case.y["next_sentence"]
    spread = np.full((len(positions), length), -100)
    np.put_along_axis(spread, positions, labels, 1)
    arrays = {**case.x, "labels": labels, "spread": spread, "next": next_sentence}
    batches = _batches(arrays, batch_size)
    model = case.minimax()

    def gathered(bert, batch):
        sequence, pooled = bert.bert(*_bert_inputs(batch))[:2]
        index = batch["mask_positions"][..., None].expand(-1, -1, sequence.shape[-1])
        logits, is_next = bert.cls(sequence.gather(1, index), pooled)
        loss = cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
        return loss + cross_entropy(is_next, batch["next"])

    def as_shipped(bert, batch):
        targets = {"labels": batch["spread"], "next_sentence_label": batch["next"]}
        return bert(*_bert_inputs(batch), **targets).loss

    def ours():
        model.fit(case.x, case.y, batch_size=batch_size, shuffle=False, verbose=0)

    from transformers import BertForPreTraining

    return {
        "hugging_face_gathered": _torch_block(_bert(BertForPreTraining), gathered, batches),
        "hugging_face": _torch_block(_bert(BertForPreTraining), as_shipped, batches),
        "matrix_products": _products_block(steps, _bert_products(batch_size, length)),
        "ours": lambda: _seconds(ours) / steps,
    }


def finetuning(steps: int, multimae: Path | None) -> Blocks:
    """Seconds a step of our fine-tuning and of a plain loop, both scored after each epoch."""
    from transformers import BertForSequenceClassification

    def theirs(steps_per_epoch):
        bert = _bert(BertForSequenceClassification)
        rng = np.random.default_rng(0)

        def split(number):
            ids = rng.integers(5, VOCABULARY, (number, LENGTH))
            arrays = {
                "token_ids": ids,
                "padding_mask": np.ones_like(ids),
                "segment_ids": np.zeros_like(ids),
                "labels": rng.integers(0, 2, number),
            }
            return _batches(arrays, BATCH_SIZE)

        train, held_out = split(steps_per_epoch * BATCH_SIZE), split(HELD_OUT)

        def loss_of(bert, batch):
            return bert(*_bert_inputs(batch), labels=batch["labels"]).loss

        step = _torch_step(bert, loss_of, lr=RATE)
        for _ in range(EPOCHS):
            bert.train()
            for number in torch.randperm(len(train)):
                step(train[number])
            bert.eval()
            with torch.no_grad():
                for batch in held_out:
                    bert(*_bert_inputs(batch)).logits.argmax(-1)

    def block(run):
        def more():
            short, long = (_seconds(lambda n=n: run(n)) for n in (2, 2 + steps))
            return (long - short) / (EPOCHS * steps)

        return more

    return {
        "hugging_face": block(theirs),
        "ours": block(lambda steps_per_epoch: texts(steps_per_epoch).ours()),
    }


def images(steps: int, multimae: Path | None) -> Blocks:
    """Seconds a step of MM-MAE, of MultiMAE, and of MM-MAE's matrix products."""
    if multimae is None:
        raise ValueError(
            "The case 'images' needs MultiMAE: `git clone https://github.com/EPFL-VILAB/MultiMAE`, "
            "and `--multimae FOLDER`. Received: no folder"
        )
    batch_size = 8
    case = vit_tiny_case(steps, batch_size)
    model = case.minimax()
    arrays = {
        name: array if name == "semseg" else np.moveaxis(array, -1, 1)
        for name, array in case.x.items()
    }
    peer, loss_of = _multimae(multimae)

    def ours():
        model.fit(case.x, batch_size=batch_size, shuffle=False, verbose=0)

    return {
        "multimae": _torch_block(peer, loss_of, _batches(arrays, batch_size), fused=None),
        "matrix_products": _products_block(steps, _mm_mae_products(batch_size)),
        "ours": lambda: _seconds(ours) / steps,
    }


CASES = {"pretraining": pretraining, "finetuning": finetuning, "images": images}


def _bert(kind: type) -> torch.nn.Module:
    from transformers import BertConfig

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=128,
    )
    return kind(config).train()


def _bert_inputs(batch: dict) -> tuple:
    return batch["token_ids"], batch["padding_mask"], batch["segment_ids"]


def _multimae(folder: Path) -> tuple[torch.nn.Module, Callable]:
    """The network of `mm_mae_step.py` by MultiMAE's code, and the sum of its losses."""
    sys.path.insert(0, str(folder))
    # The package imports what training on real data needs.
    package = types.ModuleType("utils")
    package.__path__ = [str(folder / "utils")]
    sys.modules["utils"] = package
    from multimae.criterion import MaskedCrossEntropyLoss, MaskedMSELoss
    from multimae.input_adapters import PatchedInputAdapter, SemSegInputAdapter
    from multimae.multimae import MultiMAE
    from multimae.output_adapters import SpatialOutputAdapter

    inputs = {
        "rgb": PatchedInputAdapter(3, 1, 16),
        "depth": PatchedInputAdapter(1, 1, 16),
        "semseg": SemSegInputAdapter(133, 4, 16),
    }
    outputs = {
        name: SpatialOutputAdapter(
            channels, stride, 16, dim_tokens=256, depth=2, task=name, context_tasks=[*inputs]
        )
        for name, channels, stride in (("rgb", 3, 1), ("depth", 1, 1), ("semseg", 133, 4))
    }
    losses = {
        "rgb": MaskedMSELoss(16, 1),
        "depth": MaskedMSELoss(16, 1),
        "semseg": MaskedCrossEntropyLoss(16, 4),
    }
    model = MultiMAE(inputs, outputs, dim_tokens=192, depth=12, num_heads=3)

    def loss_of(model, batch):
        predictions, masks = model(batch, num_encoded_tokens=98)
        return sum(
            loss(predictions[name].float(), batch[name], mask=masks[name])
            for name, loss in losses.items()
        )

    return model.train(), loss_of


def _batches(arrays: dict[str, np.ndarray], batch_size: int) -> list[dict]:
    """Tensors, integers as PyTorch wants them."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
    tensors = {n: t if t.is_floating_point() else t.long() for n, t in tensors.items()}
    number = len(next(iter(tensors.values())))
    return [
        {name: tensor[start : start + batch_size] for name, tensor in tensors.items()}
        for start in range(0, number, batch_size)
    ]


def _torch_step(model, loss_of, lr=1e-4, fused=True) -> Callable:
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, fused=fused)

    def step(batch):
        loss = loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _torch_block(model, loss_of, batches, fused=True) -> Callable[[], float]:
    step = _torch_step(model, loss_of, fused=fused)

    def run():
        for batch in batches:
            step(batch)

    return lambda: _seconds(run) / len(batches)


Products = list[tuple[int, ...]]


def _bert_products(batch_size: int, length: int, predictions: int = 20) -> Products:
    """Sizes `(b, m, k, n)` of b products `(m, k) @ (k, n)`, forward only."""
    targets = batch_size * predictions
    head = [(1, targets, 256, 256), (1, targets, 256, VOCABULARY)]
    return _block_products(batch_size, length, 256, heads=4) * 4 + head


def _mm_mae_products(batch_size: int, patches: int = 196, visible: int = 99) -> Products:
    """Of the ViT-Tiny of `mm_mae_step.py`: embeddings, encoder, decoders."""
    rows, context = batch_size * patches, batch_size * visible
    embeddings = [(1, rows, numbers, 192) for numbers in (3 * 256, 256, 64 * 16)]
    encoder = _block_products(batch_size, visible, 192, heads=3) * 12
    decoder = [
        (1, context, 192, 256),
        *_attention_products(batch_size, patches, 256, heads=8, attended=visible),
        *_mlp_products(rows, 256),
        *_block_products(batch_size, patches, 256, heads=8) * 2,
    ]
    outputs = [(1, rows, 256, numbers) for numbers in (3 * 256, 256, 133 * 16)]
    return embeddings + encoder + decoder * 3 + outputs


def _block_products(batch_size: int, length: int, dim: int, heads: int) -> Products:
    attention = _attention_products(batch_size, length, dim, heads, length)
    return attention + _mlp_products(batch_size * length, dim)


def _attention_products(
    batch_size: int, length: int, dim: int, heads: int, attended: int
) -> Products:
    rows, width = batch_size * heads, dim // heads
    projections = [(1, batch_size * number, dim, dim) for number in (length, attended)] * 2
    return [*projections, (rows, length, width, attended), (rows, length, attended, width)]


def _mlp_products(tokens: int, dim: int) -> Products:
    return [(1, tokens, dim, 4 * dim), (1, tokens, 4 * dim, dim)]


def _products_block(steps: int, sizes: Products) -> Callable[[], float]:
    """Those products and the two of each one's gradients, by our backend."""
    rng = np.random.default_rng(0)
    pairs = []
    for b, m, k, n in sizes:
        for rows, inner, columns in ((m, k, n), (m, n, k), (k, m, n)):
            shapes = ((b, rows, inner), (b, inner, columns))
            arrays = [rng.normal(size=s[b == 1 :]).astype("float32") for s in shapes]
            pairs.append([keras.ops.convert_to_tensor(array) for array in arrays])

    def multiply(pairs):
        return [keras.ops.matmul(*pair) for pair in pairs]

    if keras.backend.backend() == "jax":
        import jax

        compiled = jax.jit(multiply)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(multiply)
    else:
        compiled = torch.no_grad()(multiply)

    def run():
        for _ in range(steps):
            keras.ops.convert_to_numpy(compiled(pairs)[-1])

    return lambda: _seconds(run) / steps


def _seconds(run: Callable[[], None]) -> float:
    """CPU time, of all threads."""
    start = time.process_time()
    run()
    return time.process_time() - start


def summarise(case: str, blocks: Blocks, rounds: int) -> list[dict]:
    """For each peer and the products: our time over theirs; and of the first over itself."""
    names = [*blocks]
    seconds = time_in_turn([*blocks.values(), blocks[names[0]]], rounds)
    columns = dict(zip([*names, "again"], seconds.T, strict=True))
    ours = columns.pop("ours")
    pairs = {name: (ours, theirs) for name, theirs in columns.items() if name != "again"}
    pairs[f"{names[0]} over itself"] = (columns["again"], columns[names[0]])
    return [_row(case, name, rounds, *pair) for name, pair in pairs.items()]


def _row(case: str, peer: str, rounds: int, ours: np.ndarray, theirs: np.ndarray) -> dict:
    low, middle, high = np.percentile(ours / theirs, [25, 50, 75])
    return {
        "backend": keras.backend.backend(),
        "cores": len(os.sched_getaffinity(0)),
        "case": case,
        "peer": peer,
        "rounds": rounds,
        "our_cpu_seconds": f"{np.median(ours):.4f}",
        "peer_cpu_seconds": f"{np.median(theirs):.4f}",
        "ratio_25": f"{low:.3f}",
        "ratio_50": f"{middle:.3f}",
        "ratio_75": f"{high:.3f}",
    }


def main(
    cases: tuple[str, ...] = ("pretraining", "finetuning"),
    rounds: int = 7,
    steps: int = 6,
    multimae: Path | None = None,
    output: Path | None = None,
):
    """Prints a line for each peer, and appends it to a csv file.

    Args:
        cases: "pretraining", "finetuning", "images".
        rounds: rounds of a block of each.
        steps: of a block; for fine-tuning, of each of three epochs.
        multimae: a clone of MultiMAE, for "images".
        output: csv file; by default none.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    for case in cases:
        for row in summarise(case, CASES[case](steps, multimae), rounds):
            print(", ".join(f"{key}={value}" for key, value in row.items()), flush=True)
            if output is not None:
                append_row(output, row)


if __name__ == "__main__":
    tyro.cli(main)
