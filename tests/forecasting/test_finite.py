"""A forecast that is no longer finite is told of, once and by name; what is missing where it does not exist is not."""

import logging

import numpy as np
import pytest
import torch
from small_planet import small_planet
from small_store import FREE, NETWORK, store_of

import emulator as em
from emulator.forecasting.finite import Finite

LEADS = np.arange(4) * np.timedelta64(6, "h")
INITS = np.array(["2001-01-01T06", "2001-01-02T06"], "datetime64[ns]")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finite")
    paths = store_of(folder, small_planet(times=24))
    em.train(*paths, folder / "out", network=NETWORK, conservation=FREE, phases=[{"updates": 2, "batch_size": 2}])
    return paths[0], folder / "out" / "checkpoint"


@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("written", [False, True])
def test_a_run_that_blows_up_says_where(stored, tmp_path, caplog, members, written):
    store, checkpoint = stored
    step, times = em.load_model(checkpoint), em.open_analysis(store)["time"].values
    how = {"ensemble": members, "output": tmp_path / "run.zarr" if written else None}
    with caplog.at_level(logging.WARNING, "emulator"):
        em.forecast(step, store, times[[2, 3]], 1, **how)
        assert "finite" not in caplog.text
        with torch.no_grad():
            next(p for p in reversed(list(step.parameters())) if p.numel()).fill_(torch.inf)
        how["output"] = tmp_path / "lost.zarr" if written else None
        em.forecast(step, store, times[[2, 3]], 1, bounds="none", **how)
    [told] = [record.getMessage() for record in caplog.records if "finite" in record.getMessage()]
    assert f"from {str(times[2])[:16]} is no longer finite" in told and "at a lead of 6 h" in told
    assert ("of member 1 " in told) == bool(members)


def seen(field, outside=None, members=False):
    finite = Finite(2, members)
    for _ in range(2):
        finite.see({"t": field}, {"t": outside, "absent": None}, INITS, LEADS)


def test_the_first_field_without_a_value_is_named(caplog):
    field = np.zeros((2, 4, 3, 5, 4, 8))
    field[1, 2:, 1] = np.nan
    field[1, 3:, 0, 4] = np.inf
    seen(field, members=True)
    [told] = [record.getMessage() for record in caplog.records]
    assert "from 2001-01-02T06:00 is no longer finite: t of member 2 has no value at a lead of 12 h" in told


def test_what_does_not_exist_and_what_begins_missing_is_left_alone(caplog):
    outside = np.zeros((5, 4, 8), bool)
    outside[4] = outside[:, 0] = True  # a level below the bottom, and land
    field = np.where(outside, np.nan, np.zeros((2, 4, 5, 4, 8)))
    field[:, 0] = np.nan  # the analysis
    field[:, :, :, 1:3] = np.nan  # single values
    seen(field, outside)
    assert not caplog.records
    field[0, 3, 2] = np.nan
    seen(field, outside)
    assert "t has no value at a lead of 18 h" in caplog.text
