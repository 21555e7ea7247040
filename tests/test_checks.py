"""Settings are refused before any work, in words that name the field or the flag."""

import dataclasses
import typing

import pytest

from keras_taskrobust import checks, cli
from keras_taskrobust.downstream.settings import FineTuning, ImageFineTuning
from keras_taskrobust.recipes import image_settings, text_settings

pytestmark = pytest.mark.backend_free

SETTINGS = (text_settings.TINY, image_settings.TINY, FineTuning(), ImageFineTuning())
#: Where 0 says something: none of it.
MAY_BE_ZERO = {
    *("alpha", "loss_momentum"),  # checked by the weighting
    *("warmup_steps", "warmup_epochs", "warmup_share", "seed", "workers", "decoder_depth"),
    *("weight_decay", "beta_1", "beta_2", "dropout", "drop_path", "layer_decay", "strength"),
    *("least_learning_rate", "wise_share", "rand_augment", "mixup", "cutmix", "label_smoothing"),
    "ignore_label",
    "checkpoint_minutes",  # at every step
}


def fields_of(kind):
    """Each settings and field that holds a number of the kind."""
    for settings in SETTINGS:
        for name, hint in typing.get_type_hints(type(settings)).items():
            if kind in (hint, *typing.get_args(hint)) and typing.get_origin(hint) is not tuple:
                yield settings, name


