"""Every loader on a miniature in the official format, the real NYUv2 file, and bad input."""

import contextlib
import json
import pickle
import shutil
import threading
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_files import SIZE, write_folder, write_nyu
from PIL import Image

from keras_taskrobust.vision import map_files
from keras_taskrobust.vision.class_sets import (
    ADE20K_150,
    CITYSCAPES_19,
    NYU_13,
    NYU_13_OF_40,
    NYU_40,
)
from keras_taskrobust.vision.datasets import (
    AlignedFolder,
    ArrayImages,
    ImageFolder,
    NYUDepthV2,
    ProceduralScenes,
    TfdsImages,
    UnreadableFileError,
    load_images,
)

pytestmark = pytest.mark.backend_free

NAMES = ("w", "x", "y", "z")
NYU_FILE = Path(__file__).parents[2] / "../shared/data/vision/nyuv2_64x48.npz"
needs_nyu = pytest.mark.skipif(not NYU_FILE.exists(), reason="../shared/data is not there")


def check_interface(source):
    """What every source has in common."""
    record = source[0]
    assert set(record) == set(source.modalities)
    if "rgb" in record:
        assert record["rgb"].dtype == np.uint8
        assert record["rgb"].shape[2:] == (3,)
    if "depth" in record:
        assert record["depth"].dtype == np.float32
        assert record["depth"].shape[2:] == (1,)
        assert not (record["depth"] <= 0).any()
    if "semseg" in record:
        assert record["semseg"].dtype == np.uint8
        labels = record["semseg"][record["semseg"] != 255]
        assert labels.max(initial=0) < len(source.class_names)
    np.testing.assert_array_equal(source[-1]["rgb"], source[len(source) - 1]["rgb"])
    np.testing.assert_array_equal(source[np.int64(0)]["rgb"], record["rgb"])
    with pytest.raises(IndexError):
        source[len(source)]
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[0]["rgb"], record["rgb"])
    assert len({source.stem(index) for index in range(len(source))}) == len(source)


# NYU Depth v2, official files


@pytest.mark.parametrize(("split", "numbers"), [("train", [2, 5, 1]), ("test", [3, 4])])
def test_nyu_splits_axes_and_40_classes(tmp_path, split, numbers):
    images, depths, labels = write_nyu(tmp_path)
    source = NYUDepthV2(tmp_path / "nyu_depth_v2_labeled.mat", split=split)
    check_interface(source)
    assert len(source) == len(numbers)
    assert source.class_names == NYU_40
    for index, number in enumerate(numbers):
        record = source[index]
        np.testing.assert_array_equal(record["rgb"], images[..., number - 1])
        np.testing.assert_array_equal(record["depth"][..., 0], depths[..., number - 1])
        raw = labels[..., number - 1].astype(int)
        np.testing.assert_array_equal(record["semseg"], np.where(raw == 0, 255, (raw - 1) % 40))
        assert source.stem(index) == f"{number:08d}"


def test_nyu_13_classes_and_all_images(tmp_path):
    _, _, labels = write_nyu(tmp_path)
    source = load_images(tmp_path / "nyu_depth_v2_labeled.mat", split="all")
    assert len(source) == 5
    source = NYUDepthV2(tmp_path / "nyu_depth_v2_labeled.mat", "all", num_classes=13)
    assert source.class_names == NYU_13
    raw = labels[..., 4].astype(int)
    expected = np.where(raw == 0, 255, np.array(NYU_13_OF_40)[(raw - 1) % 40])
    np.testing.assert_array_equal(source[4]["semseg"], expected)


def test_nyu_files_in_other_places(tmp_path):
    write_nyu(tmp_path)
    for name in ("splits.mat", "classMapping40.mat"):
        shutil.move(tmp_path / name, tmp_path / f"my_{name}")
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    with pytest.raises(ValueError, match=r"classMapping40.mat must be readable"):
        NYUDepthV2(path)
    source = NYUDepthV2(
        path,
        splits=tmp_path / "my_splits.mat",
        class_mapping=tmp_path / "my_classMapping40.mat",
    )
    assert len(source) == 3


