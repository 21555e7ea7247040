"""Pseudo-labels by small, randomly initialised KerasHub models, and by stand-ins for the rest."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_taskrobust.vision.class_sets import CITYSCAPES_19
from keras_taskrobust.vision.datasets import AlignedFolder, ImageFolder
from keras_taskrobust.vision.pseudo_labels import PseudoLabelReport, write_pseudo_labels
from keras_taskrobust.vision.scenes import ProceduralScenes

SIZE = (8, 8)


class DarkDepth(keras.Model):
    """A depth of 5 metres times the brightness of red."""

    depth_estimation_type = "metric"
    calls = 0

    def predict_on_batch(self, x):
        self.calls += 1
        return {"depths": np.asarray(x)[..., :1] / 255 * 5}


def depth_model(kind="metric", model_class=DarkDepth):
    inputs = keras.Input((*SIZE, 3))
    model = model_class(inputs, keras.layers.Identity()(inputs))
    model.depth_estimation_type = kind
    return model


def label_model(classes=4):
    """Label 1 where red is above 127.5, 0 elsewhere."""
    inputs = keras.Input((*SIZE, 3))
    layer = keras.layers.Conv2D(classes, 1)
    model = keras.Model(inputs, layer(inputs))
    kernel, bias = np.zeros((1, 1, 3, classes)), np.full(classes, -1e6)
    kernel[0, 0, 0, 1], bias[:2] = 1, (0, -127.5)
    layer.set_weights([kernel, bias])
    return model


def write_images(folder, number=5, size=(12, 16)):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        image = np.full((*size, 3), 40 * index, "uint8")
        image[:, : size[1] // 2] = 250
        Image.fromarray(image).save(folder / f"{index}.png")


def test_maps_are_stored_in_the_layout_of_aligned_folders(tmp_path):
    write_images(tmp_path / "rgb")
    images = AlignedFolder({"rgb": tmp_path / "rgb"})
    report = write_pseudo_labels(
        images,
        tmp_path,
        depth=depth_model(),
        semseg=label_model(),
        class_names=("dark", "bright", "c", "d"),
        batch_size=2,
        progress=False,
    )
    assert report == {
        "depth": PseudoLabelReport(5, 0, {}),
        "semseg": PseudoLabelReport(5, 0, {}),
    }
    source = AlignedFolder(tmp_path)
    assert source.class_names == ("dark", "bright", "c", "d")
    assert source.depth_kind == "metric"
    record = source[2]
    assert record["depth"].shape == (12, 16, 1)
    np.testing.assert_allclose(record["depth"][:, 14:], 80 / 255 * 5, atol=6e-4)
    np.testing.assert_allclose(record["depth"][:, :2], 250 / 255 * 5, atol=6e-4)
    np.testing.assert_array_equal(record["semseg"][:, 10:], 0)
    np.testing.assert_array_equal(record["semseg"][:, :6], 1)
    # A depth of 0, which stands for missing in a file, is stored as the smallest one.
    np.testing.assert_allclose(source[0]["depth"][:, 14:], 0.001)
    assert not list(tmp_path.rglob("*.partial"))


def test_relative_depth_is_stored_by_its_maximum_and_marked(tmp_path):
    write_images(tmp_path / "rgb", 3)
    images = AlignedFolder({"rgb": tmp_path / "rgb"})
    write_pseudo_labels(images, tmp_path, depth=depth_model("relative"), progress=False)
    source = AlignedFolder(tmp_path)
    assert source.depth_kind == "relative inverse"
    for index in range(3):
        depth = source[index]["depth"]
        assert depth.max() == pytest.approx(1)
        assert depth[0, -1, 0] == pytest.approx(40 * index / 250, abs=3e-3)


def test_depth_that_is_not_finite_is_missing(tmp_path):
    class Holes(DarkDepth):
        def predict_on_batch(self, x):
            depths = np.full((len(x), *SIZE, 1), 2.0)
            depths[:, :4] = np.nan
            return {"depths": depths}

    write_images(tmp_path / "rgb", 1, SIZE)
    images = AlignedFolder({"rgb": tmp_path / "rgb"})
    for kind, value in (("metric", 2.0), ("relative", 1.0)):
        folder = tmp_path / kind
        model = depth_model(kind, Holes)
        write_pseudo_labels(images, folder, depth=model, progress=False)
        depth = AlignedFolder({"depth": folder / "depth"})[0]["depth"]
        assert np.isnan(depth[:4]).all()
        np.testing.assert_allclose(depth[4:], value, rtol=1e-4)


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    class Stopping(DarkDepth):
        def predict_on_batch(self, x):
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().predict_on_batch(x)

    write_images(tmp_path / "rgb", 7)
    images = AlignedFolder({"rgb": tmp_path / "rgb"})
    model = depth_model(model_class=Stopping)
    with pytest.raises(KeyboardInterrupt):
        write_pseudo_labels(images, tmp_path, depth=model, batch_size=2, progress=False)
    assert len(list((tmp_path / "depth").iterdir())) == 4
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "depth").iterdir()}
    # Another instance of the same class: the models of a second process.
    model = depth_model(model_class=Stopping)
    report = write_pseudo_labels(images, tmp_path, depth=model, batch_size=2, progress=False)
    assert report["depth"] == PseudoLabelReport(3, 4, {})
    assert model.calls == 2
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert len(AlignedFolder(tmp_path)) == 7
    report = write_pseudo_labels(images, tmp_path, depth=model, progress=False)
    assert report["depth"] == PseudoLabelReport(0, 7, {})


def test_damaged_maps_are_made_again(tmp_path):
    images = ProceduralScenes(4, 8, 8)
    write_pseudo_labels(images, tmp_path, depth=depth_model(), progress=False)
    paths = sorted((tmp_path / "depth").iterdir())
    whole = [path.read_bytes() for path in paths]
    paths[0].write_bytes(whole[0][:-20])
    paths[1].write_bytes(b"")
    paths[2].write_bytes(whole[2][:45] + bytes([whole[2][45] ^ 1]) + whole[2][46:])
    with pytest.warns(UserWarning, match=r"3 damaged maps are made again: .*00000000\.png"):
        report = write_pseudo_labels(images, tmp_path, depth=depth_model(), progress=False)
    assert report["depth"] == PseudoLabelReport(3, 1, {})
    assert [path.read_bytes() for path in paths] == whole


def files_of(folder):
    """The bytes of all files of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def both(images, folder, **options):
    """Depth and labels."""
    models = {"depth": depth_model(), "semseg": label_model()}
    names = ("dark", "bright", "c", "d")
    return write_pseudo_labels(
        images, folder, **models, class_names=names, batch_size=2, progress=False, **options
    )


