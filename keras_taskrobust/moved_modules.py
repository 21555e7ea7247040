"""Modules that have moved. For one release their old paths still import, with a warning.

To end that, delete this file, the line of `keras_taskrobust/__init__.py` that imports it, and
`tests/test_moved_modules.py`.
"""

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: Each is a file with an underscore now, and its public names are those of the room.
_WEIGHTINGS = (
    "adaptive_groups aligned_mtl cagrad chi2_dro config cvar db_mtl dualproj dwa "
    "excess_loss excess_mtl facts fairgrad famo gls graddrop gradnorm gradvac group_dro "
    "hard_max imtl_g imtl_l kl_dro mgda minimax moco nash_mtl pcgrad pooled random "
    "rate_of_improvement rlw sdmgrad solvers static stch surgery table uncertainty "
    "uniform upgrad"
)

#: Old paths of modules to new ones, both inside of the package.
MOVED_MODULES = {
    "evaluation.bootstrap": "evaluation.intervals",
    "evaluation.comparison": "evaluation.loss_comparison",
    "evaluation.downstream_wording": "evaluation.downstream_report",
    "evaluation.report": "evaluation.loss_report",
    "evaluation.terminal": "evaluation",
    "evaluation.wording": "evaluation.figures",
    "reading": "data_loading",
    "recipes.image_comparison": "recipes.images",
    "recipes.image_data": "recipes.image_settings",
    "recipes.image_finetuning": "recipes.finetuning",
    "recipes.image_finetuning_recipe": "recipes.finetuning_settings",
    "recipes.image_inheritance": "downstream.images",
    "recipes.image_pretraining": "recipes.images",
    "recipes.image_recipe": "recipes.image_settings",
    "recipes.inheritance_recipes": "recipes.finetuning_settings",
    "recipes.pretraining_recipe": "recipes.settings",
    "recipes.text_comparison": "recipes.text",
    "recipes.text_finetuning": "recipes.finetuning",
    "recipes.text_finetuning_recipe": "recipes.finetuning_settings",
    "recipes.text_inheritance": "downstream.text",
    "recipes.text_pretraining": "recipes.text",
    "recipes.text_recipe": "recipes.text_settings",
    "text.counter_random": "randomness",
    "vision.checks": "vision.mm_mae_checks",
    "vision.interchange": "vision.multimae_checkpoints",
    "vision.records": "vision.image_source",
    "vision.scene_furniture": "vision.scenes.furniture",
    "vision.scene_geometry": "vision.scenes.geometry",
    "vision.scene_layout": "vision.scenes.layout",
    "vision.scene_materials": "vision.scenes.materials",
    "vision.scene_rendering": "vision.scenes.rendering",
    "vision.scene_textures": "vision.scenes.textures",
    "vision.transfer": "vision.vit_export",
    "weighting.gradient": "weighting._gradient_based",
    "weighting.gramian": "weighting._gradient_based",
    **{f"weighting.{name}": f"weighting._{name}" for name in _WEIGHTINGS.split()},
}

_PREFIX = f"{__package__}."


class _MovedModules:
    """Finds what no other finder has found, and puts the new module in its place."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        moved = name.startswith(_PREFIX) and name.removeprefix(_PREFIX) in MOVED_MODULES
        return ModuleSpec(name, self) if moved else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """A module as ever, which `exec_module` replaces."""

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        new = _PREFIX + MOVED_MODULES[old.removeprefix(_PREFIX)]
        public = new.partition("._")[0]
        what = f"is now `{new}`"
        if public != new:
            what = f"is private now: its public names are in `{public}`"
        warnings.warn(
            f"`{old}` {what}. The next release does not know the old name.",
            DeprecationWarning,
            stacklevel=2,
        )
        sys.modules[old] = importlib.import_module(new)


sys.meta_path.append(_MovedModules())
