"""Training on one device or on several replicas, the same on all backends."""

import functools
import math

import keras
import numpy as np
from keras import layers

import keras_taskrobust as ktr
from keras_taskrobust.downstream.depth import BerHu
from keras_taskrobust.training.backends import backend

WEIGHTINGS = (
    *("minimax", "uniform", "uncertainty", "group_dro", "dwa"),
    *("gradnorm", "pcgrad", "upgrad", "mgda", "graddrop"),
)
ROWS, STEPS = 16, 5
#: Elements of the last task lie before this row: on the first replica alone.
LAST_ROW_OF_RARE = 4

cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PLAIN = {
    "plain BerHu": BerHu(),
    "plain ignored": keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=9),
}


class Replica:
    """Which part of each batch a process has.

    Args:
        rank: int, which of the processes it is.
        number: int, of processes.
        is_free: bool. Whether parts may differ in size, and the processes start from weights of
            their own.
        sums: list that has one entry more after each sum over the processes.
    """

    def __init__(self, rank=0, number=1, is_free=False, sums=()):
        self.rank, self.number, self.is_free, self.sums = rank, number, is_free, sums

    def rows(self, structure):
        share, rest = divmod(ROWS, self.number)
        # The first has a row more of two, two more of four.
        spare = (rest + 1) * self.is_free
        cuts = [r * share + bool(r) * spare for r in range(self.number)]
        start, end = [*cuts, ROWS][self.rank : self.rank + 2]
        return keras.tree.map_structure(lambda array: array[start:end], structure)

    def batches(self, make, number=STEPS):
        return Batches([self.rows(make(np.random.default_rng(seed))) for seed in range(number)])

    def with_weights(self, model):
        """The same model with other weights, of this replica's own if it `is_free`."""
        rng = np.random.default_rng(self.rank if self.is_free else 0)
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
    tensors = [keras.ops.convert_to_tensor(variable) for variable in variables]
    values = [keras.ops.convert_to_numpy(tensor).ravel() for tensor in tensors]
    return np.concatenate([value.astype("float64") for value in values])


def state(model):
    """All that the replicas share."""
    seeds = {id(seed) for seed in model._seed_states()}
    own = [variable for variable in model.variables if id(variable) not in seeds]
    return vector([*own, *model.optimizer.variables, *model.metrics_variables])


def copies_of(variable):
    """The values of a variable on the devices of this process, by the part that they have of it."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        strategy = tf.distribute.get_strategy()
        return {"all": strategy.experimental_local_results(variable.value)}
    if keras.backend.backend() == "jax":
        copies: dict = {}
        for shard in variable.value.addressable_shards:
            copies.setdefault(str(shard.index), []).append(shard.data)
        return copies
    return {"all": [variable.value.detach()]}


def copies_are_equal(variables):
    """Whether all devices of this process hold the same values."""
    return all(
        (np.array(copy) == np.array(first)).all()
        for variable in variables
        for first, *rest in copies_of(variable).values()
        for copy in rest
    )


def trained(replica, model, make, validation):
    replica.with_weights(model)
    model.optimizer.build(model.trainable_variables)
    before = vector(model.trainable_variables)
    held_out = replica.batches(make, 2) if validation else None
    sums = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: sums.append(len(replica.sums))
    )
    history = model.fit(
        replica.batches(make),
        validation_data=held_out,
        epochs=1,
        shuffle=False,
        verbose=0,
        callbacks=[count],
    ).history
    return {
        "before": before,
        "after": vector(model.trainable_variables),
        "state": state(model),
        "copies_are_equal": copies_are_equal([*model.weights, *model.optimizer.variables]),
        "sums_of_last_step": sums[-1] - sums[-2],
        "cut": [v.path for v in model.weights if len(copies_of(v)) > 1],
        "cut_of_optimizer": sum(len(copies_of(v)) > 1 for v in model.optimizer.variables),
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
    # One of each kind of step also evaluates, which costs as much to compile.
    validation = weighting in ("minimax", "upgrad")
    return trained(replica, model, perceptron_batch, validation)


def at_representation(replica, weighting):
    arguments = {"gradients_at": "representation", "representation": "trunk"}
    return perceptron_case(replica, weighting, **arguments)


def scaled_losses(replica, weighting="uncertainty"):
    sgd = keras.optimizers.SGD(0.1, clipnorm=0.3)
    optimizer = keras.optimizers.LossScaleOptimizer(sgd)
    return perceptron_case(replica, weighting, optimizer=optimizer)


def overflowing_gradients(replica):
    """The first steps are skipped by all, though the gradients of the last part alone overflow."""

    def make(rng):
        x, y, weights = perceptron_batch(rng)
        y["level"][-1], weights["level"][-1] = 400.0, 3.0
        return x, y, weights

    sgd = keras.optimizers.SGD(0.1, clipnorm=0.3)
    optimizer = keras.optimizers.LossScaleOptimizer(sgd, initial_scale=2.0**127)
    model = perceptron_model("uniform", optimizer=optimizer)
    found = trained(replica, model, make, validation=False)
    return {**found, "scale": float(keras.ops.convert_to_numpy(optimizer.dynamic_scale))}


def root_of_product(y_true, y_pred):
    """Its gradient at targets of 0 is NaN; itself it is not."""
    return keras.ops.mean(keras.ops.sqrt(keras.ops.square(y_true * y_pred)), axis=-1)


def skipped_steps(replica, weighting):
    """The gradients of the last part alone are not finite, in some of the steps."""

    def make(rng):
        x, y, weights = perceptron_batch(rng)
        if rng.integers(5) == 0:
            y["level"][-1], weights["level"][-1] = 0.0, 1.0
        return x, y, weights

    loss = {"words": ktr.GroupedLoss(cross_entropy, ("a", "b", "rare")), "level": root_of_product}
    model = perceptron_model(weighting, loss=loss, on_nonfinite="skip")
    found = trained(replica, model, make, validation=False)
    assert 0 < found["logs"]["skipped_steps"] < STEPS
    return found


def plain_case(replica, loss):
    """A Keras model of no class of ours, whose loss is no mean over the replicas' means."""
    replica = Replica(replica.rank, replica.number, sums=replica.sums)  # of equal parts
    inputs = keras.Input((5,))
    x = layers.Dense(8, "tanh", kernel_regularizer=keras.regularizers.L2(0.01))(inputs)
    model = keras.Model(inputs, layers.Dense(3)(x))
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1), PLAIN[loss])
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(0.4 * rng.normal(size=variable.shape))
    model.optimizer.build(model.trainable_variables)
    before = vector(model.trainable_variables)

    def make(rng):
        x = rng.normal(size=(ROWS, 5)).astype("float32")
        if loss == "plain BerHu":
            y = rng.normal(size=(ROWS, 3)).astype("float32")
            y[LAST_ROW_OF_RARE:, 1:] = np.nan
            return x, y
        y = rng.integers(0, 3, ROWS).astype("int32")
        y[LAST_ROW_OF_RARE : LAST_ROW_OF_RARE + 3] = 9
        return x, y

    with backend.one_step_of_all(model):
        history = model.fit(replica.batches(make), shuffle=False, verbose=0).history
    return {
        "before": before,
        "after": vector(model.trainable_variables),
        "state": vector([*model.variables, *model.optimizer.variables, *model.metrics_variables]),
        "copies_are_equal": copies_are_equal([*model.weights, *model.optimizer.variables]),
        "logs": {name: values[0] for name, values in history.items()},
    }


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

    return trained(replica, model, make, validation=False)


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

    return trained(replica, model, make, validation=False)


