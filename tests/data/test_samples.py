import dataclasses

import cftime
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import xarray as xr

from emulator.data.channels import Channels, Layout
from emulator.data.forcing import Forcing
from emulator.data.samples import Samples, shuffled
from emulator.store.analysis import apart


def layout_of(planet):
    return Layout(
        Channels.of(planet, ["temperature", "surface_pressure"]),
        Channels.of(planet, ["mean_evaporation_rate"]),
        Channels.of(planet, ["sea_surface_temperature", "mean_top_net_short_wave_radiation_flux"]),
        Channels.of(planet, []),
    )


@pytest.mark.parametrize("cache", [0, 1 << 30])
def test_windows_hold_what_the_store_holds(planet, cache):
    samples = Samples(planet, layout_of(planet), cache_bytes=cache)
    batch = samples.batch([3, 10], 2)
    for row, start in enumerate((3, 10)):
        times = slice(start, start + 3)
        np.testing.assert_array_equal(batch.state[row, :, :4], planet["temperature"][times])
        np.testing.assert_array_equal(batch.state[row, :, 4], planet["surface_pressure"][times])
        # A diagnostic is the mean over the step that ends at its time.
        np.testing.assert_array_equal(
            batch.diagnostic[row, :, 0], planet["mean_evaporation_rate"][start + 1 : start + 3]
        )
        # A snapshot is taken at the start of the step, a mean over the step at its end.
        np.testing.assert_array_equal(batch.forcing[row, :, 0], planet["sea_surface_temperature"][start : start + 2])
        flux = planet["mean_top_net_short_wave_radiation_flux"][start + 1 : start + 3]
        np.testing.assert_array_equal(batch.forcing[row, :, 1], flux)
    assert batch.clock.shape == (2, 2, 5, 12, 24)


def test_windows_of_scenarios_lie_in_one_of_them(planet):
    """Two stores of the same times, and one of earlier ones: what each holds, and no window across."""
    one, part = planet.isel(time=slice(10)), planet.isel(time=slice(4, 9))
    other = one.assign(temperature=one["temperature"] + np.float32(3))
    other["temperature"].attrs = one["temperature"].attrs
    samples = Samples([one, apart(other), apart(part)], layout_of(planet))
    np.testing.assert_array_equal(samples.starts(2), [*range(8), *range(10, 18), 20, 21, 22])
    batch = samples.batch([2, 12, 20], 2)
    for row, (store, start) in enumerate(((one, 2), (other, 2), (part, 0))):
        np.testing.assert_array_equal(batch.state[row, :, :4], store["temperature"][start : start + 3])
    with pytest.raises(ValueError, match="stores in the order of time"):
        Samples([one, other], layout_of(planet))
    follows = [planet.isel(time=slice(10)), apart(planet.isel(time=slice(10, 20)))]
    assert 9 not in Samples(follows, layout_of(planet)).starts(1)  # though the two meet


def test_the_clock_is_that_of_every_step(planet):
    """Bit by bit, of one step as of several together: forecasts ask for many at once."""
    from emulator.data.forcing import clock_of

    samples = Samples(planet, layout_of(planet))
    batch = samples.batch([4, 9], 3)
    for row, start in enumerate((4, 9)):
        expected = clock_of(planet["time"].values[start : start + 3], 6.0, samples.grid)
        torch.testing.assert_close(batch.clock[row], expected, rtol=0, atol=0)


def test_periods_are_inclusive_and_an_empty_one_is_refused(planet):
    samples = Samples(planet, layout_of(planet), "2001-01-02", "2001-01-03")
    assert len(samples) == 8 and len(samples.starts(2)) == 6
    with pytest.raises(ValueError, match="the store holds 2001-01-01.* to 2001-01-12"):
        Samples(planet, layout_of(planet), "2003-01-01", None)


def test_no_window_crosses_a_missing_slot(planet):
    missing = np.zeros(planet.sizes["time"], bool)
    missing[[7, 20]] = True
    samples = Samples(planet.assign(missing=("time", missing)), layout_of(planet))
    for steps in (1, 3):
        starts = samples.starts(steps)
        brute = [s for s in range(len(missing) - steps) if not missing[s : s + steps + 1].any()]
        assert starts.tolist() == brute


@hypothesis.given(st.integers(1, 40), st.integers(1, 17), st.integers(0, 5))
def test_order_visits_every_sample_once_an_epoch(count, batch_size, seed):
    updates = -(-3 * count // batch_size)
    order = np.concatenate([shuffled(count, batch_size, u, (seed, 0)) for u in range(updates)])
    for epoch in range(3):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_a_window_longer_than_the_longest_stretch_is_refused_with_its_length(planet):
    """48 times of which the longest stretch without a gap has 17; three input times and steps of two times."""
    gap = np.isin(np.arange(48), [10, 28, 40])
    layout = dataclasses.replace(layout_of(planet), history=3)
    samples = Samples(planet.assign(missing=("time", gap)), layout)
    assert len(samples.some_starts(6, 2)) == 1
    wanted = "windows of 7 steps with 3 input times, the period has 48 times, .* most 17 follow .*window takes 19"
    with pytest.raises(ValueError, match=wanted):
        samples.some_starts(7, 2)


def test_order_depends_on_the_seed():
    assert shuffled(100, 20, 0, (0, 0)).tolist() != shuffled(100, 20, 0, (1, 0)).tolist()


def test_forcing_inside_the_store_is_that_of_the_samples(planet):
    layout = layout_of(planet)
    batch = Samples(planet, layout).batch([5], 3)
    fields, clock, *_ = Forcing(planet, layout.forcing).inputs(planet["time"].values[5:8])
    torch.testing.assert_close(fields, batch.forcing[0], rtol=0, atol=0)
    torch.testing.assert_close(clock, batch.clock[0], rtol=0, atol=0)


def test_forcing_beyond_the_store_is_that_of_the_nearest_day_and_hour(planet, caplog):
    forcing = Forcing(planet, Channels.of(planet, ["surface_pressure"]))
    time = np.datetime64("2004-01-03T06", "ns")
    fields = forcing.inputs([time]).forcing
    expected = planet["surface_pressure"].sel(time="2001-01-03T06")
    np.testing.assert_array_equal(fields[0, 0], expected)
    assert "nearest day of the year" in caplog.text


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_calendars_other_than_the_standard_one(planet, calendar):
    times = xr.date_range("2001-02-27", periods=48, freq="6h", calendar=calendar, use_cftime=True)
    other = planet.assign_coords(time=times)
    samples = Samples(other, layout_of(planet), "2001-03-01", "2001-03-02")
    assert len(samples) == 8 and isinstance(samples.times[0], cftime.datetime)
    assert Forcing(other, Channels.of(other, [])).later(times[0], 4) == times[4]
