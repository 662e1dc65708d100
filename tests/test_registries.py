"""A folder of files that register what they hold: found without being named, in a declared order, each name once."""

import sys

import pytest

from emulator.registry import Registry


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """A package of two files, the first of which imports the second."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    start = "from shapes import SHAPES\n"
    (folder / "__init__.py").write_text(
        "from emulator.registry import Registry\n"
        "class Unknown(ValueError): pass\n"
        "SHAPES = Registry('area', __name__, order=lambda sides: sides, error=Unknown)\n"
    )
    (folder / "angular.py").write_text(
        "import shapes.round\n" + start + "SHAPES.register('square', 4)\nSHAPES.register('triangle', 3)\n"
    )
    (folder / "round.py").write_text(start + "SHAPES.register('disc', 0)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import shapes

    yield shapes
    for name in [name for name in sys.modules if name.split(".")[0] == "shapes"]:
        del sys.modules[name]


def test_files_are_imported_at_the_first_look_and_entries_keep_their_declared_order(shapes):
    assert "shapes.round" not in sys.modules
    assert shapes.SHAPES["triangle"] == 3
    assert shapes.SHAPES.names() == ["disc", "triangle", "square"]
    assert shapes.SHAPES.all() == {"disc": 0, "triangle": 3, "square": 4}


def test_an_unknown_name_is_refused_with_the_nearest(shapes):
    with pytest.raises(shapes.Unknown, match="an area among disc, triangle, square, got 'squares'; nearest: square$"):
        shapes.SHAPES["squares"]
    with pytest.raises(shapes.Unknown, match="got None$"):
        shapes.SHAPES[None]


def test_a_name_is_registered_once_and_a_file_that_comes_later_is_seen(shapes, tmp_path):
    assert "oval" not in shapes.SHAPES.names()
    (tmp_path / "shapes" / "oval.py").write_text("from shapes import SHAPES\nSHAPES.register('oval', 1)\n")
    assert shapes.SHAPES["oval"] == 1
    with pytest.raises(ValueError, match="one area of the name 'disc'"):
        shapes.SHAPES.register("disc", 1)
    assert shapes.SHAPES["disc"] == 0


def test_without_an_order_entries_stand_by_name(shapes):
    plain = Registry("area", "shapes")
    for name in ("b", "a"):
        plain.register(name, name)
    assert plain.names() == ["a", "b"]


def test_a_file_that_fails_says_why_and_is_read_again(shapes, tmp_path):
    path = tmp_path / "shapes" / "broken.py"
    path.write_text("import no_such_package_of_shapes\n")
    for _ in range(2):
        with pytest.raises(ImportError, match="no_such_package_of_shapes"):
            shapes.SHAPES.all()
    path.unlink()
    assert shapes.SHAPES.names() == ["disc", "triangle", "square"]