def dropout_case(replica):
    """How many of the two rows kept each of 64 ones, in three passes; the rows are alike.

    The gradient of the kernel is half their sum, since what is kept is doubled.
    """
    inputs = keras.Input((64,))
    kept = layers.Dropout(0.5, seed=3)(inputs)
    network = keras.Model(inputs, layers.Dense(1, use_bias=False, kernel_initializer="zeros")(kept))
    model = ktr.MinimaxModel(network)
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y, y_pred: y_pred[:, 0] + 0 * y[:, 0])
    model.optimizer.build(model.trainable_variables)
    found, before = [], 0
    ones = aligned_ones((2, 64))
    for _ in range(3):
        model.fit(Batches([(ones, np.ones((2, 1), "float32"))]), verbose=0)
        weights = vector(model.trainable_variables)
        found.append(before - weights)
        before = weights
    # TensorFlow takes the memory of such an array, and would write there what dropout leaves.
    np.testing.assert_array_equal(ones, 1)
    return np.array(found)


def borrowed_arrays_case(replica):
    """Whether the arrays of a data set are as they were, though the first layer could write there.

    `predict` holds its batches, so that no layer could.
    """
    inputs = keras.Input((64,))
    network = keras.Model(inputs, layers.Dense(1)(layers.Activation("tanh")(inputs)))
    model = ktr.MinimaxModel(network)
    model.compile("sgd", loss="mse")
    found = []
    for method in (model.evaluate, model.fit):
        ones = aligned_ones((4, 64))
        for _ in range(3):
            method(Batches([(ones, np.zeros((4, 1), "float32"))]), verbose=0)
        found.append(bool((ones == 1).all()))
    return found


def batch_case(replica):
    """What is predicted for a batch, and its own prediction."""
    model = perceptron_model("minimax")
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    expected = keras.ops.convert_to_numpy(model.network(x)["words"])
    return model.predict_on_batch(x)["words"], expected


def aligned_ones(shape):
    """Ones that begin at a multiple of 64 bytes."""
    memory = np.empty(4 * math.prod(shape) + 64, "uint8")
    start = -memory.ctypes.data % 64
    ones = memory[start:][: 4 * math.prod(shape)].view("float32").reshape(shape)
    ones[:] = 1
    return ones


#: Processes of PyTorch measure the trivial losses of their own parts.
MEASURED = "trivial losses"
#: There each part is as large as the whole, and overflows at a smaller scale.
OVERFLOWING = "overflowing gradients"
DROPOUT = "dropout"
BORROWED = "borrowed arrays"
BATCH = "batch"
TRAINED = {
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
    **{f"skipped {w}": functools.partial(skipped_steps, weighting=w) for w in ("dwa", "upgrad")},
    **{name: functools.partial(plain_case, loss=name) for name in PLAIN},
    OVERFLOWING: overflowing_gradients,
    MEASURED: functools.partial(perceptron_case, weighting="scale_free_minimax"),
    DROPOUT: dropout_case,
    BORROWED: borrowed_arrays_case,
    BATCH: batch_case,
}

NOT_ON_TORCH = (MEASURED, OVERFLOWING, DROPOUT, BORROWED, BATCH)
EQUAL_MODELS = [name for name in TRAINED if name.startswith(("PosBert", "MM-MAE"))]
EQUAL = [name for name in TRAINED if name not in (*EQUAL_MODELS, *PLAIN, *NOT_ON_TORCH)]
