"""Hidden parts of states: counted exactly, functions of their keys, and the same where a forecast starts without them."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from small_planet import numpy_statistics, small_planet
from small_store import FREE, NETWORK, store_of
from small_training import CONFIG, RECIPE, same_state, samples_of, trainer

import emulator as em
from emulator.data.channels import Layout, More
from emulator.data.samples import Samples
from emulator.files.interruption import Interrupted
from emulator.model.assemble import buffers, signature_of
from emulator.model.rollout import rollout
from emulator.model.saved_model import check_match, with_gaps
from emulator.model.step import Step
from emulator.training.masks import hidden, masked
from emulator.training.options import TrainOptions
from emulator.training.options.phases import MaskOptions, Phase

TOLD = dataclasses.replace(CONFIG, network=NETWORK, conservation=FREE, gaps="told")
KEY = (5, 7, 1)


def test_every_window_loses_the_share_of_its_patches():
    options = MaskOptions(0.5, kind="local", patch=2, window=3)
    cells = hidden(options, (12, 24), 2, KEY)
    assert (cells[0] == cells[1]).all() and cells.shape == (2, 12, 24)
    patches = cells[0].reshape(6, 2, 12, 2)
    assert (patches.any((1, 3)) == patches.all((1, 3))).all()
    counts = patches.all((1, 3)).reshape(2, 3, 4, 3).sum((1, 3))
    assert set(counts.ravel()) == {4, 5}  # of 9, as often one as the other


def test_whole_windows_are_hidden():
    cells = hidden(MaskOptions(0.5, kind="windows", patch=2, window=3), (12, 24), 1, KEY)[0]
    windows = cells.reshape(2, 6, 4, 6)
    assert (windows.all((1, 3)) == windows.any((1, 3))).all() and windows.all((1, 3)).sum() == 4


@pytest.mark.parametrize(("space", "patch", "window"), [((13, 27), 2, 4), ((181,), 3, 5), ((7, 5), 4, 8)])
@pytest.mark.parametrize("kind", ["local", "windows", "mixed"])
def test_the_share_is_right_on_average_on_any_grid(space, patch, window, kind):
    options = MaskOptions(0.3, kind=kind, patch=patch, window=window)
    found = np.stack([hidden(options, space, 1, (0, n, 0))[0] for n in range(400)])
    assert found.mean(0).min() > 0.15 and found.mean(0).max() < 0.45  # of every cell
    assert found.mean() == pytest.approx(0.3, abs=0.05)
    others = np.stack([hidden(options, space, 1, (0, n, 1))[0] for n in range(20)])
    assert (hidden(options, space, 1, (0, 17, 0))[0] == found[17]).all() and (others != found[:20]).any()


def test_a_share_that_is_drawn_differs_by_sample():
    found = [hidden(MaskOptions(0.2, 0.8, patch=1, window=4), (16, 16), 1, (0, n, 0)).mean() for n in range(200)]
    assert 0.15 < min(found) < 0.25 and 0.75 < max(found) < 0.85 and np.mean(found) == pytest.approx(0.5, abs=0.05)


def test_whole_variables_are_hidden_and_one_stays():
    gone = np.stack([hidden(MaskOptions(0.0, variables=0.7), (3, 4), 4, (0, n, 2)) for n in range(500)])
    assert (gone.all((2, 3)) == gone.any((2, 3))).all()
    assert gone.all((2, 3)).sum(1).max() == 3 and 0.6 < gone.mean() < 0.7


@pytest.mark.parametrize("lead", [0, 1])
def test_a_batch_starts_from_what_is_left_and_ends_with_the_truth(planet, lead):
    samples = samples_of(planet, TOLD)
    batch, options = samples.batch([3, 9], 1), MaskOptions(0.4, lead=lead, variables=0.3)
    keys = [(0, 4, 0), (0, 4, 1)]
    found = masked(batch, options, samples, keys)
    assert torch.equal(found.state[:, 1], batch.state[:, 1])
    whole = batch.state[:, 1 - lead]
    where = np.stack([hidden(options, samples.grid.shape, 5, key) for key in keys])
    where = torch.from_numpy(where.repeat(samples.layout.prognostic.widths, 1))
    assert torch.equal(found.state[:, 0].isnan(), where)
    assert torch.equal(found.state[:, 0][~where], whole[~where])


class Seen(torch.nn.Module):
    """The same output everywhere, and what the network was given."""

    def __init__(self, layout, value):
        super().__init__()
        self.count, self.value = layout.prognostic.count + layout.diagnostic.count, value

    def forward(self, x):
        self.seen = x
        return torch.full((len(x), self.count, *x.shape[2:]), self.value)


def seeing(planet, gaps, history=1, kind="change"):
    data = planet.assign_attrs(time_step_seconds=21600.0)
    layout = Layout.of(data, {"prognostic": CONFIG.prognostic}, more=More(gaps=gaps, history=history))
    samples = Samples(data, layout)
    made = buffers(samples, numpy_statistics(planet), kind="none", predicts=kind)
    return Step(Seen(layout, 0.4), layout, made, predicts=kind), samples


@pytest.mark.parametrize("gaps", ["told", "zero"])
@pytest.mark.parametrize("kind", ["change", "state"])
def test_what_is_missing_is_zero_for_the_network_and_begins_anew_from_the_mean(planet, gaps, kind):
    step, samples = seeing(planet, gaps, kind=kind)
    batch, slices = samples.batch([3], 1), samples.layout.prognostic.slices
    given = batch.forcing[:, 0], batch.clock[:, 0]
    whole = step(batch.start(), *given).state
    before, state = step.network.seen, batch.start().clone()
    state[:, slices["temperature"].start, 2:4] = torch.nan  # of one level: the variable is not known there
    state[:, slices["surface_pressure"]] = torch.nan
    after = step(state, *given)
    gone = torch.zeros(state.shape, dtype=torch.bool)
    gone[:, slices["temperature"], 2:4], gone[:, slices["surface_pressure"]] = True, True
    count = samples.layout.prognostic.count
    assert torch.equal(step.network.seen[:, :count], torch.where(gone, 0.0, before[:, :count]))
    assert torch.equal(after.state[~gone], whole[~gone])
    wanted = (step.resting + 0.4 * step.spread).expand_as(after.state)
    torch.testing.assert_close(after.state[gone], wanted[gone], rtol=0, atol=0)
    names = [c.name for c in signature_of(samples.layout).inputs]
    assert len(names) == step.network.seen.shape[1]
    if gaps == "told":
        told = {n: step.network.seen[0, names.index(f"{n}_known")] for n in CONFIG.prognostic}
        assert (told["temperature"][2:4] == 0).all() and told["temperature"].sum() == gone[0, 0].numel() - 48
        assert (told["surface_pressure"] == 0).all() and (told["specific_humidity"] == 1).all()


def test_with_a_history_a_gap_lasts_until_it_is_out_of_sight(planet):
    step, samples = seeing(planet, "told", history=2)
    batch = samples.batch([3], 3)
    state = batch.start().clone()
    state[:, 1, 0] = torch.nan  # in the newer of two times
    known = []
    for result in rollout(step, state, batch.inputs()):
        known.append(bool(step.network.seen[0, -5].all()))  # temperature, the first of five
        assert torch.isfinite(result.state).all()
    assert known == [False, False, True]


def test_a_stopped_masked_training_ends_with_the_same_bits(planet, tmp_path):
    masks = MaskOptions(0.3, 0.7, "mixed", patch=2, window=2, variables=0.2)
    phases = Phase(3, 1, 2, masks=dataclasses.replace(masks, lead=0)), Phase(3, 2, 2, masks=masks)
    recipe = dataclasses.replace(RECIPE, phases=phases)
    first = trainer(planet, tmp_path / "stopped", recipe, config=TOLD)
    with pytest.raises(Interrupted):
        first.run(should_stop=lambda: first.update == 4)
    trainer(planet, tmp_path / "stopped", recipe, config=TOLD).run()
    trainer(planet, tmp_path / "straight", recipe, config=TOLD).run()
    same_state(tmp_path / "stopped", tmp_path / "straight")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phases": [{"updates": 3, "masks": {}}]}, "train.gaps zero or told with phases that mask"),
        (
            {"gaps": "told", "phases": [{"updates": 3, "masks": {"share": 0.5, "share_to": 0.4}}]},
            "share_to of at least",
        ),
        ({"gaps": "told", "conservation": {}}, "conservation .kind: none. without a penalty with train.gaps"),
        ({"gaps": "told", "steps": [6, 12], "phases": [{"updates": 3, "masks": {"lead": 0}}]}, "masks.lead 0 without"),
    ],
)
def test_masks_that_do_not_fit_a_training_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TrainOptions.of({"store": "x", "statistics": "x", "output": "x", "conservation": FREE} | options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that goes without, and the store's data."""
    folder, planet = tmp_path_factory.mktemp("gaps"), small_planet(12, nlat=8)
    store, statistics = store_of(folder, planet)
    phases = [{"updates": 1, "batch_size": 2, "masks": {"variables": 0.3}}]
    chosen = {"prognostic": CONFIG.prognostic, "network": NETWORK, "conservation": FREE}
    return em.train(store, statistics, folder / "told", phases=phases, gaps="told", **chosen), em.open_analysis(store)


