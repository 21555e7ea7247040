"""Every weighting that the properties are checked on, and the batches they are checked with."""

import json
from typing import NamedTuple

import keras
import numpy as np
import references
from autodiff import BACKEND, call_program, program, to_numpy

import keras_taskrobust as ktr

w = ktr.weighting

#: Each takes K. A registered weighting not named here is checked with its defaults.
VARIANTS = {
    "minimax_schedule": lambda K: w.SoftmaxWeightedLoss(w.SquareRootSchedule(0.5)),
    "minimax_momentum": lambda K: w.SoftmaxWeightedLoss(2.0, loss_momentum=0.7),
    "minimax_reference": lambda K: w.SoftmaxWeightedLoss(
        3.0, reference_losses=np.linspace(0.2, 1.0, K)
    ),
    "minimax_all": lambda K: w.SoftmaxWeightedLoss(
        w.SquareRootSchedule(), loss_momentum=0.5, reference_losses=np.linspace(1.0, 0.0, K)
    ),
    "minimax_sharp": lambda K: w.SoftmaxWeightedLoss(1e4),
    "minimax_memory": lambda K: w.SoftmaxWeightedLoss(
        2.0, loss_memory=5.0, trivial_losses=np.linspace(0.5, 4.0, K), largest_score=1.5
    ),
    "minimax_unit_free": lambda K: w.SoftmaxWeightedLoss(
        10.0, 0.5, trivial_losses=np.linspace(0.5, 4.0, K), unit_free=True
    ),
    "scale_free_minimax": lambda K: w.ScaleFreeMinimax(trivial_losses=np.linspace(0.5, 4.0, K)),
    "minimax_through_weights": lambda K: w.SoftmaxWeightedLoss(0.5, through_weights=True),
    "uncertainty_half": lambda K: w.UncertaintyWeighting(half=True, learning_rate=0.1),
    "gradnorm_half": lambda K: w.GradNorm(alpha=0.5, learning_rate=None),
    "gradnorm_plain": lambda K: w.GradNorm(alpha=0),
    "dwa_window": lambda K: w.DynamicWeightAverage(temperature=0.5, window=2),
    "group_dro_all": lambda K: w.GroupDRO(
        0.3, loss_momentum=0.6, adjustment=2.0, group_sizes=np.arange(1, K + 1) ** 2
    ),
    "minimax_over_all": lambda K: w.SoftmaxWeightedLoss(
        2.0, loss_momentum=0.7, normalize_over="all"
    ),
    "group_dro_over_all": lambda K: w.GroupDRO(0.3, normalize_over="all"),
    "static_given": lambda K: w.StaticWeighting(np.linspace(1.0, 0.25, K)),
    "rlw_seed": lambda K: w.RandomLossWeighting(seed=2**40 + 3),
    "stch_small": lambda K: w.SmoothTchebycheff(mu=0.1, reference_losses=np.linspace(0.0, 0.5, K)),
    "stch_nadir": lambda K: w.SmoothTchebycheff(mu=0.5, warmup_steps=3, nadir_steps=2),
    "cvar_most": lambda K: w.ConditionalValueAtRisk(0.8),
    "chi2_dro_small": lambda K: w.ChiSquareDRO(0.05),
    "kl_dro_large": lambda K: w.KLDivergenceDRO(1.0),
    "famo_all": lambda K: w.FAMO(0.5, weight_decay=0.1, minimum_losses=np.full(K, 0.01)),
    "rate_of_improvement_window": lambda K: w.RateOfImprovement(step_size=3.0, window=2),
    "excess_loss_all": lambda K: w.ExcessLoss(np.linspace(0.5, 1.5, K), 0.3, smoothing=0.1),
    "adaptive_groups_two": lambda K: w.AdaptiveGroups(2, window=2),
    "adaptive_groups_fixed": lambda K: w.AdaptiveGroups(
        2, window=None, initial_groups=[k % 2 for k in range(K)]
    ),
    "adaptive_groups_dro": lambda K: w.AdaptiveGroups(3, window=3, weighting=w.GroupDRO(0.3)),
    "mgda_loss+": lambda K: w.MGDA("loss+"),
    "cagrad_linear": lambda K: w.CAGrad(0.9, rescaling="linear"),
    "aligned_mtl_median": lambda K: w.AlignedMTL("median"),
    "fairgrad_2": lambda K: w.FairGrad(2.0),
    "gradvac_slow": lambda K: w.GradVac(beta=0.01, seed=7),
    "sdmgrad_slow": lambda K: w.SDMGrad(regularisation=1.0, iterations=3, rate=0.1),
}
#: Every name that the library itself registers, whatever other tests have registered.
NAMES = tuple(name for name in w.available() if type(w.get(name)) in vars(w).values())
#: The methods that take the gradients elementwise have their own in `test_gradient_methods.py`.
ELEMENTWISE = tuple(name for name in NAMES if w.get(name).needs == "gradients")
CASES = {
    **{name: lambda K, name=name: w.get(name) for name in NAMES if name not in ELEMENTWISE},
    **VARIANTS,
}


