"""What `test_torch_replicas` compares: training by one process, or by one of several replicas.

A replica is a process of this file: `python replica_cases.py RANK NUMBER FOLDER CASE ...` writes
what each case found to `FOLDER/RANK.pickle`.
"""

import functools
import pickle
import sys
from pathlib import Path

import keras
import numpy as np
import torch
from keras import layers
from torch import distributed

import keras_taskrobust as ktr
from keras_taskrobust.training.backends import backend, torch_replicas

WEIGHTINGS = (
    *("minimax", "uniform", "uncertainty", "group_dro", "dwa"),
    *("gradnorm", "pcgrad", "upgrad", "mgda", "graddrop"),
)
ROWS, STEPS = 16, 5
#: The rows at which the parts of the replicas begin and end.
CUTS = {1: (0, 16), 2: (0, 9, 16), 3: (0, 6, 12, 16)}
#: Elements of the last task lie before this row: on the first replica alone.
LAST_ROW_OF_RARE = 5

cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Replica:
    """Which part of each batch a process has."""

    def __init__(self, rank=0, number=1):
        self.rank, self.number = rank, number

    def rows(self, structure):
        start, end = CUTS[self.number][self.rank : self.rank + 2]
        return keras.tree.map_structure(lambda array: array[start:end], structure)

    def batches(self, make, number=STEPS):
        return Batches([self.rows(make(np.random.default_rng(seed))) for seed in range(number)])

    def with_weights(self, model):
        """The same model with weights of this replica's own."""
        rng = np.random.default_rng(self.rank)
        for variable in model.network.trainable_variables:
            variable.assign(0.4 * rng.normal(size=variable.shape))
        return model


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self._batches = batches

    def __len__(self):
        return len(self._batches)

    def __getitem__(self, index):
        return self._batches[index]


def vector(variables):
    values = [keras.ops.convert_to_numpy(variable.value).ravel() for variable in variables]
    return np.concatenate([value.astype("float64") for value in values])


def state(model):
    """All that the replicas share."""
    seeds = {id(seed) for seed in model._seed_states()}
    own = [variable for variable in model.variables if id(variable) not in seeds]
    return vector([*own, *model.optimizer.variables, *model.metrics_variables])


def trained(replica, model, make, validation=True):
    replica.with_weights(model)
    model.optimizer.build(model.trainable_variables)
    before = vector(model.trainable_variables)
    held_out = replica.batches(make, 2) if validation else None
    history = model.fit(
        replica.batches(make), validation_data=held_out, epochs=1, shuffle=False, verbose=0
    ).history
    return {
        "before": before,
        "after": vector(model.trainable_variables),
        "state": state(model),
        "logs": {name: values[0] for name, values in history.items()},
    }


# A perceptron with grouped words, a number, and an auxiliary output.


def perceptron(dropout=None, width=8, normalise=False):
    inputs = keras.Input((5,))
    x = layers.Dense(width, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.01))(
        inputs
    )
    x = layers.BatchNormalization(name="normalised")(x) if normalise else x
    if dropout == "seeded":
        x = layers.Dropout(0.5, seed=3)(x)
    if dropout == "unseeded":
        x = layers.Dropout(0.5)(x)
    x = layers.Dense(8, activation="tanh", name="trunk")(x)
    heads = {"words": 6, "level": 1, "kind": 3}
    return keras.Model(inputs, {n: layers.Dense(units, name=n)(x) for n, units in heads.items()})


def perceptron_batch(rng):
    groups = rng.integers(-1, 2, ROWS).astype("int32")
    groups[:LAST_ROW_OF_RARE] = rng.integers(0, 3, LAST_ROW_OF_RARE)
    x = rng.normal(size=(ROWS, 5)).astype("float32")
    y = {
        "words": {"labels": rng.integers(0, 6, ROWS).astype("int32"), "groups": groups},
        "level": rng.normal(size=(ROWS, 1)).astype("float32"),
        "kind": rng.integers(0, 3, ROWS).astype("int32"),
    }
    weights = {name: rng.uniform(0, 3, ROWS).astype("float32") for name in ("level", "kind")}
    weights["words"] = {part: np.ones(ROWS, "float32") for part in ("labels", "groups")}
    return x, y, weights


def perceptron_model(weighting, network=None, **arguments):
    model = ktr.MinimaxModel(network or perceptron())
    model.compile(
        **{
            "optimizer": keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.3),
            "loss": {"words": ktr.GroupedLoss(cross_entropy, ("a", "b", "rare")), "level": "mse"},
            "auxiliary": {"kind": cross_entropy},
            "weighting": weighting,
            **arguments,
        }
    )
    return model


def perceptron_case(replica, weighting, **arguments):
    metrics = {"metrics": {"kind": "accuracy"}, "weighted_metrics": {"level": ["mae", "r2_score"]}}
    model = perceptron_model(weighting, **{**metrics, **arguments})
    return trained(replica, model, perceptron_batch)


