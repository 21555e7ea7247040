# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The theory, measured
#
# Five statements of [the paper](https://arxiv.org/abs/2306.12070), each drawn as its bound beside
# what the library's own weightings do. The bounds are derived anew where the paper leaves
# constants out.
#
# | at full size | one CPU core | T4 | TPU v3-8 |
# | --- | --- | --- | --- |
# | time | 1 minute | 1 minute (estimated) | 2 minutes (estimated) |
# | memory | 1 GB | 1 GB (estimated) | 1 GB a core (estimated) |

# %% tags=["skip-execution"]
# The wheel is what `make wheel` builds. On Kaggle, attach it: its path begins with /kaggle/input.
# %pip install -q "keras_taskrobust-0.1.0-py3-none-any.whl[models]"

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", "torch"

import keras
import matplotlib.pyplot as plt
import numpy as np
from scipy.special import lambertw
from scipy.stats import binom

import keras_taskrobust as ktr

SMOKE = os.environ.get("SMOKE") == "1"
rng = np.random.default_rng(0)


def minimax(alpha):
    return ktr.weighting.SoftmaxWeightedLoss(alpha=alpha)


def weights_of(weighting, losses):
    return keras.ops.convert_to_numpy(weighting.compute_weights(losses)).astype("float64")


# %% [markdown]
# ## Theorem 3.1, first half: how far is the weighted mean from the worst loss?
#
# With $w = \mathrm{softmax}(\alpha f)$ and $F = \max_k f_k$,
#
# $$F - \sum_k w_k f_k \le \frac{W_0((K-1)/e)}{\alpha} \le \frac{\log K}{\alpha},$$
#
# with Lambert's function $W_0$. It is tight: equality holds where the other $K - 1$ tasks tie, at
# $(1 + W_0) / \alpha$ below the worst.

# %%
ALPHA = 2.0
NUMBERS = np.array([2, 4, 8] if SMOKE else [2, 4, 8, 16, 32, 64, 128])


def gap_bound(number):
    return lambertw((number - 1) / np.e).real


def gap(losses):
    return losses.max() - weights_of(minimax(ALPHA), losses) @ losses


random_gaps = np.array([[gap(rng.uniform(0, 3, k)) for _ in range(20)] for k in NUMBERS])
worst_gaps = np.array([gap(np.r_[2, np.full(k - 1, 2 - (1 + gap_bound(k)) / 2)]) for k in NUMBERS])

plt.figure(layout="constrained")
plt.plot(NUMBERS, np.log(NUMBERS) / ALPHA, "--", color="grey", label="log(K) / alpha")
plt.plot(NUMBERS, gap_bound(NUMBERS) / ALPHA, color="black", label="W0((K-1)/e) / alpha")
plt.plot(NUMBERS, worst_gaps, "o", label="the K - 1 others tied")
plt.plot(NUMBERS, random_gaps, ".", color="C1", alpha=0.3)
plt.xscale("log", base=2)
plt.xlabel("tasks K")
plt.ylabel("worst loss minus weighted mean")
plt.title("Theorem 3.1: the gap (small points: random losses)")
plt.legend()
plt.show()

# %% [markdown]
# ## Theorem 3.1, second half: training
#
# For convex losses with slopes of at most $G$, a start at distance $D$ from the minimax point, $T$
# steps of the constant size $D / (G\sqrt{T})$ and the average $\bar x$ of the points visited,
#
# $$F(\bar x) - F^* \le \frac{D G}{\sqrt{T}}
# + \frac{1}{T} \sum_{t=1}^T \frac{W_0((K-1)/e)}{\alpha_t}.$$
#
# So $\alpha = \sqrt{T}$ and the schedule $\alpha_t = \sqrt{t}$ go to 0 like $1 / \sqrt{T}$, and a
# fixed $\alpha$ keeps a floor. The losses here are $f_1 = |x - 1|$ and $f_k = |x + 1|$ for $k > 1$,
# from $x_0 = 1$: $G = D = F^* = 1$, and training at a fixed $\alpha$ ends
# $\log(K - 1) / (2\alpha)$ above $F^*$, a little below the bound.

# %%
LENGTHS = np.array([16, 64] if SMOKE else [16, 64, 256, 1024])
TASKS = (2, 16) if SMOKE else (2, 16, 128)
FIXED = 4.0
SCHEDULES = {
    "alpha = sqrt(T)": (lambda length: minimax(length**0.5), lambda length: length**-0.5),
    "alpha_t = sqrt(t)": (
        lambda length: minimax(ktr.weighting.SquareRootSchedule()),
        lambda length: np.mean(np.arange(1, length + 1) ** -0.5),
    ),
    f"alpha = {FIXED:g}": (lambda length: minimax(FIXED), lambda length: 1 / FIXED),
}


