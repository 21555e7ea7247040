"""Pre-trained models on disk: what a preset stands for, and what is said of one that is not."""

import pytest

from keras_taskrobust.downstream.preset_files import find_preset

pytestmark = pytest.mark.backend_free

KNOWN = ("bert_tiny_en", "bert_base_en")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/mine/preset/config.json", "images/model.keras", "images/preset/config.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    (tmp_path / "runs" / "begun").mkdir()


@pytest.mark.parametrize(
    ("preset", "found"),
    [
        ("runs/mine", "runs/mine/preset"),
        ("runs/mine/preset", "runs/mine/preset"),
        ("images", "images/preset"),
        ("images/preset", "images/preset"),
        ("images/model.keras", "images/model.keras"),
        ("bert_tiny_en", "bert_tiny_en"),
        ("hf://someone/bert", "hf://someone/bert"),
    ],
)
def test_the_folder_of_a_run_stands_for_its_preset(preset, found):
    assert find_preset(preset, "a BERT", KNOWN) == found


def test_the_whole_model_comes_before_the_preset_for_who_wants_it():
    assert find_preset("images", "a ViT", KNOWN, whole=True) == "images"
    assert find_preset("runs/mine", "a ViT", KNOWN, whole=True) == "runs/mine/preset"


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        ("runs/mien", "no such folder. Did you mean 'runs/mine/preset'?"),
        ("runs/mine/presets", "no such folder. Did you mean 'runs/mine/preset'?"),
        ("elsewhere/x", "no such folder"),
        ("bert_tiny", "KerasHub has no such model. Did you mean 'bert_tiny_en'?"),
        ("runs/begun", "a folder without a model"),
        ("runs", "a folder without a model. Did you mean 'runs/mine/preset'?"),
    ],
)
def test_what_is_no_model_is_refused_with_what_may_be_meant(preset, said):
    with pytest.raises(ValueError, match="`preset` must be a BERT. Received: ") as error:
        find_preset(preset, "a BERT", KNOWN)
    assert str(error.value).endswith(f"preset={preset!r}: {said}")
