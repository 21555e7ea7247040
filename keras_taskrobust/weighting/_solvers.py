"""The small problems inside the gradient methods, solved on the device.

Every function here works on the cosines of the task gradients and on their norms, so that scales
that lie apart by 1e6 lose nothing in float32, and runs inside a compiled step with shapes that do
not depend on the data. Nothing here is a product of matrices to the backend: on an accelerator,
TensorFlow and JAX round the factors of one to ten bits (TF32) unless they are told otherwise.
"""

from collections.abc import Callable

from keras import ops

from keras_taskrobust.types import Tensor

#: Added to the diagonal of the cosines: what is singular has a solution, and it is a bounded one.
_RIDGE = 1e-6

#: A gradient component counts as violating its bound from this on, of the largest one.
_TOLERANCE = 1e-6


def cosines_and_norms(gramian: Tensor) -> tuple[Tensor, Tensor]:
    """Splits a Gramian into cosines and norms, `G = diag(norms) C diag(norms)`.

    Args:
        gramian: `(K, K)` float32, symmetric.

    Returns:
        The cosines `(K, K)`, 0 in the rows and columns of gradients that are zero, and the norms
        `(K,)`.
    """
    norms = ops.sqrt(ops.relu(ops.diagonal(gramian)))
    inverse = reciprocal(norms)
    cosines = gramian * inverse[None] * inverse[:, None]
    return ops.clip(cosines, -1.0, 1.0), norms


def matrix_vector(matrix: Tensor, vector: Tensor) -> Tensor:
    """`matrix vector`."""
    return ops.sum(matrix * vector[None], axis=1)


def rows_times(rows: Tensor, matrix: Tensor) -> Tensor:
    """`rows matrix`, for a symmetric matrix.

    Args:
        rows: `(B, K)` float32.
        matrix: `(K, K)` float32.

    Returns:
        `(B, K)` float32.
    """
    return ops.sum(rows[:, None] * matrix[None], axis=2)


def reciprocal(values: Tensor) -> Tensor:
    """`1 / values`, 0 where `values` is not positive."""
    positive = ops.cast(values > 0, "float32")
    return positive / (positive * values + (1.0 - positive))


def nonnegative_quadratic(matrix: Tensor, linear: Tensor, start: Tensor | None = None) -> Tensor:
    """Minimises `x' M x / 2 - b' x` over `x >= 0`, for several `b` at once.

    Exact up to a ridge on the diagonal, which chooses the support and most of whose bias is then
    taken back. An index whose diagonal entry is 0 keeps `x = 0`.

    Args:
        matrix: `(K, K)` float32, positive semidefinite, its diagonal entries 0 or 1.
        linear: `(B, K)` float32.
        start: `(B, K)` float32 of 0 and 1, a support to start from. By default that of `max(b, 0)`.

    Returns:
        `x` `(B, K)` float32.
    """
    x, support = active_set(matrix, linear, start)
    refined, solve = x, _solver_of(matrix)
    # XLA solves nearly singular systems to a tenth of their solution only. The last step takes back
    # the ridge's bias; more of them would let rounding errors grow where the matrix is singular.
    for ridge in (_RIDGE, _RIDGE, _RIDGE, 0.0):
        refined = refined + solve(support, linear - rows_times(refined, matrix) - ridge * refined)
    keeps_sign = ops.all(refined >= 0, axis=1, keepdims=True)
    return ops.where(keeps_sign, refined, x)


