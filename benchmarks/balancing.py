"""The step of every weighting over Keras's own step on the sum of the task losses.

Run it once a backend:

    KERAS_BACKEND=jax python benchmarks/balancing.py --output balancing_jax.csv

K regressions on one trunk: a ViT of 4 layers of 64 on 64 patches, batches of 16, or a perceptron of
four layers of 512 units, batches of 128, whose steps are matrix products and little else. Heads are
linear, but for "deep_heads": that perceptron, with two more layers of 512 units in every head. Each
round times a block of steps of every model, in an order that rotates: the stock model, a second
stock model, all weightings and, with PyTorch, the methods of torchjd on the same network under the
same `fit`. Ratios are taken within a round.
"""

import os
import platform
import sys
import time
from pathlib import Path
from typing import Literal

import keras
import keras_hub
import numpy as np
import tyro
from timing import append_row, time_in_turn

import keras_taskrobust as ktr

Trunk = Literal["vit", "perceptron", "deep_heads"]
BATCH_SIZES = {"vit": 16, "perceptron": 128, "deep_heads": 128}

#: Our name, and how torchjd calls the same method for K tasks.
PEERS = {
    "aligned_mtl": ("AlignedMTL", lambda K: {}),
    "cagrad": ("CAGrad", lambda K: {"c": 0.5}),
    "config": ("ConFIG", lambda K: {}),
    "dualproj": ("DualProj", lambda K: {}),
    "excess_mtl": ("ExcessMTL", lambda K: {}),
    "fairgrad": ("FairGrad", lambda K: {"alpha": 1.0}),
    "graddrop": ("GradDrop", lambda K: {}),
    "gradvac": ("GradVac", lambda K: {}),
    "imtl_g": ("IMTLG", lambda K: {}),
    "mgda": ("MGDA", lambda K: {}),
    "nash_mtl": ("NashMTL", lambda K: {"n_tasks": K}),
    "pcgrad": ("PCGrad", lambda K: {}),
    "upgrad": ("UPGrad", lambda K: {}),
}


def names_of(K: int) -> list[str]:
    return [f"task_{k}" for k in range(K)]


def make_network(trunk: Trunk, K: int) -> keras.Model:
    """The trunk, whose output is that of the layer "trunk", and K heads."""
    keras.utils.set_random_seed(0)
    if trunk == "vit":
        vit = keras_hub.models.ViTBackbone((32, 32, 3), 4, 4, 4, 64, 256)
        inputs, hidden = vit.input, keras.layers.GlobalAveragePooling1D(name="trunk")(vit.output)
    else:
        inputs = hidden = keras.Input((256,))
        for name in (None, None, None, "trunk"):
            hidden = keras.layers.Dense(512, activation="relu", name=name)(hidden)

    def output(name):
        head = hidden
        for _ in range(2 if trunk == "deep_heads" else 0):
            head = keras.layers.Dense(512, activation="relu")(head)
        return keras.layers.Dense(1, name=name)(head)

    return keras.Model(inputs, {name: output(name) for name in names_of(K)})


def make_data(trunk: Trunk, K: int, steps: int):
    rng = np.random.default_rng(0)
    shape = (32, 32, 3) if trunk == "vit" else (256,)
    x = rng.normal(size=(steps * BATCH_SIZES[trunk], *shape)).astype("float32")
    return x, {n: rng.normal(size=(len(x), 1)).astype("float32") for n in names_of(K)}


def stock_model(trunk: Trunk, K: int) -> keras.Model:
    model = make_network(trunk, K)
    model.compile(keras.optimizers.Adam(1e-3), loss=dict.fromkeys(names_of(K), "mse"))
    return model


def our_model(name: str, trunk: Trunk, K: int, place: str) -> keras.Model:
    model = ktr.MinimaxModel(make_network(trunk, K))
    layer = ktr.weighting.get(name)
    at = {}
    if place == "representation" and not layer.keeps_gradients:
        at = {"gradients_at": "representation", "representation": "trunk"}
    loss = dict.fromkeys(names_of(K), "mse")
    model.compile(keras.optimizers.Adam(1e-3), loss=loss, weighting=layer, **at)
    return model


