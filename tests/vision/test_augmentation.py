"""Joint augmentation keeps maps aligned; normalisation and its inverse; batches for `fit`."""

import numpy as np
import pytest

from keras_taskrobust.randomness import generator
from keras_taskrobust.vision.augmentation import (
    RGB_DEVIATION,
    RGB_MEAN,
    DepthStatistics,
    View,
    central_view,
    depth_statistics,
    draw_view,
    generator_of_view,
    normalize_rgb,
    restore_depth,
    restore_rgb,
    show_view,
    standardize_depth,
)
from keras_taskrobust.vision.batches import image_batches
from keras_taskrobust.vision.image_source import ImageSource
from keras_taskrobust.vision.scenes import ProceduralScenes

pytestmark = pytest.mark.backend_free


def coordinate_record(height=60, width=80):
    """Maps that say where they are: red is the row, green the column, depth both, labels blocks."""
    rows, columns = np.mgrid[:height, :width]
    rgb = np.stack([rows * 3, columns * 3, rows * 0], -1).astype("uint8")
    depth = (1 + rows + 1000 * columns).astype("float32")[..., None]
    labels = (rows // 10 * 8 + columns // 10).astype("uint8")
    return {"rgb": rgb, "depth": depth, "semseg": labels}


@pytest.mark.parametrize("size", [(32, 32), (24, 48), (120, 96)])
def test_all_maps_show_the_same_place(size):
    """The crop of a coordinate image tells where each pixel of every map comes from."""
    for number in range(12):
        view = draw_view(60, 80, generator(number))
        shown = show_view(coordinate_record(), view, size)
        assert {name: array.shape for name, array in shown.items()} == {
            "rgb": (*size, 3),
            "depth": (*size, 1),
            "semseg": size,
        }
        rows = view.top + (np.arange(size[0]) + 0.5) * view.height / size[0] - 0.5
        columns = view.left + (np.arange(size[1]) + 0.5) * view.width / size[1] - 0.5
        columns = columns[::-1] if view.flip else columns
        expected_rows, expected_columns = np.meshgrid(rows, columns, indexing="ij")
        # The borders repeat the outermost pixels when the crop is enlarged.
        expected_rows = expected_rows.clip(view.top, view.top + view.height - 1)
        expected_columns = expected_columns.clip(view.left, view.left + view.width - 1)
        inside = (slice(4, -4), slice(4, -4))
        np.testing.assert_allclose(
            shown["rgb"][inside][..., 0] / 3, expected_rows[inside], atol=0.6
        )
        np.testing.assert_allclose(
            shown["rgb"][inside][..., 1] / 3, expected_columns[inside], atol=0.6
        )
        np.testing.assert_allclose(
            shown["depth"][..., 0], 1 + expected_rows + 1000 * expected_columns, rtol=1e-6
        )
        nearest = np.rint(expected_rows) // 10 * 8 + np.rint(expected_columns) // 10
        ties = (np.abs(expected_rows % 1 - 0.5) < 1e-9) | (
            np.abs(expected_columns % 1 - 0.5) < 1e-9
        )
        np.testing.assert_array_equal(shown["semseg"][~ties], nearest[~ties])


def test_labels_at_a_quarter_of_the_size():
    view = View(top=5, left=9, height=48, width=64, flip=True)
    full = show_view(coordinate_record(), view, (48, 64))["semseg"]
    quarter = show_view(coordinate_record(), view, (48, 64), {"semseg": 4})["semseg"]
    assert quarter.shape == (12, 16)
    # The label at the middle of each 4 x 4 block: right of it before mirroring, left of it after.
    np.testing.assert_array_equal(quarter, full[2::4, 1::4])


def test_an_unchanged_view_is_the_image():
    record = coordinate_record()
    shown = show_view(record, View(0, 0, 60, 80, False), (60, 80))
    for name in record:
        np.testing.assert_array_equal(shown[name], record[name])
        assert shown[name].dtype == record[name].dtype


def test_missing_depth_stays_missing_and_does_not_spread():
    depth = np.full((20, 20, 1), 3.0, "float32")
    depth[:, 10:] = np.nan
    view = View(0, 0, 20, 20, False)
    for size in ((10, 10), (20, 20), (50, 50)):
        shown = show_view({"depth": depth}, view, size)["depth"][..., 0]
        half = size[1] // 2
        assert np.isnan(shown[:, half:]).all()
        np.testing.assert_array_equal(shown[:, :half], 3.0)


def test_views_have_the_distribution_of_random_resized_crops():
    views = [draw_view(300, 300, generator(number)) for number in range(4000)]
    shares = np.array([view.height * view.width for view in views]) / 90000
    ratios = np.array([view.width / view.height for view in views])
    assert shares.min() > 0.19
    assert shares.max() <= 1
    assert ratios.min() > 0.74
    assert ratios.max() < 1.35
    assert abs(np.mean([view.flip for view in views]) - 0.5) < 0.03
    # Crops that do not fit are drawn again: large ones are rarer than uniform.
    assert 0.4 < shares.mean() < 0.6
    assert abs(np.log(ratios).mean()) < 0.03
    assert all(view.top + view.height <= 300 and view.left + view.width <= 300 for view in views)
    assert min(view.top for view in views) == 0


def test_views_are_a_function_of_seed_epoch_and_record():
    views = [
        draw_view(60, 80, generator_of_view(*key)) for key in ((1, 2, 3), (1, 2, 3), (1, 3, 2))
    ]
    assert views[0] == views[1] != views[2]


def test_views_of_extreme_images():
    for height, width in ((1, 1), (2, 400), (400, 2)):
        view = draw_view(height, width, generator(7))
        assert 1 <= view.height <= height
        assert 1 <= view.width <= width
    assert central_view(60, 80, (32, 32)) == View(0, 10, 60, 60, False)
    assert central_view(60, 80, (32, 64)) == View(10, 0, 40, 80, False)


def test_rgb_normalisation_and_its_inverse():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype("uint8")
    normalized = normalize_rgb(rgb)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized, (rgb / 255 - RGB_MEAN) / RGB_DEVIATION, atol=1e-5)
    np.testing.assert_array_equal(restore_rgb(normalized), rgb)
    assert restore_rgb(np.array([99.0, -99.0, np.nan])).tolist() == [255, 0, 0]


