"""Procedural indoor scenes: rooms that are furnished, lit and drawn with exact depth and labels."""

from keras_taskrobust.vision.scenes.procedural_scenes import ProceduralScenes, generate_scenes

__all__ = ["ProceduralScenes", "generate_scenes"]
