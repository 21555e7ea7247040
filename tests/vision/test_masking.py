import keras
import numpy as np
import pytest
from keras import ops
from marks import slow

from keras_taskrobust.vision.masking import VisibleTokenSampler, masks_of, visible_ids
from keras_taskrobust.vision.patch_masking import PatchMasking

DRAWS = 20_000
TOKENS = 16


def reference_counts(concentrations, visible, sample_uniformly, generator):
    """The reference's rule, in NumPy: visible tokens of each modality, `(DRAWS, M)`."""
    number = len(concentrations)
    concentrations = np.broadcast_to(concentrations, (DRAWS, number))
    if sample_uniformly:
        subsets = np.array([[i >> m & 1 for m in range(number)] for i in range(1, 2**number)])
        concentrations = (
            subsets[generator.integers(len(subsets), size=DRAWS)] * concentrations + 1e-5
        )
    # Dirichlet by gammas; numpy's underflow to 0 for 1e-5, which is exact enough.
    gammas = generator.standard_gamma(concentrations)
    shares = gammas / gammas.sum(1, keepdims=True)
    picks = np.minimum(np.round(shares * visible), TOKENS)
    mask = (np.arange(TOKENS) >= picks[..., None]).reshape(DRAWS, -1)
    places = np.argsort(mask + generator.random(mask.shape), axis=1)[:, :visible]
    return np.stack([(places // TOKENS == m).sum(1) for m in range(number)], axis=1)


def draw(sampler, available):
    return ops.convert_to_numpy(sampler(available))


def by_model(concentrations, visible, sample_uniformly, available, seed):
    """Masks as a model draws them."""
    sampler = VisibleTokenSampler(TOKENS, visible, concentrations, sample_uniformly, seed=seed)
    return draw(sampler, available)


def by_record(concentrations, visible, sample_uniformly, available, seed):
    """Masks as they are drawn with the data, each of another record."""
    names = "abc"[: len(concentrations)]
    of_names = dict(zip(names, concentrations, strict=True))
    masking = PatchMasking(names, TOKENS, visible, of_names, sample_uniformly, seed)
    ids = masking.draw(available, np.arange(len(available)), epochs=3)
    assert (np.diff(ids, axis=1) > 0).all()
    masks = np.ones((len(available), len(names) * TOKENS))
    np.put_along_axis(masks, ids, 0, axis=1)
    return masks.reshape(len(available), len(names), TOKENS)


either = pytest.mark.parametrize("draw_by", [by_model, by_record])


@pytest.mark.parametrize(
    ("concentrations", "visible", "sample_uniformly"),
    [
        slow((1.0,), 5, True),
        slow((1.0, 1.0), 11, False),
        ((0.3, 4.0), 20, False),
        slow((0.3, 4.0), 20, True),
        slow((1.0, 1.0, 1.0), 8, False),
        ((1.0, 1.0, 1.0), 8, True),
        slow((0.5, 1.0, 3.0), 30, False),
    ],
)
@either
def test_counts_follow_the_rule(draw_by, concentrations, visible, sample_uniformly):
    available = np.ones((DRAWS, len(concentrations)), bool)
    masks = draw_by(concentrations, visible, sample_uniformly, available, 4)
    counts = (masks == 0).sum(-1)
    assert (counts.sum(1) == visible).all()
    expected = reference_counts(concentrations, visible, sample_uniformly, np.random.default_rng(7))
    for found, wanted in zip(counts.T, expected.T, strict=True):
        error = np.sqrt((found.var() + wanted.var()) / DRAWS)
        assert abs(found.mean() - wanted.mean()) <= 3 * error
        spread = [((x - x.mean()) ** 2) for x in (found, wanted)]
        error = np.sqrt((spread[0].var() + spread[1].var()) / DRAWS)
        assert abs(spread[0].mean() - spread[1].mean()) <= 3 * error


@either
def test_tokens_of_a_modality_are_equally_likely(draw_by):
    masks = draw_by((1.0, 1.0), 8, False, np.ones((DRAWS, 2), bool), 0)
    shown = (masks == 0).mean(0)
    np.testing.assert_allclose(shown, 8 / (2 * TOKENS), atol=4 * np.sqrt(0.1875 / DRAWS))


@pytest.mark.parametrize("sample_uniformly", [False, True])
@either
def test_a_missing_modality_is_never_visible(draw_by, sample_uniformly):
    available = np.tile([[True, False, True], [False, True, True]], (DRAWS // 2, 1))
    masks = draw_by((1.0, 1.0, 0.1), 12, sample_uniformly, available, 1)
    counts = (masks == 0).sum(-1)
    assert (counts.sum(1) == 12).all()
    assert (counts[~available] == 0).all()


@either
def test_tiny_concentrations_give_one_modality_everything(draw_by):
    masks = draw_by((1e-4, 1e-4), 12, False, np.ones((DRAWS, 2), bool), 1)
    counts = (masks == 0).sum(-1)
    assert np.mean(np.isin(counts, (0, 12))) > 0.98
    assert 0.3 < np.mean(counts[:, 0] == 12) < 0.7


def test_draws_differ_and_a_seed_repeats_them():
    available = np.ones((50, 2), bool)
    draws = []
    for seed in (5, 5, 6):
        sampler = VisibleTokenSampler(TOKENS, 12, (1.0, 1.0), seed=seed)
        draws.append([draw(sampler, available) for _ in range(2)])
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0][0] != draws[0][1]).any()
    assert (draws[0][0] != draws[2][0]).any()


def test_compiled_with_an_unknown_batch_size():
    inputs = keras.Input((2,), dtype="bool")
    sampler = VisibleTokenSampler(TOKENS, 12, (1.0, 2.0), sample_uniformly=True, seed=0)
    model = keras.Model(inputs, sampler(inputs))
    if keras.backend.backend() != "torch":
        model.compile(jit_compile=True)
    masks = model.predict(np.ones((7, 2), bool), batch_size=4, verbose=0)
    assert ((masks == 0).sum((1, 2)) == 12).all()


def test_ids_and_masks_are_inverse():
    sampler = VisibleTokenSampler(TOKENS, 12, (1.0, 1.0), seed=0)
    masks = draw(sampler, np.ones((50, 2), bool))
    ids = visible_ids(ops.convert_to_tensor(masks), 12)
    assert (np.diff(ops.convert_to_numpy(ids), axis=1) > 0).all()
    restored = masks_of(ids, 2, TOKENS)
    np.testing.assert_array_equal(ops.convert_to_numpy(restored), masks)
