"""Settings, and what is read and refused before anything is computed."""

import dataclasses

import pytest

from keras_taskrobust.recipes import text_settings
from keras_taskrobust.recipes.cells import load_results
from keras_taskrobust.recipes.comparison import PlannedRun, starts_from_grid
from keras_taskrobust.recipes.fingerprints import check_fingerprints
from keras_taskrobust.recipes.image_settings import TINY, ImageData, split_images
from keras_taskrobust.recipes.starts import start_from_preset
from keras_taskrobust.recipes.stored import DamagedFileError
from keras_taskrobust.recipes.training_run import pictures_of
from keras_taskrobust.vision import ProceduralScenes

pytestmark = pytest.mark.backend_free


def test_images_alone_have_the_settings_of_images():
    recipe = dataclasses.replace(TINY, data="photos.npz", split="a", scenes=7)
    assert recipe.images == ImageData(data="photos.npz", split="a", scenes=7, held_out_share=0.02)


def test_the_name_of_a_weighting_is_one_that_files_can_hold():
    assert type(TINY.make_weighting().name) is str


def test_images_with_maps_are_of_one_split():
    unused = dataclasses.replace(TINY, data="tfds:imagenet2012", maps="maps").unused()
    assert unused["held_out_split"] == "images without `maps`"
    assert "held_out_share" not in unused


@pytest.mark.parametrize(
    ("corpus", "unused"),
    [
        ("bundled", {"documents", "encoding", "text_field"}),
        ("nltk:brown+tfds:imdb_reviews", {"documents", "encoding"}),
        ("bundled+texts", set()),
    ],
)
def test_formats_are_for_files(corpus, unused):
    assert dataclasses.replace(text_settings.TINY, corpus=corpus).unused().keys() == unused


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": (60, 64)}, "`image_size` must have multiples of `patch_size`. .*60, 64"),
        (
            {"normalized_twin": True, "modalities": ("depth", "semseg")},
            "`normalized_twin` is a task of the modality rgb. .*depth",
        ),
    ],
)
def test_sizes_and_tasks_that_do_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **fields)


def test_one_image_cannot_be_split():
    with pytest.raises(ValueError, match=r"more images than the one .* Received: 1 images"):
        split_images(["the only one"], 0.5)


@pytest.mark.parametrize(
    ("number", "share", "held_out"),
    [
        (10_000, 0.02, 200),
        (150, 0.02, 30),
        (170, 0.02, 30),
        (100, 0.02, 20),
        (100, 0.5, 50),
        (4, 0.1, 1),
    ],
)
def test_enough_images_are_held_out(number, share, held_out):
    parts = split_images(ProceduralScenes(number, 8, 8), share)
    assert [len(part) for part in parts] == [number - held_out, held_out]


def test_a_file_is_known_by_what_is_in_it(tmp_path):
    paths = [tmp_path / name for name in ("a.keras", "b.keras")]
    for path in paths:
        path.write_bytes(b"weights")
    first, second = (start_from_preset("row", 0, str(path)).identity for path in paths)
    assert first == second
    paths[1].write_bytes(b"others")
    assert start_from_preset("row", 0, str(paths[1])).identity != first


def test_without_a_finished_run_there_is_no_architecture_to_start_from_scratch(tmp_path):
    failed = PlannedRun("uniform", "runs/uniform", TINY, failure="of the test")
    starts = starts_from_grid(TINY, [failed], tmp_path, "model.keras", from_scratch=True)
    assert [(start.row, start.failure) for start in starts] == [("uniform", "of the test")]


def test_what_is_not_there(tmp_path):
    with pytest.raises(DamagedFileError, match="a finished cell.*no file"):
        load_results(tmp_path, ["uniform-0-RTE-abc"])
    check_fingerprints(tmp_path, {"corpus": "abc"}, is_finished=True)  # of an older version
    assert pictures_of(tmp_path) == {}
    (tmp_path / "reconstructions.png").touch()
    assert list(pictures_of(tmp_path)) == ["reconstructions.png"]
