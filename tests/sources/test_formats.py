"""A source format is one file that registers itself: found by its name, its first bytes, its suffix."""

import sys

import numpy as np
import pytest

from emulator.ingestion.assemble import assemble
from emulator.sources import formats
from emulator.sources.harmonise import pieces
from emulator.sources.open import FORMATS, format_of, open_source, register
from emulator.sources.options import SourceOptions

TEXT = """
import numpy as np
import xarray as xr
from emulator.sources.open import Format, register

def opens(location, path, request):
    lines = [line.split() for line in open(location).read().splitlines()[1:]]
    values = np.array(lines, np.float32)
    place = {"latitude": np.linspace(60, -60, len(values)), "longitude": np.arange(values.shape[1]) * 90.0}
    field = xr.DataArray(values[None], dims=("time", *place), coords=place, attrs={"units": "K"})
    return [field.assign_coords(time=[np.datetime64("2001-01-01", "ns")]).to_dataset(name="2m_temperature")]

register(Format("tabletext", "a text table", opens, lambda start: start.startswith(b"TABLE"), suffixes=(".table",)))
"""


@pytest.fixture
def tabletext(tmp_path, monkeypatch):
    """A format in a folder of its own, as a file beside the others would be."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "tabletext.py").write_text(TEXT)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path / "more")])
    yield
    FORMATS._entries.pop("tabletext", None)
    sys.modules.pop("emulator.sources.formats.tabletext", None)


def test_a_new_format_is_one_file(tmp_path, tabletext):
    (tmp_path / "a.txt").write_text("TABLE\n280 281 282 283\n270 271 272 273\n")
    assert "tabletext" in FORMATS.names()
    assert format_of(str(tmp_path / "a.txt")).name == "tabletext"
    assert format_of("https://example.org/a.table").name == "tabletext"
    sources = [*open_source(str(tmp_path / "a.txt")), *open_source(str(tmp_path / "a.txt"), "tabletext")]
    plans = [assemble(pieces(source, SourceOptions()), {}) for source in sources]
    for plan in plans:
        values = plan.fields["2m_temperature"].read(0, 1, plan.grid.shape)
        np.testing.assert_array_equal(values, [[[280, 281, 282, 283], [270, 271, 272, 273]]])


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="one source format of the name 'netcdf'"):
        register(FORMATS["netcdf"])


def test_urls_are_told_by_their_suffix_alone():
    for url, name in (
        ("https://example.org/a.grib2", "grib"),
        ("gs://bucket/a.zarr/", "zarr"),
        ("https://example.org/dodsC/a", "netcdf"),
    ):
        assert format_of(url).name == name
