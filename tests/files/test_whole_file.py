"""Files are whole under their names or not there."""

import os

import pytest

from emulator.files.whole_file import replace_folder, whole_file


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


def test_two_writers_of_one_file_each_have_a_name_of_their_own(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path, shared=True) as one, whole_file(path, shared=True) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]
    with (
        pytest.raises(OSError, match="No such file") as caught,
        whole_file(tmp_path / "gone" / "a", shared=True) as one,
    ):
        one.write_text("x")
    assert caught.value.filename == str(tmp_path / "gone" / "a") and not (tmp_path / "gone").exists()


def test_a_folder_takes_the_place_of_an_older_one_once(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    assert replace_folder(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "a").read_text() == "new"
    assert not replace_folder(tmp_path / "new", tmp_path / "old")  # another process was faster
    assert (tmp_path / "old" / "a").read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["old"]