def excess_after(weighting, number, length):
    """F at the average point, less F*, after so many steps."""
    centres = np.r_[1.0, np.full(number - 1, -1.0)]
    point, points = 1.0, []
    for _ in range(length):
        points.append(point)
        _, weights = weighting(np.abs(point - centres), return_weights=True)
        weights = keras.ops.convert_to_numpy(weights).astype("float64")
        point -= weights @ np.sign(point - centres) / length**0.5
    return np.abs(np.mean(points) - centres).max() - 1.0


training = {
    (name, number): np.array([excess_after(make(int(T)), number, int(T)) for T in LENGTHS])
    for name, (make, _) in SCHEDULES.items()
    for number in TASKS
}
training_bounds = {
    (name, number): LENGTHS**-0.5 + gap_bound(number) * np.array([mean(T) for T in LENGTHS])
    for name, (_, mean) in SCHEDULES.items()
    for number in TASKS
}

figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True, layout="constrained")
for axis, name in zip(axes, SCHEDULES, strict=True):
    for colour, number in enumerate(TASKS):
        key, style = (name, number), {"color": f"C{colour}"}
        axis.loglog(LENGTHS, training_bounds[key], "--", **style)
        axis.loglog(LENGTHS, training[key], "o-", label=f"K = {number}", **style)
    axis.set(title=name, xlabel="steps T")
axes[0].set_ylabel("F(average point) - F*")
axes[0].legend(title="dashed: bound")
plt.show()

# %% [markdown]
# ## Proposition 5.1 and its limits: what does the worst downstream task inherit?
#
# If the downstream risks are convex combinations of the upstream ones, *and contain each of them*,
# their worst is never larger at the minimax point than at the minimiser of the mean. If they are a
# mere subset, it can be.
#
# In one dimension a minimiser is where the weighted slope crosses zero.

# %%


def minimiser(weighting, risks, slopes, low, high):
    for _ in range(50):
        middle = (low + high) / 2
        is_beyond = weights_of(weighting, risks(middle)) @ slopes(middle) > 0
        low, high = (low, middle) if is_beyond else (middle, high)
    return (low + high) / 2


def worst_downstream(is_subset):
    """The worst downstream risk at the minimiser of the mean, and at the minimax point."""
    curvatures, centres = rng.uniform(0.2, 3, 5), rng.uniform(-1, 1, 5)

    def risks(x):
        return curvatures * (x - centres) ** 2

    def slopes(x):
        return 2 * curvatures * (x - centres)

    mixtures = rng.dirichlet(np.full(5, 0.3), 5)
    downstream = mixtures[:2] if is_subset else np.r_[mixtures, np.eye(5)]
    points = [
        minimiser(weighting, risks, slopes, -1.0, 1.0)
        for weighting in (ktr.weighting.UniformWeighting(), minimax(1e4))
    ]
    return [(downstream @ risks(point)).max() for point in points]


DRAWS = 10 if SMOKE else 100
inherited = {
    "contains each upstream risk": np.array([worst_downstream(False) for _ in range(DRAWS)]),
    "two mixtures of them only": np.array([worst_downstream(True) for _ in range(DRAWS)]),
}

figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
for axis, (name, pairs) in zip(axes, inherited.items(), strict=True):
    axis.axline((0, 0), slope=1, color="grey", linestyle="--")
    above = pairs[:, 1] > pairs[:, 0] + 1e-3
    axis.scatter(*pairs[~above].T, s=12)
    axis.scatter(*pairs[above].T, s=12, color="C3")
    axis.set(title=name, xlabel="worst risk, minimiser of the mean")
axes[0].set_ylabel("worst risk, minimax point")
figure.suptitle("Proposition 5.1 (above the line: minimax is worse)")
plt.show()

# %% [markdown]
# ## Remark 5.2: the more tasks, the more there is to gain
#
# With $f_1 = K x^2$ and $f_k = (x - 1)^2$ for $k > 1$, the worst loss at the minimiser of the mean,
# over that at the minimax point, is $((K - 1)(1 + \sqrt{K}) / (2K - 1))^2$ for $K \ge 3$: it grows
# like $K / 4$.

# %%


def worst_at_minimum(weighting, number):
    scale = np.r_[number, np.ones(number - 1)]
    centre = np.r_[0.0, np.ones(number - 1)]

    def risks(x):
        return scale * (x - centre) ** 2

    point = minimiser(weighting, risks, lambda x: 2 * scale * (x - centre), 0.0, 1.0)
    return risks(point).max()


COUNTS = np.array([3, 9, 30, 100] if SMOKE else [3, 4, 6, 9, 15, 30, 60, 100])
gains = np.array(
    [
        worst_at_minimum(ktr.weighting.UniformWeighting(), k) / worst_at_minimum(minimax(1e4), k)
        for k in COUNTS
    ]
)
expected_gains = ((COUNTS - 1) * (1 + COUNTS**0.5) / (2 * COUNTS - 1)) ** 2

plt.figure(layout="constrained")
plt.loglog(COUNTS, expected_gains, color="black", label="formula")
plt.loglog(COUNTS, gains, "o", label="measured")
plt.xlabel("tasks K")
plt.ylabel("worst loss, uniform over minimax")
plt.title("Remark 5.2")
plt.legend()
plt.show()

