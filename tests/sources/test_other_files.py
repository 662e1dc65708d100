"""Files that are no data: the message says what they are and what to do, whatever their name."""

import bz2
import gzip
import lzma
import tarfile
import zipfile

import pytest
from source_files import truth

from emulator.sources.open import open_source


@pytest.fixture
def data(tmp_path):
    truth().to_netcdf(tmp_path / "data.nc")
    return tmp_path / "data.nc"


def zipped(data, path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(data, "data_stream-oper_stepType-instant.nc")


def tarred(data, path):
    with tarfile.open(path, "w") as archive:
        archive.add(data, "data.nc")


MADE = {
    "a zip archive of data_stream-oper_stepType-instant.nc; unpack": zipped,
    "a zip archive that is cut off": lambda data, path: (
        zipped(data, path),
        path.write_bytes(path.read_bytes()[:5000]),
    ),
    "a gzip file; unpack it first .gunzip.": lambda data, path: path.write_bytes(gzip.compress(data.read_bytes())),
    "a bzip2 file; unpack": lambda data, path: path.write_bytes(bz2.compress(data.read_bytes())),
    "an xz file; unpack": lambda data, path: path.write_bytes(lzma.compress(data.read_bytes())),
    "a tar archive; unpack": tarred,
    "a page of HTML or XML .503 Service Unavailable.": lambda data, path: path.write_text(
        "\n<!DOCTYPE html>\n<html><head><title> 503 Service\n Unavailable</title></head></html>"
    ),
    "a page of HTML or XML": lambda data, path: path.write_text("<?xml version='1.0'?><Error><Code>NoSuchKey</Code>"),
    "JSON that begins with": lambda data, path: path.write_text('{"error": "licence not accepted"}'),
    "an empty file; download": lambda data, path: path.write_bytes(b""),
    "text that begins with 'Request too large": lambda data, path: path.write_text("Request too large: fewer items"),
    "an HDF4 file": lambda data, path: path.write_bytes(b"\x0e\x03\x13\x01" + bytes(100)),
}


@pytest.mark.parametrize("said", MADE)
@pytest.mark.parametrize("name", ["a.nc", "a.grib", "GRIB.bin"])
def test_a_file_that_is_no_data_is_called_what_it_is(tmp_path, data, said, name):
    MADE[said](data, tmp_path / name)
    with pytest.raises(ValueError, match=said) as error:
        open_source(str(tmp_path / name))
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("engine", ["netcdf", "grib"])
@pytest.mark.parametrize("said", list(MADE)[:5])
def test_an_engine_that_is_asked_for_says_the_same(tmp_path, data, said, engine):
    MADE[said](data, tmp_path / "a")
    with pytest.raises(ValueError, match=said):
        open_source(str(tmp_path / "a"), engine)
