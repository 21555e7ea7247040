"""Image sets of TensorFlow Datasets, read without TensorFlow where their format allows."""

import os
from collections.abc import Mapping

import numpy as np

from keras_taskrobust.vision.folders import AlignedFolder, find_map_folders
from keras_taskrobust.vision.image_source import ImageSource, Record, check_sizes


class TfdsImages(ImageSource):
    """An image set of TensorFlow Datasets, such as `imagenet2012` or `cifar10`.

    The records have `"rgb"`, `"label"` if the set has one, and depth and labels of pixels if
    `maps` is given. A record's stem is its number in the split: `00000000`, `00000001`, ...

    Args:
        name: string. The name of the set, with a configuration or version if wanted.
        split: string, such as `"train"`, `"validation"` or `"train[:10%]"`.
        maps: path of a folder with `depth/`, `semseg/` or both, with the maps of all records
            under their stems: what `write_pseudo_labels` writes. Or a dict of these names to
            paths. Maps of a part of a split fit that part only.
        data_dir: path of the prepared sets. By default that of TFDS.

    Raises:
        ValueError: if TFDS does not know the set, has not prepared it for random access, or it
            has no images, or the maps do not fit.

    Example:

    ```python
    source = TfdsImages("imagenet2012", split="train", maps="imagenet-maps")
    ```
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        maps: str | os.PathLike | Mapping[str, str | os.PathLike] | None = None,
        data_dir: str | os.PathLike | None = None,
    ):
        import tensorflow_datasets as tfds

        try:
            self._records = tfds.data_source(name, split=split, data_dir=data_dir)
        except (tfds.core.DatasetNotFoundError, NotImplementedError) as error:
            raise ValueError(
                "`name` must name a TFDS set that is prepared in the format 'array_record' "
                f"(`tfds build --file_format=array_record`). Received: name={name!r}: {error}"
            ) from error
        features = self._records.dataset_info.features
        if "image" not in features:
            raise ValueError(
                "`name` must name a TFDS set whose examples have an 'image'. "
                f"Received: name={name!r} with {sorted(features)}"
            )
        self._has_label = "label" in features
        self._maps = None if maps is None else self._open_maps(maps)
        super().__init__(
            ("rgb", *(self._maps.modalities if self._maps else ()), *["label"][: self._has_label]),
            class_names=self._maps.class_names if self._maps else (),
            label_names=getattr(features["label"], "names", ()) if self._has_label else (),
        )

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> Record:
        example = self._records[index]
        image = np.asarray(example["image"])
        record = {"rgb": np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image}
        if self._has_label:
            record["label"] = np.asarray(example["label"], "int64")
        if self._maps is not None:
            record |= self._maps[index]
            check_sizes(record, f"record {index}")
        return record

    def _open_maps(
        self, maps: str | os.PathLike | Mapping[str, str | os.PathLike]
    ) -> AlignedFolder:
        folders = {name: path for name, path in find_map_folders(maps).items() if name != "rgb"}
        opened = AlignedFolder(folders, verify=False)
        stems = [self.stem(index) for index in range(len(self._records))]
        if [opened.stem(index) for index in range(len(opened))] != stems:
            raise ValueError(
                f"`maps` must have the maps of all {len(stems)} records, named {stems[0]} to "
                f"{stems[-1]}. Received: {len(opened)} maps, {opened.stem(0)} to "
                f"{opened.stem(len(opened) - 1)}"
            )
        return opened
