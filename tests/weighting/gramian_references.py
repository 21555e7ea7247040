"""The Gramian methods in float64, from the gradients themselves; no Keras.

Each function takes the gradients `(K, N)` of the tasks that are present and gives their weights.
"""

import warnings

import numpy as np
from scipy import linalg, optimize


def min_norm(gradients):
    """SciPy's NNLS: the min-norm point is proportional to argmin ||J'x||^2 + (1 - sum x)^2."""
    shortest = np.linalg.norm(gradients, axis=1).min()
    if shortest == 0:
        vanishes = (np.linalg.norm(gradients, axis=1) == 0).astype(float)
        return vanishes / vanishes.sum()
    system = np.vstack([gradients.T / shortest, np.ones(len(gradients))])
    right = np.append(np.zeros(gradients.shape[1]), 1.0)
    solution, _ = optimize.nnls(system, right, maxiter=1000 * len(gradients))
    return solution / solution.sum()


def dual_cone(gradients, combination):
    """NNLS again: v = u + x, x = argmin ||J'(u + x)||, x >= 0."""
    norms = np.linalg.norm(gradients, axis=1)
    units = gradients / np.where(norms > 0, norms, 1.0)[:, None]
    scaled = combination * norms
    scale = max(scaled.max(), 1e-300)
    added, _ = optimize.nnls(units.T, -units.T @ (scaled / scale), maxiter=1000 * len(gradients))
    return combination + added * scale / np.where(norms > 0, norms, np.inf)


def upgrad(gradients):
    K = len(gradients)
    return sum(dual_cone(gradients, row) for row in np.eye(K) / K)


def dualproj(gradients):
    K = len(gradients)
    return dual_cone(gradients, np.full(K, 1.0 / K))


def mgda(gradients, losses=None, normalisation="none"):
    norms = np.linalg.norm(gradients, axis=1)
    divisors = {
        "none": np.ones(len(gradients)),
        "l2": np.where(norms > 0, norms, 1.0),
        "loss": losses,
        "loss+": None if losses is None else losses * np.where(norms > 0, norms, 1.0),
    }[normalisation]
    return min_norm(gradients / divisors[:, None])


def cagrad_value(gradients, weights, c):
    """The worst task's gain min_k <g_k, d>, and how far d lies outside its ball, both relative."""
    mean = gradients.mean(axis=0)
    direction = weights @ gradients
    return (gradients @ direction).min(), np.linalg.norm(direction - mean) - c * np.linalg.norm(
        mean
    )


