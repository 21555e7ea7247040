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
# # A language model for its worst domain
#
# A causal language model of KerasHub whose tasks are the domains of its corpus. Mixing the domains
# in proportion to their text neglects the small and the odd ones. Weighing the domain with the
# largest loss most helps little where that loss is high because the text is hard. So minimax is
# given the excess over a reference model: what there is still to learn in a domain.
#
# | at full size | one CPU core | T4 | TPU v3-8 |
# | --- | --- | --- | --- |
# | time | 6 minutes | 2 minutes (estimated) | 4 minutes (estimated) |
# | memory | 2 GB | 2 GB (estimated) | 1 GB a core (estimated) |

# %% tags=["skip-execution"]
# The wheel is what `make wheel` builds. On Kaggle, attach it: its path begins with /kaggle/input.
# %pip install -q "keras_taskrobust-0.1.0-py3-none-any.whl[models]"

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", "torch"

import keras
import keras_hub
import matplotlib.pyplot as plt
import numpy as np

import keras_taskrobust as ktr

SMOKE = os.environ.get("SMOKE") == "1"
DATA = "python" if SMOKE else "brown"  # "brown" is downloaded, once, unless NLTK_DATA has it
STEPS = 20 if SMOKE else 600
LENGTH, BATCH_SIZE, VOCABULARY = 64, 32, 128

# %% [markdown]
# ## Data: texts by domain
#
# The Brown corpus has 15 genres. The small size takes what every Python ships: its reference, the
# source of a module, the names of the Unicode characters, the entities of HTML. For your own, fill
# `texts` with `{domain: text}`. A token is a character: there is no vocabulary to train.

# %%


def texts_of_python():
    import argparse
    import html.entities
    import inspect
    import unicodedata
    from pydoc_data.topics import topics

    names = (unicodedata.name(chr(code), "") for code in range(0x20, 0x3000))
    return {
        "reference": "\n".join(topics.values()),
        "code": inspect.getsource(argparse),
        "characters": "\n".join(filter(None, names)),
        "entities": " ".join(html.entities.html5),
    }


def texts_of_brown():
    import nltk
    from nltk.corpus import brown

    try:
        brown.ensure_loaded()
    except LookupError:
        nltk.download("brown")
    return {genre: " ".join(brown.words(categories=genre)) for genre in brown.categories()}


texts = texts_of_python() if DATA == "python" else texts_of_brown()
DOMAINS = tuple(texts)


def sequences(text):
    """(N, LENGTH + 1) characters; every tenth sequence is held out."""
    codes = np.frombuffer(text.encode("ascii", "ignore"), "uint8").astype("int32")
    return codes[: len(codes) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)


def examples(is_held_out):
    rows, groups = [], []
    for group, text in enumerate(texts.values()):
        found = sequences(text)
        chosen = np.arange(len(found)) % 10 == 9
        rows.append(found[chosen][:200] if is_held_out else found[~chosen])
        groups.append(np.full(len(rows[-1]), group, "int32"))
    rows = np.concatenate(rows)
    inputs = {"token_ids": rows[:, :-1], "padding_mask": np.ones_like(rows[:, :-1])}
    return inputs, {"labels": rows[:, 1:], "groups": np.concatenate(groups)}


x, y = examples(is_held_out=False)
held_out = examples(is_held_out=True)
share = np.bincount(y["groups"]) / len(y["groups"])
order = np.random.default_rng(0).permutation(len(y["groups"]))
order = np.resize(order, STEPS * BATCH_SIZE)
train = keras.tree.map_structure(lambda array: array[order], (x, y))

# %% [markdown]
# ## The model and its tasks
#
# Any causal language model of KerasHub will do: `GPT2Backbone.from_preset(...)` for instance. The
# group of a sequence is its domain.

# %%


def train_with(weighting):
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=VOCABULARY,
        num_layers=2,
        num_heads=4,
        hidden_dim=64 if SMOKE else 96,
        intermediate_dim=256,
        dropout=0.0,
        max_sequence_length=LENGTH,
    )
    logits = backbone.token_embedding(backbone.output, reverse=True)
    model = ktr.MinimaxModel(keras.Model(backbone.input, logits))
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(3e-3, STEPS)),
        loss=ktr.GroupedLoss(cross_entropy, groups=DOMAINS),
        weighting=weighting,
    )
    history = model.fit(*train, batch_size=BATCH_SIZE, shuffle=False, verbose=0).history
    logs = model.evaluate(*held_out, batch_size=64, verbose=0, return_dict=True)
    losses = np.array([logs[f"{domain}_loss"] for domain in DOMAINS])
    return losses, np.array([history[f"{domain}_weight"][-1] for domain in DOMAINS])


# %% [markdown]
# ## Four ways
#
# The pooled model is the reference. [DoReMi](https://arxiv.org/abs/2305.10429) has such an excess,
# too; its own rule is the weighting `"excess_loss"`. `loss_momentum` is for domains that are rare
# in a batch.

# %%
Minimax = ktr.weighting.SoftmaxWeightedLoss
results = {name: train_with(name) for name in ("pooled", "uniform")}
reference = results["pooled"][0]
results["minimax"] = train_with(Minimax(alpha=5.0, loss_momentum=0.9))
results["minimax on excess"] = train_with(
    Minimax(alpha=20.0, loss_momentum=0.9, reference_losses=reference.tolist())
)

# %% [markdown]
# ## Held-out perplexity of a character
#
# The worst excess is the largest ratio to the perplexity of the reference, in any domain.
#
# Look first at whether the domains compete. In a run as short as this they do not: what is learnt
# of English in one genre helps in all, the domains keep their order under every weighting, and
# `pooled`, which counts every sequence alike and so has the least noisy steps, is the best in each.
# There is nothing for minimax to gain, and its noise costs. Longer runs, small models and domains
# that are less alike (code, other languages) are where to ask again.

# %%
print(f"{'weighting':20}{'worst domain':>26}{'mean':>8}{'worst excess':>28}")
for name, (losses, _) in results.items():
    worst, lag = losses.argmax(), (losses - reference).argmax()
    print(
        f"{name:20}{DOMAINS[worst]:>18}{np.exp(losses[worst]):>8.2f}{np.exp(losses.mean()):>8.2f}"
        f"{DOMAINS[lag]:>20}{np.exp(losses[lag] - reference[lag]):>8.3f}"
    )

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 5), sharey=True, layout="constrained")
places = np.arange(len(DOMAINS))
for name, (losses, weights) in results.items():
    axes[0].plot(np.exp(losses), places, "o", label=name)
    axes[1].plot(weights, places, "o", label=name)
axes[1].plot(share, places, "k|", markersize=12, label="share of the text")
axes[0].set(xlabel="held-out perplexity", yticks=places, yticklabels=DOMAINS)
axes[1].set(xlabel="weight, mean of all steps")
axes[1].legend()
for axis in axes:
    axis.grid(axis="y", alpha=0.3)
plt.show()
