"""What training cannot take is told by name and time where it is checked, and before anything is trained."""

import logging

import numpy as np
import pytest
import xarray as xr
from small_planet import small_planet
from small_store import FREE, NETWORK, store_of
from source_files import truth

import emulator as em
from emulator.training.options import TrainOptions
from emulator.training.run import Training

FLUX, STATIC = "mean_surface_sensible_heat_flux", "geopotential_at_surface"
FEW = {"network": NETWORK, "phases": [{"updates": 2, "batch_size": 2}], "optimizer": {"warmup_steps": 1}}


def refused(paths, folder, match, **options):
    """By the check and by the training, with the same words, and nothing written."""
    asked = FEW | options | {"store": paths[0], "statistics": paths[1], "output": folder / "out"}
    training = Training(TrainOptions.of(asked))
    for use in (training.describe, training.run):
        with pytest.raises(ValueError, match=match) as caught:
            use()
        assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)
    assert not (folder / "out" / "checkpoint").exists()


def test_a_flux_that_lacks_a_day(tmp_path):
    planet = small_planet(times=24)
    planet[FLUX][8:12] = np.nan
    paths = store_of(tmp_path, planet)
    when = str(planet.time.values[8])[:13]
    refused(
        paths, tmp_path, rf"{FLUX}.* 288 missing ones at {when}.*analysis\.zarr.*train\.diagnostic", conservation=FREE
    )
    others = [n for n in planet if n.startswith("mean") and n != FLUX]
    em.train(*paths, tmp_path / "without", **FEW, conservation=FREE, diagnostic=others)
    later = {"start": str(planet.time.values[12])}  # the day lies outside what is trained on
    em.train(*paths, tmp_path / "later", **FEW, conservation=FREE, period=later)


def test_one_cell_of_a_level_is_enough_and_marked_times_are_none(tmp_path):
    planet = small_planet(times=24)
    planet["temperature"][5, 2, 3, 4] = np.nan
    paths = store_of(tmp_path, planet)
    refused(paths, tmp_path, "temperature .* 1 missing ones", conservation=FREE)
    (tmp_path / "marked").mkdir()
    marked = planet.assign(missing=("time", np.arange(24) == 5))
    em.train(*store_of(tmp_path / "marked", marked), tmp_path / "marked" / "out", **FEW, conservation=FREE)


def test_an_orography_with_gaps_is_named(tmp_path):
    planet = small_planet(times=24)
    planet[STATIC][2, 3:5] = np.nan
    refused(store_of(tmp_path, planet), tmp_path, rf"{STATIC} everywhere.* 2 cells")


def test_whole_statistics_say_nothing_of_gaps(tmp_path):
    with xr.open_dataset(store_of(tmp_path, small_planet(times=12))[1]) as statistics:
        assert all("fewest_values" not in field.attrs for field in statistics.data_vars.values())


def test_ingest_tells_of_gaps_in_what_is_to_be_predicted(tmp_path, caplog):
    data = truth()
    data["mean_total_precipitation_rate"][3] = np.nan
    data.to_netcdf(tmp_path / "a.nc")
    with caplog.at_level(logging.WARNING):
        em.ingest(tmp_path / "a.nc", tmp_path / "a.zarr")
    said = [r.getMessage() for r in caplog.records if "missing values" in r.getMessage()]
    assert len(said) == 1 and "mean_total_precipitation_rate" in said[0] and str(data.time.values[3])[:13] in said[0]
    assert "a.nc" in said[0] and "84 missing" in said[0]
