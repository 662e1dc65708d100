"""A model of other code behind the protocol: what it gives is what the store has, and the verification takes it."""

import numpy as np
import pytest
import xarray as xr
from small_planet import small_planet
from small_store import write_store

import emulator as em
from emulator.bridges.analysis_source import AnalysisSource
from emulator.bridges.forecasts import ForeignForecaster
from emulator.bridges.foreign.earth2studio_model import as_counted
from emulator.bridges.foreign.registry import ForeignError, make_foreign
from emulator.bridges.lexicon import LexiconError, Name, name_in
from emulator.forecasting.options import ThinOptions
from emulator.forecasting.schedule import Schedule
from emulator.forecasting.writing import Output, write

HOUR = np.timedelta64(1, "h")


class Turning:
    """Every step moves the state a cell to the east, and rains so many millimetres as it has made steps."""

    digest = "turning"

    def __init__(self, source, hours=6, texts=("t0k", "t1k", "t2k", "t3k", "sp"), more=("tp06",), starts=(0,)):
        self.step, seconds = np.timedelta64(hours, "h").astype("timedelta64[ns]"), hours * 3600.0
        self.starts = np.array(starts) * HOUR
        self.inputs = [name_in(source.dataset, text, seconds) for text in texts]
        self.outputs = [*self.inputs, *(name_in(source.dataset, text, seconds) for text in more)]

    def forecast(self, time, state):
        for number in range(1, 100):
            rain = np.full((len(self.outputs) - len(self.inputs), *state.shape[2:]), number * 1e-3, np.float32)
            yield np.concatenate([np.roll(state[-1], number, axis=-1), rain])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("turning"), small_planet(times=12, nlat=8))


@pytest.fixture
def source(store):
    return AnalysisSource(store)


def test_a_store_is_a_data_source_of_earth2studio_names(source):
    times = source.dataset.time.values[[5, 2]]
    found = source(list(times.astype("datetime64[s]").tolist()), ["t1k", "tp06", "lsm", "sp"])
    assert found.dims == ("time", "variable", "lat", "lon")
    given = source.dataset.sel(time=times)
    np.testing.assert_array_equal(found.sel(variable="t1k"), given.temperature.isel(level=1))
    np.testing.assert_array_equal(found.sel(variable="lsm")[1], given.land_sea_mask.astype(np.float32))
    rain = given.mean_total_precipitation_rate.values * 21600 / 1000
    np.testing.assert_allclose(found.sel(variable="tp06"), rain, rtol=1e-6)
    np.testing.assert_array_equal(source(times[0], "sp")[0, 0], given.surface_pressure[0])
    with pytest.raises(LexiconError, match="Expected fields of the analysis, .*t0k.*, got t500; .*t500, on others t0k"):
        source(times, ["t500"])
    with pytest.raises(ValueError, match="Expected times of the analysis, .*, got 1999"):
        source([np.datetime64("1999-01-01")], ["sp"])


def test_fields_are_the_models_in_our_units_and_the_first_lead_is_the_analysis(source):
    times = source.dataset.time.values[2:4]
    found = em.foreign_forecast(Turning(source), source.dataset, times, days=1)
    given = source.dataset.sel(time=times)
    np.testing.assert_array_equal(found.lead_time / HOUR, [0, 6, 12, 18, 24])
    for k in range(5):
        for name in ("temperature", "surface_pressure"):
            np.testing.assert_array_equal(found[name].isel(lead_time=k), np.roll(given[name].values, k, axis=-1))
    rain = found.mean_total_precipitation_rate  # 1, 2, 3, 4 mm in 6 hours
    np.testing.assert_array_equal(rain.isel(lead_time=0), given.mean_total_precipitation_rate.values)
    np.testing.assert_allclose(rain.isel(lead_time=slice(1, None))[0, :, 0, 0], np.arange(1, 5) / 21600, rtol=1e-6)
    assert rain.attrs["units"] == "kg m-2 s-1" and found.attrs["model"] == "Turning"


def test_a_stopped_store_ends_the_same(source, tmp_path, monkeypatch):
    times, asked, forecast = list(source.dataset.time.values[2:5]), [], Turning.forecast
    whole = em.foreign_forecast(Turning(source), source.dataset, times, days=1)

    def stopped(self, time, state):
        asked.append(time)
        if time == times[2] and asked.count(time) == 1:
            raise KeyboardInterrupt
        yield from forecast(self, time, state)

    monkeypatch.setattr(Turning, "forecast", stopped)
    with pytest.raises(KeyboardInterrupt):
        em.foreign_forecast(Turning(source), source.dataset, times, days=1, output=tmp_path / "f.zarr")
    again = em.foreign_forecast(Turning(source), source.dataset, times, days=1, output=tmp_path / "f.zarr")
    assert asked.count(times[1]) == 1  # the first is asked for the store's template too
    for name in ("temperature", "surface_pressure", "mean_total_precipitation_rate"):
        xr.testing.assert_equal(again[name].load(), whole[name])


