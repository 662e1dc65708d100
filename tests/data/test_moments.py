"""When in a step forcing is taken, steps of several store times, series without space, and input times before a gap."""

import numpy as np
import pytest
import torch
import xarray as xr

from emulator.data.channels import Channels, Layout, More
from emulator.data.forcing import Forcing
from emulator.data.samples import Samples

SST, SUN = "sea_surface_temperature", "mean_top_net_short_wave_radiation_flux"


def with_series(planet, values=None):
    """The planet with a growing CO2 concentration, one number a time."""
    values = 400 + 0.1 * np.arange(planet.sizes["time"]) if values is None else values
    attributes = {"units": "ppm", "role": "forcing", "cell_methods": "time: point"}
    moving = planet[SST] + np.arange(planet.sizes["time"], dtype=np.float32)[:, None, None] ** 2
    changed = planet.assign({SST: moving.assign_attrs(planet[SST].attrs), "co2": ("time", values, attributes)})
    return changed.assign_attrs(time_step_seconds=21600.0)


def layout_of(dataset, steps=(), history=1, **moments):
    chosen = {"prognostic": ["surface_pressure"], "diagnostic": ["mean_evaporation_rate"]}
    more = More(moments, history, steps)
    return Layout.of(dataset, chosen | {"forcing": [SST, SUN, "co2"]}, "the planet", more)


@pytest.mark.parametrize("length", [1, 3])
def test_forcing_at_each_moment_is_what_its_definition_says(planet, length):
    """Snapshots: values at the ends, their trapezoidal mean; means: the mean of the stored means of the step."""
    data = with_series(planet)
    stored = {name: data[name].values.astype(np.float32) for name in (SST, SUN, "co2")}
    start, steps = 5, 2

    def ends(name, k):
        first = start + k * length
        return stored[name][first], stored[name][first + length], stored[name][first : first + length + 1]

    for moment in ("start", "end", "both", "mean"):
        layout = layout_of(data, (6.0 * length,), **dict.fromkeys((SST, SUN, "co2"), moment))
        assert layout.lengths == (length,)
        batch = Samples(data, layout).batch([start], steps, length)
        assert batch.forcing.shape[2] == layout.given.count == len(layout.given_from) == (6 if moment == "both" else 3)
        for k in range(steps):
            given = layout.given.unpack(batch.forcing[:, k])
            for name in (SST, SUN, "co2"):
                first, last, inner = ends(name, k)
                if name == SUN:
                    last = inner[1:].mean(0)
                trapezoid = (inner[1:] + inner[:-1]).mean(0) / 2
                wanted = {"start": first, "end": last, "both": first, "mean": last if name == SUN else trapezoid}[
                    moment
                ]
                np.testing.assert_allclose(given[name][0], np.broadcast_to(wanted, (12, 24)), rtol=1e-6)
                if moment == "both":
                    np.testing.assert_allclose(given[f"{name}@end"][0], np.broadcast_to(last, (12, 24)), rtol=1e-6)
        one = Forcing(data, layout, length).inputs(data["time"].values[[start, start + length]])
        torch.testing.assert_close(one.forcing, batch.forcing[0], rtol=0, atol=0)
        torch.testing.assert_close(one.clock, batch.clock[0], rtol=0, atol=0)
        assert one.length == batch.length == (None if layout.lengths == (1,) else float(length))


def test_long_steps_have_states_at_their_ends_and_means_of_their_diagnostics(planet):
    data = with_series(planet)
    batch = Samples(data, layout_of(data, (12, 24))).batch([2, 7], 3, 4)
    for row, start in enumerate((2, 7)):
        np.testing.assert_array_equal(batch.state[row, :, 0], data["surface_pressure"][start : start + 13 : 4])
        fluxes = data["mean_evaporation_rate"].values[start + 1 : start + 13].reshape(3, 4, 12, 24).mean(1)
        np.testing.assert_allclose(batch.diagnostic[row, :, 0], fluxes, rtol=1e-6)


@pytest.mark.parametrize("length", [1, 2])
def test_neither_steps_nor_input_times_cross_a_gap(planet, length):
    missing = np.zeros(planet.sizes["time"], bool)
    missing[[9, 10, 30]] = True
    data = with_series(planet).assign(missing=("time", missing))
    samples = Samples(data, layout_of(data, (6.0 * length,), history=3))
    for steps in (1, 4):
        windows = [(s, range(s - 2 * length, s + steps * length + 1)) for s in range(len(missing))]
        whole = [s for s, times in windows if times[0] >= 0 and times[-1] < 48 and not missing[list(times)].any()]
        assert samples.starts(steps, length).tolist() == whole
        batch = samples.batch(whole[-1:], steps, length)
        times = whole[-1] + length * np.arange(-2, steps + 1)
        np.testing.assert_array_equal(batch.state[0, :, 0], data["surface_pressure"][times])
        torch.testing.assert_close(batch.start(0), batch.state[:, :3], rtol=0, atol=0)
        torch.testing.assert_close(batch.truth(0)[0], batch.state[:, 3], rtol=0, atol=0)


