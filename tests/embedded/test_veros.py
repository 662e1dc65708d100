"""The embedded ocean: its budgets, masks and means against Veros' own variables, and that it ends the same when stopped."""

import importlib.metadata
from datetime import date

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from emulator.embedded.acc_sector import Settings, below_ridge, restoring
from emulator.embedded.simulation import SimulationOptions, settings_of, simulate
from emulator.embedded.veros import (
    DEPTH_FIELDS,
    FLUXES,
    HEAT_CAPACITY,
    STATES,
    begin,
    build,
    ends,
)
from emulator.files.interruption import Interrupted
from emulator.planet.constants import Constants
from emulator.planet.grid import CLOSED
from emulator.planet.variables import variable

HEAT, SALT = "mean_downward_heat_flux_into_sea_water", "mean_virtual_salt_flux_into_sea_water"
NOISY = {"wind_noise": 0.3, "temperature_noise": 1.0}
LATITUDE = np.arange(41.0, -42.0, -2.0)


@pytest.fixture(scope="module")
def veros():
    return pytest.importorskip("veros", reason="Veros is not installed: the extra emulator[ocean]")


def in_cells(model):
    """Volumes of the sea's cells in m3 and areas of its surface in m2, on Veros' axes, from Veros' own metric."""
    v = model.veros.variables
    volume = np.asarray(v.area_t)[2:-2, 2:-2, None] * np.asarray(v.dzt) * np.asarray(v.maskT)[2:-2, 2:-2]
    return volume, np.asarray(v.area_t * v.maskT[..., -1])[2:-2, 2:-2]


def content(model, state, name):
    arrays = state.arrays
    return float((in_cells(model)[0] * np.asarray(arrays[name])[2:-2, 2:-2, :, arrays["tau"]]).sum())


