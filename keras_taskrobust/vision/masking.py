"""Which tokens are visible: a fixed number, shared out over the modalities at random."""

import itertools
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import ops

from keras_taskrobust.types import Tensor

#: Proposals a gamma variate is chosen from. Each is accepted with a probability above 0.95.
_PROPOSALS = 12


class VisibleTokenSampler(keras.layers.Layer):
    """Draws the mask of each sample: `visible_tokens` of all tokens are visible.

    Each sample draws shares `p ~ Dirichlet(concentrations)` of its modalities, and
    `round(visible_tokens * p_m)` tokens (half to even, at most all) are picked at random from the
    modality `m`. Rounding and the limit leave a few too many or too few: surplus picks are dropped
    at random, and missing ones made up by random tokens of any modality. With `sample_uniformly` a
    sample first draws one of the non-empty subsets of its modalities, all with equal probability;
    the others' concentrations become 1e-5.

    A modality that a sample lacks gets no share. Its tokens are visible only if the sample's
    other modalities have fewer than `visible_tokens` tokens: the number is fixed.

    Args:
        tokens: int, the tokens of one modality, N.
        visible_tokens: int, V.
        concentrations: M positive floats, those of the Dirichlet distribution.
        sample_uniformly: bool.
        seed: int or `None`.

    Call arguments:
        available: `(B, M)` bool. Which modalities a sample has.

    Returns:
        `(B, M, N)` float32: 1 for masked tokens, 0 for the `V` visible ones.

    Example:

    >>> import numpy as np
    >>> sampler = VisibleTokenSampler(16, visible_tokens=8, concentrations=(1.0, 1.0), seed=0)
    >>> masks = np.asarray(sampler(np.ones((4, 2), bool)))
    >>> masks.shape, (1 - masks).sum((1, 2)).tolist()
    ((4, 2, 16), [8.0, 8.0, 8.0, 8.0])

    Reference:
        [MultiMAE: Multi-modal Multi-task Masked Autoencoders](https://arxiv.org/abs/2204.01678),
        section 3.2.
    """

    def __init__(
        self, tokens, visible_tokens, concentrations, sample_uniformly=False, seed=None, **kwargs
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.tokens = tokens
        self.visible_tokens = visible_tokens
        self.concentrations = np.array(concentrations, "float32")
        self.sample_uniformly = sample_uniformly
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._subsets = non_empty_subsets(len(concentrations)).astype("float32")
        self.built = True

    def call(self, available):
        batch = ops.shape(available)[0]
        available = ops.cast(available, "float32")
        modalities, tokens = len(self.concentrations), self.tokens
        # One call, since JAX compiles every call to its generator anew.
        noise = self._uniform((batch, modalities, 2 * tokens + _PROPOSALS + 1))
        shuffle, repair, gamma_noise = ops.split(noise, [tokens, 2 * tokens], axis=-1)
        shares = self._draw_shares(available, gamma_noise, batch)
        picks = ops.expand_dims(ops.round(shares * self.visible_tokens), -1)
        ranks = ops.argsort(ops.argsort(shuffle, axis=-1), axis=-1)
        unpicked = ops.cast(ops.cast(ranks, "float32") >= picks, "float32")
        lacking = 1.0 - ops.expand_dims(available, -1)
        order = ops.reshape(unpicked + lacking + repair, (batch, modalities * tokens))
        places = ops.argsort(ops.argsort(order, axis=-1), axis=-1)
        masked = ops.cast(places >= self.visible_tokens, "float32")
        return ops.reshape(masked, (batch, modalities, tokens))

    def _draw_shares(self, available, noise, batch):
        """`(B, M)` shares: Dirichlet over the available modalities, 0 for the others."""
        row = ops.expand_dims(self.concentrations, 0)
        concentrations = ops.broadcast_to(row, ops.shape(available))
        if self.sample_uniformly:
            concentrations = self._draw_subsets(available, batch) * concentrations + 1e-5
        logarithms = self._draw_log_gammas(concentrations, noise, batch)
        logarithms = ops.where(available > 0, logarithms, -1e30)
        largest = ops.max(logarithms, axis=-1, keepdims=True)
        gammas = ops.exp(logarithms - largest) * available
        return gammas / ops.maximum(ops.sum(gammas, axis=-1, keepdims=True), 1.0)

    def _draw_subsets(self, available, batch):
        """`(B, M)` members of a subset, uniform over those without an unavailable modality."""
        lacking = ops.matmul(1.0 - available, ops.transpose(self._subsets))
        noise = self._uniform((batch, len(self._subsets)))
        drawn = ops.argmax(ops.where(lacking > 0, -1.0, noise), axis=-1)
        return ops.take(ops.convert_to_tensor(self._subsets), drawn, axis=0)

    def _draw_log_gammas(self, concentrations, noise, batch):
        """Logarithms of `Gamma(c)` variates, which underflow for no concentration `c`.

        `Gamma(c) = Gamma(c + 1) U^(1 / c)`, the former by Marsaglia and Tsang's
        rejection method: the first accepted one out of a fixed number of proposals, so that
        shapes are static. `noise` is uniform, `(B, M, proposals + 1)`.
        """
        log_uniforms = ops.log(1.0 - noise)
        shape = (batch, len(self.concentrations), _PROPOSALS)
        normals = keras.random.normal(shape, dtype="float32", seed=self.seed_generator)
        scale = ops.expand_dims(concentrations, -1) + 2.0 / 3.0
        cubes = (1.0 + normals / ops.sqrt(9.0 * scale)) ** 3
        log_cubes = ops.log(ops.where(cubes > 0, cubes, 1.0))
        bound = 0.5 * normals**2 + scale * (1.0 - cubes + log_cubes)
        accepted = ops.logical_and(cubes > 0, log_uniforms[..., 1:] < bound)
        first = ops.argmax(ops.cast(accepted, "int32"), axis=-1)
        log_cube = ops.take_along_axis(log_cubes, ops.expand_dims(first, -1), axis=-1)
        log_gammas = ops.squeeze(ops.log(scale) + log_cube, -1)
        return log_gammas + log_uniforms[..., 0] / concentrations

    def _uniform(self, shape):
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)