def test_a_forecast_goes_on_without_a_variable_and_without_cells(trained):
    step, data = trained
    time = data["time"].values[4]
    lacking = data.drop_vars("surface_pressure").load()
    lacking["temperature"] = lacking["temperature"].where(lacking["latitude"] < 0)
    found = em.forecast(step, lacking, time, 0.5)
    whole = em.forecast(step, data, time, 0.5)
    assert found["surface_pressure"].isel(lead_time=0).isnull().all()
    later = found.isel(lead_time=slice(1, None))
    for name in CONFIG.prognostic:
        assert np.isfinite(later[name].values).all() and later[name].dims == whole[name].dims
    assert not np.array_equal(later["temperature"], whole["temperature"].isel(lead_time=slice(1, None)))
    assert found["surface_pressure"].attrs["units"] == "Pa"
    with pytest.raises(ValueError, match="whole initial states for bred vectors, got missing values of temperature"):
        em.forecast(step, lacking, time, 0.5, ensemble={"members": 2, "kind": "bred", "cycles": 1})


def test_a_network_that_was_not_trained_for_it_refuses_gaps(trained, planet):
    step, data = trained
    saved, lacking = copy.deepcopy(step.metadata), data.drop_vars("surface_pressure")
    assert "surface_pressure" in with_gaps(lacking, saved)
    saved["layout"]["gaps"] = "refused"
    with pytest.raises(ValueError, match="Expected variable surface_pressure as checkpoint one has"):
        check_match(saved, with_gaps(lacking, saved), "one", "another")
    other, samples = seeing(planet, "refused")
    holes = samples.dataset.copy()
    holes["temperature"] = holes["temperature"].where(holes["latitude"] < 0)
    with pytest.raises(ValueError, match="without train.gaps, got missing values of temperature"):
        em.forecast(other, holes, holes["time"].values[4], 0.5)
