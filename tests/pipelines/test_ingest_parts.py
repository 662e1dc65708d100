"""One store made in parts, by several processes, in pieces of time: always the same bytes."""

import multiprocessing
import shutil

import numpy as np
import pytest
from source_files import TIMES, truth

from emulator.store.analysis import open_analysis
from emulator.store.marks import partial_path, progress_path
from pipelines.cli import main
from pipelines.config import IngestConfig
from pipelines.ingest import ingest

LONG = TIMES[0] + np.arange(20) * np.timedelta64(6, "h")
FIELDS = 3


def config(folder, output, **settings):
    settings = {"times_per_region": 3, "dask": {"threads": 1}} | settings
    return IngestConfig(sources=[{"path": str(folder / "*.nc")}], output=output, **settings)


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "in").mkdir()
    data = truth(LONG)
    for number, part in enumerate((slice(0, 7), slice(7, 20))):
        data.isel(time=part).to_netcdf(tmp_path / "in" / f"{number}.nc")
    return tmp_path / "in"


@pytest.fixture
def whole(tmp_path, sources):
    ingest(config(sources, tmp_path / "whole.zarr"))
    return bytes_of(tmp_path / "whole.zarr")


def bytes_of(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def left_behind(folder):
    return sorted(p.name for p in folder.iterdir() if p.name not in ("in", "whole.zarr"))


@pytest.mark.parametrize("order", [(1, 2, 3, 4), (4, 2, 2, 1, 3, 4)])
def test_parts_in_any_order_and_twice_make_the_same_bytes(tmp_path, sources, whole, order):
    settings = config(sources, tmp_path / "a.zarr")
    for number in order:
        ingest(settings, (number, 4))
        assert not (tmp_path / "a.zarr").exists()
    before = {f: f.stat().st_mtime_ns for f in partial_path(settings.output).glob("temperature/c/*")}
    ingest(settings)
    assert bytes_of(tmp_path / "a.zarr") == whole
    assert before and all((tmp_path / "a.zarr" / "temperature" / "c" / f.name).exists() for f in before)
    assert left_behind(tmp_path) == ["a.zarr"]
    ingest(settings, (1, 4))  # of a finished store there is nothing to do
    assert left_behind(tmp_path) == ["a.zarr"]


def test_the_parts_share_all_regions_among_them(tmp_path, sources):
    settings, counts = config(sources, tmp_path / "a.zarr"), []
    for number in range(1, 6):
        ingest(settings, (number, 5))
        counts.append(len(list(progress_path(settings.output).glob("*.done"))))
    assert counts[-1] == FIELDS * 7 and max(np.diff([0, *counts])) <= 5


def test_what_is_left_of_the_parts_is_done_by_the_last_command(tmp_path, sources, whole):
    settings = config(sources, tmp_path / "a.zarr")
    ingest(settings, (2, 3))
    ingest(settings)
    assert bytes_of(tmp_path / "a.zarr") == whole


def test_writers_of_one_part_do_not_disturb_each_other(tmp_path, sources, whole):
    settings = config(sources, tmp_path / "a.zarr")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=ingest, args=(settings, part)) for part in ((1, 2), (1, 2), (1, 1))]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    ingest(settings)
    assert bytes_of(tmp_path / "a.zarr") == whole
    assert left_behind(tmp_path) == ["a.zarr"]


def test_the_audit_finds_what_is_not_what_the_source_gave(tmp_path, sources, whole, caplog):
    settings = config(sources, tmp_path / "a.zarr")
    for number in (1, 2):
        ingest(settings, (number, 2))
    partial = partial_path(settings.output)
    shard = next(f for f in sorted((partial / "temperature" / "c" / "2").rglob("*")) if f.is_file())
    other = next(f for f in sorted((partial / "temperature" / "c" / "1").rglob("*")) if f.is_file())
    shutil.copyfile(other, shard)  # sound, but of other times
    broken = next(f for f in sorted((partial / "mean_sea_level_pressure" / "c" / "4").rglob("*")) if f.is_file())
    broken.write_bytes(broken.read_bytes()[:-50])
    gone = next(f for f in sorted((partial / "mean_total_precipitation_rate" / "c" / "0").rglob("*")) if f.is_file())
    gone.unlink()
    with caplog.at_level("WARNING"):
        ingest(settings)
    for region in (
        "temperature.00000006",
        "mean_sea_level_pressure.00000012",
        "mean_total_precipitation_rate.00000000",
    ):
        assert f"{region} of" in caplog.text
    assert bytes_of(tmp_path / "a.zarr") == whole