class Batch(NamedTuple):
    losses: np.ndarray
    counts: np.ndarray
    gramian: np.ndarray


def make(case, K=4, seed=0):
    """The built layer of a case; its trainable variables are not at their initial values."""
    layer = CASES[case](K)
    layer.build((K,))
    rng = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return layer


def make_gramian(K, rng):
    gradients = rng.normal(size=(K, 7)) * rng.uniform(0.2, 3.0, size=(K, 1))
    return (gradients @ gradients.T).astype("float32")


def make_batches(number, K=4, seed=0, absent=0.25):
    """Random batches, at least one task present in each; an absent task's loss is 0."""
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(number):
        losses = rng.gamma(2.0, 0.7, size=K).astype("float32")
        counts = rng.integers(1, 50, size=K) * (rng.random(K) >= absent)
        if not counts.any():
            counts[rng.integers(K)] = 3
        losses = np.where(counts > 0, losses, 0.0).astype("float32")
        batches.append(Batch(losses, counts.astype("float32"), make_gramian(K, rng)))
    return batches


def step(layer, batch, training=True):
    """One call; the objective and the weights in NumPy.

    Methods that need the Gramian are called compiled, once for all layers of a configuration:
    outside jit, JAX compiles a loop anew at every call, and TensorFlow is ten times slower, which
    pays for a program where all tests share it.
    """
    shared = {"jax": True, "tensorflow": layer.num_tasks == 4, "torch": False}[BACKEND]
    if shared and layer.needs == "gramian" and layer.built:
        return step_compiled(layer, batch, training)
    return tuple(map(to_numpy, step_eagerly(layer, batch, training)))


def step_compiled(layer, batch, training=True):
    """As `step`, compiled whatever the layer; with PyTorch, whose steps are eager, just called."""
    arguments = [np.asarray(value, "float32") for value in batch]
    if BACKEND == "torch":
        return tuple(map(to_numpy, step_eagerly(layer, Batch(*arguments), training)))
    key = (type(layer), json.dumps({**layer.get_config(), "name": None}))
    key += (layer.num_tasks, training)
    if key not in _PROGRAMS:
        _PROGRAMS[key] = program(twin(layer), training)
    return tuple(map(to_numpy, call_program(_PROGRAMS[key], layer, *arguments)))


_PROGRAMS: dict = {}


def step_eagerly(layer, batch, training=True):
    return layer(
        batch.losses,
        counts=batch.counts,
        gramian=batch.gramian,
        training=training,
        return_weights=True,
    )


def check_step(layer, reference, batch, rtol=1e-7, atol=1e-5, objective_rtol=1e-5):
    """One training call as the NumPy reference makes it; returns the reference's weights."""
    losses = batch.losses.astype("float64")
    expected = reference.step(losses, batch.counts)
    objective, weights = step(layer, batch)
    np.testing.assert_allclose(weights, expected, rtol=rtol, atol=atol)
    value = references.objective(expected, losses, batch.counts)
    np.testing.assert_allclose(objective, value, rtol=objective_rtol)
    return expected


def run(layer, batches):
    """The weights of each training call, `(number, K)`."""
    return np.array([step(layer, batch)[1] for batch in batches])


def state(layer):
    """Copies of the layer's variables."""
    return {variable.path: np.array(to_numpy(variable)) for variable in layer.variables}


def by_name(layer):
    """As `state`, under names that two layers of one kind share."""
    return {variable.name: np.array(to_numpy(variable)) for variable in layer.variables}


def assert_same_state(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def twin(layer):
    """A layer of the same configuration, built, with equal variables."""
    K = layer.num_tasks
    copy = type(layer).from_config(layer.get_config())
    copy.build((K,))
    for variable, value in zip(copy.variables, layer.variables, strict=True):
        variable.assign(keras.ops.convert_to_numpy(value))
    return copy


def permuted(layer, order):
    """`twin` with its tasks in another order, K-long arguments and variables included."""
    K = layer.num_tasks
    config = {
        name: [value[i] for i in order] if isinstance(value, list) and len(value) == K else value
        for name, value in layer.get_config().items()
    }
    copy = type(layer).from_config(config)
    copy.build((K,))
    for variable, value in zip(copy.variables, layer.variables, strict=True):
        value = to_numpy(value)
        for axis in range(value.ndim):
            value = np.take(value, order, axis) if value.shape[axis] == K else value
        variable.assign(value)
    return copy
