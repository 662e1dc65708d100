"""A later network of a cascade: it starts from stored forecasts of the one before, and the short window keeps its bits."""

import dataclasses

import numpy as np
import pytest
import torch
from small_planet import small_planet
from small_store import FREE, NETWORK, store_of
from small_training import CONFIG, RECIPE, same_state, samples_of, trainer

import emulator as em
from emulator.data.channels import Layout, More
from emulator.data.samples import Samples
from emulator.files.interruption import Interrupted
from emulator.model.stepper import Cascade
from emulator.training.forecasts import StoredForecasts
from emulator.training.options import TrainOptions
from emulator.training.options.phases import Phase
from emulator.training.options.sections import ForecastOptions
from emulator.training.run import Training

CHOSEN = {"prognostic": CONFIG.prognostic, "network": NETWORK, "conservation": FREE}
SMALL = dataclasses.replace(CONFIG, network=NETWORK, conservation=FREE)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The short network, its stored forecasts of a day and a half from five times, and the folder of all."""
    folder = tmp_path_factory.mktemp("cascade")
    store, statistics = store_of(folder, small_planet(24, nlat=8))
    phases = [{"updates": 2, "batch_size": 2}]
    short = em.train(store, statistics, folder / "short", phases=phases, **CHOSEN)
    times = em.open_analysis(store)["time"].values[[0, 3, 6, 10, 20]]
    stored = em.forecast(short, store, times, 1.5, output=folder / "forecasts.zarr")
    return short, stored, folder


def opened(folder):
    return em.open_analysis(folder / "analysis.zarr")


def test_windows_start_from_stored_states_and_end_with_the_analysis(made, tmp_path):
    _, stored, folder = made
    data = opened(folder)
    samples = samples_of(data, SMALL)
    forecasts = StoredForecasts(ForecastOptions(folder / "forecasts.zarr", (0.5, 1.0)), samples)
    recipe = dataclasses.replace(RECIPE, phases=(Phase(12, 2, 4),))
    order = trainer(data, tmp_path, recipe, config=SMALL, forecasts=forecasts)._order
    drawn = set()
    for update in range(12):
        batch, pairs = order.batch(update), order.rows(update).pairs
        for row, (start, init, lead, member) in enumerate(pairs):
            one = stored.isel(init_time=init, lead_time=lead)
            assert one["init_time"].values + one["lead_time"].values == data["time"].values[start]
            for name, field in samples.layout.prognostic.unpack(batch.state[row], axis=1).items():
                np.testing.assert_array_equal(field[0], one[name].values)
                np.testing.assert_array_equal(field[1:], data[name].values[start + 1 : start + 3])
            drawn.add((init, lead))
    assert {lead for _, lead in drawn} == {2, 3, 4}
    # of the last initial time one lead is left by two steps before the end of the store
    assert drawn == {(i, k) for i in range(4) for k in (2, 3, 4)} - {(i, k) for i in (4,) for k in (2, 3, 4)}


def test_stored_states_that_are_not_finite_are_refused_where_they_lie(made):
    _, _, folder = made
    forecasts = StoredForecasts(ForecastOptions(folder / "forecasts.zarr"), samples_of(opened(folder), SMALL))
    pairs = forecasts.pairs(np.arange(24))[:1]
    forecasts._dataset = forecasts._dataset.copy(deep=True)
    forecasts._dataset["surface_pressure"].values[pairs[0, 1], pairs[0, 2]] = np.nan
    with pytest.raises(
        ValueError, match="finite states in .*zarr, got others of surface_pressure from 2.* after .* days"
    ):
        forecasts.states(pairs)


def test_a_history_comes_from_the_same_forecast(made):
    _, stored, folder = made
    data = opened(folder)
    samples = Samples(data, Layout.of(data, {"prognostic": CONFIG.prognostic}, more=More(history=3)))
    forecasts = StoredForecasts(ForecastOptions(folder / "forecasts.zarr"), samples)
    pairs = forecasts.pairs(samples.starts(1))
    assert set(pairs[:, 2]) == {2, 3, 4, 5, 6}  # of the first two leads the history is the analysis
    some = pairs[[0, 7]]
    states = forecasts.states(some)
    for state, (_, init, lead, _) in zip(states, some, strict=True):
        pressure = state[:, samples.layout.prognostic.slices["surface_pressure"].start]
        np.testing.assert_array_equal(pressure, stored["surface_pressure"].values[init, lead - 2 : lead + 1])


def test_a_later_network_leaves_the_short_window_as_it_is(made):
    """Bit for bit up to where it takes over, other bits after."""
    short, _, folder = made
    where = {"store": folder / "forecasts.zarr", "lead_days": (0.5, 1.5)}
    phases = [{"updates": 3, "batch_size": 2}]
    paths = folder / "analysis.zarr", folder / "statistics.nc"
    later = em.train(*paths, folder / "later", phases=phases, forecasts=where, seed=3, **CHOSEN)
    time = opened(folder)["time"].values[2]
    alone = em.forecast(short, folder / "analysis.zarr", time, 1.5)
    both = em.forecast(Cascade([(0, short), (2, later)]), folder / "analysis.zarr", time, 1.5)
    for name in CONFIG.prognostic:
        same = [np.array_equal(*(f[name].isel(lead_time=k).values for f in (alone, both))) for k in range(7)]
        assert same == [True] * 3 + [False] * 4


@pytest.mark.slow
def test_a_stopped_training_on_forecasts_ends_with_the_same_bits(made, tmp_path):
    data, where = opened(made[2]), ForecastOptions(made[2] / "forecasts.zarr")
    recipe = dataclasses.replace(RECIPE, phases=(Phase(4, 1, 2),))

    def again(folder):
        forecasts = StoredForecasts(where, samples_of(data, SMALL))
        return trainer(data, tmp_path / folder, recipe, config=SMALL, forecasts=forecasts)

    first = again("stopped")
    with pytest.raises(Interrupted):
        first.run(should_stop=lambda: first.update == 3)
    again("stopped").run()
    again("straight").run()
    same_state(tmp_path / "stopped", tmp_path / "straight")


@pytest.mark.slow
def test_members_are_forecasts_of_their_own(made, tmp_path):
    short, _, folder = made
    data = opened(folder)
    times = data["time"].values[[2, 3]]
    stored = em.forecast(short, data, times, 0.5, ensemble=3, output=tmp_path / "members.zarr")
    forecasts = StoredForecasts(ForecastOptions(tmp_path / "members.zarr", (0.25, 9.0)), samples_of(data, SMALL))
    pairs = forecasts.pairs(np.arange(24))
    assert len(pairs) == 2 * 2 * 3 == len(np.unique(pairs, axis=0))
    states = forecasts.states(pairs)
    for state, (_, init, lead, member) in zip(states, pairs, strict=True):
        one = stored["v_component_of_wind"].isel(init_time=init, lead_time=lead).sel(member=member)
        where = forecasts._layout.prognostic.slices["v_component_of_wind"]
        np.testing.assert_array_equal(state[where], one.values)
    assert torch.unique(states, dim=0).shape[0] == len(states)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("thin", "days", "message"),
    [
        ({"variables": ["temperature"]}, (0, 9), "of all prognostic variables in .*, got none of surface_pressure"),
        ({"every_hours": 12, "mean": "every"}, (0, 9), "Expected forecasts of states in .*, got means"),
        ({}, (2, 9), "leads of 2 to 9 days, got none"),
        ({"levels": [0.125]}, (0, 9), "on the levels of the analysis in .* other ones of temperature"),
    ],
)
def test_forecasts_that_do_not_fit_are_refused(made, tmp_path, thin, days, message):
    short, _, folder = made
    data = opened(folder)
    em.forecast(short, data, data["time"].values[2], 1.0, thin=thin, output=tmp_path / "thin.zarr")
    with pytest.raises(ValueError, match=message):
        samples = samples_of(data, SMALL)
        StoredForecasts(ForecastOptions(tmp_path / "thin.zarr", days), samples).pairs(samples.starts(1))


@pytest.mark.slow
def test_leads_that_no_forecast_has_are_refused_before_a_training_starts(made):
    folder = made[2]
    given = {
        "store": folder / "analysis.zarr",
        "statistics": folder / "statistics.nc",
        "output": folder / "none",
    } | CHOSEN
    forecasts = {"store": folder / "forecasts.zarr", "lead_days": (1.0, 3.0)}
    assert "prognostic" in Training(TrainOptions.of(given | {"forecasts": forecasts})).describe()
    with pytest.raises(ValueError, match="leads of 2 to 3 days, got none"):
        Training(TrainOptions.of(given | {"forecasts": forecasts | {"lead_days": (2.0, 3.0)}})).describe()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forecasts": {"store": "y", "lead_days": [3, 1]}}, "from the least to the most, got .3, 1"),
        ({"forecasts": {"store": "y"}, "phases": [{"updates": 2, "replay": 0.5}]}, "from forecasts or go on by replay"),
        ({"forecasts": {"store": "y"}, "steps": [6, 12], "history": 2}, "history and replay or forecasts"),
    ],
)
def test_options_that_do_not_go_with_forecasts_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TrainOptions.of({"store": "x", "statistics": "x", "output": "x"} | options)