def test_parts_make_the_maps_of_the_whole(tmp_path):
    images = ProceduralScenes(7, 12, 16)
    both(images, tmp_path / "whole")
    for part, number in (("2/3", 2), ("1/3", 2), ("3/3", 3)):
        report = both(images, tmp_path / "parts", part=part)
        assert report == dict.fromkeys(("depth", "semseg"), PseudoLabelReport(number, 0, {}))
    assert both(images, tmp_path / "parts")["semseg"] == PseudoLabelReport(0, 7, {})
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")


def test_parts_that_do_not_fit_are_refused(tmp_path):
    images = ProceduralScenes(4, 12, 16)
    both(images, tmp_path, part="1/3")
    both(images, tmp_path, part="3/3")
    with pytest.raises(ValueError, match=r"depth\.parts without 2/3: make them with `part`"):
        both(images, tmp_path)
    with pytest.raises(ValueError, match=r"of one number. Received: part=1/2, where .* parts of 3"):
        both(images, tmp_path, part="1/2")
    with pytest.raises(ValueError, match=r"`part` must be I/N"):
        both(images, tmp_path, part="3/2")
    both(images, tmp_path, part="2/3")
    with pytest.raises(ValueError, match=r"part 1/3 in .*, which differs in \['images'\]"):
        both(ProceduralScenes(5, 12, 16), tmp_path)
    path = tmp_path / "semseg.parts" / "2-of-3.json"
    path.write_text(path.read_text().replace("Functional", "Another"))
    with pytest.raises(ValueError, match=r"part 2/3 in .*semseg.*, which differs in \['model'\]"):
        both(images, tmp_path)


