"""How the time and the memory of `taskrobust prepare text` grow with the corpus.

    NLTK_DATA=... python benchmarks/preparation.py

Needs NLTK's brown, punkt_tab and tagger. A corpus of so many documents of Brown, repeated where
they are used up, is prepared by one process that tags: CPU seconds of all processes, and the
largest memory of any of them. The first row is the help of the command: what the imports take.
"""

import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

import tyro
from nltk.corpus import brown
from nltk.tokenize.treebank import TreebankWordDetokenizer
from timing import append_row

_COMMAND = (sys.executable, "-m", "keras_taskrobust.cli", "prepare", "text", "pos-bert-tiny")
#: A process begins with the largest memory of who started it: a small one starts the command.
_SMALL = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(*resource.getrusage(resource.RUSAGE_CHILDREN)[:3])
"""


def main(output: Path = Path("preparation.csv"), documents: tuple[int, ...] = (20, 200, 2000)):
    """Prepares each corpus and appends a row for it.

    Args:
        output: csv file.
        documents: the sizes of the corpora.
    """
    _measure(output, "help", 0, ["--help"])
    texts = [_text(name) for name in brown.fileids()]
    for number in documents:
        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder) / "corpus.txt"
            corpus.write_text("\n\n\n".join(itertools.islice(itertools.cycle(texts), number)))
            flags = ["--corpus", str(corpus), "--output", f"{folder}/run", "--workers", "1"]
            _measure(output, f"{number} documents", corpus.stat().st_size, flags)


def _text(name: str) -> str:
    join = TreebankWordDetokenizer().detokenize
    return " ".join(join(words) for words in brown.sents(name))


def _measure(output: Path, what: str, size: int, flags: list[str]):
    small = [sys.executable, "-c", _SMALL, *_COMMAND, *flags]
    user, system, kibibytes = map(float, subprocess.check_output(small).split())
    row = {
        "what": what,
        "megabytes": round(size / 1e6, 2),
        "cpu_seconds": round(user + system, 1),
        "largest_process_megabytes": round(kibibytes * 1024 / 1e6),
    }
    print(row, flush=True)
    append_row(output, row)


if __name__ == "__main__":
    tyro.cli(main)
