"""What replicas on PyTorch do and must not do."""

import functools

import numpy as np
from replica_cases import (
    TRAINED,
    Replica,
    at_representation,
    perceptron,
    perceptron_batch,
    perceptron_model,
    state,
    vector,
)
from torch import distributed

from keras_taskrobust.training.backends import backend, torch_replicas


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
    **TRAINED,
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
