"""A float64 NumPy training run of a two-layer network with five tasks: the reference of the steps.

Forward and backward passes, Adam and every weighting are written out by hand; nothing here comes
from the package.
"""

import numpy as np

TASKS = ("level", "kind", "first", "second", "third")
STEPS = 20
RATE = 0.02


def make_data(seed=0, batch=12, tokens=3):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(batch, 5)),
        "level": rng.normal(size=(batch, 1)) * 2.0,
        "kind": rng.integers(0, 3, size=batch),
        "labels": rng.integers(0, 4, size=(batch, tokens)),
        "groups": rng.choice([-1, 0, 0, 1, 2], size=(batch, tokens)),
    }


def make_weights(seed=1):
    rng = np.random.default_rng(seed)
    shapes = {
        "first": (5, 7),
        "last": (7, 6),
        "level": (6, 1),
        "kind": (6, 3),
        "words": (6, 12),
    }
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}/kernel"] = rng.normal(size=shape) * 0.5
        weights[f"{name}/bias"] = rng.normal(size=shape[1]) * 0.1
    return {name: value.astype("float32").astype("float64") for name, value in weights.items()}


def _cross_entropy(logits, labels):
    shifted = logits - logits.max(-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_probabilities, labels[..., None], -1)[..., 0]
    return losses, np.exp(log_probabilities) - np.eye(logits.shape[-1])[labels]


def task_losses_and_gradients(weights, data):
    """The five losses, their counts, and each task's gradient by every weight."""
    hidden = np.tanh(data["x"] @ weights["first/kernel"] + weights["first/bias"])
    shared = np.tanh(hidden @ weights["last/kernel"] + weights["last/bias"])
    level, kind, words = (
        shared @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]
        for name in ("level", "kind", "words")
    )
    batch, tokens = data["labels"].shape
    words = words.reshape(batch, tokens, 4)
    error = level - data["level"]
    kind_losses, kind_slope = _cross_entropy(kind, data["kind"])
    word_losses, word_slope = _cross_entropy(words, data["labels"])
    losses, counts, slopes = [], [], []
    losses += [np.mean(error**2), kind_losses.mean()]
    counts += [batch, batch]
    slopes += [{"level": 2 * error / batch}, {"kind": kind_slope / batch}]
    for group in range(3):
        inside = data["groups"] == group
        losses.append(word_losses[inside].mean())
        counts.append(inside.sum())
        slope = word_slope * inside[..., None] / inside.sum()
        slopes.append({"words": slope.reshape(batch, -1)})
    gradients = []
    for slope in slopes:
        gradient = {name: np.zeros_like(value) for name, value in weights.items()}
        ((head, delta),) = slope.items()
        gradient[f"{head}/kernel"] = shared.T @ delta
        gradient[f"{head}/bias"] = delta.sum(0)
        delta = (delta @ weights[f"{head}/kernel"].T) * (1 - shared**2)
        gradient["last/kernel"] = hidden.T @ delta
        gradient["last/bias"] = delta.sum(0)
        delta = (delta @ weights["last/kernel"].T) * (1 - hidden**2)
        gradient["first/kernel"] = data["x"].T @ delta
        gradient["first/bias"] = delta.sum(0)
        gradients.append(gradient)
    return np.array(losses), np.array(counts, "float64"), gradients


class Adam:
    def __init__(self, rate, epsilon=1e-7):
        self.rate, self.epsilon, self.step = rate, epsilon, 0
        self.first, self.second = {}, {}

    def update(self, weights, gradients):
        self.step += 1
        for name, gradient in gradients.items():
            first = self.first.get(name, 0.0) * 0.9 + 0.1 * gradient
            second = self.second.get(name, 0.0) * 0.999 + 0.001 * gradient**2
            self.first[name], self.second[name] = first, second
            rate = self.rate * np.sqrt(1 - 0.999**self.step) / (1 - 0.9**self.step)
            weights[name] = weights[name] - rate * first / (np.sqrt(second) + self.epsilon)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def weights_minimax(state, losses, norms):
    return softmax(2.0 * losses), {}


def weights_group_dro(state, losses, norms):
    q = state.setdefault("q", np.ones(5) / 5) * np.exp(0.5 * losses)
    state["q"] = q / q.sum()
    return state["q"], {}


def weights_dwa(state, losses, norms):
    history = state.setdefault("history", [])
    ratio = history[-1] / history[-2] if len(history) > 1 else np.ones(5)
    history.append(losses)
    return 5 * softmax(ratio / 2.0), {}


def weights_uncertainty(state, losses, norms):
    s = state.setdefault("trained", {"s": np.zeros(5)})["s"]
    return np.exp(-s), {"s": 1 - np.exp(-s) * losses}


def weights_gradnorm(state, losses, norms):
    logits = state.setdefault("trained", {"logits": np.zeros(5)})["logits"]
    initial = state.setdefault("initial", losses)
    w = 5 * softmax(logits)
    progress = losses / initial
    target = (w * norms).mean() * (progress / progress.mean()) ** 1.5
    slope = np.sign(w * norms - target) * norms
    return w, {"logits": w * (slope - (softmax(logits) * slope).sum())}


def train(method, weighting_rate=RATE):
    """Trains for `STEPS` steps; returns the losses and the weights of each, `(STEPS, 5)`."""
    data, weights, state = make_data(), make_weights(), {}
    network, own = Adam(RATE), Adam(weighting_rate)
    all_losses, all_weights = [], []
    for _ in range(STEPS):
        losses, _, gradients = task_losses_and_gradients(weights, data)
        norms = np.array(
            [
                np.sqrt((g["last/kernel"] ** 2).sum() + (g["last/bias"] ** 2).sum())
                for g in gradients
            ]
        )
        w, slopes = method(state, losses, norms)
        total = {
            name: sum(wk * g[name] for wk, g in zip(w, gradients, strict=True)) for name in weights
        }
        network.update(weights, total)
        if slopes:
            own.update(state["trained"], slopes)
        all_losses.append(losses)
        all_weights.append(w)
    return np.array(all_losses), np.array(all_weights)
