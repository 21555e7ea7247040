"""The settings of fine-tuning on texts: the paper's, and small ones."""

from keras_taskrobust.downstream.settings import FineTuning

GLUE = FineTuning()
SMALL = FineTuning(learning_rate=5e-4, weight_decay=0.01, warmup_share=0.1, epochs=5, max_steps=500)
FINETUNING_RECIPES = {
    "glue": (
        "Wang et al. 2023: AdamW 2e-5, batch 32, weight decay 0.1, linear decay, 6 % warm-up. The "
        "number of epochs is not given there and is ours.",
        GLUE,
    ),
    "small": ("For models of a few layers: 5e-4, at most 500 steps.", SMALL),
}