def test_nyu_missing_depth_is_counted(tmp_path):
    import h5py

    write_nyu(tmp_path)
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "r+") as file:
        file["depths"][1, 0, :4] = [0.0, np.nan, np.inf, -2.0]
    source = NYUDepthV2(path)
    assert np.isnan(source[0]["depth"][:4, 0, 0]).all()
    survey = source.survey()
    assert survey.missing_depth_pixels == 4
    assert survey.depth_pixels == 3 * SIZE[0] * SIZE[1]
    assert sum(survey.class_pixels) + survey.ignored_label_pixels == survey.label_pixels


def test_nyu_bad_files(tmp_path):
    import h5py
    from scipy.io import savemat

    path = tmp_path / "nyu_depth_v2_labeled.mat"
    with pytest.raises(ValueError, match="format 7.3"):
        NYUDepthV2(path)
    path.write_bytes(b"no HDF5 at all")
    with pytest.raises(ValueError, match="format 7.3"):
        NYUDepthV2(path)
    write_nyu(tmp_path)
    with pytest.raises(ValueError, match="`split` must be"):
        NYUDepthV2(path, split="validation")
    with pytest.raises(ValueError, match="`num_classes` must be 13 or 40"):
        NYUDepthV2(path, num_classes=894)
    savemat(tmp_path / "splits.mat", {"trainNdxs": [[1], [99]]})
    with pytest.raises(ValueError, match=r"from 1 to 5.*up to 99"):
        NYUDepthV2(path)
    with pytest.raises(ValueError, match="must hold `testNdxs`"):
        NYUDepthV2(path, split="test")
    savemat(tmp_path / "classMapping40.mat", {"mapClass": np.arange(1, 11)})
    with pytest.raises(ValueError, match=r"Raw labels must be at most 10.*in image 1 of"):
        NYUDepthV2(path, split="all")[0]
    with h5py.File(path, "r+") as file:
        del file["depths"]
        file["depths"] = np.zeros((5, 6, 8))
    with pytest.raises(ValueError, match=r"must hold images \(N, 3, W, H\)"):
        NYUDepthV2(path)


# Aligned arrays


@needs_nyu
@pytest.mark.parametrize(("split", "number"), [("train", 795), ("test", 654)])
def test_real_nyu_arrays(split, number):
    source = load_images(NYU_FILE, split)
    check_interface(source)
    assert len(source) == number
    assert source.class_names == NYU_40[:39]
    assert source.counts.missing_depth_pixels == 0
    assert 0.1 < source.counts.ignored_label_pixels / source.counts.label_pixels < 0.35
    few = ArrayImages(NYU_FILE, split, num_classes=13)
    assert few.class_names == NYU_13
    labels = source[3]["semseg"]
    expected = np.where(labels == 255, 255, np.append(NYU_13_OF_40, [0] * 216)[labels])
    np.testing.assert_array_equal(few[3]["semseg"], expected)


@needs_nyu
def test_class_sets_agree_with_the_official_files():
    with np.load(NYU_FILE) as file:
        assert tuple(file["class_names"]) == NYU_40[:39]
        assert tuple(file["class13_names"]) == NYU_13
        assert tuple(file["class13_of_class"]) == NYU_13_OF_40[:39]


def test_class_sets():
    assert len(set(ADE20K_150)) == 150
    assert len(set(CITYSCAPES_19)) == 19
    assert NYU_13[NYU_13_OF_40[39]] == "objects"


def write_arrays(path, **changes):
    random = np.random.default_rng(0)
    arrays = {
        "train_rgb": random.integers(0, 256, (3, *SIZE, 3)).astype("uint8"),
        "train_depth": random.uniform(1, 9, (3, *SIZE)).astype("float16"),
        "train_semseg": random.integers(0, 4, (3, *SIZE)).astype("uint8"),
        "class_names": np.array(NAMES),
    }
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return arrays