def active_set(
    matrix: Tensor, linear: Tensor, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What `nonnegative_quadratic` refines: its solution with the ridge, and the support of that.

    An active-set method (Lawson and Hanson's), which is finite.

    Args:
        matrix: `(K, K)` float32, positive semidefinite, its diagonal entries 0 or 1.
        linear: `(B, K)` float32.
        start: `(B, K)` float32 of 0 and 1, a support to start from. By default that of `max(b, 0)`.

    Returns:
        `x` `(B, K)` float32, as exact as the backend solves one system, and its support `(B, K)`,
        float32 of 0 and 1.
    """
    size, solve = matrix.shape[0], _solver_of(matrix)
    usable = (ops.diagonal(matrix) > 0)[None]
    places = ops.arange(size, dtype="int32")[None]
    tolerance = _TOLERANCE * ops.max(ops.abs(linear), axis=1, keepdims=True)

    def unfinished(count, x, support, entered, barred, done):
        return (count < 4 * size + 10) & ~ops.all(done)

    def advance(count, x, support, entered, barred, done):
        inside = support > 0
        target = solve(support, linear)
        blocks = inside & (target <= 0)
        feasible = ~ops.any(blocks, axis=1, keepdims=True)

        # Not feasible: as far towards the target as x >= 0 allows; the first to vanish leave.
        ratios = ops.where(blocks, x / (x - target + 1e-30), 1.0)
        reach = ops.min(ratios, axis=1, keepdims=True)
        leaves = blocks & (ratios <= reach)
        stays = ops.cast(inside & ~leaves, "float32")
        # What entered and leaves at once gains nothing: rounding let it in.
        bars = barred | (leaves & entered)

        # Feasible: the index that gains most enters, if any does. Those barred have another chance
        # once one has entered and stayed.
        gains = feasible & ops.any(entered, axis=1, keepdims=True)
        outside = ops.cast(usable & ~(inside | barred), "float32")
        gain = (linear - rows_times(target, matrix)) * outside
        best = ops.argmax(gain, axis=1)[:, None] == places
        enters = feasible & best & (gain > tolerance)

        return (
            count + 1,
            ops.where(feasible, target, (x + reach * (target - x)) * stays),
            stays + ops.cast(enters, "float32"),
            enters,
            bars & ~gains,
            feasible & ~ops.any(enters, axis=1, keepdims=True),
        )

    pulled = usable & (linear > tolerance)
    start = ops.cast(pulled, "float32") if start is None else start
    done = ~ops.any(pulled | (start > 0), axis=1, keepdims=True)
    nothing = ops.zeros_like(pulled)
    state = (ops.zeros((), "int32"), ops.zeros_like(linear), start, nothing, nothing, done)
    _, x, support, *_ = ops.while_loop(unfinished, advance, state)
    return x, support


def _solver_of(matrix: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Solves the equations of the supported indices, with the ridge; all others are `x = 0`."""
    identity = ops.eye(matrix.shape[0], dtype="float32")
    difference = matrix - (1.0 - _RIDGE) * identity

    def solve(support, right):
        system = identity[None] + support[:, :, None] * difference[None]
        return ops.solve(system, (right * support)[:, :, None])[:, :, 0] * support

    return solve


def relative_inverse(norms: Tensor) -> Tensor:
    """`min(norms) / norms`, over the norms that are not 0, and 0 for those."""
    inverse = reciprocal(norms)
    return inverse * reciprocal(ops.max(inverse))


def min_norm_weights(gramian: Tensor, present: Tensor) -> Tensor:
    """The weights of the shortest convex combination of the present tasks' gradients.

    `argmin_w w' G w` over the simplex. Where several weights are optimal (duplicate tasks) it is
    one of them. Where the shortest combination is zero (opposed gradients, a zero gradient) the
    weights give it, up to 1e-3 of the shortest gradient involved.

    Args:
        gramian: `(K, K)` float32.
        present: `(K,)` bool.

    Returns:
        `(K,)` float32.
    """
    cosines, norms = cosines_and_norms(gramian)
    vanishes = ops.cast(present & (norms == 0), "float32")
    # The shortest combination is proportional to argmin_y y' C y / 2 - sum_k y_k / n_k, y = n w.
    inverse = relative_inverse(norms)
    scaled = nonnegative_quadratic(cosines, inverse[None])
    weights = ops.where(ops.any(vanishes > 0), vanishes, scaled[0] * inverse)
    return weights / ops.maximum(ops.sum(weights), 1e-30)


def dual_cone_weights(gramian: Tensor, combinations: Tensor) -> Tensor:
    """Projects combinations of the gradients onto the cone of directions that conflict with none.

    For each row `u`: `argmin_v v' G v` over `v >= u`, such that `sum_k v_k g_k` is the projection
    of `sum_k u_k g_k` (Quinton and Rey 2024, proposition 1).

    Args:
        gramian: `(K, K)` float32.
        combinations: `(B, K)` float32, >= 0.

    Returns:
        `(B, K)` float32.
    """
    cosines, norms = cosines_and_norms(gramian)
    scaled = combinations * norms[None]
    largest = ops.max(scaled, axis=1, keepdims=True)
    scaled = scaled * reciprocal(largest)
    added = nonnegative_quadratic(cosines, -rows_times(scaled, cosines))
    return combinations + added * largest * reciprocal(norms)[None]


def conflict_averse_weights(gramian: Tensor, present: Tensor, radius: float) -> Tensor:
    """The weights of the direction of CAGrad.

    `argmax_d min_k <g_k, d>` over `||d - g_0|| <= radius ||g_0||`, `g_0` the mean gradient (Liu et
    al. 2021). The direction is `g_0 + sum_k x_k g_k`, where `x >= 0` solves a quadratic problem
    that depends on the value `m` of the maximum. The length of `sum_k x_k g_k` is a convex function
    of `m`: from above, Newton's method descends to where it is the radius.

    Where no direction lowers all losses (opposed gradients) the maximum is not above zero and may
    have many solutions; the direction is one of them. A gradient that is zero is left out. If `g_0`
    is zero, so is the direction.

    Args:
        gramian: `(K, K)` float32.
        present: `(K,)` bool.
        radius: float >= 0.

    Returns:
        `(K,)` float32.
    """
    cosines, norms = cosines_and_norms(gramian)
    mean = ops.cast(present, "float32")
    mean = mean / ops.maximum(ops.sum(mean), 1.0)
    pull = matrix_vector(cosines, norms * mean)
    mean_length = ops.sqrt(ops.relu(ops.sum(norms * mean * pull)))
    usable = (norms > 0) & (mean_length > 0)
    # In units of ||g_0||: x_k ||g_k|| = y_k ||g_0||, y minimises y' C y / 2 - linear_at(m)' y.
    pull = pull * reciprocal(mean_length)
    inverse = relative_inverse(norms)

    def linear_at(level):
        return (level * inverse - pull)[None]

    def length_of(y):
        return ops.sqrt(ops.relu(ops.sum(y * matrix_vector(cosines, y))))

    def unfinished(count, level, support, done):
        return (count < 60) & ~done

    def advance(count, level, support, done):
        y, support = active_set(cosines, linear_at(level), support)
        y = y[0]
        slope = ops.sum(y * inverse)
        newton = (ops.sum(y * pull) + radius * length_of(y)) * reciprocal(slope)
        lower = ops.where(slope > 0, ops.minimum(newton, level), level)
        # What is left is the square of the last step.
        return count + 1, lower, support, level - lower <= 1e-5 * ops.abs(level)

    # No task can gain more than the whole radius in its own direction gives it.
    most = ops.where(usable, (pull + radius) / ops.where(usable, inverse, 1.0), float("inf"))
    level = ops.where(ops.any(usable), ops.min(most), 0.0)
    support = ops.cast(usable[None] & (linear_at(level) > 0), "float32")
    state = (ops.zeros((), "int32"), level, support, ~ops.any(usable))
    _, level, support, _ = ops.while_loop(unfinished, advance, state)
    y = nonnegative_quadratic(cosines, linear_at(level), support)[0]
    y = y * ops.minimum(1.0, radius * reciprocal(length_of(y)))
    return mean + y * mean_length * reciprocal(norms)


def bargaining_weights(gramian: Tensor, fairness: float = 1.0) -> Tensor:
    """Solves `(G w)_k = w_k^(-1 / fairness)`, `w > 0`.

    The Nash bargaining solution for `fairness=1` (Navon et al. 2022), the alpha-fair one otherwise
    (Ban and Ji 2024): a strictly convex problem, solved by damped Newton steps in `y = n w`. Where
    gradients oppose one another there is no solution; the one given, of the Gramian with 2e-7 of
    its diagonal added, has large weights of which the gradients nearly cancel. A task whose
    gradient is zero gets the weight 0.

    Args:
        gramian: `(K, K)` float32.
        fairness: positive float.

    Returns:
        `(K,)` float32.
    """
    cosines, norms = cosines_and_norms(gramian)
    usable = norms > 0
    mask = ops.cast(usable, "float32")
    identity = ops.eye(cosines.shape[0], dtype="float32")
    matrix = cosines + identity * (2e-7 * mask + (1.0 - mask))[None]
    power = 1.0 / fairness
    # (C y)_k = s_k y_k^-p, s = n^(p - 1); alone, a task has y = s^(1 / (1 + p)) =: c.
    largest = ops.maximum(ops.max(norms), 1e-30)
    relative = ops.where(usable, norms / largest, 1.0)
    alone = ops.power(relative, (power - 1.0) / (1.0 + power))
    halves = ops.power(0.5, ops.arange(12, dtype="float32"))

    def value(y):
        """The convex objective for each row of `y`, without what is constant."""
        scaled = y / alone[None]
        if power == 1.0:
            gains = ops.log(scaled)
        else:
            gains = (ops.power(scaled, 1.0 - power) - 1.0) / (1.0 - power)
        quadratic = 0.5 * ops.sum(y * rows_times(y, matrix), axis=1)
        return quadratic - matrix_vector(gains, mask * alone * alone)

    def unfinished(count, y, decrement):
        return (count < 60) & (decrement > 1e-6)

    def advance(count, y, decrement):
        pull = mask * alone * ops.power(alone / y, power)
        curvature = mask * power * ops.power(alone / y, 1.0 + power) + (1.0 - mask)
        gradient = mask * matrix_vector(matrix, y) - pull
        hessian = matrix + identity * curvature[None]
        move = -ops.solve(hessian, gradient[:, None])[:, 0] * mask
        decrement = ops.sqrt(ops.relu(-ops.sum(move * gradient)) / ops.sum(alone * alone))
        limit = ops.minimum(0.95 / ops.maximum(ops.max(-move / y), 1e-30), 1.0)
        steps = (limit * halves)[:, None]
        candidates = y[None] + steps * move[None]
        best = ops.argmin(value(candidates))
        chosen = ops.where(decrement < 1e-2, limit, limit * ops.take(halves, best))
        return count + 1, y + chosen * move, decrement

    state = (ops.zeros((), "int32"), alone, ops.full((), float("inf")))
    y = ops.while_loop(unfinished, advance, state)[1]
    # Back from norms relative to the largest: w = y / n, and n^(p - 1) scales as above.
    scale = ops.power(largest, (power - 1.0) / (1.0 + power))
    return mask * y * scale * reciprocal(norms)


def equal_projections(cosines: Tensor, norms: Tensor) -> Tensor:
    """The combination of the unit gradients that has the same projection on all of them.

    `y = pinv(C) 1`, `C` the cosines; where there is none (opposed gradients), least squares.

    Returns:
        `(K,)` float32, scaled such that the common projection is 1.
    """
    ones = ops.cast(norms > 0, "float32")
    return ones * apply_pseudo_inverse(cosines, ones)


def apply_pseudo_inverse(matrix: Tensor, vector: Tensor) -> Tensor:
    """`pinv(matrix) vector`, without the directions that float32 does not resolve.

    Args:
        matrix: `(K, K)` float32, symmetric.
        vector: `(K,)` float32.

    Returns:
        `(K,)` float32.
    """
    values, vectors = ops.eigh(matrix)
    kept = values > 1e-6 * matrix.shape[0] * ops.max(values)
    inverse = ops.where(kept, 1.0 / ops.where(kept, values, 1.0), 0.0)
    return matrix_vector(vectors, inverse * matrix_vector(ops.transpose(vectors), vector))


def project_onto_simplex(values: Tensor, present: Tensor) -> Tensor:
    """The nearest point to `values` on the simplex of the present tasks.

    Args:
        values: `(K,)` float32.
        present: `(K,)` float32 of 0 and 1.

    Returns:
        `(K,)` float32.
    """
    # The threshold is the largest mean of the r largest values, each of which is less 1 / r.
    among_largest = ops.cast(values[None] >= values[:, None], "float32") * present[None]
    sums = matrix_vector(among_largest, values) - 1.0
    threshold = ops.max(sums / (ops.sum(among_largest, axis=1) + 1e-30))
    return ops.relu(values - threshold) * present
