"""The envelope of the states: from the statistics as from the data, and the bounds that follow from it."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
import zarr
from small_planet import numpy_statistics
from small_training import CONFIG, samples_of

from emulator.data.normalisation import open_statistics
from emulator.model.assemble import buffers
from emulator.model.bounds import bounds, envelope
from emulator.store.statistics import write_statistics


@pytest.fixture(scope="module")
def statistics(planet, tmp_path_factory):
    """What the library writes of the planet."""
    folder = tmp_path_factory.mktemp("bounds")
    return written(planet, folder)


def written(planet, folder):
    from emulator.store.schema import grid_of

    data = planet.assign(cell_area=(("latitude", "longitude"), grid_of(planet).area))
    data = data.assign_attrs(emulator_schema="analysis-1", complete=True, time_step_seconds=21600.0)
    data.to_zarr(folder / "a.zarr", zarr_format=3, consolidated=False)
    assert zarr.open(folder / "a.zarr").attrs["complete"]
    write_statistics(folder / "a.zarr", folder / "s.nc")
    return open_statistics(folder / "s.nc")


def test_the_statistics_envelope_is_that_of_the_data(planet, statistics, caplog):
    caplog.set_level(logging.INFO)
    samples = samples_of(planet)
    stored = envelope(samples, statistics)
    assert "statistics" not in caplog.text  # the same period: nothing to tell
    found = envelope(samples, numpy_statistics(planet))
    assert "run stats anew" in caplog.text
    states = torch.stack([samples.state(n) for n in range(len(samples))])
    for one in (stored, found):
        torch.testing.assert_close(one.lowest, states.amin(0), rtol=0, atol=0)
        torch.testing.assert_close(one.highest, states.amax(0), rtol=0, atol=0)
        torch.testing.assert_close(one.mean, states.double().mean(0), rtol=1e-7, atol=1e-6)
    torch.testing.assert_close(stored.spread, found.spread, rtol=1e-10, atol=0)
    one, other = (buffers(samples, each) for each in (statistics, numpy_statistics(planet)))
    for name in ("lower", "upper", "resting", "static"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0, msg=name)
    torch.testing.assert_close(one.damping, other.damping, rtol=1e-6, atol=0)


def test_the_period_of_the_statistics_governs(planet, statistics, caplog):
    caplog.set_level(logging.INFO)
    part = samples_of(planet.isel(time=slice(0, 20)))
    torch.testing.assert_close(envelope(part, statistics), envelope(samples_of(planet), statistics), rtol=0, atol=0)
    assert str(planet.time.values[-1]) in caplog.text and str(planet.time.values[19]) in caplog.text


def test_cells_that_never_have_a_value_leave_no_missing_numbers(planet, tmp_path):
    masked = planet.copy(deep=True)
    masked["surface_pressure"][:, 2:4, 5] = np.nan
    samples = samples_of(masked)
    where = samples.layout.prognostic.slices["surface_pressure"].start
    for given in (numpy_statistics(planet), written(masked, tmp_path)):
        found = envelope(samples, given)
        for each in found:
            assert torch.isfinite(each).all()
        assert (found.lowest[where, 2:4, 5] == 0).all() and (found.highest[where, 2:4, 5] == 0).all()
        there = torch.as_tensor(samples.grid.area).clone()
        there[2:4, 5] = 0
        variance = torch.as_tensor(planet.surface_pressure.values).double().var(0, correction=0)
        expected = ((variance * there).sum() / there.sum()).sqrt()
        torch.testing.assert_close(found.spread[where], expected, rtol=1e-6, atol=0)


def test_bounds_of_every_kind(planet, statistics):
    samples = samples_of(planet)
    found, slices = envelope(samples, statistics), samples.layout.prognostic.slices
    width = found.highest - found.lowest
    lower, upper = bounds("envelope", 0.25, found, samples)
    torch.testing.assert_close(lower, found.lowest - 0.25 * width)
    torch.testing.assert_close(upper, found.highest + 0.25 * width)
    lower, upper = bounds("envelope", {"temperature": 2.0, "surface_pressure": 0.0}, found, samples)
    for name, where in slices.items():
        share = {"temperature": 2.0, "surface_pressure": 0.0}.get(name, 0.5)
        torch.testing.assert_close(upper[where], found.highest[where] + share * width[where])
        torch.testing.assert_close(lower[where], found.lowest[where] - share * width[where])
    lower, upper = bounds("none", 0.5, found, samples)
    assert torch.isneginf(lower).all() and torch.isposinf(upper).all()
    own = samples_of(planet.assign(surface_pressure=planet.surface_pressure.assign_attrs(minimum=3e4)))
    lower, upper = bounds("physical", 0.5, found, own)
    assert (lower[slices["surface_pressure"]] == 3e4).all()  # the store's before the table's
    temperature = slices["temperature"]
    assert (lower[temperature] == 50).all() and (upper[temperature] == 400).all()
    with pytest.raises(ValueError, match="margins of prognostic variables .* got .*'salinity'"):
        bounds("envelope", {"salinity": 1.0}, found, samples)
    with pytest.raises(ValueError, match="among envelope, physical and none, got 'some'"):
        bounds("some", 0.5, found, samples)


@pytest.mark.parametrize(("margin", "said"), [(0.5, False), (2.0, True), ({"temperature": 2.0}, True)])
def test_a_margin_without_an_envelope_is_said_to_have_no_effect(planet, statistics, margin, said, caplog):
    samples = samples_of(planet)
    free = bounds("none", margin, envelope(samples, statistics), samples)
    assert torch.isposinf(free[1]).all() and ("no effect with bounds: none" in caplog.text) == said


def test_statistics_of_another_grid_are_refused(planet, statistics):
    samples = samples_of(planet.isel(longitude=slice(None, None, 2)))
    with pytest.raises(ValueError, match=r"time_mean of temperature on 4 levels .* of another store"):
        envelope(samples, statistics)


def test_a_margin_below_zero_is_refused_for_every_variable():
    for margin in (-0.1, {"temperature": 1.0, "specific_humidity": -0.1}):
        with pytest.raises(ValueError, match="margin of at least 0"):
            dataclasses.replace(CONFIG, margin=margin)