def test_arrays_and_their_missing_depths(tmp_path):
    depth = np.ones((3, *SIZE, 1), "float32")
    depth[0, 0, :4, 0] = 0, np.nan, np.inf, -1
    arrays = write_arrays(tmp_path / "a.npz", train_depth=depth)
    source = ArrayImages(tmp_path / "a.npz")
    check_interface(source)
    np.testing.assert_array_equal(source[2]["rgb"], arrays["train_rgb"][2])
    assert source.counts.missing_depth_pixels == 4
    write_arrays(tmp_path / "b.npz", train_depth=None, train_semseg=None, class_names=None)
    assert ArrayImages(tmp_path / "b.npz").modalities == ("rgb",)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"train_semseg": np.full((3, *SIZE), 4)}, r"below 4.*\[4\]"),
        ({"train_semseg": np.full((3, *SIZE), -1)}, r"below 4.*\[-1\]"),
        ({"train_depth": np.ones((3, 5, 8))}, "equal N, H and W"),
        ({"train_rgb": np.ones((3, *SIZE, 3), "float32")}, "uint8"),
    ],
)
def test_bad_arrays(tmp_path, changes, text):
    write_arrays(tmp_path / "a.npz", **changes)
    with pytest.raises(ValueError, match=text):
        ArrayImages(tmp_path / "a.npz")


def test_bad_array_files(tmp_path):
    write_arrays(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="one or more of test_rgb, "):
        ArrayImages(tmp_path / "a.npz", split="test")
    with pytest.raises(ValueError, match="`class13_of_class`"):
        ArrayImages(tmp_path / "a.npz", num_classes=13)
    huge = npy_with(ARRAY_HEADER.format("|u1", (10**15, 8, 8, 3)))
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as file:
        file.writestr("train_rgb.npy", huge)
    (tmp_path / "damaged.npz").write_bytes(b"PK nothing")
    for name in ("huge", "damaged"):
        with pytest.raises(UnreadableFileError, match=rf"{name}\.npz"):
            ArrayImages(tmp_path / f"{name}.npz")


# Folders of aligned files


def test_folder_in_all_forms(tmp_path):
    written = write_folder(tmp_path)
    source = AlignedFolder(tmp_path, class_names=NAMES)
    check_interface(source)
    assert [source.stem(index) for index in range(3)] == ["a", "kitchen/b", "kitchen/c"]
    for index, (rgb, millimetres, labels) in enumerate(written):
        record = source[index]
        np.testing.assert_array_equal(record["rgb"], rgb)
        np.testing.assert_array_equal(record["semseg"], labels)
        known = ~np.isnan(record["depth"][..., 0])
        np.testing.assert_allclose(record["depth"][known, 0], millimetres[known] / 1000, rtol=1e-6)
    # A zero in each map, and NaN, infinity and a negative number in the second.
    assert source.counts.missing_depth_pixels == 6
    assert source.counts.ignored_label_pixels == 3
    assert source.counts.records == 3
    assert source.depth_kind == "metric"


def test_folders_in_other_places_and_other_scales(tmp_path):
    written = write_folder(tmp_path)
    source = AlignedFolder(
        {"depth": tmp_path / "depth", "rgb": tmp_path / "rgb"}, depth_scale=0.01, verify=False
    )
    assert source.modalities == ("rgb", "depth")
    np.testing.assert_allclose(source[0]["depth"][1, 1], written[0][1][1, 1] / 100)
    assert source.counts is None


def test_folder_descriptions(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "semseg.json").write_text(json.dumps({"class_names": NAMES}))
    (tmp_path / "depth.json").write_text(json.dumps({"scale": 0.1, "kind": "relative inverse"}))
    source = load_images(tmp_path)
    assert source.class_names == NAMES
    assert source.depth_kind == "relative inverse"
    assert np.nanmax(source[0]["depth"]) > 50
    (tmp_path / "depth.json").write_text("{")
    with pytest.raises(ValueError, match=r"must be a JSON object.*depth\.json"):
        AlignedFolder(tmp_path)
    (tmp_path / "depth.json").write_text("[]")
    with pytest.raises(ValueError, match="a JSON object"):
        AlignedFolder(tmp_path)