def concentrations_of(
    visible_concentration: float | Mapping[str, float], names: Sequence[str]
) -> tuple[float, ...]:
    """The concentration of each of the named modalities, of one for all or a dict."""
    if isinstance(visible_concentration, Mapping):
        return tuple(float(visible_concentration[name]) for name in names)
    return (float(visible_concentration),) * len(names)


def non_empty_subsets(modalities: int) -> np.ndarray:
    """Who is in each of the non-empty subsets, `(2**M - 1, M)` bool."""
    return np.array(list(itertools.product((False, True), repeat=modalities))[1:])


def visible_ids(masks: Tensor, visible_tokens: int) -> Tensor:
    """The positions of the visible tokens in the sequence of all modalities' tokens.

    Args:
        masks: `(B, M, N)`, 0 for visible tokens, of which every sample has `visible_tokens`.
        visible_tokens: int, V.

    Returns:
        `(B, V)` int32, ascending.
    """
    tokens = masks.shape[1] * masks.shape[2]
    flat = ops.cast(ops.reshape(masks, (-1, tokens)) > 0, "int32")
    index = ops.expand_dims(ops.arange(tokens, dtype="int32"), 0)
    return ops.cast(ops.argsort(flat * tokens + index, axis=-1)[:, :visible_tokens], "int32")


def masks_of(ids: Tensor, modalities: int, tokens: int) -> Tensor:
    """The masks of given visible tokens: the inverse of `visible_ids`.

    Args:
        ids: `(B, V)` integers, distinct in a sample.
        modalities: int, M.
        tokens: int, N.

    Returns:
        `(B, M, N)` float32, 1 for masked tokens.
    """
    index = ops.reshape(ops.arange(modalities * tokens, dtype="int32"), (1, -1, 1))
    visible = ops.any(ops.expand_dims(ops.cast(ids, "int32"), 1) == index, axis=-1)
    masked = ops.cast(ops.logical_not(visible), "float32")
    return ops.reshape(masked, (-1, modalities, tokens))
