"""Visible patches as a function of (record, epoch, seed)."""

import numpy as np
import pytest

from keras_taskrobust.vision import PatchMasking, ProceduralScenes, image_batches
from keras_taskrobust.vision.image_source import ImageSource

pytestmark = pytest.mark.backend_free

MAPS = ("rgb", "depth", "semseg")
PATCHES, VISIBLE = 16, 12


def masking_of(seed=0, **options):
    return PatchMasking(MAPS, PATCHES, VISIBLE, seed=seed, **options)


def everything(records):
    return np.ones((len(records), len(MAPS)), bool)


@pytest.mark.parametrize("sample_uniformly", [False, True])
def test_what_a_record_shows_does_not_depend_on_its_batch(sample_uniformly):
    masking = masking_of(sample_uniformly=sample_uniformly)
    records, epochs = np.arange(60) % 20, np.arange(60) // 20
    together = masking.draw(everything(records), records, epochs)
    alone = [
        masking.draw(everything([0]), np.array([record]), int(epoch))[0]
        for record, epoch in zip(records, epochs, strict=True)
    ]
    np.testing.assert_array_equal(together, alone)


def test_another_record_epoch_or_seed_shows_something_else():
    def shown(record, epoch, seed):
        return masking_of(seed).draw(everything([0]), np.array([record]), epoch)[0].tobytes()

    cases = [(r, e, s) for r in range(5) for e in range(5) for s in range(5)]
    assert len({shown(*case) for case in cases}) == len(cases)


def test_what_is_missing_is_found_in_the_maps():
    maps = {
        "rgb": np.ones((4, 32, 32, 3), "float32"),
        "depth": np.full((4, 32, 32, 1), np.nan, "float32"),
        "semseg": np.full((4, 16, 16), 255, "int32"),
    }
    maps["depth"][1, 17, 3] = 1.0  # a single pixel off the coarse grid
    maps["semseg"][2, 15, 15] = 0
    maps["rgb"][3, ..., 1] = np.inf
    masking, records = masking_of(), np.arange(4)
    available = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1], [0, 0, 0]], bool)
    drawn = masking(maps, records, 0)
    np.testing.assert_array_equal(drawn, masking.draw(available, records, 0))
    assert drawn[0].max() < PATCHES  # all of them are of RGB


class Holes(ImageSource):
    """Records of which every second has no depth."""

    def __init__(self):
        super().__init__(("rgb", "depth"))

    def __len__(self):
        return 6

    def read(self, index):
        depth = np.full((16, 16, 1), np.nan if index % 2 else 2.0, "float32")
        return {"rgb": np.full((16, 16, 3), index, "uint8"), "depth": depth}


def test_batches_have_them_whatever_their_size_order_and_workers():
    def by_record(dataset, epochs):
        """The patches seen by (record, epoch)."""
        found, seen = {}, dict.fromkeys(range(6), 0)
        for batch in dataset:
            assert set(batch) == {"rgb", "depth", "visible_ids"}
            assert batch["visible_ids"].dtype == np.int32
            colours = np.rint((batch["rgb"][:, 0, 0, 0] * 0.229 + 0.485) * 255).astype(int)
            for record, ids in zip(colours, batch["visible_ids"], strict=True):
                found[record, seen[record]] = ids.tolist()
                seen[record] += 1
        assert set(seen.values()) == {epochs}
        return found

    masking = PatchMasking(("rgb", "depth"), 4, 3, seed=3)
    options = {"size": 16, "masking": masking, "epochs": 3, "drop_remainder": False}
    expected = by_record(image_batches(Holes(), 1, shuffle=False, **options), 3)
    for batch_size, more in ((4, {}), (18, {"seed": 9}), (6, {"augment": False})):
        assert by_record(image_batches(Holes(), batch_size, **options, **more), 3) == expected
    for (record, _), ids in expected.items():
        assert record % 2 == 0 or max(ids) < 4


def test_processes_see_of_their_rows_what_one_sees():
    masking = PatchMasking(("rgb", "depth"), 4, 3, seed=3)
    options = {"size": 16, "masking": masking, "seed": 1}
    whole = image_batches(Holes(), 4, **options)
    parts = [image_batches(Holes(), 4, part=(number, 2), **options) for number in (0, 1)]
    for step in range(5):
        for name, array in whole[step].items():
            joined = np.concatenate([part[step][name] for part in parts])
            np.testing.assert_array_equal(joined, array)


def test_patches_of_maps_that_the_batches_lack_are_refused():
    with pytest.raises(ValueError, match=r"`masking` must share out patches of the batches' maps"):
        image_batches(ProceduralScenes(4, 16, 16), 2, 16, modalities=("rgb",), masking=masking_of())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patches": 0}, "`patches` must be"),
        ({"visible_tokens": 0}, "`visible_tokens` must be"),
        ({"visible_tokens": 49}, r"at most 48: 16 patches .* Received: visible_tokens=49"),
        ({"visible_concentration": 0.0}, "`visible_concentration` must be positive"),
        ({"visible_concentration": {"rgb": 1.0}}, "must have the keys"),
        ({"seed": -1}, "`seed` must be"),
    ],
)
def test_bad_arguments(arguments, message):
    fitting = {"modalities": MAPS, "patches": PATCHES, "visible_tokens": VISIBLE}
    with pytest.raises(ValueError, match=message):
        PatchMasking(**{**fitting, **arguments})