def test_a_series_that_lacks_a_time_is_refused_unless_the_time_is_missing(planet):
    values = np.where(np.arange(48) == 7, np.nan, 400.0)
    data = with_series(planet, values)
    with pytest.raises(ValueError, match="co2 at every time, got none at 2001-01-02T18"):
        Samples(data, layout_of(data))
    missing = data.assign(missing=("time", np.arange(48) == 7))
    assert len(Samples(missing, layout_of(data)).starts(1)) == 45


def test_what_does_not_fit_the_store_is_refused_in_a_sentence(planet):
    data = with_series(planet)
    with pytest.raises(ValueError, match="forcing_moments of forcing variables.*surface_pressure"):
        layout_of(data, surface_pressure="both")
    with pytest.raises(ValueError, match="multiples of the store's 6 h, got 9 h"):
        layout_of(data, (9.0,))
    with pytest.raises(ValueError, match="at least one prognostic or diagnostic"):
        Layout.of(data, {"prognostic": [], "diagnostic": []})


def test_layouts_survive_json_and_those_of_older_checkpoints_are_what_they_were(planet):
    data = with_series(planet)
    layout = layout_of(data, (6, 12), history=2, **{SST: "both"})
    assert Layout.from_json(layout.to_json()) == layout
    plain = Layout.of(planet, name="the planet")
    older = {name: plain.to_json()[name] for name in ("prognostic", "diagnostic", "forcing", "static")}
    assert Layout.from_json(older) == plain and plain.given == plain.forcing


def test_every_static_field_counts_with_all_its_levels(planet):
    layers = ("soil_layer", "latitude", "longitude")
    soil = (layers, np.ones((3, 12, 24), np.float32), {"units": "1", "role": "static"})
    static = Layout.of(planet.assign(soil_kind=soil), name="the planet").static
    assert static == Channels(("geopotential_at_surface", "land_sea_mask", "soil_kind"), (0, 0, 3))


def test_missing_slots_take_the_forcing_of_the_nearest_time_with_the_same_hour(planet, caplog):
    """Neither nothing nor NaN, from which zeros would be made; a series keeps its last value."""
    gap = np.isin(np.arange(48), [20, 21, 24])
    data = with_series(planet)
    moving = {name: data[name].where(xr.DataArray(~gap, dims="time")) for name in (SST, SUN, "co2")}
    holes = data.assign(moving).assign(missing=("time", gap))
    layout = layout_of(data)
    given = layout.given.unpack(Forcing(holes, layout).inputs(data["time"].values[[19, 20, 21, 24]]).forcing)
    rows = {SST: [19, 16, 17, 28], SUN: [16, 17, 22, 25], "co2": [19, 19, 19, 23]}  # SUN is that of the step's end
    for name, wanted in rows.items():
        stored = data[name].values[wanted].astype(np.float32).reshape(4, *(1, 1) if name == "co2" else (12, 24))
        np.testing.assert_array_equal(given[name], np.broadcast_to(stored, (4, 12, 24)))
    assert "missing at 2001-01-06T00" in caplog.text and "keeping that of 2001-01-05T18" in caplog.text


def test_series_keep_their_ends_beyond_the_store(planet):
    """A trend does not jump back to the same day of a year before, while fields have the season."""
    data = with_series(planet)
    layout = layout_of(data)
    times = np.array(["2002-01-04T06", "2000-01-04T06"], "datetime64[ns]")
    given = layout.given.unpack(Forcing(data, layout).inputs(times).forcing)
    assert [float(field.mean()) for field in given["co2"]] == pytest.approx([404.7, 400.0], rel=1e-6)
    np.testing.assert_array_equal(given[SST][0], data[SST].sel(time="2001-01-04T06"))


def test_a_series_without_a_value_is_refused(planet):
    values = np.where(np.arange(48) == 30, np.nan, 400.0)
    data = with_series(planet, values)
    with pytest.raises(ValueError, match="value of co2 at every time, the store has none at 2001-01-08T12"):
        Forcing(data, layout_of(data))
