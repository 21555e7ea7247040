"""Old paths of modules, which import for one release."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import keras_taskrobust as ktr
from keras_taskrobust.moved_modules import MOVED_MODULES
from keras_taskrobust.training import schedules

pytestmark = pytest.mark.backend_free

PACKAGE = Path(ktr.__file__).parent
OLD = "keras_taskrobust.training.old_schedules"
SAID = "`keras_taskrobust.training.old_schedules` is now `keras_taskrobust.training.schedules`"


def is_module(name):
    path = PACKAGE / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def test_every_new_module_exists_and_no_old_one_does():
    assert [new for new in MOVED_MODULES.values() if not is_module(new)] == []
    assert [old for old in MOVED_MODULES if is_module(old)] == []


@pytest.fixture
def old_schedules(monkeypatch):
    """A module that has moved and was not imported yet."""
    monkeypatch.setitem(MOVED_MODULES, "training.old_schedules", "training.schedules")
    yield
    sys.modules.pop(OLD)
    del ktr.training.old_schedules


def import_module():
    import keras_taskrobust.training.old_schedules

    return keras_taskrobust.training.old_schedules


def import_module_by_another_name():
    import keras_taskrobust.training.old_schedules as found

    return found


def import_module_from_its_room():
    from keras_taskrobust.training import old_schedules

    return old_schedules


@pytest.mark.parametrize(
    "import_old",
    [
        import_module,
        import_module_by_another_name,
        import_module_from_its_room,
        lambda: importlib.import_module(OLD),
    ],
)
def test_an_old_path_gives_the_new_module_and_says_so_once(old_schedules, import_old):
    with pytest.warns(DeprecationWarning, match=SAID) as caught:
        assert import_old() is schedules
    assert len(caught) == 1
    assert import_old() is schedules
    assert schedules.__spec__.name == schedules.__name__ == "keras_taskrobust.training.schedules"


def test_an_old_path_has_the_names_of_the_new_module(old_schedules):
    with pytest.warns(DeprecationWarning, match=SAID):
        from keras_taskrobust.training.old_schedules import LinearWarmupDecay
    assert LinearWarmupDecay is schedules.LinearWarmupDecay


def test_an_old_path_of_a_method_says_where_its_public_names_are():
    said = "`keras_taskrobust.weighting.minimax` is private now: its public names are in `keras_tas"
    with pytest.warns(DeprecationWarning, match=said):
        from keras_taskrobust.weighting.minimax import SoftmaxWeightedLoss
    assert SoftmaxWeightedLoss is ktr.weighting.SoftmaxWeightedLoss


def test_the_warning_names_the_line_that_imports(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nfrom keras_taskrobust.reading import read_ahead\n")
    said = subprocess.run([sys.executable, script], capture_output=True, text=True).stderr
    assert f"{script}:2: DeprecationWarning: `keras_taskrobust.reading` is now" in said


def test_what_has_not_moved_is_not_found():
    for name in ("keras_taskrobust.nowhere", "reading"):
        with pytest.raises(ModuleNotFoundError, match=f"No module named '{name}'"):
            importlib.import_module(name)


def test_old_paths_are_not_shown():
    assert not set(MOVED_MODULES) & set(dir(ktr))