def test_the_budgets_of_its_forecasts_are_audited(source):
    texts = ("t0k", "t1k", "t2k", "t3k", "q0k", "q1k", "q2k", "q3k", "sp")
    found = em.foreign_forecast(Turning(source, texts=texts), source.dataset, source.dataset.time.values[2], days=1)
    mass = em.budgets(found).sel(budget="dry_air").budget_total.values  # turning about the axis keeps it
    assert 9e3 < mass.min() and mass.shape == (1, 5)
    np.testing.assert_allclose(mass, mass[..., :1] + 0 * mass, rtol=1e-7)


@pytest.mark.slow
def test_the_verification_scores_its_store(source, store, tmp_path):
    times = list(source.dataset.time.values[2:5])
    em.foreign_forecast(Turning(source), source.dataset, times, days=1, output=tmp_path / "f.zarr")
    scores = em.score(tmp_path / "f.zarr", store)
    field = "surface_pressure"
    error = np.sqrt(
        (np.roll(source.dataset.sel(time=times)[field].values, 1, -1) - source.dataset[field].values[3:6]) ** 2
    )
    assert error.max() > 10
    found = float(scores["rmse"].sel(channel=field).isel(forecast=0, lead_time=1, region=0))
    area = source.dataset.cell_area.values / source.dataset.cell_area.values.sum()
    np.testing.assert_allclose(found, np.sqrt(((error**2).mean(0) * area).sum()), rtol=1e-4)


def test_a_longer_step_more_input_times_and_means(source):
    model = Turning(source, hours=12, more=("tp12",), starts=(-12, 0))
    time = source.dataset.time.values[4]
    found = em.foreign_forecast(model, source.dataset, time, days=1, thin={"every_hours": 24, "mean": "every"})
    given = source.dataset.sel(time=time).temperature.values
    mean = (np.roll(given, 1, -1).astype(np.float64) + np.roll(given, 2, -1)) / 2
    np.testing.assert_allclose(found.temperature[0, 0], mean, rtol=1e-6)
    with pytest.raises(ValueError, match="Expected analyses that a forecast from .* starts from"):
        em.foreign_forecast(model, source.dataset, source.dataset.time.values[1], days=1)


def test_a_part_of_the_levels_makes_no_column(source):
    model = Turning(source, texts=("t1k", "t3k", "u3k"), more=())
    found = em.foreign_forecast(model, source.dataset, source.dataset.time.values[2], days=0.5)
    assert found.attrs["levels_selected"] == 1 and "half_level_a" not in found
    np.testing.assert_array_equal(found.level, source.dataset.level[[1, 3]])
    assert np.isnan(found.u_component_of_wind.isel(level=0)).all() and not np.isnan(found.temperature).any()


def test_blocks_may_be_as_short_as_one_lead(source, tmp_path, monkeypatch):
    monkeypatch.setattr("emulator.bridges.forecasts.BLOCK_BYTES", 1)
    forecaster, time = ForeignForecaster(Turning(source), source), source.dataset.time.values[2:3]
    write(Output(tmp_path / "short.zarr", {}, ["x"], ThinOptions()), forecaster, time, Schedule.every(4))
    expected = em.foreign_forecast(Turning(source), source.dataset, time, days=1)
    xr.testing.assert_equal(em.open_forecast(tmp_path / "short.zarr").temperature.load(), expected.temperature)


def test_bad_input_is_a_sentence(source):
    with pytest.raises(ForeignError, match="a multiple of the analysis's 6 h, got 9 h"):
        ForeignForecaster(Turning(source, hours=9, more=()), source)
    with pytest.raises(ForeignError, match="a foreign model of a kind among .*earth2studio.*, got 'earth2'"):
        make_foreign({"kind": "earth2"}, source)

    class Short(Turning):
        def forecast(self, time, state):
            yield from [next(super().forecast(time, state))]

    with pytest.raises(ForeignError, match="Expected 4 steps of the model from .*, it gave 1"):
        em.foreign_forecast(Short(source), source.dataset, source.dataset.time.values[2], days=1)


def test_heat_fluxes_that_earth2studio_hands_on_upward_are_turned():
    """Of its ACE2 (a class of that module, or what is derived from it), and of no other model."""
    names = [Name("msshf", "mean_surface_sensible_heat_flux"), Name("t2m", "2m_temperature")]
    ace = type("ACE2ERA5", (), {"__module__": "earth2studio.models.px.ace2"})
    assert [name.factor for name in as_counted(names, type("Mine", (ace,), {}))] == [-1.0, 1.0]
    assert as_counted(names, type("FCN", (), {"__module__": "earth2studio.models.px.fcn"})) == names
