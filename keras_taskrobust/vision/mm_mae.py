"""`MultiModalMAE`: the multi-modal masked autoencoder, each modality one task."""

import copy
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_taskrobust.training import MinimaxModel, TaskTotals
from keras_taskrobust.training.tasks import ConstantPredictor
from keras_taskrobust.types import Tensor
from keras_taskrobust.vision.constant_maps import ConstantMaps
from keras_taskrobust.vision.embeddings import cut
from keras_taskrobust.vision.losses import reconstruction_means, reconstruction_total
from keras_taskrobust.vision.masking import concentrations_of, visible_ids
from keras_taskrobust.vision.mm_mae_checks import (
    VISIBLE_IDS,
    check_arguments,
    check_arrays,
    check_masks,
)
from keras_taskrobust.vision.modalities import Modality, tasks_of
from keras_taskrobust.vision.network import MultiModalNetwork
from keras_taskrobust.vision.patch_masking import PatchMasking
from keras_taskrobust.vision.patches import unpatchify
from keras_taskrobust.weighting.base import PACKAGE

Maps = Mapping[str, Tensor]


@keras.saving.register_keras_serializable(PACKAGE)
class MultiModalMAE(MinimaxModel):
    """A masked autoencoder over several modalities, trained for its worst one.

    All modalities are cut into patches on one grid. A few patches of each sample, `visible_tokens`
    over all modalities together, go through the backbone's transformer blocks; one decoder a task
    predicts all patches of a modality from them. The loss of a task is, for each sample, the mean
    over its masked valid pixels; the task's total is the sum of these means, and its count
    the number of samples that have one.

    Batches are `{modality: maps}` dicts, as `Modality` describes them; no targets are given. A
    batch may lack modalities, a sample's map may have missing pixels or nothing else: what is
    missing is not seen and not scored. `{"visible_ids": model.visible_ids(masks)}` in a batch fixes
    the visible tokens; `patch_masking` draws them with the batches. Otherwise the model does, and
    what a sample shows then depends on what was drawn before.

    The encoder is the given backbone, not a copy. Its own patch embedding serves the first input
    modality that has its channels, its class token is the global token, and its position table
    becomes the fixed sine-cosine one, which it does not train.

    Args:
        backbone: `keras_hub.models.ViTBackbone`. Sets the image shape, patch size, width and dtype
            policy.
        modalities: sequence of `Modality`.
        visible_tokens: int, tokens that the encoder sees of each sample.
        decoder_dim: int, the decoders' width.
        decoder_depth: int, self-attention blocks in each decoder.
        decoder_heads: int.
        encoder_norm: bool. Whether the backbone's final normalisation is applied. `False` for the
            reference's weights.
        visible_concentration: float, or a dict of input modality names to floats: the concentration
            of the Dirichlet distribution that shares out the visible tokens.
        sample_uniformly: bool. Whether each sample first draws a non-empty subset of the
            modalities, uniformly.
        positions: `"sin_cos"`, or `"backbone"` to keep the position table of a pre-trained
            backbone, for all modalities, fixed.
        class_embedding_dim: int, width of the embedding of labels.
        seed: int or `None`, for drawing the visible tokens.
        **kwargs: `keras.Model` arguments, such as `name`.

    Raises:
        ValueError: if the arguments do not fit each other: more visible tokens than tokens, a
            stride that does not divide the patch, task names that clash, ...

    Example:

    >>> import keras_hub, numpy as np
    >>> backbone = keras_hub.models.ViTBackbone(
    ...     image_shape=(32, 48, 3), patch_size=16, num_layers=1, num_heads=2, hidden_dim=16,
    ...     mlp_dim=32,
    ... )
    >>> modalities = [Modality("rgb", channels=3), Modality("semseg", num_classes=5, stride=4)]
    >>> model = MultiModalMAE(
    ...     backbone, modalities, visible_tokens=4, decoder_dim=8, decoder_depth=1, decoder_heads=2
    ... )
    >>> batch = {"rgb": np.ones((2, 32, 48, 3)), "semseg": np.ones((2, 8, 12), int)}
    >>> model.compile("adamw", weighting="minimax")
    >>> history = model.fit(batch, verbose=0)
    >>> {task: image.shape for task, image in model.reconstruct(batch).items()}
    {'rgb': (2, 32, 48, 3), 'semseg': (2, 8, 12, 5)}

    Reference:
        [MultiMAE: Multi-modal Multi-task Masked Autoencoders](https://arxiv.org/abs/2204.01678),
        ECCV 2022;
        [Task-Robust Pre-Training for Worst-Case Downstream Adaptation]
        (https://arxiv.org/abs/2306.12070), NeurIPS 2023.
    """

    def __init__(
        self,
        backbone,
        modalities,
        visible_tokens,
        decoder_dim=256,
        decoder_depth=2,
        decoder_heads=8,
        encoder_norm=True,
        visible_concentration=1.0,
        sample_uniformly=False,
        positions="sin_cos",
        class_embedding_dim=64,
        seed=None,
        **kwargs,
    ):
        if "alpha" in kwargs:
            warnings.warn(
                "`alpha` of a MultiModalMAE is now `visible_concentration`. The next release knows "
                "only the new name.",
                DeprecationWarning,
                stacklevel=2,
            )
            visible_concentration = kwargs.pop("alpha")
        if isinstance(visible_concentration, Mapping):
            visible_concentration = dict(visible_concentration)
        arguments = {
            "backbone": backbone,
            "modalities": tuple(modalities),
            "visible_tokens": visible_tokens,
            "decoder_dim": decoder_dim,
            "decoder_depth": decoder_depth,
            "decoder_heads": decoder_heads,
            "encoder_norm": encoder_norm,
            "visible_concentration": visible_concentration,
            "sample_uniformly": sample_uniformly,
            "positions": positions,
            "class_embedding_dim": class_embedding_dim,
            "seed": seed,
        }
        check_arguments(**arguments)
        network_arguments = {k: v for k, v in arguments.items() if k != "visible_concentration"}
        inputs = [m.name for m in arguments["modalities"] if m.is_input]
        concentrations = concentrations_of(visible_concentration, inputs)
        network = MultiModalNetwork(**network_arguments, concentrations=concentrations)
        super().__init__(network, **kwargs)
        self._arguments = SimpleNamespace(**arguments)  # Keras would track the dicts of a dict
        self._given_visible: int | None = None

    @property
    def backbone(self):
        """The `keras_hub.models.ViTBackbone` that encodes."""
        return self.network.backbone

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities, in the order of their tokens."""
        return self.network.modalities

    @property
    def task_names(self) -> tuple[str, ...]:
        """The K task names: the target modalities', then those of the normalised twins."""
        return tuple(task.name for task in tasks_of(self.modalities))

    def reconstruct(self, inputs: Maps, masks: Maps | None = None) -> dict[str, np.ndarray]:
        """Predicts every task's maps from the visible patches.

        Args:
            inputs: `{modality: maps}`, of which some modalities may be left out.
            masks: `{modality: (B, N)}`, 1 for masked patches, with the same number of visible
                patches in every sample; a modality left out is masked. `None`: drawn.

        Returns:
            `{task: (B, H, W, C)}` float arrays in the modality's own size; for labels the logits.
        """
        patches = self._predict_patches(inputs, masks)["patches"]
        grid, patch_size_of = self.network.grid, self.network.patch_size_of
        return {
            task.name: ops.convert_to_numpy(
                unpatchify(patches[task.name], grid, patch_size_of(task.modality))
            )
            for task in tasks_of(self.modalities)
        }

    def task_losses(self, inputs: Maps, masks: Maps | None = None) -> dict[str, float]:
        """The loss of each task on one batch.

        Args:
            inputs: `{modality: maps}`.
            masks: as in `reconstruct`.

        Returns:
            `{task: float}`; NaN for a task of which nothing is masked and valid.
        """
        outputs = self._predict_patches(inputs, masks)
        totals = self.compute_task_totals(inputs, None, outputs, None)
        totals, counts = (ops.convert_to_numpy(values) for values in totals[:2])
        losses = totals / np.where(counts > 0, counts, np.nan)
        return dict(zip(self.task_names, losses.tolist(), strict=True))

    def sample_losses(
        self, inputs: Maps, masks: Maps | None = None, constants: ConstantPredictor | None = None
    ) -> dict[str, np.ndarray]:
        """The loss of each task on each sample of one batch.

        Args:
            inputs: `{modality: maps}`.
            masks: as in `reconstruct`.
            constants: what `fit_constants` gave: its predictions are scored then, not the model's.
                Without masks, on all patches.

        Returns:
            `{task: (B,)}` float32; NaN for a sample of which nothing is masked and valid.
        """
        if constants is None:
            outputs = self._predict_patches(inputs, masks)
        else:
            outputs = constants.predict(inputs, None)
            if masks is not None:
                names, grid = self.network.input_names, self.network.grid
                stacked, _ = check_masks(masks, names, grid)
                outputs = {**outputs, "masks": ops.convert_to_tensor(stacked)}
        losses = {}
        for task, patches, targets, masked in self._reconstructions(inputs, outputs):
            means, occurs = (
                ops.convert_to_numpy(values)
                for values in reconstruction_means(task, patches, targets, masked)
            )
            losses[task.name] = np.where(occurs, means, np.nan)
        absent = np.full(len(next(iter(inputs.values()))), np.nan, "float32")
        return {name: losses.get(name, absent) for name in self.task_names}

    def draw_masks(self, inputs: Maps, seed: int) -> dict[str, np.ndarray]:
        """Draws masks as training does, from a seed instead of the model's state.

        Args:
            inputs: `{modality: maps}`. What a sample lacks is not among its visible patches.
            seed: int. Equal seeds give equal masks.

        Returns:
            `{modality: (B, N)}` int32, 1 for masked patches.
        """
        masks = self.network.draw_masks(inputs, seed)
        arrays = np.moveaxis(ops.convert_to_numpy(masks), 1, 0).astype("int32")
        return dict(zip(self.network.input_names, arrays, strict=True))

    def patch_masking(self, seed: int = 0) -> PatchMasking:
        """What draws the visible patches for `image_batches`, by the record, the epoch and a seed.

        Args:
            seed: int >= 0.

        Returns:
            `PatchMasking` of the model's own settings.
        """
        arguments, (height, width) = self._arguments, self.network.grid
        return PatchMasking(
            self.network.input_names,
            height * width,
            arguments.visible_tokens,
            arguments.visible_concentration,
            arguments.sample_uniformly,
            seed,
        )

    def visible_ids(self, masks: Maps) -> np.ndarray:
        """What fixes the visible tokens of a batch, to be stored in it under `"visible_ids"`.

        Args:
            masks: `{modality: (B, N)}`, 1 for masked patches, with the same number of visible
                patches in every sample; a modality left out is masked.

        Returns:
            `(B, V)` int32: the visible tokens' positions in the sequence of all tokens.

        Raises:
            ValueError: if the masks have other shapes or numbers.
        """
        stacked, visible = check_masks(masks, self.network.input_names, self.network.grid)
        return ops.convert_to_numpy(visible_ids(ops.convert_to_tensor(stacked), visible))

    def compute_task_totals(
        self, x: Maps, y: Any, y_pred: dict[str, Any], sample_weight: Tensor | None
    ) -> TaskTotals:
        """Sums of the per-sample masked means, and the number of samples that have one.

        Args:
            x: `{modality: maps}`.
            y: not used: the targets are the inputs.
            y_pred: the network's outputs.
            sample_weight: `(B,)`, or `None`.
        """
        nothing = (ops.zeros((), "float32"),) * 2
        sums = {
            task.name: reconstruction_total(task, patches, targets, masked, sample_weight)
            for task, patches, targets, masked in self._reconstructions(x, y_pred)
        }
        totals, counts = zip(*(sums.get(name, nothing) for name in self.task_names), strict=True)
        return TaskTotals(ops.stack(totals), ops.stack(counts), None)

    def get_config(self):
        config = {"name": self.name, "trainable": self.trainable, **vars(self._arguments)}
        for key in ("backbone", "modalities"):
            config[key] = keras.saving.serialize_keras_object(config[key])
        return config

    @classmethod
    def from_config(cls, config):
        arguments = keras.saving.deserialize_keras_object(copy.deepcopy(config))
        if "alpha" in arguments:  # its former name
            arguments["visible_concentration"] = arguments.pop("alpha")
        return cls(**arguments)

    def make_task_losses(self, loss, auxiliary):
        if loss is not None or auxiliary is not None:
            raise ValueError(
                "The losses of a MultiModalMAE are those of its modalities: `loss` and "
                f"`auxiliary` must be None. Received: loss={loss!r}, auxiliary={auxiliary!r}"
            )
        return _DecodedTasks(self.task_names)

    def make_constant_predictor(self):
        return ConstantMaps(self.network)

    def check_arrays(self, x: Any, y: Any) -> None:
        if isinstance(x, Mapping):
            check_arrays(x, self.network)

    def _reconstructions(self, inputs, outputs):
        """Each task whose targets `inputs` has: `Task`, predictions, `Patches`, masked patches."""
        network = self.network
        targets = {
            m.name: cut(m, inputs[m.name], network.patch_size_of(m))
            for m in self.modalities
            if m.is_target and m.name in inputs
        }
        for task in tasks_of(self.modalities):
            name = task.modality.name
            if name in targets:
                masked = None
                if name in network.input_names:
                    masked = outputs["masks"][:, network.input_names.index(name)]
                yield task, outputs["patches"][task.name], targets[name], masked

    def _predict_patches(self, inputs, masks):
        batch = dict(inputs)
        check_arrays(batch, self.network)
        if masks is not None:
            samples = len(next(iter(batch.values())))
            batch[VISIBLE_IDS] = ids = self.visible_ids(masks)
            if len(ids) != samples:
                raise ValueError(
                    f"`masks` must have {samples} samples, as the inputs. Received: {len(ids)}"
                )
            if ids.shape[1] != self._given_visible:
                # TensorFlow would trace anew with a number of visible tokens left open.
                self.predict_function = None
                self._given_visible = ids.shape[1]
        return self.predict_on_batch(batch)


class _DecodedTasks:
    """What `MinimaxModel` asks about outputs and tasks: one output a task, no labels.

    Args:
        task_names: the K names.
    """

    def __init__(self, task_names):
        self.task_names = task_names

    def outputs_of_tasks(self, y_pred: dict[str, Any]) -> list[Tensor]:
        """The predicted patches of each task."""
        return [y_pred["patches"][name] for name in self.task_names]

    def tasks_per_output(self) -> list[int]:
        """One."""
        return [1] * len(self.task_names)

    def for_metrics(self, y, y_pred, sample_weight=None):
        """Everything as it is."""
        return y, y_pred, sample_weight