@pytest.mark.parametrize("damaged", ["", "[1]", '{"model": ', "[" * 100_000])
def test_a_damaged_description_of_maps_is_named(tmp_path, damaged):
    (tmp_path / "depth.json").write_text(damaged)
    images = ProceduralScenes(1, 8, 8)
    with pytest.raises(ValueError, match=r"JSON object. Received: .*depth\.json: .*remove it if"):
        write_pseudo_labels(images, tmp_path, depth=depth_model(), progress=False)


def test_batches_are_filled_up_so_that_the_model_compiles_once(tmp_path):
    shapes = []

    class Watching(DarkDepth):
        def predict_on_batch(self, x):
            shapes.append(x.shape)
            return super().predict_on_batch(x)

    write_images(tmp_path / "rgb")
    images = AlignedFolder({"rgb": tmp_path / "rgb"})
    model = depth_model(model_class=Watching)
    write_pseudo_labels(images, tmp_path, depth=model, batch_size=2, progress=False)
    assert shapes == [(2, *SIZE, 3)] * 3


def test_unreadable_images_are_named_counted_and_skipped(tmp_path):
    for name in ("n1", "n2"):
        write_images(tmp_path / "images" / name, 2)
    (tmp_path / "images/n1/1.png").write_bytes(b"nothing")
    images = ImageFolder(tmp_path / "images", verify=False)
    with pytest.warns(UserWarning, match=r"1 unreadable images are skipped.*n1/1\.png"):
        report = write_pseudo_labels(images, tmp_path, depth=depth_model(), progress=False)
    assert report["depth"].written == 3
    assert list(report["depth"].skipped) == [str(tmp_path / "images/n1/1.png")]
    with pytest.raises(ValueError, match=r"n1/1\.png"):
        write_pseudo_labels(images, tmp_path, depth=depth_model(), strict=True, progress=False)


def test_maps_of_class_folders(tmp_path):
    for name in ("n1", "n2"):
        write_images(tmp_path / "images" / name, 2)
    images = ImageFolder(tmp_path / "images")
    write_pseudo_labels(images, tmp_path / "maps", depth=depth_model(), progress=False)
    source = ImageFolder(tmp_path / "images", maps=tmp_path / "maps")
    assert source.modalities == ("rgb", "depth", "label")
    assert source[3]["depth"].shape == (12, 16, 1)


def test_progress_is_shown(tmp_path, capsys):
    write_images(tmp_path / "rgb", 3)
    images = AlignedFolder({"rgb": tmp_path / "rgb"})
    write_pseudo_labels(images, tmp_path, depth=depth_model())
    assert "3/3" in capsys.readouterr().out


def test_bad_arguments(tmp_path):
    images = ProceduralScenes(2, 8, 8)
    write = write_pseudo_labels
    with pytest.raises(ValueError, match="`source` must be an ImageSource"):
        write([images[0]], tmp_path, depth=depth_model())
    with pytest.raises(ValueError, match="`depth` or `semseg` must be given"):
        write(images, tmp_path)
    with pytest.raises(ValueError, match="`batch_size` must be"):
        write(images, tmp_path, depth=depth_model(), batch_size=0)
    with pytest.raises(ValueError, match="names of the 4 classes"):
        write(images, tmp_path, semseg=label_model())
    with pytest.raises(ValueError, match="names of the 300 classes, fewer than 255"):
        write(images, tmp_path, semseg=label_model(300), class_names=["c"] * 300)
    inputs = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match="images of a fixed size"):
        write(images, tmp_path, depth=DarkDepth(inputs, keras.layers.Identity()(inputs)))
    assert not list(tmp_path.iterdir())


def test_maps_of_another_model_are_not_mixed(tmp_path):
    images = ProceduralScenes(2, 8, 8)
    write_pseudo_labels(images, tmp_path, depth=depth_model(), progress=False)
    with pytest.raises(ValueError, match=r"depth\.json differs in \['kind', 'scale'\]"):
        write_pseudo_labels(images, tmp_path, depth=depth_model("relative"), progress=False)


# KerasHub's models


