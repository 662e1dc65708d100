"""Chunks are read in xarray's place exactly where a variable is still what the store holds."""

import numpy as np
import pytest
import torch
from small_planet import small_planet
from small_store import write_store

from emulator.data.channels import Channels
from emulator.data.forcing import Forcing
from emulator.store.analysis import open_analysis
from emulator.store.untouched import origin

NAME = "temperature"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    planet = small_planet(times=12, nlat=8, levels=3)
    return write_store(tmp_path_factory.mktemp("untouched"), planet.chunk({"time": 1}))


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (lambda data: data, 0),
        (lambda data: data.isel(time=slice(3, 9)), 3),
        (lambda data: data.sel(time=slice("2001-01-02", None)).isel(time=slice(1, None)), 5),
        (lambda data: data.assign_attrs(note="ours"), 0),
    ],
)
def test_a_store_and_a_range_of_its_times_are_its_arrays(store, change, first):
    found = origin(change(open_analysis(store))[NAME].variable)
    assert (found.store, found.name, found.first) == (store, NAME, first)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.isel(time=slice(0, 8, 2)),
        lambda data: data.isel(time=slice(None, None, -1)),
        lambda data: data.isel(time=[1, 2]),
        lambda data: data.isel(level=slice(1, None)),
        lambda data: data.sortby("latitude"),
        lambda data: data.assign({NAME: data[NAME] + 1}),
        lambda data: data.chunk({"time": 2}),
        lambda data: data.load(),
        lambda data: data.where(data["latitude"] > 0),
        lambda data: data.transpose("time", "level", "longitude", "latitude", ...),
        lambda data: data.isel(time=3),
    ],
)
def test_whatever_else_was_done_to_it_leaves_it_to_xarray(store, change):
    assert origin(change(open_analysis(store))[NAME].variable) is None


@pytest.mark.parametrize("names", [[NAME, "surface_pressure"], ["surface_pressure"]])
def test_forcing_has_the_same_bits_either_way_also_of_a_part_of_the_times(store, names):
    data = open_analysis(store).isel(time=slice(2, None))
    loaded = open_analysis(store).isel(time=slice(2, None)).load()
    channels = Channels.of(data, names)
    times = [*data["time"].values[[0, 7, 3]], np.datetime64("2003-01-02T12", "ns")]
    ours, theirs = (Forcing(each, channels).inputs(times).forcing for each in (data, loaded))
    assert origin(data[NAME].variable) is not None and origin(loaded[NAME].variable) is None
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_forcing_that_was_changed_is_taken_as_changed(store):
    data = open_analysis(store)
    warmer = data.assign({NAME: data[NAME] + 1})
    channels, times = Channels.of(data, [NAME]), data["time"].values[4:5]
    before, after = (Forcing(each, channels).inputs(times).forcing for each in (data, warmer))
    torch.testing.assert_close(after, before + 1, rtol=0, atol=0)
