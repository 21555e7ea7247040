"""Each method in float64 NumPy, from the formulas of its paper and docstring; no Keras.

A reference is a class whose `step(losses, counts, ...)` gives the weights of one training batch
and moves on. `counts` decide who is present. Loops over the present tasks, on purpose.
"""

import math

import numpy as np


def present_tasks(counts):
    return [k for k in range(len(counts)) if counts[k] > 0]


def objective(weights, losses, counts):
    return sum(weights[k] * losses[k] for k in present_tasks(counts))


def softmax_over(scores):
    """`{task: score}` to `{task: weight}`."""
    largest = max(scores.values())
    powers = {k: math.exp(score - largest) for k, score in scores.items()}
    total = sum(powers.values())
    return {k: power / total for k, power in powers.items()}


def spread(weights, K):
    """`{task: weight}` to `(K,)`, 0 elsewhere."""
    return np.array([weights.get(k, 0.0) for k in range(K)])


class Uniform:
    def step(self, losses, counts):
        tasks = present_tasks(counts)
        return spread({k: 1.0 / len(tasks) for k in tasks}, len(losses))


class Pooled:
    """The mean over all elements."""

    def step(self, losses, counts):
        return np.asarray(counts, "float64") / np.sum(counts)


class HardMaximum:
    def step(self, losses, counts):
        tasks = present_tasks(counts)
        worst = max(losses[k] for k in tasks)
        tied = [k for k in tasks if losses[k] == worst]
        return spread({k: 1.0 / len(tied) for k in tied}, len(losses))


class MovingAverages:
    """One average a task, started at the task's first loss."""

    def __init__(self, momentum):
        self.momentum = momentum
        self.values = {}

    def update(self, losses, counts):
        for k in present_tasks(counts):
            if k in self.values:
                old = self.values[k]
                self.values[k] = self.momentum * old + (1 - self.momentum) * losses[k]
            else:
                self.values[k] = losses[k]
        return {k: self.values[k] for k in present_tasks(counts)}


class ElementAverages:
    """One average a task over about its last `memory` elements."""

    def __init__(self, memory):
        self.kept = 1 - 1 / memory
        self.sums = {}

    def update(self, losses, counts):
        for k in present_tasks(counts):
            total, elements = self.sums.get(k, (0.0, 0.0))
            kept = self.kept ** counts[k]
            self.sums[k] = (kept * total + counts[k] * losses[k], kept * elements + counts[k])
        return {k: self.sums[k][0] / self.sums[k][1] for k in present_tasks(counts)}


class Minimax:
    """Equation 7 and its scores; `alpha` is a function of t = 1, 2, ..."""

    def __init__(self, alpha, momentum=0.0, reference=None, memory=None, trivial=None, **scores):
        self.alpha = alpha if callable(alpha) else lambda t: alpha
        self.averages = MovingAverages(momentum) if memory is None else ElementAverages(memory)
        self.reference = reference
        self.trivial = trivial
        self.unit_free = scores.get("unit_free", False)
        self.largest = scores.get("largest", math.inf)
        self.t = 0

    def step(self, losses, counts):
        self.t += 1
        smooth = self.averages.update(losses, counts)
        reference = self.reference or [0.0] * len(losses)
        units = [1.0] * len(losses)
        if self.trivial:
            units = [t - f for t, f in zip(self.trivial, reference, strict=True)]
        scores = {k: min((v - reference[k]) / units[k], self.largest) for k, v in smooth.items()}
        alpha = self.alpha(self.t)
        weights = softmax_over({k: alpha * v for k, v in scores.items()})
        if self.unit_free:
            weights = {k: w / units[k] for k, w in weights.items()}
        return spread(weights, len(losses))


class GroupDRO:
    """Algorithm 1: q_k <- q_k exp(eta (L_k + C / sqrt(n_k))), then normalise; weights after it."""

    def __init__(self, K, step_size, momentum=0.0, adjustment=0.0, group_sizes=None):
        self.q = np.ones(K) / K
        self.step_size, self.adjustment = step_size, adjustment
        self.group_sizes = [1.0] * K if group_sizes is None else group_sizes
        self.averages = MovingAverages(momentum)

    def step(self, losses, counts):
        for k, loss in self.averages.update(losses, counts).items():
            margin = self.adjustment / self.group_sizes[k] ** 0.5
            self.q[k] *= math.exp(self.step_size * (loss + margin))
        self.q /= self.q.sum()
        tasks = present_tasks(counts)
        share = sum(self.q[k] for k in tasks)
        return spread({k: self.q[k] / share for k in tasks}, len(losses))


