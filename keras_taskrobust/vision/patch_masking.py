"""Visible patches of a batch, as a pure function of (record, epoch, seed)."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import gammaincinv

from keras_taskrobust import checks
from keras_taskrobust.randomness import hash_counters, to_unit_interval
from keras_taskrobust.vision.image_source import IGNORE_LABEL
from keras_taskrobust.vision.masking import concentrations_of, non_empty_subsets
from keras_taskrobust.vision.mm_mae_checks import check_concentration

# What the random numbers of a record are for; a part of their key.
_OF_PATCHES = 4  # order and masks of texts have those below
_GAMMA, _POWER, _SUBSET, _CHOICE = range(4)

#: Low bits of a number that is sorted, for the place of its patch: no two are equal.
_PLACE_BITS = 30
_PLACES = np.uint64(2**_PLACE_BITS - 1)
#: Every how many pixels valid ones are looked for, before all are.
_COARSE = 16


class PatchMasking:
    """Draws the visible patches of `MultiModalMAE`'s batches, by the rule of `VisibleTokenSampler`.

    What a record shows is a function of the record, the epoch and the seed alone: it does not
    depend on the batch it is in, nor on the number of devices or processes, nor on the backend.

    `image_batches(masking=...)` stores the visible patches in the batches, and the model takes them
    from there. `MultiModalMAE.patch_masking` makes the one that draws as the model would.

    Args:
        modalities: sequence of M strings, the input modalities in the order of the model.
        patches: int, N, the patches of one modality.
        visible_tokens: int, V, the visible patches of all modalities together.
        visible_concentration: float, or a dict of names to floats, as in `MultiModalMAE`.
        sample_uniformly: bool, as in `MultiModalMAE`.
        seed: int >= 0.

    Call arguments:
        maps: dict of the modalities' maps `(B, H, W, C)` float or labels `(B, H, W)`. A modality of
            which a record has nothing but missing pixels (NaN, or the label 255) gets no share.
        records: `(B,)` integers, the records' numbers.
        epochs: int or `(B,)` integers.

    Call returns:
        `(B, V)` int32, ascending: the visible patches' places in the sequence of all `M * N`.

    Raises:
        ValueError: an argument is not as said.

    Example:

    >>> import numpy as np
    >>> masking = PatchMasking(("rgb", "depth"), patches=4, visible_tokens=3)
    >>> maps = {"rgb": np.ones((2, 8, 8, 3)), "depth": np.full((2, 8, 8, 1), np.nan)}
    >>> visible = masking(maps, records=np.array([7, 8]), epochs=0)
    >>> visible.shape, bool((visible < 4).all())
    ((2, 3), True)
    """

    def __init__(
        self,
        modalities: Sequence[str],
        patches: int,
        visible_tokens: int,
        visible_concentration: float | Mapping[str, float] = 1.0,
        sample_uniformly: bool = False,
        seed: int = 0,
    ):
        self.modalities = tuple(modalities)
        self.patches = checks.integer("patches", patches, least=1)
        self.visible_tokens = checks.integer("visible_tokens", visible_tokens, least=1)
        total = patches * len(self.modalities)
        if visible_tokens > total:
            raise ValueError(
                f"`visible_tokens` must be at most {total}: {patches} patches in each of "
                f"{list(self.modalities)}. Received: visible_tokens={visible_tokens}"
            )
        check_concentration(visible_concentration, self.modalities)
        self.concentrations = np.array(concentrations_of(visible_concentration, self.modalities))
        self.sample_uniformly = sample_uniformly
        self.seed = checks.integer("seed", seed, least=0)

    def __call__(
        self, maps: Mapping[str, np.ndarray], records: np.ndarray, epochs: int | np.ndarray
    ) -> np.ndarray:
        available = np.stack([_has_pixels(maps[name]) for name in self.modalities], axis=1)
        return self.draw(available, records, epochs)

    def draw(
        self, available: np.ndarray, records: np.ndarray, epochs: int | np.ndarray
    ) -> np.ndarray:
        """As a call, where it is known what the records have.

        Args:
            available: `(B, M)` bool, which modalities a record has.
            records: `(B,)` integers.
            epochs: int or `(B,)` integers.

        Returns:
            `(B, V)` int32.
        """
        key = hash_counters(self.seed, _OF_PATCHES, records, epochs)[:, None]
        shares = self._draw_shares(available, key)
        picks = np.minimum(np.rint(shares * self.visible_tokens), self.patches).astype(np.int64)
        places = np.arange(available.shape[1] * self.patches, dtype=np.uint64)
        bits = hash_counters(key, _CHOICE, places)
        # The upper half shuffles the patches of a modality, the lower half those of all.
        shuffle = _numbered(bits >> np.uint64(32), places).reshape(*available.shape, -1)
        last = np.maximum(picks - 1, 0)[..., None]
        thresholds = np.take_along_axis(np.sort(shuffle, axis=-1), last, axis=-1)
        picked = (shuffle <= thresholds) & (picks > 0)[..., None]
        # Picks first, then other patches of what a record has, then the rest.
        rank = (2 - picked - available[..., None]).astype(np.uint64).reshape(bits.shape)
        order = _numbered(rank << np.uint64(32) | bits & np.uint64(2**32 - 1), places)
        first = np.partition(order, self.visible_tokens - 1, axis=1)[:, : self.visible_tokens]
        return np.sort((first & _PLACES).astype(np.int32), axis=1)

    def _draw_shares(self, available: np.ndarray, key: np.ndarray) -> np.ndarray:
        """`(B, M)` shares: Dirichlet over what a record has, 0 for the others."""
        concentrations = np.broadcast_to(self.concentrations, available.shape)
        if self.sample_uniformly:
            concentrations = self._draw_subsets(available, key) * concentrations + 1e-5
        # Gamma(c) = Gamma(c + 1) U^(1 / c), whose logarithm underflows for no c.
        modality = np.arange(available.shape[1])
        uniforms = (_uniforms(key, purpose, modality) for purpose in (_GAMMA, _POWER))
        gammas = gammaincinv(concentrations + 1, next(uniforms))
        logarithms = np.log(gammas) + np.log(next(uniforms)) / concentrations
        logarithms = np.where(available, logarithms, -np.inf)
        largest = np.where(available.any(axis=1), logarithms.max(axis=1), 0.0)
        shares = np.exp(logarithms - largest[:, None])
        return shares / np.maximum(shares.sum(axis=1, keepdims=True), 1.0)

    def _draw_subsets(self, available: np.ndarray, key: np.ndarray) -> np.ndarray:
        """`(B, M)` members of a subset, uniform over those of what a record has."""
        subsets = non_empty_subsets(available.shape[1])
        lacking = (~available[:, None] & subsets).any(axis=2)
        drawn = np.where(lacking, -1.0, _uniforms(key, _SUBSET, np.arange(len(subsets))))
        return subsets[drawn.argmax(axis=1)]


def _has_pixels(maps: np.ndarray) -> np.ndarray:
    """Which maps have a pixel that is not missing: `(B,)` bool."""
    some = _valid(maps[:, ::_COARSE, ::_COARSE])
    some[~some] = _valid(maps[~some])
    return some


def _valid(maps: np.ndarray) -> np.ndarray:
    valid = maps != IGNORE_LABEL if maps.ndim == 3 else np.isfinite(maps).all(axis=3)
    return valid.any(axis=(1, 2))


def _uniforms(key: np.ndarray, purpose: int, numbers: np.ndarray) -> np.ndarray:
    """Random numbers in (0, 1)."""
    return np.maximum(to_unit_interval(hash_counters(key, purpose, numbers)), 2.0**-54)


def _numbered(bits: np.ndarray, places: np.ndarray) -> np.ndarray:
    return bits << np.uint64(_PLACE_BITS) | places