def test_a_source_that_changes_between_two_parts_is_named(tmp_path, sources):
    settings = config(sources, tmp_path / "a.zarr")
    ingest(settings, (1, 2))
    data = truth(LONG).isel(time=slice(7, 20))
    data.assign(temperature=data.temperature + 1).to_netcdf(sources / "1.nc")
    with pytest.raises(
        ValueError, match=r"Expected .*1\.nc as it was when .* begun, got it changed.*remove a\.zarr\.part"
    ):
        ingest(settings, (2, 2))
    assert not (tmp_path / "a.zarr").exists()
    ingest(settings)  # without parts it starts over, and says so
    assert float(open_analysis(tmp_path / "a.zarr").temperature[19, 0, 0, 0]) == float(
        data.temperature[12, 0, 0, 0] + 1
    )


def test_a_source_that_changes_while_it_is_read_is_named(tmp_path, sources, monkeypatch):
    import emulator.ingestion.run as module

    fill = module.fill

    def changing(*arguments):
        fill(*arguments)
        (sources / "0.nc").touch()

    monkeypatch.setattr(module, "fill", changing)
    with pytest.raises(ValueError, match=r"Expected .*0\.nc to stay as it is while it is read"):
        ingest(config(sources, tmp_path / "a.zarr"))
    assert left_behind(tmp_path) == []


def test_the_command_line(tmp_path, sources, capsys):
    path = tmp_path / "in" / "ingest.yaml"
    path.write_text(f"sources: [{{path: {sources}/*.nc}}]\noutput: {tmp_path}/a.zarr\ntimes_per_region: 3\n")
    for number in ("2/2", "1/2"):
        assert main(["ingest", str(path), "--part", number]) == 0
    assert main(["ingest", str(path)]) == 0
    assert open_analysis(tmp_path / "a.zarr").sizes["time"] == 20
    for wrong in ("0/2", "3/2", "1", "a/b", "-1/2"):
        with pytest.raises(SystemExit):
            main(["ingest", str(path), f"--part={wrong}"])
        assert "expected i/N" in capsys.readouterr().err


# --- appending ------------------------------------------------------------------------------------------------------


def begun(tmp_path, sources, end=12, **settings):
    ingest(config(sources, tmp_path / "a.zarr", period={"end": str(LONG[end - 1])}, **settings))
    return tmp_path / "a.zarr"


@pytest.mark.parametrize("end", [1, 2, 12, 13])
def test_appended_dates_make_the_store_that_would_have_been_made_at_once(tmp_path, sources, whole, end):
    """Whatever the last region held; regions that were whole are the same files."""
    path = begun(tmp_path, sources, end)
    files = {f.relative_to(path): f.stat().st_ino for f in path.rglob("temperature/c/**/*") if f.is_file()}
    ingest(config(sources, path), append=True)
    assert bytes_of(path) == whole
    kept = [f for f, inode in files.items() if (path / f).stat().st_ino == inode]
    assert len(kept) == end // 3
    assert left_behind(tmp_path) == ["a.zarr"]


def test_appending_in_parts(tmp_path, sources, whole):
    path = begun(tmp_path, sources)
    for number in (2, 1):
        ingest(config(sources, path), (number, 2), append=True)
        assert open_analysis(path).sizes["time"] == 12
    ingest(config(sources, path), append=True)
    assert bytes_of(path) == whole


def test_appending_to_nothing_makes_the_store(tmp_path, sources, whole):
    ingest(config(sources, tmp_path / "a.zarr"), append=True)
    assert bytes_of(tmp_path / "a.zarr") == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"period": {"start": str(LONG[1])}}, "at the beginning of those to append"),
        ({"period": {"end": str(LONG[5])}}, "at the beginning of those to append"),
        ({"variables": ["temperature"]}, "Expected the fields of .* mean_sea_level_pressure"),
        ({"constants": {"gravity": 9.81}}, "Expected constants = "),
        ({"roles": {"mean_sea_level_pressure": "forcing"}}, "Expected mean_sea_level_pressure to append as it is"),
    ],
)
def test_what_does_not_fit_is_not_appended(tmp_path, sources, change, message):
    path = begun(tmp_path, sources)
    before = bytes_of(path)
    with pytest.raises(ValueError, match=message):
        ingest(config(sources, path, **change), append=True)
    assert bytes_of(path) == before and left_behind(tmp_path) == ["a.zarr"]


def test_changed_sources_of_old_dates_are_found(tmp_path, sources):
    path = begun(tmp_path, sources)
    data = truth(LONG).isel(time=slice(0, 7))
    data.assign(temperature=data.temperature + 1e-4).to_netcdf(sources / "0.nc")
    with pytest.raises(ValueError, match="temperature that .* has from 2001-02-27T00.* got other values"):
        ingest(config(sources, path), append=True)
    assert open_analysis(path).sizes["time"] == 12