def at_representation(replica, weighting):
    arguments = {"gradients_at": "representation", "representation": "trunk"}
    return perceptron_case(replica, weighting, **arguments)


def scaled_losses(replica, weighting="uncertainty"):
    sgd = keras.optimizers.SGD(0.1, clipnorm=0.3)
    optimizer = keras.optimizers.LossScaleOptimizer(sgd)
    return perceptron_case(replica, weighting, optimizer=optimizer)


# Models of texts and images.


def pos_bert_case(replica, weighting):
    import keras_hub

    from keras_taskrobust.text import PosBert

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=20,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=8,
        dropout=0.0,
    )
    model = PosBert(backbone, groups=("a", "b", "rare"))
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.3)
    model.compile(optimizer, weighting=weighting)

    def make(rng):
        groups = rng.integers(-1, 2, (ROWS, 3)).astype("int32")
        groups[:LAST_ROW_OF_RARE] = rng.integers(0, 3, (LAST_ROW_OF_RARE, 3))
        x = {
            "token_ids": rng.integers(5, 20, (ROWS, 8), dtype="int32"),
            "segment_ids": np.zeros((ROWS, 8), "int32"),
            "padding_mask": np.ones((ROWS, 8), "int32"),
            "mask_positions": rng.integers(1, 8, (ROWS, 3), dtype="int32"),
        }
        masked = {"labels": rng.integers(5, 20, (ROWS, 3), dtype="int32"), "groups": groups}
        y = {"masked_lm": masked, "next_sentence": rng.integers(0, 2, ROWS, dtype="int32")}
        weights = {
            "masked_lm": {part: np.ones((ROWS, 3), "float32") for part in masked},
            "next_sentence": rng.uniform(0, 3, ROWS).astype("float32"),
        }
        return x, y, weights

    return trained(replica, model, make)


def mm_mae_case(replica, weighting):
    import keras_hub

    from keras_taskrobust.vision import Modality, MultiModalMAE

    backbone = keras_hub.models.ViTBackbone(
        image_shape=(32, 48, 3),
        patch_size=16,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
    )
    modalities = Modality("rgb", channels=3), Modality("depth", channels=1)
    model = MultiModalMAE(
        backbone, modalities, visible_tokens=4, decoder_dim=8, decoder_depth=1, decoder_heads=2
    )
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.3)
    model.compile(optimizer, weighting=weighting)

    def make(rng):
        maps = {
            m.name: rng.normal(size=(ROWS, *model.network.map_shape_of(m))).astype("float32")
            for m in modalities
        }
        maps["depth"][LAST_ROW_OF_RARE:] = np.nan
        # Of the first modality, of which every sample has all patches.
        ids = [rng.permutation(6)[:4] for _ in range(ROWS)]
        return ({**maps, "visible_ids": np.sort(ids).astype("int32")},)

    return trained(replica, model, make)


# What only replicas do.


def randomness(replica, dropout):
    """The weights after training with dropout, and a draw on common inputs; all of it twice."""
    outcomes = []
    for _ in range(2):
        model = replica.with_weights(perceptron_model("minimax", perceptron(dropout)))
        model._random_stream.state.assign([5 + replica.rank, 0])
        model.fit(replica.batches(perceptron_batch), shuffle=False, verbose=0)
        with backend.own_randomness(model._random_stream):
            drawn = model(np.ones((4, 5), "float32"), training=True)["words"]
        outcomes.append((vector(model.network.weights), drawn.detach().numpy()))
    return outcomes


def collectives(replica, weighting, **arguments):
    """The number of sums over the replicas in each step, after the first one."""
    bucket, torch_replicas.BUCKET = torch_replicas.BUCKET, arguments.pop("bucket", 2**20)
    model = replica.with_weights(perceptron_model(weighting, **arguments))
    sums, numbers = 0, []
    all_reduce = distributed.all_reduce

    def counted(*args, **kwargs):
        nonlocal sums
        sums += 1
        return all_reduce(*args, **kwargs)

    distributed.all_reduce = counted
    try:
        for batch in (replica.batches(perceptron_batch)[index] for index in range(3)):
            sums = 0
            model.train_on_batch(*batch)
            numbers.append(sums)
    finally:
        distributed.all_reduce, torch_replicas.BUCKET = all_reduce, bucket
    return numbers[1:]


def unequal_batches(replica, validation):
    """The first replica has a batch less than the others."""
    model = perceptron_model("minimax")
    few, many = (replica.batches(perceptron_batch, number) for number in (2, 3))
    data = few if replica.rank == 0 else many
    arguments = {"validation_data": few} if validation else {}
    return message_of(lambda: model.fit(data, epochs=1, verbose=0, **arguments))


