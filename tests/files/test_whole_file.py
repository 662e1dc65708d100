"""Files are whole under their names or not there."""

import os

import pytest

from emulator.files.whole_file import whole_file


def test_an_error_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), whole_file(path) as scratch:
        scratch.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_made_and_the_file_renamed_into_it(tmp_path):
    with whole_file(tmp_path / "new" / "a.txt") as scratch:
        scratch.write_text("whole")
    assert (tmp_path / "new" / "a.txt").read_text() == "whole"


def test_a_pipe_or_a_folder_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match="no file is there") as caught, whole_file(tmp_path / name) as scratch:
            scratch.write_text("x")
        assert caught.value.filename == str(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "pipe"]
