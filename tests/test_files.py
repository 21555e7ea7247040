"""Files on disk, whole or not at all."""

import pytest

from keras_taskrobust import files


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

    def fail(source, target):
        raise OSError("disk")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
