"""How a folder of aligned maps is laid out: by maps, or by splits and maps."""

from pathlib import Path

#: The maps that an image may have, and the names of their folders.
MAPS = ("rgb", "depth", "semseg")


def has_maps(folder: Path) -> bool:
    """Whether a folder has some of `rgb/`, `depth/` and `semseg/`."""
    return any((folder / name).is_dir() for name in MAPS)


def split_folder(root: Path, split: str) -> Path | None:
    """The folder of a split, such as `root/train` with `rgb/` in it, if `root` has no maps itself.

    Args:
        root: path of a folder.
        split: string.
    """
    return root / split if not has_maps(root) and has_maps(root / split) else None
