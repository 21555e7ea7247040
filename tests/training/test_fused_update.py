"""PyTorch's fused update takes the steps of Keras's own."""

import keras
import numpy as np
import pytest

from keras_taskrobust.training.optimizers import ScaledAdamW, TwoRateOptimizer

if keras.backend.backend() != "torch":
    pytest.skip("the other backends compile Keras's update", allow_module_level=True)

import torch

from keras_taskrobust.training.backends import torch_update

STEPS = 100
SHAPES = ((5, 4), (4,), (3, 2, 2), ())


def adamw(**options):
    return keras.optimizers.AdamW(0.01, weight_decay=0.1, **options)


def excluding():
    optimizer = adamw()
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def scaled(**options):
    return ScaledAdamW(0.01, [1.0, 0.5, 0.5, 0.25], [0.1, 0.0, 0.1, 0.0], **options)


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adam with decay": lambda: keras.optimizers.Adam(0.01, weight_decay=0.1),
    "adamw": adamw,
    "exclusion from decay": excluding,
    "betas and epsilon": lambda: adamw(beta_1=0.5, beta_2=0.9, epsilon=0.1),
    "amsgrad": lambda: adamw(amsgrad=True),
    "moving averages": lambda: adamw(use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=7),
    "clipnorm": lambda: adamw(clipnorm=0.5),
    "global_clipnorm": lambda: adamw(global_clipnorm=0.5),
    "clipvalue": lambda: adamw(clipvalue=0.1),
    "loss_scale_factor": lambda: adamw(loss_scale_factor=8.0),
    "accumulation": lambda: adamw(gradient_accumulation_steps=3),
    "schedule": lambda: keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(0.0, 80, warmup_target=0.02, warmup_steps=10)
    ),
    "loss scaling": lambda: keras.optimizers.LossScaleOptimizer(adamw(), dynamic_growth_steps=9),
    "rates of its own": scaled,
    "rates of its own, clipped": lambda: scaled(global_clipnorm=0.5, amsgrad=True),
}


def make_variables():
    rng = np.random.default_rng(0)
    names = ("kernel", "bias", "kernel", "scalar")
    return [
        keras.Variable(rng.normal(size=shape).astype("float32"), name=name)
        for shape, name in zip(SHAPES, names, strict=True)
    ]


def gradients_of_step(step):
    rng = np.random.default_rng(step)
    gradients = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
    if step == 20:  # a loss scale is lowered then
        gradients[0][0, 0] = np.inf
    gradients = [torch.tensor(gradient) for gradient in gradients]
    return [gradients[0].T.contiguous().T, *gradients[1:]]


def train(optimizer, variables, update, steps=range(STEPS)):
    optimizer.build(variables)
    for step in steps:
        gradients = gradients_of_step(step)
        if step == 20 and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            continue
        with update(optimizer):
            optimizer.apply(gradients, variables)
    return [keras.ops.convert_to_numpy(v) for v in (*variables, *optimizer.variables)]


@pytest.fixture
def kernel_calls(monkeypatch):
    calls = []
    kernel = torch_update.adam

    def counted(*args, **kwargs):
        calls.append(args)
        return kernel(*args, **kwargs)

    monkeypatch.setattr(torch_update, "adam", counted)
    return calls


def kerass_own(optimizer):
    return torch.no_grad()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_kerass(name, kernel_calls):
    """Weights, moments, averages, counters, after 100 steps."""
    expected = train(OPTIMIZERS[name](), make_variables(), kerass_own)
    assert not kernel_calls
    found = train(OPTIMIZERS[name](), make_variables(), torch_update.fused_update)
    assert len(kernel_calls) >= STEPS // 3
    for own, keras_own in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, keras_own, rtol=1e-6, atol=1e-6)


def test_two_rates(kernel_calls):
    def trained(update):
        variables = make_variables()
        optimizer = TwoRateOptimizer(adamw(), variables[-1:], learning_rate=0.1)
        return train(optimizer, variables, update)

    expected = trained(kerass_own)
    found = trained(torch_update.fused_update)
    assert len(kernel_calls) == 2 * (STEPS - 1)
    for own, keras_own in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, keras_own, rtol=1e-6, atol=1e-6)


def test_goes_on_where_keras_stopped():
    """And back: the saved state is Keras's."""

    def trained(*updates):
        optimizer, variables = adamw(amsgrad=True), make_variables()
        for part, update in enumerate(updates):
            if part:
                saved = {}
                optimizer.save_own_variables(saved)
                optimizer = adamw(amsgrad=True)
                optimizer.build(variables)
                optimizer.load_own_variables(saved)
            steps = range(30 * part, 30 * part + 30)
            state = train(optimizer, variables, update, steps)
        return state

    expected = trained(kerass_own, kerass_own, kerass_own)
    found = trained(kerass_own, torch_update.fused_update, kerass_own)
    for own, keras_own in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, keras_own, rtol=1e-6, atol=1e-6)


class OwnAdam(keras.optimizers.Adam):
    pass


@pytest.mark.parametrize("make", [lambda: keras.optimizers.SGD(0.1), OwnAdam])
def test_other_optimizers_are_left_alone(make, kernel_calls):
    train(make(), make_variables(), torch_update.fused_update, range(2))
    assert not kernel_calls


@pytest.mark.parametrize("kind", ["half precision", "transposed"])
def test_what_the_kernel_cannot_read_is_kerass(kind, kernel_calls):
    def trained(update):
        if kind == "half precision":
            variable = keras.Variable(np.ones((3, 2)), dtype="float16")
        else:
            variable = keras.Variable(torch.arange(6.0).reshape(2, 3).T)
            variable._value = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
            assert not variable.value.is_contiguous()
        optimizer = adamw()
        optimizer.build([variable])
        gradient = keras.ops.cast([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], variable.dtype)
        with update(optimizer):
            optimizer.apply([gradient], [variable])
        return keras.ops.convert_to_numpy(variable)

    assert trained(torch_update.fused_update).tolist() == trained(kerass_own).tolist()
    assert not kernel_calls


def test_the_optimizer_is_left_as_it_was():
    optimizer = keras.optimizers.LossScaleOptimizer(adamw())
    optimizer.build(make_variables())
    before = dict(vars(optimizer.inner_optimizer))
    with torch_update.fused_update(optimizer):
        assert vars(optimizer.inner_optimizer) != before
    assert vars(optimizer.inner_optimizer) == before