def peer_model(name: str, trunk: Trunk, K: int) -> keras.Model:
    """torchjd's way: the Jacobian at the shared weights, aggregated; each head its own gradient."""
    import torch
    from torchjd import aggregation
    from torchjd.autojac import jac_to_grad, mtl_backward

    class Peer(keras.Model):
        def __init__(self, network, aggregator):
            super().__init__()
            features = network.get_layer("trunk").output
            self.network = keras.Model(network.input, [features, network.output])
            self.aggregator = aggregator

        def call(self, inputs, training=None):
            return self.network(inputs, training=training)[1]

        def train_step(self, data):
            x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
            features, outputs = self.network(x, training=True)
            losses = [torch.mean((outputs[name] - y[name]) ** 2) for name in outputs]
            self.zero_grad()
            mtl_backward(losses, features=features)
            variables = self.trainable_variables
            shared = [v.value for v in variables if getattr(v.value, "jac", None) is not None]
            jac_to_grad(shared, self.aggregator)
            with torch.no_grad():
                self.optimizer.apply([v.value.grad for v in variables], variables)
            return {"loss": sum(losses).detach()}

    theirs, arguments = PEERS[name]
    model = Peer(make_network(trunk, K), getattr(aggregation, theirs)(**arguments(K)))
    model.compile(keras.optimizers.Adam(1e-3))
    return model


def time_all(trunk: Trunk, K: int, methods, place: str, rounds: int, steps: int) -> list[dict]:
    """A row for every method, ours and theirs."""
    x, y = make_data(trunk, K, steps)
    models = {(name, ""): stock_model(trunk, K) for name in ("stock", "stock again")}
    for name in methods:
        models[name, ""] = our_model(name, trunk, K, place)
        if keras.backend.backend() == "torch" and name in PEERS and place == "shared":
            models[name, "torchjd"] = peer_model(name, trunk, K)

    def block(model):
        start = time.perf_counter()
        model.fit(x, y, batch_size=BATCH_SIZES[trunk], shuffle=False, verbose=0)
        return (time.perf_counter() - start) / steps

    blocks = [lambda model=model: block(model) for model in models.values()]
    seconds = time_in_turn(blocks, rounds)
    rows = []
    for index, (name, peer) in enumerate(models):
        quartiles = np.percentile(seconds[:, index] / seconds[:, 0], [25, 50, 75])
        rows.append(
            {
                "backend": keras.backend.backend(),
                "trunk": trunk,
                "tasks": K,
                "method": name,
                "peer": peer,
                "place": place,
                "rounds": rounds,
                "seconds": f"{np.median(seconds[:, index]):.6f}",
                "over_stock": f"{quartiles[1]:.3f}",
                "quartiles": f"{quartiles[0]:.3f}-{quartiles[2]:.3f}",
            }
        )
    return rows


def main(
    trunk: Trunk = "vit",
    tasks: tuple[int, ...] = (3, 5, 9, 20),
    methods: tuple[str, ...] = ktr.weighting.available(),
    place: Literal["shared", "representation"] = "shared",
    rounds: int = 5,
    steps: int = 5,
    output: Path | None = None,
):
    """Prints a line a method, and appends it to a csv file.

    Args:
        trunk: what the tasks share.
        tasks: the numbers of tasks.
        methods: names of weightings.
        place: where task gradients are taken; methods that keep them stay at the weights.
        rounds: rounds of one block for every model.
        steps: steps of a block.
        output: csv file; by default none.
    """
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores", file=sys.stderr)
    for K in tasks:
        for row in time_all(trunk, K, methods, place, rounds, steps):
            print(", ".join(f"{key}={value}" for key, value in row.items()), flush=True)
            if output is not None:
                append_row(output, row)


if __name__ == "__main__":
    tyro.cli(main)