def refuses(settings, name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must .*Received: .*{name}=") as error:
        dataclasses.replace(settings, **{name: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "name"),
    [*fields_of(int), *fields_of(float)],
    ids=lambda one: one if isinstance(one, str) else type(one).__name__,
)
def test_no_number_is_taken_that_makes_no_sense(settings, name):
    if name in ("alpha", "loss_momentum"):
        pytest.skip("the weighting checks it")
    for value in (-5, float("nan"), True, "3"):
        refuses(settings, name, value)
    if name not in MAY_BE_ZERO:
        refuses(settings, name, 0)
    if (settings, name) in fields_of(int):
        refuses(settings, name, 1.5)


@pytest.mark.parametrize(
    ("settings", "fields", "words"),
    [
        (text_settings.TINY, {"num_heads": 3}, "`hidden_dim` must be .*multiple of `num_heads`"),
        (text_settings.TINY, {"sequence_length": 7}, "`sequence_length` .*>= 8.*Received: .*=7"),
        (text_settings.TINY, {"held_out": 1.0}, "`held_out` must lie strictly between 0 and 1"),
        (text_settings.TINY, {"seed": 2**32}, "`seed` must be an integer from 0 to 4294967295"),
        (text_settings.TINY, {"weighting": "minmax"}, "=minmax. Did you mean 'minimax'\\?$"),
        (text_settings.TINY, {"tagger": "x"}, "`tagger` must be one of auto, nltk, textblob"),
        (image_settings.TINY, {"modalities": ("rgb", "rgb")}, "`modalities` .* rgb, rgb"),
        (image_settings.TINY, {"modalities": ()}, "`modalities` .*Received: none"),
        (image_settings.TINY, {"image_size": (0, 64)}, "`image_size` must be a height and a width"),
        (image_settings.TINY, {"patch_size": 7}, "multiples of `patch_size`"),
        (image_settings.TINY, {"semseg_stride": 3}, "`patch_size` .* multiple of `semseg_stride`"),
        (ImageFineTuning(), {"image_size": (8, -8)}, "`image_size` must be a height and a width"),
        (ImageFineTuning(), {"modalities": ("rgb", "rgb")}, "`modalities` .* rgb, rgb"),
    ],
)
def test_settings_that_do_not_fit_each_other(settings, fields, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(settings, **fields)


@pytest.mark.parametrize(
    ("command", "flags", "words"),
    [
        ("pretrain text pos-bert-tiny", "--steps-per-report 0", "`--steps-per-report` must be"),
        (
            "pretrain text pos-bert-tiny",
            "--batch-size -5",
            "`--batch-size` must be an integer",
        ),
        ("prepare text pos-bert-tiny", "--sequence-length 0", "`--sequence-length` must be"),
        ("pretrain images mm-mae-tiny", "--patch-size 0", "`--patch-size` must be an integer >= 1"),
        ("pretrain images mm-mae-tiny", "--modalities rgb rgb", "`--modalities` must be one or"),
        ("compare text pos-bert-tiny", "--seeds 0 0", "`--seeds` must be one or more different"),
        ("compare images mm-mae-tiny", "--minimum-targets -1", "`--minimum-targets` must be"),
        ("finetune text small", "--preset x --epochs 0", "`--epochs` must be an integer >= 1"),
        ("finetune text small", "--preset x --tasks RTE RTE", "`--tasks` must be one or more"),
        ("finetune images small", "--preset x --reports 0", "`--reports` must be an integer >= 1"),
        ("inherit text small", "--preset x --seeds", "`--seeds` must be .*Received: none"),
        (
            "inherit images small",
            "--preset x --severity 6",
            "`--severity` must be an integer",
        ),
        ("demo", "--steps 0", "`--steps` must be an integer >= 1"),
    ],
)
def test_the_command_line_names_the_flag_before_any_work(command, flags, words, tmp_path):
    output = ["--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match=rf"^taskrobust [a-z ]+: {words}") as error:
        cli.main([*command.split(), *flags.split(), *output])
    assert "\n" not in error.value.code
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "flags", "flag"),
    [
        ("pretrain text pos-bert-tiny", "--tokenizer x --vocabulary-size 99", "--vocabulary-size"),
        ("prepare text pos-bert-tiny", "--tokenizer x --vocabulary-size 99", "--vocabulary-size"),
        ("prepare text pos-bert-tiny", "--corpus x --batch-size 8", "--batch-size"),
        ("pretrain images mm-mae-tiny", "--epochs 2 --steps 200", "--steps"),
        ("pretrain images mm-mae-tiny", "--warmup-epochs 1", "--warmup-epochs"),
        ("pretrain images mm-mae-tiny", "--data tfds:x --scenes=9", "--scenes"),
        ("pretrain images mm-mae-tiny", "--held-out-share 0.5", "--held-out-share"),
        ("pretrain images mm-mae-tiny", "--modalities rgb --semseg-stride 2", "--semseg-stride"),
        ("compare text pos-bert-tiny", "--finetuning glue", "--finetuning"),
        ("compare images mm-mae-tiny", "--select best", "--select"),
        ("finetune text small", "--preset x --probe-epochs 3", "--probe-epochs"),
        ("finetune images small", "--preset x --tasks depth --mixup 0.8", "--mixup"),
        ("finetune images small", "--preset x --tasks depth --head linear --head-width 8",
         "--head-width"),
        ("finetune images small", "--preset x --split a", "--split"),
        ("finetune text small", "--preset x --tasks ppattach --data-dir x", "--data-dir"),
        ("compare text pos-bert-tiny", "--tasks ppattach --data-dir x", "--data-dir"),
        ("inherit text small", "--preset x --tasks sentence_polarity movie_reviews --data-dir x",
         "--data-dir"),
        ("inherit images small", "--preset x --tasks clean s --sets s=x --severity 2",
         "--severity"),
        ("inherit images small", "--preset x --tasks clean contrast --sets s=x", "--sets"),
    ],
)  # fmt: skip
def test_flags_that_would_change_nothing_are_refused(command, flags, flag, tmp_path):
    output = ["--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match=f": `{flag}` is for .*would change nothing"):
        cli.main([*command.split(), *flags.split(), *output])
    assert not (tmp_path / "run").exists()


def test_what_is_kept():
    kept = (checks.positive("x", 3), checks.integer("x", 3, 1), checks.size("x", [4, 6]))
    assert kept == (3.0, 3, (4, 6))
    assert [type(one) for one in kept] == [float, int, tuple]