def unequal_evaluation(replica):
    model = perceptron_model("minimax")
    model.fit(replica.batches(perceptron_batch), shuffle=False, verbose=0)
    few, many = (replica.batches(perceptron_batch, number) for number in (2, 3))
    return message_of(lambda: model.evaluate(few if replica.rank == 1 else many, verbose=0))


def evaluation_of_one(replica):
    model = perceptron_model("minimax")
    data = replica.batches(perceptron_batch)
    held_out = data if replica.rank == 0 else None
    return message_of(lambda: model.fit(data, validation_data=held_out, epochs=2, verbose=0))


def unequal_models(replica):
    model = perceptron_model("minimax", perceptron(width=8 + replica.rank))
    return message_of(lambda: model.fit(replica.batches(perceptron_batch), verbose=0))


def refusal(replica):
    return message_of(lambda: at_representation(replica, "graddrop"))


def message_of(call):
    try:
        call()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def failing_sums(replica, weighting):
    """For each sum of a step: whether any variable moves when it fails."""
    model = perceptron_model(weighting, perceptron(normalise=True), metrics={"kind": "accuracy"})
    batches = replica.batches(perceptron_batch)
    model.train_on_batch(*batches[0])
    model.reset_metrics()
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = vector(variables)
    all_reduce, moved = distributed.all_reduce, []
    for number in range(1, 20):
        left = number

        def failing(*args, **kwargs):
            nonlocal left
            left -= 1
            if not left:
                raise RuntimeError("a broken line")
            return all_reduce(*args, **kwargs)

        distributed.all_reduce = failing
        try:
            message = message_of(lambda: model.train_on_batch(*batches[1]))
        finally:
            distributed.all_reduce = all_reduce
        if message == "no error":
            break
        moved.append(bool((vector(variables) != before).any()))
    return moved


def normalised(replica):
    """The moving mean after a step, what it would be by this replica alone, and all other state."""
    model = replica.with_weights(perceptron_model("minimax", perceptron(normalise=True)))
    data = replica.batches(perceptron_batch, 1)
    layer = model.get_layer("normalised")
    model.fit(data, verbose=0)
    moved, common = vector([layer.moving_mean]), state(model)
    model = Replica().with_weights(model)
    layer.moving_mean.assign(np.zeros(layer.moving_mean.shape))
    model.network(data[0][0], training=True)
    return {"moved": moved, "alone": vector([layer.moving_mean]), "state": common}


CASES = {
    **{f"perceptron {w}": functools.partial(perceptron_case, weighting=w) for w in WEIGHTINGS},
    **{f"PosBert {w}": functools.partial(pos_bert_case, weighting=w) for w in WEIGHTINGS},
    **{f"MM-MAE {w}": functools.partial(mm_mae_case, weighting=w) for w in WEIGHTINGS},
    **{
        f"representation {w}": functools.partial(at_representation, weighting=w)
        for w in ("pcgrad", "upgrad", "mgda", "gradnorm")
    },
    "diagnostics": functools.partial(
        perceptron_case, weighting="minimax", gradient_diagnostics=True, head_gradients="own"
    ),
    "scaled losses": scaled_losses,
    "scaled gradients": functools.partial(scaled_losses, weighting="upgrad"),
    "seeded dropout": functools.partial(randomness, dropout="seeded"),
    "unseeded dropout": functools.partial(randomness, dropout="unseeded"),
    "collectives of losses": functools.partial(collectives, weighting="minimax"),
    "collectives with metrics": functools.partial(
        collectives, weighting="minimax", metrics={"kind": "accuracy"}
    ),
    "collectives in small buckets": functools.partial(collectives, weighting="minimax", bucket=400),
    "collectives of gradients": functools.partial(collectives, weighting="upgrad"),
    "collectives at a representation": functools.partial(
        collectives, weighting="upgrad", gradients_at="representation", representation="trunk"
    ),
    "unequal batches": functools.partial(unequal_batches, validation=False),
    "unequal batches before validation": functools.partial(unequal_batches, validation=True),
    "unequal evaluation": unequal_evaluation,
    "evaluation of one": evaluation_of_one,
    "unequal models": unequal_models,
    "refusal": refusal,
    "failing sums of losses": functools.partial(failing_sums, weighting="uncertainty"),
    "failing sums of gradients": functools.partial(failing_sums, weighting="upgrad"),
    "normalised": normalised,
}


def main(rank, number, folder, *names):
    replica, folder = Replica(int(rank), int(number)), Path(folder)
    torch.set_num_threads(1)
    address = f"file://{folder.resolve()}/rendezvous"
    distributed.init_process_group(
        "gloo", init_method=address, rank=replica.rank, world_size=replica.number
    )
    found = {name: CASES[name](replica) for name in names}
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(found))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
