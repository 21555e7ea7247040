"""Task gradients of every kind that the methods must cope with, in float64."""

import numpy as np

NUMBERS = (2, 3, 5, 9, 20)


def random_gradients(K, rng, dimension=None):
    return rng.normal(size=(K, dimension or 2 * K + 3))


def conflicting(K, rng):
    """Most pairs have a negative inner product, and some direction lowers every loss."""
    common = rng.normal(size=2 * K + 3)
    gradients = rng.normal(size=(K, 2 * K + 3))
    gradients -= 0.9 * gradients.mean(axis=0)
    return gradients + 0.15 * common


def ill_scaled(K, rng):
    """Norms from 1e-3 to 1e3."""
    return random_gradients(K, rng) * np.logspace(-3, 3, K)[rng.permutation(K), None]


def conflicting_ill_scaled(K, rng):
    return conflicting(K, rng) * np.logspace(-3, 3, K)[rng.permutation(K), None]


def duplicates(K, rng):
    gradients = random_gradients(K, rng)
    gradients[K // 2] = gradients[0]
    return gradients


def scaled_duplicates(K, rng):
    gradients = random_gradients(K, rng)
    gradients[K // 2] = 4.0 * gradients[0]
    return gradients


def dependent(K, rng):
    """A rank of about half the number of tasks, and a direction that lowers every loss."""
    rank = K // 2 + 1
    gradients = rng.normal(size=(K, rank))
    gradients[:, 0] = 1.0 + rng.random(K)
    return gradients


def zero_gradient(K, rng):
    gradients = random_gradients(K, rng)
    gradients[K - 1] = 0.0
    return gradients


def opposed(K, rng):
    """The first two cancel each other exactly: no direction lowers both losses."""
    gradients = random_gradients(K, rng)
    gradients[1] = -gradients[0]
    return gradients


def opposed_unequal(K, rng):
    gradients = random_gradients(K, rng)
    gradients[1] = -0.5 * gradients[0]
    return gradients


def all_zero(K, rng):
    return np.zeros((K, 3))


#: Where every method has a solution that is a continuous function of the gradients.
REGULAR = {
    f.__name__: f
    for f in (random_gradients, conflicting, ill_scaled, conflicting_ill_scaled, duplicates)
}
#: Where methods are at a limit; the weights are finite, and what they are is documented.
SINGULAR = {
    f.__name__: f
    for f in (scaled_duplicates, dependent, zero_gradient, opposed, opposed_unequal, all_zero)
}
ALL = {**REGULAR, **SINGULAR}


def make_gradients(case, K, seed=0):
    """`(K, N)` float64 that float32 holds exactly."""
    rng = np.random.default_rng([seed, K, sorted(ALL).index(case)])
    return ALL[case](K, rng).astype("float32").astype("float64")


def gramian_of(gradients):
    """`(K, K)` float32, as a backend's matrix product would give it, up to rounding."""
    return (gradients @ gradients.T).astype("float32")


def direction_error(actual, expected, gradients):
    """The distance of two directions, relative to the longer of the expected one and 1e-3 of the
    gradients that take part."""
    difference = np.linalg.norm((actual - expected) @ gradients)
    return difference / max(np.linalg.norm(expected @ gradients), 1e-30)