class DynamicWeightAverage:
    """Equation 7 of Liu et al.; a window's mean is over the calls in which the task appears."""

    def __init__(self, K, temperature, window):
        self.temperature, self.window = temperature, window
        self.means = [[] for _ in range(K)]
        self.calls = []

    def step(self, losses, counts):
        rates = {
            k: self.means[k][-1] / self.means[k][-2] if len(self.means[k]) >= 2 else 1.0
            for k in present_tasks(counts)
        }
        weights = softmax_over({k: rate / self.temperature for k, rate in rates.items()})
        self.calls.append({k: losses[k] for k in present_tasks(counts)})
        if len(self.calls) == self.window:
            for k, means in enumerate(self.means):
                seen = [call[k] for call in self.calls if k in call]
                if seen:
                    means.append(sum(seen) / len(seen))
            self.calls = []
        return spread({k: len(weights) * weight for k, weight in weights.items()}, len(losses))


class Uncertainty:
    """sum_k exp(-s_k) L_k + s_k over the present tasks, or half of it; s comes from outside."""

    def __init__(self, half=False):
        self.factor = 0.5 if half else 1.0

    def step(self, losses, counts, s):
        return spread({k: self.factor * math.exp(-s[k]) for k in present_tasks(counts)}, len(s))

    def objective(self, losses, counts, s):
        tasks = present_tasks(counts)
        return self.factor * sum(math.exp(-s[k]) * losses[k] + s[k] for k in tasks)

    def gradient(self, losses, counts, s):
        tasks = present_tasks(counts)
        return spread({k: self.factor * (1 - math.exp(-s[k]) * losses[k]) for k in tasks}, len(s))


class GradNorm:
    """Equations 1 and 2 of Chen et al. with w = (number of tasks) * softmax(logits)."""

    def __init__(self, alpha):
        self.alpha = alpha
        self.initial = {}

    def step(self, losses, counts, logits):
        for k in present_tasks(counts):
            self.initial.setdefault(k, losses[k])
        return self.weights(counts, logits)

    def weights(self, counts, logits):
        tasks = present_tasks(counts)
        weights = softmax_over({k: logits[k] for k in tasks})
        return spread({k: len(tasks) * weight for k, weight in weights.items()}, len(counts))

    def targets(self, losses, counts, logits, norms):
        """G_bar * r_k^alpha of the present tasks."""
        tasks = present_tasks(counts)
        weights = self.weights(counts, logits)
        mean_norm = sum(weights[k] * norms[k] for k in tasks) / len(tasks)
        progress = {k: losses[k] / self.initial[k] for k in tasks}
        mean_progress = sum(progress.values()) / len(tasks)
        return {k: mean_norm * (progress[k] / mean_progress) ** self.alpha for k in tasks}

    def gradient(self, losses, counts, logits, norms, width=1e-6):
        """Central differences of L_grad by the logits, its targets held constant."""
        targets = self.targets(losses, counts, logits, norms)

        def l_grad(logits):
            weights = self.weights(counts, logits)
            return sum(abs(weights[k] * norms[k] - target) for k, target in targets.items())

        slopes = []
        for k in range(len(logits)):
            shift = width * np.eye(len(logits))[k]
            slopes.append((l_grad(logits + shift) - l_grad(logits - shift)) / (2 * width))
        return np.array(slopes)


class Static:
    def __init__(self, weights=None):
        self.weights = weights

    def step(self, losses, counts):
        weights = np.ones(len(losses)) if self.weights is None else self.weights
        return spread({k: weights[k] for k in present_tasks(counts)}, len(losses))


def lowbias32(bits):
    """The hash in NumPy's unsigned integers."""
    bits = np.asarray(bits, "uint32")
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(0x846CA68B)
    return bits ^ (bits >> np.uint32(16))


def hashed_uniform(seed, step, *streams):
    start = (step + seed * 0x9E3779B1 + 0x7F4A7C15) % 2**32
    bits = lowbias32(np.full(np.broadcast_shapes(*(np.shape(s) for s in streams)), start, "uint32"))
    for stream, stride in zip(streams, (0x632BE5AB, 0x9E3779B9), strict=False):
        offset = (np.asarray(stream, "uint64") * np.uint64(stride)) % np.uint64(2**32)
        bits = lowbias32(bits + offset.astype("uint32"))
    return ((bits >> np.uint32(9)) + 0.5) / 2.0**23