def test_grey_palette_and_jpeg_images(tmp_path):
    (tmp_path / "rgb").mkdir()
    (tmp_path / "semseg").mkdir()
    Image.new("L", (8, 6), 100).save(tmp_path / "rgb/a.jpg")
    np.save(tmp_path / "rgb/b.npy", np.full((6, 8), 7, "uint8"))
    labels = Image.new("P", (8, 6), 2)
    labels.putpalette([0, 0, 0, 9, 9, 9, 5, 6, 7])
    labels.save(tmp_path / "semseg/a.png")
    Image.new("RGB", (8, 6), (232, 3, 0)).save(tmp_path / "semseg/b.png")
    source = AlignedFolder(tmp_path, class_names=NAMES, ignore_label=1000)
    assert (np.abs(source[0]["rgb"].astype(int) - 100) <= 2).all()
    assert (source[1]["rgb"] == 7).all()
    assert (source[0]["semseg"] == 2).all()
    assert (source[1]["semseg"] == 255).all()  # 232 + 256 * 3 = 1000


def damage(tmp_path):
    """Three kinds of unreadable files."""
    whole = (tmp_path / "rgb/a.PNG").read_bytes()
    (tmp_path / "rgb/a.PNG").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "semseg/kitchen/b.npy").write_bytes(b"")
    return ("rgb/a.PNG", "semseg/kitchen/b.npy")


def test_unreadable_files_are_named_counted_and_skipped(tmp_path):
    write_folder(tmp_path)
    damaged = damage(tmp_path)
    with pytest.warns(UserWarning, match=r"2 of 3 records are skipped.*a\.PNG.*b\.npy"):
        source = AlignedFolder(tmp_path, class_names=NAMES)
    assert len(source) == 1
    assert source.stem(0) == "kitchen/c"
    assert sorted(source.skipped) == sorted(str(tmp_path / name) for name in damaged)
    assert source.counts.records == 1


def test_unreadable_files_are_refused(tmp_path):
    write_folder(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=r"2 of 3 records with an unreadable.*a\.PNG"):
        AlignedFolder(tmp_path, class_names=NAMES, strict=True)
    source = AlignedFolder(tmp_path, class_names=NAMES, verify=False)
    with pytest.raises(UnreadableFileError, match=r"a\.PNG"):
        source[0]
    (tmp_path / "depth/kitchen/c.png").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match="3 of 3 records with an unreadable"):
        AlignedFolder(tmp_path, class_names=NAMES)