# %% [markdown]
# ## Proposition 5.3: fine-tuning stays near a good start
#
# For a $\mu$-strongly convex, $L$-smooth downstream risk $f$ and steps of at most $1 / L$, the risk
# never rises, and $\|x_t - x^*\| \le \sqrt{2 (f(x_0) - f^*) / \mu}$. The smaller the initial risk,
# the smaller the ball in which fine-tuning happens.

# %%
MU, SMOOTHNESS, DIMENSIONS, STEPS = 0.1, 1.0, 10, 30
curvatures = np.geomspace(MU, SMOOTHNESS, DIMENSIONS)
initial_risks = (0.1, 1.0, 10.0)
fine_tuning = []
for initial in initial_risks:
    point = rng.normal(size=DIMENSIONS)
    point *= (initial / (0.5 * curvatures @ point**2)) ** 0.5
    path = []
    for _ in range(STEPS):
        path.append((np.linalg.norm(point), 0.5 * curvatures @ point**2))
        point = point - curvatures * point / SMOOTHNESS
    fine_tuning.append(path)
fine_tuning = np.array(fine_tuning)
radii = (2 * np.array(initial_risks) / MU) ** 0.5

plt.figure(layout="constrained")
for colour, (initial, radius, path) in enumerate(
    zip(initial_risks, radii, fine_tuning, strict=True)
):
    plt.semilogy(path[:, 0], color=f"C{colour}", label=f"f(x0) - f* = {initial:g}")
    plt.axhline(radius, color=f"C{colour}", linestyle="--")
plt.xlabel("step of fine-tuning")
plt.ylabel("distance to the minimum")
plt.title("Proposition 5.3 (dashed: bound)")
plt.legend()
plt.show()

# %% [markdown]
# ## Theorem 5.4: how many samples does the worst downstream task need?
#
# In a ball of radius $R$, as above, let the noise of one sample's loss lie in an interval of length
# $B$ and have slopes of at most $G$. Take points such that each of the ball is within
# $\varepsilon / (2 G)$ of one; Hoeffding's inequality at all of them gives: with
#
# $$n \ge \frac{2 B^2}{\varepsilon^2} \left( d \log\Big(1 + \frac{4 G R}{\varepsilon}\Big)
# + \log \frac{2}{\delta} \right), \qquad R = \sqrt{2 (f(x_0) - f^*) / \mu},$$
#
# samples, the empirical risk is within $\varepsilon$ of the risk in the whole ball, with
# probability $1 - \delta$. It grows with the *logarithm* of the initial risk. Here $d = 1$ and the
# noise is a fair coin of its own, $\pm 1/2$, at each whole number, and linear between them, so that
# the need is known exactly.

# %%
ERROR, DELTA, RANGE, SLOPE = 0.1, 0.05, 1.0, 1.0
ball = 4.0 ** np.arange(1, 5 if SMOKE else 9)
risks_at_start = MU * ball**2 / 2
sample_bounds = 2 * RANGE**2 / ERROR**2 * (np.log(1 + 4 * SLOPE * ball / ERROR) + np.log(2 / DELTA))


def samples_needed(radius):
    """The least n from which on all coins in the ball are within the error."""
    sizes = np.arange(10, 2000)
    # The mean of n coins of +-1/2 is (heads - n / 2) / n.
    outside = 2 * binom.cdf(np.ceil(sizes * (0.5 - ERROR) - 1e-9) - 1, sizes, 0.5)
    all_inside = (1 - outside) ** (2 * radius + 1)
    return sizes[np.flatnonzero(all_inside < 1 - DELTA)[-1] + 1]


samples = np.array([samples_needed(radius) for radius in ball])

plt.figure(layout="constrained")
plt.semilogx(risks_at_start, sample_bounds, "--", color="black", label="bound")
plt.semilogx(risks_at_start, samples, "o-", label="needed")
plt.xlabel("initial risk f(x0) - f*")
plt.ylabel("samples")
plt.title("Theorem 5.4")
plt.legend()
plt.show()

# %% [markdown]
# ## All of it in one table
#
# The measured figure as a share of its bound, at most: 1 is a tight bound.

# %%
statements = {
    "Theorem 3.1, the gap, others tied": worst_gaps / (gap_bound(NUMBERS) / ALPHA),
    "Theorem 3.1, the gap, random losses": random_gaps / (gap_bound(NUMBERS) / ALPHA)[:, None],
    "Theorem 3.1, training": np.array([training[key] / training_bounds[key] for key in training]),
    "Proposition 5.1, contains each": np.divide(*inherited["contains each upstream risk"].T[::-1]),
    "Proposition 5.1, mixtures only": np.divide(*inherited["two mixtures of them only"].T[::-1]),
    "Remark 5.2": gains / expected_gains,
    "Proposition 5.3": fine_tuning[:, :, 0] / radii[:, None],
    "Theorem 5.4": samples / sample_bounds,
}
for name, shares in statements.items():
    print(f"{name:40}{shares.max():8.3f}")
