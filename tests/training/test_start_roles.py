"""What a start from weights makes of channels whose role, time or units have changed; and what it tells starts apart by."""

import dataclasses

import numpy as np
import pytest
import torch
from small_planet import small_planet
from small_store import FREE, NETWORK, store_of

import emulator as em
from emulator.networks.signature import Channel
from emulator.networks.takeover import matched
from emulator.training.identity import identity_of_start
from emulator.training.options import TrainOptions
from emulator.training.options.sections import StartOptions
from emulator.training.run import Training
from emulator.training.start import Scales, _of_inputs, _of_outputs

STATE, FORCING, DIAGNOSTIC = (Channel("t", role) for role in ("state", "forcing", "diagnostic"))
SEA = "sea_surface_temperature"


def scales(channels, mean, std):
    numbers = [torch.tensor(values, dtype=torch.float64) for values in (mean, std)]
    states = sum(channel.role == "state" for channel in channels)
    return Scales(tuple(channels), *numbers, *torch.ones(2, states, dtype=torch.float64), None)


def test_what_is_diagnosed_is_no_state_and_forcing_is_the_same_input():
    assert matched([STATE], [DIAGNOSTIC]) == [-1] and matched([DIAGNOSTIC], [STATE]) == [-1]
    assert matched([STATE], [FORCING]) == [0] and matched([DIAGNOSTIC], [DIAGNOSTIC]) == [0]


def test_inputs_of_all_times_are_rescaled_by_the_same_numbers():
    """x' = (x - m') / s' of the new data is (s' / s) x' + (m' - m) / s in the old units."""
    old, new = scales([STATE], [1.0], [2.0]), scales([STATE], [4.0], [3.0])
    times = [dataclasses.replace(STATE, time=time) for time in (-1, 0)]
    found = _of_inputs(times, old, new)
    assert found.factor.tolist() == [1.5, 1.5] and found.offset.tolist() == [1.5, 1.5]


def test_an_output_of_what_was_forcing_has_no_old_units():
    old, new = scales([FORCING], [280.0], [5.0]), scales([STATE], [281.0], [4.0])
    found = _of_outputs([STATE], old, new, "state")
    assert found.factor.tolist() == [1.0] and found.offset.tolist() == [0.0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Store and statistics of a planet whose seas change, a folder, and options of a training that is given these seas."""
    folder = tmp_path_factory.mktemp("roles")
    planet = small_planet(times=12, nlat=8, levels=2)
    waves = 0.3 * np.sin(np.arange(planet.sizes["time"]) / 3)
    changing = (planet[SEA] + waves[:, None, None]).astype(np.float32).transpose(*planet[SEA].dims)
    planet[SEA] = changing.assign_attrs(planet[SEA].attrs)
    paths = store_of(folder, planet)
    options = {"network": NETWORK, "conservation": FREE, "phases": [{"updates": 2, "batch_size": 2}], "save_every": 1}
    options |= {"prognostic": ["temperature", "surface_pressure"]}
    em.train(*paths, folder / "first", **options)
    return *paths, folder, options


@pytest.mark.parametrize("statistics", ["old", "new"])
def test_forcing_that_becomes_a_state_starts_as_persistence(trained, tmp_path, statistics):
    store, known, folder, options = trained
    more = {"prognostic": [*options["prognostic"], SEA], "bounds": "none", "damping": 0.0, "optimizer": {"lr": 1e-12}}
    begin = {"checkpoint": folder / "first" / "checkpoint", "statistics": statistics}
    step = em.train(store, known, tmp_path, start=begin, **(options | more))
    data = em.open_analysis(store)
    made = em.forecast(step, data, data["time"].values[3], lead="6 hours")
    sea, steps = made[SEA].values[0], float(data[SEA].diff("time").std())
    assert np.abs(sea[1] - sea[0]).max() < 0.01 * steps


def test_the_order_of_patterns_tells_trainings_apart(trained):
    begin = {"checkpoint": trained[2] / "first" / "checkpoint", "statistics": "new"}
    rates = {"*": 0.1, "decoder*": 1.0}
    found = {
        identity_of_start(StartOptions.of(begin | {"lr_by": dict(order)}))
        for order in (rates.items(), reversed(rates.items()))
    }
    assert len(found) == 2


def test_gaps_need_a_state(trained, tmp_path):
    store, known, _, options = trained
    more = {"prognostic": [], "diagnostic": ["mean_evaporation_rate"], "gaps": "told"}
    made = Training(TrainOptions.of(options | more | {"store": store, "statistics": known, "output": tmp_path}))
    with pytest.raises(
        ValueError, match="Expected prognostic variables, of which states may lack some, with gaps told"
    ):
        made.describe()