class RandomLossWeighting:
    """Box-Muller on the hash, then the softmax."""

    def __init__(self, seed=0):
        self.seed, self.t = seed, 0

    def step(self, losses, counts):
        stream = np.arange(len(losses))
        first = hashed_uniform(self.seed, self.t, stream, np.zeros_like(stream))
        second = hashed_uniform(self.seed, self.t, stream, np.ones_like(stream))
        drawn = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)
        self.t += 1
        weights = softmax_over({k: drawn[k] for k in present_tasks(counts)})
        return spread(weights, len(losses))


class GeometricLoss:
    """The derivative of the geometric mean."""

    def step(self, losses, counts):
        tasks = present_tasks(counts)
        mean = np.prod([losses[k] for k in tasks]) ** (1 / len(tasks))
        return spread({k: mean / len(tasks) / losses[k] for k in tasks}, len(losses))


class SmoothTchebycheff:
    def __init__(self, K, mu=1.0, warmup_steps=0, nadir_steps=None, reference=None):
        self.mu, self.warmup, self.t = mu, warmup_steps, 0
        self.first = warmup_steps - (nadir_steps or warmup_steps)
        self.reference = np.zeros(K) if reference is None else reference
        self.seen = [[] for _ in range(K)]

    def step(self, losses, counts):
        tasks = present_tasks(counts)
        self.t += 1
        if not self.warmup:
            share = 1 / len(tasks)
            scores = {k: share * (losses[k] - self.reference[k]) / self.mu for k in tasks}
            return spread({k: share * v for k, v in softmax_over(scores).items()}, len(losses))
        if self.t <= self.warmup:
            if self.t > self.first:
                for k in tasks:
                    self.seen[k].append(losses[k])
            return spread({k: 1 / losses[k] for k in tasks}, len(losses))
        nadir = [np.mean(seen) if seen else None for seen in self.seen]
        ratios = {k: 0 if nadir[k] is None else np.log(losses[k] / nadir[k]) for k in tasks}
        weights = softmax_over({k: ratio / self.mu for k, ratio in ratios.items()})
        return spread({k: len(tasks) * v / losses[k] for k, v in weights.items()}, len(losses))


class WorstCase:
    """A worst case over weights by SciPy: `constraint(w)` >= 0, `upper` bounds each weight."""

    def __init__(self, constraint=None, upper=lambda n: 1.0):
        self.constraint, self.upper = constraint, upper

    def step(self, losses, counts):
        from scipy import optimize

        tasks = present_tasks(counts)
        values = np.array([losses[k] for k in tasks])
        n = len(tasks)
        constraints = [{"type": "eq", "fun": lambda w: w.sum() - 1}]
        if self.constraint is None:
            solution = optimize.linprog(
                -values, A_eq=np.ones((1, n)), b_eq=[1], bounds=[(0, self.upper(n))] * n
            ).x
        else:
            constraints.append({"type": "ineq", "fun": self.constraint})
            solution = optimize.minimize(
                lambda w: -w @ values,
                np.full(n, 1 / n),
                bounds=[(1e-12, 1)] * n,
                constraints=constraints,
                options={"ftol": 1e-14, "maxiter": 1000},
            ).x
        return spread(dict(zip(tasks, solution, strict=True)), len(losses))


class RateOfImprovement:
    def __init__(self, K, step_size, window):
        self.step_size, self.window = step_size, window
        self.last, self.log_weights, self.calls = [None] * K, np.zeros(K), []

    def step(self, losses, counts):
        weights = softmax_over({k: self.log_weights[k] for k in present_tasks(counts)})
        self.calls.append({k: losses[k] for k in present_tasks(counts)})
        if len(self.calls) == self.window:
            for k in range(len(losses)):
                seen = [call[k] for call in self.calls if k in call]
                if seen:
                    mean = np.mean(seen)
                    if self.last[k] is not None:
                        self.log_weights[k] -= self.step_size * (1 - mean / self.last[k])
                    self.last[k] = mean
            self.calls = []
        return spread(weights, len(losses))


class ExcessLoss:
    def __init__(self, K, step_size, smoothing, reference=None):
        self.step_size, self.smoothing = step_size, smoothing
        self.reference = np.zeros(K) if reference is None else reference
        self.q = np.ones(K) / K

    def step(self, losses, counts):
        tasks = present_tasks(counts)
        held = sum(self.q[k] for k in tasks)
        powers = {
            k: self.q[k] * math.exp(self.step_size * max(losses[k] - self.reference[k], 0))
            for k in tasks
        }
        total = sum(powers.values())
        weights = {
            k: (1 - self.smoothing) * power / total + self.smoothing / len(tasks)
            for k, power in powers.items()
        }
        for k, weight in weights.items():
            self.q[k] = held * weight
        return spread(weights, len(losses))
