"""Digests of images: the same for the same records, others for anything else."""

import numpy as np
import pytest
from official_files import SIZE, write_folder, write_nyu
from PIL import Image

from keras_taskrobust.vision import ImageSubset, ProceduralScenes
from keras_taskrobust.vision.datasets import AlignedFolder, ArrayImages, ImageFolder, NYUDepthV2
from keras_taskrobust.vision.image_source import ImageSource

pytestmark = pytest.mark.backend_free


class Squares(ImageSource):
    """A source of somebody's own, with one pixel of one record to be changed."""

    def __init__(self, number, value=0, **arguments):
        super().__init__(("rgb",), **arguments)
        self._number = number
        self._value = value

    def __len__(self):
        return self._number

    def read(self, index):
        image = np.full((2, 2, 3), index % 200, "uint8")
        image[0, 0, 0] += self._value * (index == self._number - 1)
        return {"rgb": image}


def assert_all_differ(*sources):
    digests = [source.fingerprint for source in sources]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 64 for digest in digests)


def test_any_source():
    assert Squares(900).fingerprint == Squares(900).fingerprint
    assert_all_differ(
        Squares(900),
        Squares(900, value=1),
        Squares(901),
        Squares(900, class_names=("a",)),
        Squares(900, label_names=("a",)),
        ImageSubset(Squares(900), range(900)),
        ImageSubset(Squares(900), range(899)),
    )


def test_scenes():
    scenes, kept = (ProceduralScenes(9, 8, 8, keep=keep) for keep in (False, True))
    assert scenes.fingerprint == kept.fingerprint
    others = [(9, 8, 8, 1), (9, 8, 12), (9, 12, 8), (10, 8, 8)]
    assert_all_differ(scenes, *(ProceduralScenes(*other) for other in others))


def test_arrays(tmp_path):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (600, 2, 2, 3), dtype="uint8")

    def write(name, depth=1.0, **changes):
        depths = np.full((600, 2, 2), 1.0, "float32")
        depths[301, 1, 1] = depth
        np.savez(tmp_path / name, train_rgb=rgb, train_depth=depths, **changes)
        return ArrayImages(tmp_path / name)

    first = write("a.npz")
    assert first.fingerprint == write("b.npz").fingerprint
    altered = write("c.npz", depth=1.5)
    rgb[301, 1, 1, 2] ^= 1
    assert_all_differ(first, altered, write("d.npz"))


def test_folders(tmp_path):
    names = ["wall", "floor", "bed", "chair"]
    write_folder(tmp_path, ["room/0", "room/1"])
    made = [AlignedFolder(tmp_path, names) for _ in range(2)]
    assert made[0].fingerprint == made[1].fingerprint
    scaled, named = AlignedFolder(tmp_path, names, 2.0), AlignedFolder(tmp_path, [*names, "a"])
    found = [source.fingerprint for source in (made[0], scaled, named)]
    path = next((tmp_path / "rgb").rglob("*.*"))
    Image.new("RGB", SIZE[::-1], (1, 2, 3)).save(path)
    found.append(AlignedFolder(tmp_path, names).fingerprint)
    path.rename(path.with_name(f"9{path.suffix}"))
    found.append(AlignedFolder({"rgb": tmp_path / "rgb"}).fingerprint)
    found.append(ImageFolder(tmp_path / "rgb").fingerprint)
    assert len(set(found)) == len(found)


def test_nyu_depth(tmp_path):
    write_nyu(tmp_path)
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    sources = [NYUDepthV2(path, "train"), NYUDepthV2(path, "train", 13), NYUDepthV2(path, "test")]
    assert NYUDepthV2(path, "train").fingerprint == sources[0].fingerprint
    assert_all_differ(*sources)