@given(st.dates(date(1999, 1, 1), date(2005, 1, 1)), st.integers(1, 400), st.booleans(), st.integers(1, 9))
def test_means_fill_the_time_without_gaps(start, days, monthly, length):
    settings = Settings(start.replace(day=1) if monthly else start, 24 * length, monthly)
    last = [day for day in range(days) if ends(settings, day)]
    edges = [settings.start, *(settings.day(day + 1) for day in last)]
    assert [begin(settings, day) for day in last] == edges[:-1]
    lengths = [(after - before).days for before, after in zip(edges[:-1], edges[1:], strict=True)]
    assert all(28 <= n <= 31 for n in lengths) if monthly else set(lengths) <= {length}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_hours": 6}, "step_hours of whole days .*, got 6"),
        ({"monthly": True, "start": date(2001, 1, 2)}, "first of a month .*, got 2001-01-02"),
        ({"ridge": 1.0}, "ridge from 0 to below 0.9, got 1.0"),
        ({"wind_noise": -1.0}, "wind_noise of at least 0, got -1.0"),
        ({"noise_days": 0.0}, "noise_days above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_a_chunk_that_no_mean_ends_in_is_refused_and_leaves_the_folder_free(tmp_path):
    short = SimulationOptions(
        tmp_path, days=62, spin_up_days=0, chunk_days=15, model="veros", settings={"monthly": True}
    )
    with pytest.raises(ValueError, match="none does from day 1 to 15 after the start: change chunk_days = 15"):
        simulate(short)
    assert not list(tmp_path.iterdir())
    assert settings_of(SimulationOptions(tmp_path, days=59, spin_up_days=0, chunk_days=31, model="veros",
                                         settings={"monthly": True})).monthly  # fmt: skip


def test_seasons_are_opposite_over_the_equator_and_vanish_in_the_mean_of_a_year():
    settings, calm = Settings(), np.zeros(3)
    days = (np.arange(1461) + 0.5) / 4
    factor, added = (np.stack(v) for v in zip(*(restoring(settings, LATITUDE, d, calm) for d in days), strict=True))
    np.testing.assert_allclose(factor.mean(axis=0), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(added.mean(axis=0), 0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.ptp(added, axis=0), 8 * np.abs(LATITUDE) / 41, rtol=1e-4)
    np.testing.assert_allclose(days[added.argmax(axis=0)], np.where(LATITUDE > 0, 240, 57), rtol=0, atol=0.2)
    np.testing.assert_allclose(np.corrcoef(factor[:, 0], added[:, 0])[0, 1], -1, rtol=1e-12)


def test_options_change_the_forcing_by_what_they_say():
    noise = np.array([1.0, -2.0, 3.0])
    factor, added = restoring(Settings(), LATITUDE, 10, noise)
    more, warmer = restoring(Settings(wind=1.2, warming=2.0), LATITUDE, 10, noise)
    np.testing.assert_allclose(more, 1.2 * factor, rtol=1e-14)
    np.testing.assert_allclose(warmer - added, 2.0, rtol=1e-13)
    gusts, warm = restoring(Settings(**NOISY), LATITUDE, 10, noise)
    np.testing.assert_allclose(gusts - factor, np.where(LATITUDE < -20, 0.3, -0.6), rtol=1e-12)
    np.testing.assert_allclose(warm - added, 3.0, rtol=1e-13)


def test_content_changes_by_the_recorded_fluxes(veros):
    """In float64 as closely as Veros closes them itself, 1e-12; in the float32 of files to their rounding."""
    model = build(Settings(step_hours=48, snapshots=True, **NOISY))
    volume, area = in_cells(model)
    before = model.initial_state()
    old, state, fluxes = None, before, np.zeros(2)
    rounding = 288 * np.finfo(np.float32).eps  # K of one value at the worst; means of thousands are far better
    for _ in range(3):
        for _ in range(2):
            state, fields = model.advance_day(state)
        means = np.array([np.nansum(fields[name][0].astype(np.float64)[::-1].T * area) for name in (HEAT, SALT)])
        changes = means * 2 * 86400 / (model.density * np.array([HEAT_CAPACITY, 1e-3]))
        fluxes += changes
        water = fields["sea_water_potential_temperature"][0].astype(np.float64)
        heat = np.nansum(np.moveaxis(water, 0, -1)[::-1].swapaxes(0, 1)[..., ::-1] * volume)
        if old is not None:
            assert heat - old == pytest.approx(changes[0], abs=rounding * volume.sum() / 10)
            assert abs(changes[0]) > rounding * volume.sum()
        old = heat
    for name, flux in zip(("temp", "salt"), fluxes, strict=True):
        change = content(model, state, name) - content(model, before, name)
        assert change == pytest.approx(flux, rel=1e-6), name  # fluxes are float32


def test_without_fluxes_contents_stay_to_rounding(veros, monkeypatch):
    model = build(Settings(step_hours=24))
    plain = model.setup.set_forcing

    def closed(state):
        plain(state)
        state.variables.forc_temp_surface = 0 * state.variables.forc_temp_surface
        state.variables.forc_salt_surface = 0 * state.variables.forc_salt_surface

    monkeypatch.setattr(model.setup, "set_forcing", veros.veros_routine(closed))
    state = before = model.initial_state()
    for _ in range(3):
        state, _ = model.advance_day(state)
    for name in ("temp", "salt"):
        assert content(model, state, name) == pytest.approx(content(model, before, name), rel=1e-13)
    assert np.abs(np.asarray(state.arrays["u"])).max() > 1e-3  # it moves


def test_a_signal_within_a_step_is_no_instability(veros, monkeypatch):
    model = build(Settings(step_hours=24))

    def stopped(state):
        raise Interrupted("stopped")

    monkeypatch.setattr(model.setup, "step", stopped)
    with pytest.raises(Interrupted, match="^stopped$"):
        model.advance_day(model.initial_state())


def test_masks_are_the_models_and_hold_for_all_fields(veros):
    model = build(Settings(step_hours=24))
    mask, longitude = model.static["sea_water_mask"], model.grid.longitude
    own = np.asarray(model.veros.variables.maskT)[2:-2, 2:-2] > 0
    np.testing.assert_array_equal(mask, own.transpose(2, 1, 0)[::-1, ::-1])
    wall = (longitude <= 1) & (model.grid.latitude[:, None] > -20)
    np.testing.assert_array_equal(model.static["land_sea_mask"], wall)
    tops = -model.levels.bounds[::-1, 0]
    below = below_ridge(model.settings, longitude, -model.levels.values[::-1], tops)
    np.testing.assert_array_equal(mask.sum(axis=0), np.where(wall, 0, 15 - below))
    crest = model.levels.bounds[mask[:, -1].sum(axis=0).astype(int) - 1, 1].min()
    assert abs(crest - 1040) <= 150  # half of 2080 m, to a cell
    _, fields = model.advance_day(model.initial_state())
    for name in (*STATES, *FLUXES):
        inside = mask if name in DEPTH_FIELDS else mask[0]
        np.testing.assert_array_equal(np.isfinite(fields[name][0]), inside > 0, err_msg=name)


@pytest.mark.parametrize(("settings", "days"), [
    ({"step_hours": 72}, 3),
    pytest.param({"monthly": True, "start": date(2004, 2, 1)}, 29, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_mean_is_the_mean_of_its_steps(veros, monkeypatch, settings, days):
    model = build(Settings(**settings, **NOISY))
    step, seen = model.setup.step, []

    def watched(state):
        step(state)
        v = state.variables
        seen.append([v.temp[2:-2, 2:-2, :, v.tau], v.salt[2:-2, 2:-2, :, v.tau], v.forc_temp_surface[2:-2, 2:-2]])

    monkeypatch.setattr(model.setup, "step", watched)
    state, fields = model.initial_state(), {}
    for _ in range(days):
        assert not fields
        state, fields = model.advance_day(state)
    assert len(seen) == 2 * days and state.steps == 0
    np.testing.assert_array_equal(
        fields["time_bounds"], [np.array([model.settings.start, model.settings.day(days)], "datetime64[ns]")]
    )
    temperature, salinity, flux = (np.mean(values, axis=0) for values in zip(*seen, strict=True))
    wet = model.static["sea_water_mask"] > 0
    for name, mean in (
        ("sea_water_potential_temperature", temperature + 273.15),
        ("sea_water_salinity", salinity),
    ):
        np.testing.assert_allclose(fields[name][0][wet], mean.transpose(2, 1, 0)[::-1, ::-1][wet], rtol=2e-7)
    heat = 1024 * HEAT_CAPACITY * flux.T[::-1]
    np.testing.assert_allclose(fields[HEAT][0][wet[0]], heat[wet[0]], rtol=1e-6, atol=1e-6)


def test_stopped_inside_a_mean_and_started_again_it_ends_with_the_same_bits(veros, tmp_path, monkeypatch):
    def options(name):
        return SimulationOptions(
            tmp_path / name, days=4, spin_up_days=1, chunk_days=2, start=date(2004, 2, 26), step_hours=48, model="veros",
            settings=NOISY,
        )  # fmt: skip

    simulate(options("whole"))
    build.cache_clear()
    model = type(build(settings_of(options("parts"))))
    whole, done = model.advance_day, []

    def stop(self, state):
        done.append(1)
        if len(done) == 4:
            raise KeyboardInterrupt
        return whole(self, state)

    monkeypatch.setattr(model, "advance_day", stop)
    with pytest.raises(KeyboardInterrupt):
        simulate(options("parts"))
    monkeypatch.setattr(model, "advance_day", whole)
    build.cache_clear()  # a process of its own knows nothing of the first
    simulate(options("parts"))
    for path in options("whole").directory.iterdir():
        assert path.read_bytes() == (options("parts").directory / path.name).read_bytes() or path.suffix == ".npz"
    with np.load(options("whole").restart(5)) as one, np.load(options("parts").restart(5)) as other:
        assert set(one.files) == set(other.files)
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_files_say_what_they_hold(veros, tmp_path):
    options = SimulationOptions(tmp_path, days=2, spin_up_days=0, chunk_days=2, step_hours=24, model="veros")
    simulate(options)
    with xr.open_dataset(options.chunk(0)) as data:
        assert f"veros {importlib.metadata.version('veros')}" in data.attrs["source"]
        np.testing.assert_array_equal(data.time.values, np.array(["2001-01-02", "2001-01-03"], "datetime64[ns]"))
        assert data.depth.attrs["positive"] == "down" and float(data.depth_bounds[-1, 1]) == 2080
        for name in (*STATES, *FLUXES):
            entry, attributes = variable(name), data[name].attrs
            assert attributes == {
                "units": entry.units,
                "standard_name": entry.standard_name,
                "cell_methods": "time: mean",
                "domain": "sea_water_mask" if name in DEPTH_FIELDS else "ocean",
            }
        assert data.attrs[CLOSED] == 1 and Constants.from_json(data.attrs["constants"]).sea_water_density == 1024
        # the wind of the channel is from the west, warm water lies on cold, the sea has a height
        assert float(data.mean_eastward_sea_surface_stress.sel(latitude=-31).mean()) > 0.05
        assert np.all(np.diff(data.sea_water_potential_temperature.mean(("time", "latitude", "longitude"))) < 0)
        assert 0.001 < float(data.sea_surface_height.std()) < 1


def test_a_state_of_another_model_is_refused(veros, tmp_path):
    model = build(Settings())
    for name, content_ in (("a.npz", b"no archive"), ("b.npz", b"")):
        (tmp_path / name).write_bytes(content_)
        with pytest.raises(ValueError, match="damaged"):
            model.load_state(tmp_path / name)
    with open(tmp_path / "c.npz", "wb") as file:
        np.savez(file, day=1)
    with pytest.raises(ValueError, match="arrays of this model"):
        model.load_state(tmp_path / "c.npz")
