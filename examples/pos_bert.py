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
# # PoS-BERT: from a folder of text to a classifier
#
# Masked language modelling whose tasks are the parts of speech, so that the worst of them counts.
# What comes out is an ordinary BERT of KerasHub.
#
# | at full size | one CPU core | T4 | TPU v3-8 |
# | --- | --- | --- | --- |
# | time | 5 minutes | 2 minutes (estimated) | 4 minutes (estimated) |
# | memory | 2 GB | 2 GB (estimated) | 1 GB a core (estimated) |

# %% tags=["skip-execution"]
# The wheel is what `make wheel` builds. On Kaggle, attach it: its path begins with /kaggle/input.
# %pip install -q "keras_taskrobust-0.1.0-py3-none-any.whl[models]"

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", "torch"

import tempfile
from pathlib import Path
from pydoc_data.topics import topics

import keras
import keras_hub
import matplotlib.pyplot as plt
import numpy as np

import keras_taskrobust as ktr

SMOKE = os.environ.get("SMOKE") == "1"
DOCUMENTS, STEPS = (60, 10) if SMOKE else (300, 1000)
LENGTH, BATCH_SIZE = 64, 32
TAGGER = "textblob" if SMOKE else "auto"  # "auto" takes NLTK's, downloaded once, if it can

# %% [markdown]
# ## A folder of text
#
# One `.txt` file a document. Here they are written from the text that every Python ships; for your
# own, set `folder` to where your files are.

# %%
work = Path(tempfile.mkdtemp())
folder = work / "my-texts"
folder.mkdir()
documents = list(ktr.text.load_corpus("bundled").raw_documents())
documents = documents[:: max(1, len(documents) // DOCUMENTS)]
for number, document in enumerate(documents):
    (folder / f"{number:04}.txt").write_text(document, encoding="utf-8")
print(len(documents), "files,", sum(map(len, documents)) // 1000, "thousand characters")

# %% [markdown]
# ## Tagged once
#
# A vocabulary is trained, every word gets its part of speech, and the result is kept on disk. A
# tenth of the documents is held out.

# %%
text = ktr.text.annotate(
    folder,
    work / "annotated",
    encoder=1000 if SMOKE else 4000,
    tagger=TAGGER,
    sequence_length=LENGTH,
    next_sentence=False,
    held_out=0.1,
    progress=False,
)
held_out = ktr.text.AnnotatedText(work / "annotated", text.encoder, "held_out")
masking = ktr.text.PosMasking(text.encoder, max_predictions=10)

# %% [markdown]
# ## Pre-training for the worst part of speech
#
# `L / T` compares each task's loss with that of the best prediction that does not look at the text.
# Nouns have a large loss because there are many nouns to choose from; whether they are the *worst*
# task is what `L / T` says. `loss_momentum` is for interjections, which most batches lack.

# %%
keras.utils.set_random_seed(0)
backbone = keras_hub.models.BertBackbone(
    vocabulary_size=text.encoder.vocabulary_size,
    num_layers=2,
    num_heads=2,
    hidden_dim=32 if SMOKE else 128,
    intermediate_dim=64 if SMOKE else 512,
    max_sequence_length=LENGTH,
)
preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
    text.encoder.to_tokenizer(), sequence_length=LENGTH
)
model = ktr.text.PosBert(backbone, preprocessor, next_sentence=None)
model.compile(
    keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(
            0.0, STEPS, warmup_target=1e-3, warmup_steps=STEPS // 10
        ),
        weight_decay=0.01,
    ),
    weighting=ktr.weighting.ScaleFreeMinimax(loss_momentum=0.9),
)
history = model.fit(
    ktr.text.masked_batches(text, masking, BATCH_SIZE),
    steps_per_epoch=STEPS // 10,
    epochs=10,
    shuffle=False,
    verbose=0,
).history
batches = ktr.text.masked_batches(held_out, masking, BATCH_SIZE, shuffle=False, epochs=1)
logs = model.evaluate(batches, steps=len(batches), verbose=0, return_dict=True)
print(f"{'held out':14}{'loss':>8}{'L / T':>8}{'weight':>8}")
for task in model.task_names:
    weight = history[f"{task}_weight"][-1]
    print(
        f"{task:14}{logs[f'{task}_loss']:>8.2f}{logs[f'{task}_trivial_ratio']:>8.3f}{weight:>8.3f}"
    )

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharex=True, layout="constrained")
steps = np.arange(1, 11) * (STEPS // 10)
for task in model.task_names:
    axes[0].plot(steps, history[f"{task}_trivial_ratio"], label=task)
    axes[1].plot(steps, history[f"{task}_weight"], label=task)
axes[0].set(title="L / T in training", xlabel="step")
axes[1].set(title="weight", xlabel="step")
axes[1].legend(fontsize="small")
plt.show()

# %% [markdown]
# ## What does it put into a gap?
#
# Each guess comes with the part of speech that it would be in the sentence.

# %%
for sentence in ("the [MASK] of a list .", "this [MASK] returns a new string ."):
    guesses = model.fill_mask(sentence, tagger=TAGGER)[0]
    print(sentence, "|", ", ".join(f"{one['token']} ({one['task']})" for one in guesses))

# %% [markdown]
# ## A classifier
#
# The preset is KerasHub's: whoever opens it needs nothing of this library. The task here is whether
# a paragraph is of Python's language reference or of the documentation of its library. So short a
# pre-training on so little text need not help, and here it does not: `L / T` is just below 1, and
# the network from scratch does better. The second line is there to tell.

# %%
model.save_to_preset(work / "preset")
reference = " ".join(" ".join(topics.values()).split())
paragraphs = [line for document in documents for line in document.split("\n\n")]
is_reference = np.array([line[:60] in reference for line in paragraphs])
rng = np.random.default_rng(0)
number = min(is_reference.sum(), (~is_reference).sum(), 100 if SMOKE else 1000)
rows = [rng.permutation(np.flatnonzero(is_reference == side))[:number] for side in (0, 1)]
rows = rng.permutation(np.concatenate(rows))
texts = [paragraphs[row] for row in rows]
labels = is_reference[rows].astype("int32")
split = int(0.8 * len(rows))


def finetuned(load_weights):
    keras.utils.set_random_seed(0)
    classifier = keras_hub.models.BertTextClassifier.from_preset(
        str(work / "preset"), num_classes=2, load_weights=load_weights
    )
    classifier.compile(
        keras.optimizers.AdamW(5e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    epochs = 1 if SMOKE else 4
    classifier.fit(texts[:split], labels[:split], epochs=epochs, shuffle=False, verbose=0)
    found = classifier.evaluate(texts[split:], labels[split:], verbose=0, return_dict=True)
    return found["accuracy"]


for name, load_weights in {"pre-trained": True, "from scratch": False}.items():
    print(f"{name:12} {finetuned(load_weights):.1%} right of {len(rows) - split} held out")

# %% [markdown]
# The same from the command line, with checkpoints, reports and several weightings side by side:
#
# ```
# taskrobust pretrain text pos-bert-tiny --corpus my-texts/ --weighting minimax --output runs/mine
# taskrobust compare text pos-bert-tiny --corpus my-texts/ --output runs/weightings
# ```
