"""Miniatures of data sets in the official formats, and maps to put into folders."""

import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

#: The 13-class label of raw class k + 1, through mapClass = k % 40 + 1.
RAW_CLASSES = 894
SIZE = (6, 8)


def write_nyu(folder, number=5):
    """Writes the three official files of NYU Depth v2. Returns the images as MATLAB has them."""
    random = np.random.default_rng(0)
    height, width = SIZE
    images = random.integers(0, 256, (height, width, 3, number)).astype("uint8")
    depths = random.uniform(0.7, 9.9, (height, width, number)).astype("float32")
    labels = random.integers(0, RAW_CLASSES + 1, (height, width, number)).astype("uint16")
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        # MATLAB stores by columns: h5py sees the axes reversed.
        file["images"] = images.transpose()
        file["depths"] = depths.transpose()
        file["labels"] = labels.transpose()
        file["rawDepths"] = depths.transpose()
    with (folder / "nyu_depth_v2_labeled.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    mapping = np.arange(RAW_CLASSES)[None] % 40 + 1
    names = np.empty((1, 40), object)
    names[0] = [f"class {k}" for k in range(40)]
    savemat(folder / "classMapping40.mat", {"mapClass": mapping, "className": names})
    split = {"trainNdxs": np.array([[2], [5], [1]]), "testNdxs": np.array([[3], [4]])}
    savemat(folder / "splits.mat", {name: rows.astype("uint16") for name, rows in split.items()})
    return images, depths, labels


def write_folder(folder, stems=("a", "kitchen/b", "kitchen/c"), classes=4):
    """Writes aligned maps in several forms: png and jpg, 16-bit depth and floats, png and npy."""
    random = np.random.default_rng(1)
    written = []
    for number, stem in enumerate(stems):
        rgb = random.integers(0, 256, (*SIZE, 3)).astype("uint8")
        millimetres = random.integers(500, 9000, SIZE).astype("uint16")
        millimetres[0, 0] = 0
        labels = random.integers(0, classes, SIZE).astype("uint8")
        labels[1, 1] = 255
        paths = {name: folder / name / stem for name in ("rgb", "depth", "semseg")}
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgb).save(paths["rgb"].with_suffix(".PNG"))
        if number % 2:
            metres = (millimetres / 1000).astype("float32")
            metres[0, 1:4] = np.nan, np.inf, -1.0
            np.save(paths["depth"].with_suffix(".npy"), metres)
            np.save(paths["semseg"].with_suffix(".npy"), labels.astype("int64"))
        else:
            Image.fromarray(millimetres).save(paths["depth"].with_suffix(".png"))
            Image.fromarray(labels).save(paths["semseg"].with_suffix(".png"))
        written.append((rgb, millimetres, labels))
    return written