@pytest.fixture(scope="module")
def numpy_initializers():
    """JAX compiles a sampler for every shape, a minute for these models: sample with NumPy."""

    def sample(self, shape, dtype=None, **kwargs):
        values = np.random.default_rng(0).normal(0, 0.3, shape)
        return keras.ops.convert_to_tensor(values.astype(dtype or "float32"))

    with pytest.MonkeyPatch.context() as patch:
        for name in ("VarianceScaling", "TruncatedNormal", "RandomNormal", "RandomUniform"):
            patch.setattr(getattr(keras.initializers, name), "__call__", sample)
        yield


@pytest.fixture(scope="module")
def depth_anything(numpy_initializers):
    keras_hub = pytest.importorskip("keras_hub")
    size = (56, 56)
    encoder = keras_hub.models.DINOV2Backbone(
        patch_size=14,
        num_layers=2,
        hidden_dim=8,
        num_heads=1,
        intermediate_dim=16,
        image_shape=(*size, 3),
        position_embedding_shape=size,
    )
    backbone = keras_hub.models.DepthAnythingBackbone(
        image_encoder=encoder,
        reassemble_factors=[2, 1],
        neck_hidden_dims=[4, 4],
        fusion_hidden_dim=4,
        head_hidden_dim=4,
        head_in_index=-1,
        feature_keys=["stage1", "stage2"],
    )
    converter = keras_hub.layers.DepthAnythingImageConverter(image_size=size, scale=1 / 255)
    preprocessor = keras_hub.models.DepthAnythingDepthEstimatorPreprocessor(converter)
    return keras_hub.models.DepthAnythingDepthEstimator(
        backbone, depth_estimation_type="metric", max_depth=10.0, preprocessor=preprocessor
    )


@pytest.fixture(scope="module")
def segformer(numpy_initializers):
    keras_hub = pytest.importorskip("keras_hub")
    encoder = keras_hub.models.MiTBackbone(
        layerwise_depths=[1, 1, 1, 1],
        hidden_dims=[4, 8, 12, 16],
        image_shape=(64, 64, 3),
        num_layers=4,
        layerwise_num_heads=[1, 1, 1, 1],
        layerwise_sr_ratios=[8, 4, 2, 1],
        max_drop_path_rate=0.0,
        layerwise_patch_sizes=[7, 3, 3, 3],
        layerwise_strides=[4, 2, 2, 2],
    )
    backbone = keras_hub.models.SegFormerBackbone(image_encoder=encoder, projection_filters=8)
    return keras_hub.models.SegFormerImageSegmenter(backbone, num_classes=19)


def test_keras_hub_models(tmp_path, depth_anything, segformer):
    scenes = ProceduralScenes(3, 48, 64)
    report = write_pseudo_labels(
        scenes, tmp_path, depth=depth_anything, semseg=segformer, batch_size=2, progress=False
    )
    assert [entry.written for entry in report.values()] == [3, 3]
    source = AlignedFolder(tmp_path, strict=True)
    assert source.class_names == CITYSCAPES_19
    assert len(source) == 3
    record = source[1]
    assert record["depth"].shape == (48, 64, 1)
    assert record["semseg"].shape == (48, 64)
    assert 0 < record["depth"].min() <= record["depth"].max() <= 10
    image = np.asarray(Image.fromarray(scenes[1]["rgb"]).resize((64, 64), Image.BICUBIC))
    logits = segformer.predict_on_batch(np.stack([image, image]).astype("float32"))
    logits = keras.ops.convert_to_numpy(logits)
    whole = Image.fromarray(logits[0].argmax(-1).astype("uint8"))
    agreement = np.mean(np.asarray(whole.resize((64, 48), Image.NEAREST)) == record["semseg"])
    assert agreement > 0.99
    description = json.loads((tmp_path / "semseg.json").read_text())
    assert description["model"] == "SegFormerImageSegmenter"


def test_presets_are_opened_by_name(tmp_path, segformer):
    preset = str(tmp_path / "preset")
    segformer.save_to_preset(preset)
    report = write_pseudo_labels(
        ProceduralScenes(1, 16, 16), tmp_path / "maps", semseg=preset, batch_size=1, progress=False
    )
    assert report["semseg"].written == 1
    description = json.loads((tmp_path / "maps/semseg.json").read_text())
    assert description["model"] == preset
