"""The settings of PoS-BERT's pre-training: the paper's, and a tiny version."""

import dataclasses
from typing import Literal, get_args

from keras_taskrobust import checks
from keras_taskrobust.recipes.settings import Pretraining

Tagger = Literal["auto", "nltk", "textblob"]
TagSet = Literal["nine", "penn"]
NextSentence = Literal["auxiliary", "task", "none"]
Maskable = Literal["tasks", "all"]
TaskLoss = Literal["full", "within"]
Documents = Literal["auto", "blank-lines", "line", "file"]

#: [CLS], two words of a masked segment, [SEP] and as many again; see `annotate`.
_SHORTEST_SEQUENCE = 8
#: The special tokens and a few letters; see `train_vocabulary`.
_SMALLEST_VOCABULARY = 16
#: The settings that say which text is prepared, and how.
_PREPARING = frozenset(
    {
        *(
            "corpus",
            "documents",
            "encoding",
            "text_field",
            "strict",
            "tagger",
            "tag_set",
            "tokenizer",
            "vocabulary_size",
        ),
        *("held_out", "sequence_length", "next_sentence", "workers"),
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextPretraining(Pretraining):
    """Pre-trains a PoS-BERT, from raw text to a KerasHub preset."""

    ADDED = Pretraining.ADDED | {"task_loss", "documents", "encoding", "text_field"}
    CUT = ("num_heads", "hidden_dim", "intermediate_dim")
    SECTIONS = {"corpus": "text", "masked_share": "masking", "num_layers": "model"}

    corpus: str = "bundled"
    """Raw text: bundled, nltk:NAME, tfds:NAME, the path of a file or folder, or several with +."""
    documents: Documents = "auto"
    """What ends a document in a plain text file: two or more blank lines (auto), one or more, the
    end of the line or that of the file. Too few documents are cut between sentences."""
    encoding: str = "utf-8"
    """Encoding of the text files that are not UTF-8, such as latin-1."""
    text_field: str = "text"
    """The field that has the text, in .jsonl files and TFDS sets."""
    strict: bool = False
    """Refuse text files that are empty, binary or not so encoded, instead of skipping them."""
    tagger: Tagger = "auto"
    """The part-of-speech tagger."""
    tag_set: TagSet = "nine"
    """The tasks: the nine parts of speech, or the 31 Penn Treebank tags that they consist of."""
    tokenizer: str | None = None
    """A KerasHub BERT preset whose vocabulary is used; by default one is trained on the corpus."""
    vocabulary_size: int = 30522
    """Pieces of a vocabulary trained on the corpus."""
    held_out: float = 0.02
    """Share of the documents that is kept for evaluation."""
    sequence_length: int = 128
    """Tokens in a sequence, [CLS] and [SEP] included."""
    next_sentence: NextSentence = "auxiliary"
    """Next-sentence prediction: outside the weighting, a further task, or none."""

    masked_share: float = 0.15
    """Share of the maskable tokens that is masked."""
    max_predictions: int = 20
    """Masked tokens in a sequence, at most."""
    maskable: Maskable = "tasks"
    """Mask the tokens of the tasks, or all; the rest is then a further task, `other`."""
    whole_word: bool = False
    """Mask all pieces of a word or none."""
    masking_copies: int | None = None
    """Static maskings a sequence, taken in turn; by default a new masking every epoch."""
    task_loss: TaskLoss = "full"
    """The loss of a masked word: `full`, -log P(word | context), as in the paper; or `within` its
    task, -log P(word | context, task), in which tasks do not compete for the share of each."""

    num_layers: int = 12
    """Transformer layers."""
    num_heads: int = 12
    """Attention heads."""
    hidden_dim: int = 768
    """Width."""
    intermediate_dim: int = 3072
    """Width of the feed-forward layers."""
    dropout: float = 0.1
    """Dropout rate."""

    def unused(self) -> dict[str, str]:
        unused = super().unused()
        if self.tokenizer is not None:
            unused["vocabulary_size"] = "a vocabulary that is trained, without `tokenizer`"
        parts = self.corpus.split("+")
        if all(one == "bundled" or one.startswith(("nltk:", "tfds:")) for one in parts):
            unused |= dict.fromkeys(("documents", "encoding"), "text files")
            if not any(one.startswith("tfds:") for one in parts):
                unused["text_field"] = "JSON lines and TFDS sets"
        return unused

    def unused_to_prepare(self) -> dict[str, str]:
        """As `unused`, where the text is prepared and nothing is trained."""
        names = [field.name for field in dataclasses.fields(self)]
        return self.unused() | {name: "training" for name in names if name not in _PREPARING}

    def __post_init__(self):
        super().__post_init__()
        checks.integer("sequence_length", self.sequence_length, least=_SHORTEST_SEQUENCE)
        checks.integer("vocabulary_size", self.vocabulary_size, least=_SMALLEST_VOCABULARY)
        checks.integers(self, ("max_predictions", "num_layers", "num_heads"))
        checks.integers(self, ("hidden_dim", "intermediate_dim"))
        checks.integer_or_none("masking_copies", self.masking_copies, least=1)
        checks.integer_or_none("workers", self.workers, least=1)
        checks.multiple("hidden_dim", self.hidden_dim, "num_heads", self.num_heads)
        checks.open_share("held_out", self.held_out)
        checks.fraction("masked_share", self.masked_share)
        checks.share("dropout", self.dropout)
        checks.encoding("encoding", self.encoding)
        for name, known in (
            ("documents", Documents),
            ("tagger", Tagger),
            ("tag_set", TagSet),
            ("next_sentence", NextSentence),
            ("maskable", Maskable),
            ("task_loss", TaskLoss),
        ):
            checks.choice(name, getattr(self, name), get_args(known))


PAPER = TextPretraining(
    batch_size=256,
    steps=1_000_000,
    warmup_steps=10_000,
    peak_learning_rate=1e-4,
    weight_decay=0.01,
    beta_2=0.999,
    epsilon=1e-6,
    steps_per_report=1000,
    dtype_policy="auto",
)
TINY = dataclasses.replace(
    PAPER,
    dtype_policy="float32",
    vocabulary_size=4000,
    held_out=0.1,
    sequence_length=64,
    max_predictions=10,
    num_layers=2,
    num_heads=2,
    hidden_dim=128,
    intermediate_dim=512,
    batch_size=32,
    steps=600,
    warmup_steps=60,
    peak_learning_rate=1e-3,
    steps_per_report=10,
)
RECIPES = {
    "pos-bert-base": (
        "Wang et al. 2023: 12 layers of 768, batch 256, 1,000,000 steps. Corpus, sequence length "
        "and alpha are not given there and are ours; its static maskings are --masking-copies 10.",
        PAPER,
    ),
    "pos-bert-tiny": ("2 layers of 128, 600 steps: minutes on two CPU cores.", TINY),
}