def write_labels(folder, *values):
    for name in ("rgb", "semseg"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, value in enumerate(values):
        np.save(folder / f"rgb/{number}.npy", np.zeros((2, 3, 3), "uint8"))
        np.save(folder / f"semseg/{number}.npy", np.array([[value, 255, value], [0, 0, 0]]))


def test_labels_of_a_folder_without_names_are_numbered(tmp_path):
    write_labels(tmp_path, 0, 4, 2)
    with pytest.warns(UserWarning, match=r"numbers: 0 to 4, of which 3 are in use\. `class_names`"):
        source = AlignedFolder(tmp_path)
    assert source.class_names == ("0", "1", "2", "3", "4")
    assert source.counts.class_pixels == (11, 0, 2, 0, 2)
    with pytest.raises(ValueError, match=r"`class_names` must be given.*not read first"):
        AlignedFolder(tmp_path, verify=False)


def test_labels_of_an_npz_without_names_are_numbered_as_in_all_splits(tmp_path):
    labels = {"train_semseg": [[[0, 1], [1, 255]]], "test_semseg": [[[3, 3], [1, 255]]]}
    np.savez(tmp_path / "a.npz", **{name: np.array(maps) for name, maps in labels.items()})
    with pytest.warns(UserWarning, match=r"0 to 3, of which 3 are in use"):
        source = ArrayImages(tmp_path / "a.npz")
    assert source.class_names == ("0", "1", "2", "3")


def test_labels_that_are_no_class_have_no_numbers(tmp_path):
    np.savez(tmp_path / "a.npz", train_semseg=np.full((1, 2, 2), 255))
    with pytest.raises(ValueError, match="must have pixels with a class"):
        ArrayImages(tmp_path / "a.npz")


def test_colours_are_no_labels(tmp_path):
    write_labels(tmp_path, 0)
    Image.new("RGB", (3, 2), (250, 130, 7)).save(tmp_path / "semseg/0.png")
    (tmp_path / "semseg/0.npy").unlink()
    with pytest.raises(ValueError, match=r"\[33530\].*colours are the classes, write the number"):
        AlignedFolder(tmp_path, class_names=NAMES)


def test_a_folder_has_splits(tmp_path):
    write_labels(tmp_path / "train", 0, 1)
    write_labels(tmp_path / "val", 3)
    assert len(load_images(tmp_path, "train", class_names=NAMES)) == 2
    assert load_images(tmp_path, "val", class_names=NAMES)[0]["semseg"].max() == 255
    with pytest.raises(ValueError, match=r"'test' of .*, which has train, val"):
        load_images(tmp_path, "test", class_names=NAMES)


def npy_with(header):
    text = header.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(96)


ARRAY_HEADER = "{{'descr': {!r}, 'fortran_order': False, 'shape': {}}}"


@pytest.mark.parametrize(
    "header",
    [
        ARRAY_HEADER.format("|u1", (10**12, 8)),
        ARRAY_HEADER.format("|u1", (10**30, 8)),
        ARRAY_HEADER.format("|u1", (-6, 8)),
        ARRAY_HEADER.format("|u1", "'six'"),
        ARRAY_HEADER.format("|O", (6, 8)),
        ARRAY_HEADER.format("?!", (6, 8)),
        "(" * 100,
        "{'descr': [[[",
    ],
)
def test_arrays_with_a_damaged_header_are_skipped(tmp_path, header):
    write_folder(tmp_path)
    (tmp_path / "semseg/kitchen/b.npy").write_bytes(npy_with(header))
    with pytest.warns(UserWarning, match=r"1 of 3 records are skipped.*b\.npy"):
        source = AlignedFolder(tmp_path, class_names=NAMES)
    assert [source.stem(index) for index in range(len(source))] == ["a", "kitchen/c"]
    with pytest.raises(ValueError, match=r"b\.npy"):
        AlignedFolder(tmp_path, class_names=NAMES, strict=True)


def test_threads_read_the_headers_of_arrays_one_after_another(tmp_path, monkeypatch):
    """Python 3.11's `ast`, by which NumPy reads them, fails now and then in two at once."""
    np.save(tmp_path / "a.npy", np.ones((6, 8), "float32"))
    alone, read_header = threading.Lock(), np.lib.format.open_memmap

    def read_alone(*args, **kwargs):
        assert alone.acquire(blocking=False), "two threads at once"
        try:
            time.sleep(1e-3)
            return read_header(*args, **kwargs)
        finally:
            alone.release()

    monkeypatch.setattr(np.lib.format, "open_memmap", read_alone)
    with ThreadPoolExecutor(4) as pool:
        maps = list(pool.map(map_files.read_depth, [tmp_path / "a.npy"] * 8, [1.0] * 8))
    assert [depth.shape for depth in maps] == [(6, 8, 1)] * 8


@pytest.mark.parametrize("suffix", [".npy", ".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_any_damage_to_a_file_is_reported_as_such(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    image = np.arange(6 * 8 * 3, dtype="uint8").reshape(6, 8, 3)
    if suffix == ".npy":
        np.save(path, image[..., 0])
    else:
        Image.fromarray(image).save(path, exif=exif_of(6) if suffix in (".jpg", ".png") else b"")
    whole = path.read_bytes()

    @given(st.integers(0, len(whole) - 1), st.integers(1, 255), st.booleans())
    @settings(max_examples=60, deadline=None)
    def check(position, change, cut):
        content = bytearray(whole[:position] if cut else whole)
        if not cut:
            content[position] ^= change
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on what it repairs
            with contextlib.suppress(UnreadableFileError):
                map_files._load_array(path) if suffix == ".npy" else map_files.read_rgb(path)

    check()


def exif_of(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_exif_says(tmp_path, orientation):
    stored = np.arange(6 * 8 * 3, dtype="uint8").reshape(6, 8, 3)
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: stored[::-1].swapaxes(0, 1),
        7: stored[::-1, ::-1].swapaxes(0, 1),
        8: stored[:, ::-1].swapaxes(0, 1),
    }
    (tmp_path / "rgb").mkdir()
    Image.fromarray(stored).save(tmp_path / "rgb/a.png", exif=exif_of(orientation))
    (record,) = AlignedFolder(tmp_path)
    np.testing.assert_array_equal(record["rgb"], turned[orientation])


def test_stems_that_do_not_match_are_named(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "depth/a.png").rename(tmp_path / "depth/aa.png")
    with pytest.raises(ValueError, match=r"same stems.*1 only in .*rgb'.*'a'.*depth'.*'aa'"):
        AlignedFolder(tmp_path, class_names=NAMES)


def test_sizes_that_differ(tmp_path):
    write_folder(tmp_path)
    np.save(tmp_path / "depth/kitchen/b.npy", np.ones((5, 8)))
    with pytest.raises(ValueError, match=r"same size.*\(6, 8\).*\(5, 8\).*kitchen/b"):
        AlignedFolder(tmp_path, class_names=NAMES)


def test_labels_outside_of_the_classes(tmp_path):
    write_folder(tmp_path)
    Image.new("L", (8, 6), 9).save(tmp_path / "semseg/a.png")
    with pytest.raises(ValueError, match=r"below 4.*\[9\] in .*a\.png"):
        AlignedFolder(tmp_path, class_names=NAMES)
    with pytest.warns(UserWarning, match="0 to 9, of which 5 are in use"):
        AlignedFolder(tmp_path)
    with pytest.raises(ValueError, match="fewer than 255"):
        AlignedFolder(tmp_path, class_names=[str(k) for k in range(255)])


@pytest.mark.parametrize(
    ("name", "array", "text"),
    [
        ("rgb/a.npy", np.ones((6, 8, 4), "uint8"), r"uint8 of the shape \(H, W, 3\)"),
        ("depth/a.npy", np.ones((6, 8, 3)), "one channel"),
        ("semseg/a.npy", np.ones((6, 8)), "must be integers. Received: float64"),
    ],
)
def test_arrays_of_another_kind(tmp_path, name, array, text):
    write_folder(tmp_path)
    next(tmp_path.glob(f"{name[:-4]}.[pP]*")).unlink()
    np.save(tmp_path / name, array)
    with pytest.raises(ValueError, match=text):
        AlignedFolder(tmp_path, class_names=NAMES)


def test_folders_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="`source` must be 'scenes'"):
        load_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="`rgb/`, `depth/` and `semseg/`"):
        AlignedFolder(tmp_path)
    with pytest.raises(ValueError, match="with none"):
        load_images(tmp_path)
    with pytest.raises(ValueError, match="keys among"):
        AlignedFolder({"normals": tmp_path})
    write_folder(tmp_path)
    Image.new("RGB", (8, 6)).save(tmp_path / "rgb/a.jpg")
    with pytest.raises(ValueError, match=r"more than one file of \['a'\]"):
        AlignedFolder(tmp_path, class_names=NAMES)


def test_hidden_and_other_files_are_no_images(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "rgb/._a.PNG").write_bytes(b"nothing")
    (tmp_path / "rgb/notes.txt").write_text("nothing")
    assert len(AlignedFolder(tmp_path, class_names=NAMES)) == 3


# Folders of one sub-folder per class


def write_classes(root):
    for name in ("n01/x.JPEG", "n01/y.JPEG", "n02/x.JPEG"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (len(name), 5, 7)).save(root / name)


def test_image_folder_with_stored_maps(tmp_path):
    write_classes(tmp_path / "train")
    source = load_images(tmp_path / "train")
    check_interface(source)
    assert source.label_names == ("n01", "n02")
    assert [int(source[index]["label"]) for index in range(3)] == [0, 0, 1]
    write_folder(tmp_path / "maps", stems=("n01/x", "n01/y", "n02/x"))
    source = ImageFolder(tmp_path / "train", maps=tmp_path / "maps", class_names=NAMES)
    check_interface(source)
    assert source.modalities == ("rgb", "depth", "semseg", "label")
    assert source[2]["depth"].shape == (6, 8, 1)
    assert source.class_names == NAMES


def test_image_folder_in_the_form_of_imagenet_s(tmp_path):
    """Labels are red + 256 * green; 0 is "other", 1000 is to be ignored."""
    write_classes(tmp_path / "train-semi")
    for path in (tmp_path / "train-semi").rglob("*.JPEG"):
        colours = np.zeros((6, 8, 3), "uint8")
        colours[0] = (50, 0, 0)
        colours[1] = (232, 3, 0)
        target = tmp_path / "train-semi-segmentation" / path.parent.name / f"{path.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colours).save(target)
    source = ImageFolder(
        tmp_path / "train-semi",
        maps={"semseg": tmp_path / "train-semi-segmentation"},
        class_names=[str(number) for number in range(51)],
        ignore_label=1000,
    )
    np.testing.assert_array_equal(source[0]["semseg"][:3, 0], [50, 255, 0])


def test_image_folder_numbers_do_not_move_with_skipped_files(tmp_path):
    write_classes(tmp_path)
    for path in (tmp_path / "n01").iterdir():
        path.write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="2 of 3 records are skipped"):
        source = ImageFolder(tmp_path)
    assert source.label_names == ("n01", "n02")
    assert int(source[0]["label"]) == 1