def cagrad(gradients, c):
    """The conic problem in the direction itself, by Clarabel through cvxpy; gives the direction."""
    import cvxpy

    norms = np.linalg.norm(gradients, axis=1)
    mean = gradients.mean(axis=0)
    length = np.linalg.norm(mean)
    _, triangle = linalg.qr(gradients.T, mode="economic")
    # In the gradients' span, in units of the mean gradient and of each task's gradient.
    units, mean_in_span = triangle.T / norms[:, None], triangle.mean(axis=1) / length
    direction, value = cvxpy.Variable(triangle.shape[0]), cvxpy.Variable()
    relative = norms / norms.min()
    problem = cvxpy.Problem(
        cvxpy.Maximize(value),
        [
            units @ direction >= value / relative,
            cvxpy.norm(direction - mean_in_span) <= c,
        ],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that 1e-11 was not reached
        problem.solve(cvxpy.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return linalg.qr(gradients.T, mode="economic")[0] @ direction.value * length


def bargaining(gradients, fairness=1.0):
    """A damped Newton iteration in float64 on the convex problem whose gradient is the equation."""
    norms = np.linalg.norm(gradients, axis=1)
    units = gradients / norms[:, None]
    cosines = units @ units.T
    p = 1.0 / fairness
    s = (norms / norms.max()) ** (p - 1)
    y = s ** (1 / (1 + p))

    def value(y):
        gains = np.log(y) if p == 1 else y ** (1 - p) / (1 - p)
        return 0.5 * y @ cosines @ y - s @ gains

    for _ in range(2000):
        gradient = cosines @ y - s * y**-p
        hessian = cosines + np.diag(p * s * y ** (-p - 1))
        move = -np.linalg.solve(hessian, gradient)
        decrement = -gradient @ move
        if decrement < 1e-26 * (s @ y ** (1 - p)):
            break
        step = 1.0
        while (y + step * move).min() <= 0 or (
            decrement > 1e-14
            and value(y + step * move) > value(y) - 1e-4 * step * decrement
            and step > 1e-10
        ):
            step /= 2
        y = y + step * move
    return y * norms.max() ** ((p - 1) / (1 + p)) / norms


def nash_mtl(gradients, max_norm=1.0):
    alpha = bargaining(gradients)
    alpha *= np.sqrt(np.linalg.norm(gradients @ gradients.T))
    length = np.linalg.norm(alpha @ gradients)
    return alpha if max_norm is None else alpha * min(1.0, max_norm / length)


def equal_projections(gradients):
    norms = np.linalg.norm(gradients, axis=1)
    units = gradients / np.where(norms > 0, norms, 1.0)[:, None]
    cosines = units @ units.T
    return np.linalg.pinv(cosines, rcond=1e-6 * len(norms), hermitian=True) @ (norms > 0), norms


def imtl_g(gradients):
    combination, norms = equal_projections(gradients)
    weights = combination / np.where(norms > 0, norms, np.inf)
    return weights / weights.sum()


def config(gradients):
    combination, norms = equal_projections(gradients)
    weights = combination / np.where(norms > 0, norms, np.inf)
    direction = weights @ gradients
    unit = direction / np.linalg.norm(direction)
    return weights * (gradients @ unit).sum() / np.linalg.norm(direction)


def aligned_mtl(gradients, scale="min"):
    """By the singular values of the gradients: U diag(1 / sigma) U' with the chosen sigma."""
    left, singular, _ = np.linalg.svd(gradients, full_matrices=False)
    values = singular**2
    kept = values > 1.2e-7 * len(gradients) * values.max()
    values, left = values[kept], left[:, kept]
    chosen = {"min": values[-1], "median": values[len(values) // 2], "rmse": values.mean()}[scale]
    mean = np.full(len(gradients), 1.0 / len(gradients))
    return np.sqrt(chosen) * left @ (left.T @ mean / np.sqrt(values))


def pcgrad(gradients, orders):
    """Algorithm 1 of Yu et al. on the vectors; the weights from the coefficients alongside."""
    K = len(gradients)
    coefficients = np.eye(K)
    for i in range(K):
        for j in orders[i]:
            product = coefficients[i] @ gradients @ gradients[j]
            if product < 0:
                coefficients[i, j] -= product / (gradients[j] @ gradients[j])
    return coefficients.sum(axis=0)


def gradvac(gradients, orders, targets, beta):
    """Algorithm 1 of Wang et al. on the vectors; `targets` `(K, K)` are updated in place."""
    K = len(gradients)
    coefficients = np.eye(K)
    for i in range(K):
        for j in orders[i]:
            mine, other = coefficients[i] @ gradients, gradients[j]
            length, other_length = np.linalg.norm(mine), np.linalg.norm(other)
            cosine, target = mine @ other / (length * other_length), targets[i, j]
            if cosine < target:
                top = length * (target * np.sqrt(1 - cosine**2) - cosine * np.sqrt(1 - target**2))
                coefficients[i, j] += top / (other_length * np.sqrt(1 - target**2))
            targets[i, j] = (1 - beta) * target + beta * cosine
    return coefficients.sum(axis=0)


def project_onto_simplex(values):
    """Bisection on the threshold."""
    threshold = optimize.brentq(
        lambda t: np.maximum(values - t, 0).sum() - 1,
        values.min() - 1.0,
        values.max(),
        xtol=1e-15,
    )
    return np.maximum(values - threshold, 0)


def sdmgrad(gradients, start, regularisation, iterations, rate):
    """`v` after the projected steps, from `start`."""
    K = len(gradients)
    gramian = gradients @ gradients.T / np.linalg.norm(gradients, axis=1).mean() ** 2
    mean = np.full(K, 1.0 / K)
    combination, velocity = start, np.zeros(K)
    for _ in range(iterations):
        velocity = 0.5 * velocity + gramian @ (combination + regularisation * mean)
        combination = project_onto_simplex(combination - rate * velocity)
    return combination
