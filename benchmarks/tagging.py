"""Our tagging over NLTK's, in CPU time: of words, and of plain text that is split first.

    NLTK_DATA=... python benchmarks/tagging.py

Needs NLTK's brown, conll2000, treebank, punkt_tab and tagger. Words: `nltk.pos_tag_sents` over the
sentences of whole corpora. Text: NLTK's sentences, words and tags of Brown's documents over what
`Annotator` makes of them. Each round takes another part of the corpus, both in turn, and NLTK once
more: the ratio of NLTK to NLTK is what noise alone does.
"""

import time
from collections.abc import Callable
from pathlib import Path

import nltk
import numpy as np
import tyro
from nltk.corpus import brown, conll2000, treebank
from nltk.tokenize.treebank import TreebankWordDetokenizer
from timing import append_row, time_in_turn

from keras_taskrobust.text.annotator import Annotator
from keras_taskrobust.text.pos import PosTagger

CORPORA = {"brown": brown, "conll2000": conll2000, "treebank": treebank}


def main(output: Path = Path("tagging.csv"), rounds: int = 12):
    """Times both and appends a row for each corpus.

    Args:
        output: csv file.
        rounds: number of parts of each corpus.
    """
    tagger, annotator = PosTagger("nltk"), Annotator("nltk", "punkt", "nine")
    for name, corpus in CORPORA.items():
        sentences = [list(words) for words in corpus.sents()]
        parts = np.array_split(np.arange(len(sentences)), rounds + 1)
        by_part = [[sentences[i] for i in part] for part in parts]
        _compare(output, f"words of {name}", nltk.pos_tag_sents, tagger.tag, by_part)
    texts = [_text(document) for document in brown.fileids()]
    by_part = [[texts[i] for i in part] for part in np.array_split(np.arange(500), rounds + 1)]
    _compare(output, "text of brown", _nltk_of_text, annotator, by_part)


def _text(document: str) -> str:
    join = TreebankWordDetokenizer().detokenize
    return " ".join(join(words) for words in brown.sents(document))


def _nltk_of_text(texts: list[str]):
    for text in texts:
        nltk.pos_tag_sents([nltk.word_tokenize(one) for one in nltk.sent_tokenize(text)])


def _compare(output: Path, what: str, peer: Callable, ours: Callable, parts: list):
    def block(function):
        left = iter(parts)

        def run():
            part = next(left)
            start = time.process_time()
            function(part)
            return time.process_time() - start

        return run

    seconds = time_in_turn([block(peer), block(peer), block(ours)], len(parts) - 1)
    noise = seconds[:, 1] / seconds[:, 0]
    ratios = seconds[:, :2].mean(1) / seconds[:, 2]
    row = {
        "what": what,
        "rounds": len(ratios),
        "nltk_seconds": round(float(seconds[:, 0].sum()), 3),
    }
    for name, values in (("nltk_over_ours", ratios), ("nltk_over_nltk", noise)):
        for quartile in (25, 50, 75):
            row[f"{name}_{quartile}"] = round(float(np.percentile(values, quartile)), 3)
    print(row, flush=True)
    append_row(output, row)


if __name__ == "__main__":
    tyro.cli(main)
