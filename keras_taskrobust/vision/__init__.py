"""MM-MAE: multi-modal masked autoencoding, each modality one task."""

from keras_taskrobust.vision.augmentation import (
    DepthStatistics,
    depth_statistics,
    normalize_rgb,
    restore_depth,
    restore_rgb,
    standardize_depth,
)
from keras_taskrobust.vision.batches import image_batches
from keras_taskrobust.vision.corruptions import CORRUPTIONS, CorruptedImages, corrupt
from keras_taskrobust.vision.datasets import (
    AlignedFolder,
    ArrayImages,
    ImageFolder,
    ImageSource,
    ImageSubset,
    NYUDepthV2,
    Survey,
    TfdsImages,
    UnreadableFileError,
    load_images,
)
from keras_taskrobust.vision.hugging_face import save_hugging_face_vit
from keras_taskrobust.vision.image_source import RelabelledImages
from keras_taskrobust.vision.mm_mae import MultiModalMAE
from keras_taskrobust.vision.modalities import Modality
from keras_taskrobust.vision.multimae_checkpoints import (
    LoadReport,
    load_multimae_weights,
    save_multimae_weights,
)
from keras_taskrobust.vision.patch_masking import PatchMasking
from keras_taskrobust.vision.patches import patchify, sin_cos_positions, unpatchify
from keras_taskrobust.vision.pseudo_labels import PseudoLabelReport, write_pseudo_labels
from keras_taskrobust.vision.scenes import ProceduralScenes, generate_scenes
from keras_taskrobust.vision.vit_export import export_vit_backbone, transfer_to_vit_det

__all__ = [
    "CORRUPTIONS",
    "AlignedFolder",
    "ArrayImages",
    "CorruptedImages",
    "DepthStatistics",
    "ImageFolder",
    "ImageSource",
    "ImageSubset",
    "LoadReport",
    "Modality",
    "MultiModalMAE",
    "NYUDepthV2",
    "PatchMasking",
    "ProceduralScenes",
    "PseudoLabelReport",
    "RelabelledImages",
    "Survey",
    "TfdsImages",
    "UnreadableFileError",
    "corrupt",
    "depth_statistics",
    "export_vit_backbone",
    "generate_scenes",
    "image_batches",
    "load_images",
    "load_multimae_weights",
    "normalize_rgb",
    "patchify",
    "restore_depth",
    "restore_rgb",
    "save_hugging_face_vit",
    "save_multimae_weights",
    "sin_cos_positions",
    "standardize_depth",
    "transfer_to_vit_det",
    "unpatchify",
    "write_pseudo_labels",
]
