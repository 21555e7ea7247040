"""Files on disk, whole or not at all, and nowhere but in their folder."""

import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keras_taskrobust import files
from keras_taskrobust.files import link_or_copy

pytestmark = pytest.mark.backend_free


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    files.make_folder(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(ValueError, match=f"can be written to. Received: {path}: "):
            files.make_folder(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.md"
    files.write_atomically(path, b"old")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as partial:
        partial.write_bytes(bytes(1 // 0))

    def fail(source, target):
        raise OSError("disk")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_and_name_are_on_the_disk_before_a_write_returns(tmp_path, monkeypatch):
    path, steps = tmp_path / "report.md", []
    sync, replace = os.fsync, os.replace

    def record_sync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        steps.append("folder" if is_folder else f"{os.fstat(descriptor).st_size} bytes")
        sync(descriptor)

    def record_replace(source, target):
        steps.append("replace")
        replace(source, target)

    monkeypatch.setattr(files.os, "fsync", record_sync)
    monkeypatch.setattr(files.os, "replace", record_replace)
    files.write_atomically(path, b"content")
    assert steps == ["7 bytes", "replace", "folder"]


def test_partial_files_have_names_nobody_can_guess_and_end_as_their_files(tmp_path):
    path = tmp_path / "checkpoint.weights.h5"
    with files.replacing(path) as one, files.replacing(path) as other:
        assert one != other
        assert {one.parent, other.parent} == {tmp_path}
        assert all(
            partial.name.endswith(".partial-checkpoint.weights.h5") for partial in (one, other)
        )
        assert len(one.name.split(".")[1]) == 16
    new = tmp_path / "as any other file"
    new.touch()
    assert path.stat().st_mode == new.stat().st_mode


def test_what_killed_processes_left_goes_by_itself(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    old, young = folder / ".0123.partial-a.json", folder / ".4567.partial-a.json"
    for path in (old, young):
        path.write_text("half")
    os.utime(old, (0, time.time() - 48 * 3600))
    files.write_atomically(folder / "a.json", b"{}")
    assert sorted(path.name for path in folder.iterdir()) == [young.name, "a.json"]
    files.remove_partial_files(folder, seconds=0)
    assert [path.name for path in folder.iterdir()] == ["a.json"]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    outside, link = tmp_path / "outside", tmp_path / "report.md"
    outside.write_text("mine")
    link.symlink_to(outside)
    files.write_atomically(link, b"report")
    assert (outside.read_text(), link.read_text(), link.is_symlink()) == ("mine", "report", False)


@given(st.text() | st.text(alphabet="./\\:ab\0", max_size=8))
@example("a/../../b")
@example("..\\b")
@example("C:b")
@example("//host/share/b")
@example("\ud800")
def test_a_name_stays_in_its_folder_or_is_refused(name):
    folder = Path("/runs/one")
    try:
        path = files.path_inside(folder, name)
    except ValueError:
        return
    assert folder in Path(os.path.normpath(path)).parents
    os.fsencode(path)


@pytest.mark.parametrize("name", [None, 3, ["a"], "", ".", "./", ".."])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="must stay in its folder"):
        files.path_inside("runs", name)


def test_nothing_is_written_through_a_link(tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside"
    for folder in (run / "cells", outside):
        folder.mkdir(parents=True)
    (run / "predictions").symlink_to(outside)
    (run / "cells" / "a.json").symlink_to(outside / "not there")
    (tmp_path / "output").symlink_to(run)
    for name in ("predictions/a.tsv", "predictions", "cells/a.json"):
        assert files.path_inside(run, name) == run / name
        with pytest.raises(ValueError, match=r"symbolic link.* Received: .*, which leads to "):
            files.path_to_write(run, name)
    with pytest.raises(ValueError, match=r"symbolic link.* Received: .*a\.json, which leads to "):
        files.folder_to_write(run, "cells")
    (run / "cells" / "a.json").unlink()
    assert files.folder_to_write(run, "cells") == run / "cells"
    assert files.folder_to_write(run, "new") == run / "new"
    output = tmp_path / "output"
    assert files.path_to_write(output, "cells/b.json") == output / "cells" / "b.json"


def test_the_path_that_was_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/mine/preset", "runs/yours", "tables"):
        Path(name).mkdir(parents=True)
    nearest = {name: files.nearest_path(Path(name)) for name in ("runs/mien", "rnus/mine/presets")}
    assert nearest == {
        "runs/mien": Path("runs/mine"),
        "rnus/mine/presets": Path("runs/mine/preset"),
    }
    assert files.nearest_path(tmp_path / "runs" / "yuors") == tmp_path / "runs" / "yours"
    assert files.nearest_path(Path("runs/x")) is None


def test_where_no_link_can_be_a_file_is_copied(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("the text")
    link_or_copy(tmp_path / "a", tmp_path / "to" / "b")
    assert (tmp_path / "a").samefile(tmp_path / "to" / "b")

    def refuse(source, path):
        raise OSError("no links here")

    monkeypatch.setattr(files.os, "link", refuse)
    link_or_copy(tmp_path / "a", tmp_path / "to" / "b")
    assert (tmp_path / "to" / "b").read_text() == "the text"
    assert not (tmp_path / "a").samefile(tmp_path / "to" / "b")