def test_truncated_standardisation():
    """The formula of the reference, written out."""
    random = np.random.default_rng(0)
    depth = random.gamma(3, 1, (13, 17, 1)).astype("float32")
    flat = np.sort(depth.ravel()).astype("float64")
    kept = flat[int(0.1 * 221) : int(0.9 * 221)]
    expected = (depth - kept.mean()) / np.sqrt(kept.var(ddof=1) + 1e-6)
    np.testing.assert_allclose(standardize_depth(depth), expected, rtol=1e-5, atol=1e-6)
    statistics = depth_statistics(depth)
    restored = restore_depth(standardize_depth(depth), statistics)
    np.testing.assert_allclose(restored, depth, rtol=1e-5)


def test_standardisation_leaves_missing_depth_out():
    depth = np.random.default_rng(0).uniform(1, 9, (10, 10, 1)).astype("float32")
    holes = depth.copy()
    holes[0] = np.nan
    assert depth_statistics(holes) == depth_statistics(depth[1:])
    standardized = standardize_depth(holes)
    np.testing.assert_array_equal(np.isnan(standardized), np.isnan(holes))
    assert depth_statistics(np.full((4, 4, 1), np.nan)) == DepthStatistics(0.0, 1.0)
    flat = standardize_depth(np.full((4, 4, 1), 2.0))
    np.testing.assert_array_equal(flat, 0)
    assert np.isfinite(standardize_depth(np.array([[[2.0]], [[np.nan]]]))[0]).all()


# Batches


def test_batches_have_the_said_form():
    batches = image_batches(ProceduralScenes(10, 24, 32), 4, (16, 24), strides={"semseg": 4})
    batch = batches[0]
    assert batch["rgb"].shape == (4, 16, 24, 3)
    assert batch["rgb"].dtype == np.float32
    assert batch["depth"].shape == (4, 16, 24, 1)
    assert batch["depth"].dtype == np.float32
    assert batch["semseg"].shape == (4, 4, 6)
    assert batch["semseg"].dtype == np.int32
    assert abs(np.mean(batch["rgb"])) < 2
    assert np.abs(np.mean(batch["depth"], axis=(1, 2, 3))).max() < 0.5


def test_random_access_resumes_to_the_same_batches():
    source = ProceduralScenes(10, 16, 16)
    first = image_batches(source, 4, 8, seed=5)
    again = image_batches(source, 4, 8, seed=5)
    for index in (7, 2, 40):
        for name, array in first[index].items():
            np.testing.assert_array_equal(array, again[index][name])
    other = image_batches(source, 4, 8, seed=6)
    assert (other[0]["rgb"] != first[0]["rgb"]).any()


class Numbers(ImageSource):
    """Images whose colour is their number."""

    def __init__(self, size, modalities=("rgb", "label")):
        super().__init__(modalities)
        self.size = size

    def __len__(self):
        return self.size

    def read(self, index):
        rows = np.arange(64)[:, None, None] * 3
        rgb = np.broadcast_to(np.concatenate([rows, rows * 0 + index, rows * 0], -1), (64, 64, 3))
        return {"rgb": rgb.astype("uint8"), "label": np.asarray(index)}


