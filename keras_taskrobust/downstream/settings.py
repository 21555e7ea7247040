"""The settings of a fine-tuning run."""

import dataclasses
from typing import Literal

Method = Literal["full", "linear_probe", "probe_then_full", "l2_sp", "ewc", "lwf", "lora"]
Soup = Literal["uniform", "greedy", "model_stock"]


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """Fine-tunes a pre-trained encoder on a downstream task."""

    learning_rate: float = 2e-5
    """Largest learning rate."""
    batch_size: int = 32
    """Examples in a step."""
    weight_decay: float = 0.1
    """AdamW's weight decay; biases and normalisations are spared."""
    warmup_share: float = 0.06
    """Share of the steps over which the learning rate rises; then it falls linearly to 0."""
    epochs: int = 3
    """Passes over the training examples; the held-out ones are scored after each."""
    max_steps: int | None = None
    """Steps, at most."""
    sequence_length: int | None = None
    """Tokens of an example, at most; by default 128, or what the encoder has positions for."""
    dropout: float = 0.1
    """Dropout rate before the head."""
    dtype_policy: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Keras's dtype policy."""

    method: Method = "full"
    """What is trained, and what keeps it near the pre-trained weights."""
    strength: float = 0.01
    """Factor of the penalty of l2_sp, ewc or lwf."""
    probe_epochs: int = 1
    """Passes that train the head alone before probe_then_full and ewc train everything."""
    probe_learning_rate: float = 1e-3
    """Largest learning rate of those passes."""
    fisher_examples: int = 256
    """Training examples that ewc estimates the Fisher information from."""
    lora_rank: int = 8
    """Rank of lora's matrices."""
    wise_share: float = 1.0
    """WiSE-FT: how far to go from the pre-trained weights to the fine-tuned ones; 1 is all."""
    soup_size: int = 1
    """Fine-tuned models, of other orders and dropout, that are averaged into one."""
    soup: Soup = "uniform"
    """How they are averaged."""

    def __post_init__(self):
        for name in ("batch_size", "epochs", "probe_epochs", "fisher_examples", "soup_size"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` must be an integer >= 1. Received: {name}={getattr(self, name)}"
                )
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(
                f"`max_steps` must be an integer >= 1 or None. Received: max_steps={self.max_steps}"
            )
        if not 0 <= self.warmup_share < 1:
            raise ValueError(
                "`warmup_share` must be at least 0 and less than 1. "
                f"Received: warmup_share={self.warmup_share}"
            )
        if not 0 <= self.wise_share <= 1:
            raise ValueError(
                f"`wise_share` must lie between 0 and 1. Received: wise_share={self.wise_share}"
            )
        if self.method == "lora" and (self.wise_share != 1 or self.soup_size != 1):
            raise ValueError(
                "`wise_share` and `soup_size` must be 1 with method='lora': averages of its "
                "factors are not averages of weights. "
                f"Received: wise_share={self.wise_share}, soup_size={self.soup_size}"
            )