def test_flat_folder_of_images(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    assert load_images(tmp_path).modalities == ("rgb",)
    with pytest.raises(ValueError, match=r"\['a'\] outside of sub-folders"):
        ImageFolder(tmp_path)


# TensorFlow Datasets


@pytest.fixture
def tfds():
    return pytest.importorskip("tensorflow_datasets")


def test_tfds_images_with_stored_maps(tfds, tmp_path):
    with tfds.testing.mock_data(num_examples=4):
        source = load_images("tfds:cifar10", "test")
        assert len(source) == 4
        assert source[1]["rgb"].shape == (32, 32, 3)
        assert source[1]["rgb"].dtype == np.uint8
        assert len(source.label_names) == 10
        assert 0 <= int(source[0]["label"]) < 10
        np.testing.assert_array_equal(source[1]["rgb"], source[1]["rgb"])
        for index in range(4):
            path = tmp_path / "depth" / f"{source.stem(index)}.npy"
            path.parent.mkdir(exist_ok=True)
            np.save(path, np.full((32, 32), index + 1.0))
        mapped = TfdsImages("cifar10", "test", maps=tmp_path)
        assert mapped.modalities == ("rgb", "depth", "label")
        assert (mapped[2]["depth"] == 3).all()
        path.unlink()
        with pytest.raises(ValueError, match="the maps of all 4 records"):
            TfdsImages("cifar10", "test", maps=tmp_path)


def test_tfds_grey_images_have_three_channels(tfds):
    with tfds.testing.mock_data(num_examples=2):
        image = TfdsImages("mnist")[0]["rgb"]
    assert image.shape == (28, 28, 3)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_tfds_sets_that_do_not_fit(tfds, tmp_path):
    with tfds.testing.mock_data(num_examples=2):
        with pytest.raises(ValueError, match="TFDS set that is prepared"):
            TfdsImages("no_such_set_of_images")
        with pytest.raises(ValueError, match="have an 'image'"):
            TfdsImages("glue/sst2")


# All


def test_load_images():
    scenes = load_images("scenes", "test")
    assert (len(scenes), scenes.seed) == (1000, 1)
    assert load_images(scenes) is scenes
    assert len(load_images("scenes")) == 10_000
    assert isinstance(scenes, ProceduralScenes)


def test_unreadable_file_error_travels():
    error = pickle.loads(pickle.dumps(UnreadableFileError("a.png", "broken")))
    assert (error.path, error.fault) == ("a.png", "broken")