def test_parts_are_the_rows_of_the_batches_and_read_no_others():
    """Batches reach over the ends of epochs; a part of a later step is that of a run from there."""
    read = []

    class Noted(Numbers):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    def batches(source, **options):
        return image_batches(source, 6, 16, seed=2, modalities=("rgb", "label"), **options)

    whole = batches(Numbers(8))
    for step in (0, 1, 5):
        for index in range(3):
            read.clear()
            part = batches(Noted(8), part=(index, 3))[step:][0]
            for name, array in part.items():
                np.testing.assert_array_equal(array, whole[step][name][2 * index : 2 * index + 2])
            assert sorted(read) == sorted(part["label"].tolist())
    assert len(batches(Numbers(8), epochs=3, part=(0, 3))) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": (3, 3)}, "`part` must be .i, n. with 0 <= i < n. Received: part=.3, 3."),
        ({"part": (0, 4)}, "`batch_size` must be a multiple of 4, the number of parts. Received"),
        ({"part": (0, 3), "drop_remainder": False}, "`part` needs `drop_remainder`"),
    ],
)
def test_parts_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        image_batches(Numbers(8), 6, 16, modalities=("rgb", "label"), **options)


def test_every_epoch_has_its_own_order_and_its_own_crops():
    dataset = image_batches(Numbers(6), 1, 16, seed=1, modalities=("rgb", "label"))
    epochs = [[dataset[6 * epoch + k] for k in range(6)] for epoch in range(3)]
    orders = [[int(batch["label"][0]) for batch in epoch] for epoch in epochs]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    crops = [{int(b["label"][0]): b["rgb"].tobytes() for b in epoch} for epoch in epochs]
    assert all(crops[0][number] != crops[1][number] for number in range(6))
    assert epochs[0][0]["label"].dtype == np.int32


def test_a_crop_depends_on_seed_record_and_epoch_not_on_the_place_in_the_epoch():
    shuffled = image_batches(Numbers(6), 1, 16, seed=1, modalities=("rgb", "label"))
    ordered = image_batches(Numbers(6), 1, 16, seed=1, shuffle=False, modalities=("rgb", "label"))
    by_number = {int(batch["label"][0]): batch["rgb"] for batch in (shuffled[k] for k in range(6))}
    for number in range(6):
        np.testing.assert_array_equal(ordered[number]["rgb"], by_number[number])


def test_evaluation_batches_show_every_record_once_and_whole():
    source = ProceduralScenes(5, 16, 24)
    batches = image_batches(
        source,
        2,
        (16, 24),
        epochs=1,
        augment=False,
        shuffle=False,
        metric_depth=True,
        drop_remainder=False,
    )
    assert [len(batch["rgb"]) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(batches[1]["depth"][0], source[2]["depth"])
    np.testing.assert_array_equal(batches[2]["semseg"][0], source[4]["semseg"])
    np.testing.assert_array_equal(restore_rgb(batches[0]["rgb"][1]), source[1]["rgb"])


def test_iterators_save_their_place():
    def stream():
        return iter(image_batches(ProceduralScenes(8, 8, 8), 2, 8, seed=3).to_iter_dataset())

    iterator = stream()
    next(iterator)
    state = iterator.get_state()
    expected = [next(iterator)["rgb"] for _ in range(3)]
    resumed = stream()
    resumed.set_state(state)
    for array in expected:
        np.testing.assert_array_equal(next(resumed)["rgb"], array)


@pytest.mark.slow
def test_workers_give_the_same_batches():
    source = ProceduralScenes(6, 8, 8)
    alone = image_batches(source, 2, 8, seed=3, epochs=1)
    shared = image_batches(source, 2, 8, seed=3, epochs=1, num_workers=2)
    received = [batch["rgb"] for batch in shared]
    assert len(received) == len(alone)
    for number, array in enumerate(received):
        np.testing.assert_array_equal(array, alone[number]["rgb"])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1"),
        ({"epochs": 0}, "`epochs` must be an integer >= 1"),
        ({"num_workers": -1}, "`num_workers` must be an integer >= 0"),
        ({"size": (8, 0)}, "`size` must be"),
        ({"size": (8, 8, 3)}, "`size` must be"),
        ({"modalities": ("rgb", "normals")}, "`modalities` must be some of"),
        ({"modalities": ()}, "`modalities` must be some of"),
        ({"modalities": ("rgb", "rgb")}, "`modalities` must be one or more different"),
        ({"strides": {"semseg": 3}}, "`strides` must map"),
        ({"strides": {"label": 2}}, "`strides` must map"),
    ],
)
def test_bad_arguments(changes, text):
    arguments = {"batch_size": 2, "size": 8} | changes
    with pytest.raises(ValueError, match=text):
        image_batches(ProceduralScenes(4, 8, 8), **arguments)
