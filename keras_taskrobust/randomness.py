"""Random numbers of data: a pure function of counters, such as seed, epoch and record.

The same counters give the same numbers whatever else is drawn, in any process and any order.
`generator` is NumPy's, for what is drawn one after the other. Whole arrays of counters are hashed
by SplitMix64 (Steele, Lea, Flood 2014): a counter times an odd constant, and Stafford's 13th mixing
function.
"""

import functools

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_ROUNDS = 6
_FEWEST_HALF_BITS = 4  # smaller networks have too few permutations
_ORDER = 3  # what the numbers of `shuffled` are for; the masks of texts have 0, 1 and 2


def generator(*counters: int) -> np.random.Generator:
    """Makes a generator whose numbers are a function of counters.

    Args:
        *counters: ints >= 0. Their order matters; zeros at their end do not.

    Returns:
        `np.random.Generator`.

    Example:

    >>> bool(generator(0, 1).random() == generator(0, 1).random())
    True
    """
    return np.random.default_rng(counters)


def hash_counters(*counters: int | np.ndarray) -> np.ndarray:
    """Hashes counters to 64 random bits.

    Args:
        *counters: integers or integer arrays >= 0, which broadcast against each other. Their
            order matters.

    Returns:
        uint64 array of the broadcast shape.

    Example:

    >>> bool(hash_counters(0, np.arange(3))[2] == hash_counters(0, 2))
    True
    """
    state = np.zeros((1,), np.uint64)
    for counter in counters:
        # Arrays wrap around silently, scalars warn: keep one dimension until the end.
        state = _mix(state + (np.atleast_1d(counter).astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return state.reshape(np.broadcast_shapes(*(np.shape(counter) for counter in counters)))


def to_unit_interval(bits: np.ndarray) -> np.ndarray:
    """Maps 64 random bits to the interval [0, 1).

    Args:
        bits: uint64 array.

    Returns:
        float64 array of the same shape.
    """
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def shuffled(indices: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """Which of `size` records stand at some places of an epoch.

    Args:
        indices: int64 array with values in `range(size)`, the places.
        size: int >= 1.
        seed: int >= 0.
        epoch: int >= 0. Every epoch has an order of its own.

    Returns:
        int64 array of the same shape.
    """
    return permute(indices, size, seed, _ORDER, epoch)


@functools.lru_cache(maxsize=4)
def shuffled_epoch(size: int, seed: int, epoch: int) -> np.ndarray:
    """`shuffled` of a whole epoch, kept for those who ask for one record after the other."""
    return shuffled(np.arange(size), size, seed, epoch)


def permute(indices: np.ndarray, size: int, *key: int) -> np.ndarray:
    """Applies a random permutation of `range(size)` without storing it.

    A Feistel network of six rounds permutes a power of four; numbers which land outside of
    `range(size)` go through again.

    Args:
        indices: int64 array with values in `range(size)`.
        size: int >= 1.
        *key: ints >= 0, which choose the permutation.

    Returns:
        int64 array of the same shape.

    Example:

    >>> sorted(permute(np.arange(5), 5, 0).tolist())
    [0, 1, 2, 3, 4]
    """
    half_bits = max(_FEWEST_HALF_BITS, (int(size - 1).bit_length() + 1) // 2)
    round_keys = hash_counters(*key, np.arange(_ROUNDS))
    permuted = np.array(indices, dtype=np.uint64).reshape(-1)
    outside = np.arange(permuted.size)
    while outside.size:
        permuted[outside] = _feistel(permuted[outside], half_bits, round_keys)
        outside = outside[permuted[outside] >= np.uint64(size)]
    return permuted.astype(np.int64).reshape(np.shape(indices))


def _feistel(values: np.ndarray, half_bits: int, round_keys: np.ndarray) -> np.ndarray:
    shift = np.uint64(half_bits)
    mask = np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for round_key in round_keys:
        left, right = right, left ^ (_mix(right * _GOLDEN ^ round_key) & mask)
    return (left << shift) | right


def _mix(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))
