"""earth2studio's own workflows run a checkpoint of ours and give the forecasts that `emulator.forecast` gives."""

from collections import OrderedDict

import numpy as np
import pytest
import xarray as xr
from small_planet import small_planet
from small_store import NETWORK, store_of

import emulator as em

pytest.importorskip("earth2studio", reason="earth2studio is not installed; the extra earth2studio brings it")
from earth2studio.data import DataArrayFile, fetch_data
from earth2studio.io import XarrayBackend
from earth2studio.models.auto import Package
from earth2studio.models.px import PrognosticModel
from earth2studio.perturbation import Zero
from earth2studio.run import deterministic, ensemble
from earth2studio.utils.checkpoint import Checkpoint

from emulator.bridges.analysis_source import AnalysisSource
from emulator.bridges.earth2studio import Emulator

STEPS = 4
SHORT = {
    "prognostic": ["temperature", "surface_pressure", "specific_humidity", "u_component_of_wind", "v_component_of_wind"]
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A store and a checkpoint whose budgets are closed, its network changed so that its steps move."""
    folder = tmp_path_factory.mktemp("trained")
    store, statistics = store_of(folder, small_planet(times=24))
    em.train(store, statistics, folder / "train", network=NETWORK, phases=[{"updates": 2, "batch_size": 2}], **SHORT)
    return store, folder / "train" / "checkpoint"


@pytest.fixture(scope="module")
def expected(paths):
    dataset = em.open_analysis(paths[0])
    return em.forecast(paths[1], dataset, list(dataset.time.values[4:6]), days=STEPS / 4).load()


def compare(found: xr.Dataset, expected: xr.Dataset, source: AnalysisSource, tolerance=1e-6):
    """Every field of earth2studio's output is ours, to a millionth of its size."""
    assert len(found.data_vars) > 20
    for text in map(str, found.data_vars):
        name = source.names[text]
        ours = expected[name.variable]
        ours = ours if name.level is None else ours.isel(level=name.level)
        ours = ours.transpose("init_time", "lead_time", ...).values * name.factor
        theirs = found[text].values.reshape(ours.shape)
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=tolerance * np.abs(ours).max(), err_msg=text)


def test_deterministic_is_our_forecast(paths, expected):
    source = AnalysisSource(paths[0])
    model = em.earth2studio_model(paths[1], paths[0])
    assert isinstance(model, PrognosticModel)
    times = expected.init_time.values
    found = deterministic(times, STEPS, model, source, XarrayBackend(), verbose=False).root
    compare(found, expected, source)
    moved = expected.temperature.isel(lead_time=-1) - expected.temperature.isel(lead_time=0)
    assert float(abs(moved).max()) > 1e-3


def test_ensemble_is_our_forecast_for_every_member(paths, expected):
    source, model = AnalysisSource(paths[0]), Emulator(paths[1], AnalysisSource(paths[0]))
    found = ensemble(expected.init_time.values, STEPS, 3, model, source, XarrayBackend(), Zero(), 2, verbose=False).root
    assert found.sizes["ensemble"] == 3
    for member in range(3):
        compare(found.isel(ensemble=member), expected, source)


def test_it_goes_on_from_a_checkpoint_of_earth2studio_with_the_budgets_pinned_as_before(paths, tmp_path):
    source, time = AnalysisSource(paths[0]), [em.open_analysis(paths[0]).time.values[4]]
    whole = deterministic(time, STEPS, Emulator(paths[1], paths[0]), source, XarrayBackend(), verbose=False).root
    for steps in (2, STEPS):
        kept = Checkpoint("kept", tmp_path / "kept", level=2)
        model = Emulator(paths[1], paths[0])
        shape = deterministic(time, steps, model, source, XarrayBackend(), verbose=False, checkpoint=kept).root
    for name in whole.data_vars:
        xr.testing.assert_equal(shape[name].isel(lead_time=slice(3, None)), whole[name].isel(lead_time=slice(3, None)))
        assert np.isnan(shape[name].isel(lead_time=slice(0, 3))).all(), "the second run made the first steps again"


def test_a_package_and_a_data_source_of_earth2studio_serve_as_well(paths, expected, tmp_path):
    source = AnalysisSource(paths[0])
    model = Emulator.load_model(Package(str(paths[1]), cache=False), source)
    names = [*model.forcing_names, *model.input_coords()["variable"]]
    source(source.dataset.time.values, names).to_netcdf(tmp_path / "fields.nc")
    theirs = DataArrayFile(str(tmp_path / "fields.nc"))
    model = Emulator.load_model(Package(str(paths[1]), cache=False), theirs)
    found = deterministic(expected.init_time.values, STEPS, model, theirs, XarrayBackend(), verbose=False).root
    diagnostic = [n.text for n in source.names.values() if n.text not in names and n.text in found]
    assert diagnostic and all(np.isnan(found[name].isel(lead_time=0)).all() for name in diagnostic)
    compare(found.isel(lead_time=slice(1, None)), expected.isel(lead_time=slice(1, None)), source)


def test_hooks_change_states_and_budgets_stay_pinned_to_the_first(paths):
    source, model = AnalysisSource(paths[0]), Emulator(paths[1], paths[0])
    coords = model.input_coords()
    time = source.dataset.time.values[4:5]
    x, at = fetch_data(source, time, coords["variable"], coords["lead_time"])

    def drier_air(x, coords):
        place = list(coords["variable"]).index("sp")
        x = x.clone()
        x[..., place, :, :] += 300.0
        return x, coords

    anchor = model.stepper.anchor(x[:, 0]).dry_mass
    masses = []
    for hook in (None, drier_air):
        if hook:
            model.rear_hook = hook
        for (state, _), _ in zip(model.create_iterator(x, at), range(4), strict=False):
            rows = state[:, 0, : len(coords["variable"])]
            masses.append(float(model.stepper.anchor(rows).dry_mass - anchor))
    plain, hooked = masses[:4], masses[4:]
    scale = float(anchor)
    assert max(map(abs, plain)) < 1e-6 * scale
    # every step takes back what the hook has added, and the hook adds it anew
    assert all(abs(mass) > 1e-3 * scale for mass in hooked[1:])
    np.testing.assert_allclose(hooked[1:], hooked[1], rtol=1e-3)


def test_a_single_call_is_one_step(paths, expected):
    source, model = AnalysisSource(paths[0]), Emulator(paths[1], paths[0])
    coords = model.input_coords()
    x, at = fetch_data(source, expected.init_time.values, coords["variable"], coords["lead_time"])
    out, found = model(x, at)
    assert list(found) == ["time", "lead_time", "variable", "lat", "lon"]
    assert found["lead_time"] == np.timedelta64(6, "h")
    place = list(found["variable"]).index("t1k")
    ours = expected.temperature.isel(lead_time=1, level=1).values
    np.testing.assert_allclose(out[:, 0, place].numpy(), ours, rtol=1e-6)
    with pytest.raises(ValueError, match="dim variable are not the same"):
        model(x[:, :, 1:], at | OrderedDict(variable=at["variable"][1:]))


def test_two_input_times_and_steps_of_two_lengths(tmp_path):
    store, statistics = store_of(tmp_path, small_planet(times=24))
    more = {"history": 2, "steps": [6, 12], "phases": [{"updates": 2, "batch_size": 2}]}
    em.train(store, statistics, tmp_path / "train", network=NETWORK, **more, **SHORT)
    source = AnalysisSource(store)
    times = list(source.dataset.time.values[4:6])
    for hours, first in ((6, "tp06"), (12, "tp12")):
        model = Emulator(tmp_path / "train" / "checkpoint", store, step_hours=hours)
        assert model.input_coords()["lead_time"].tolist() == [-hours * 3600 * 10**9, 0]
        ours = em.forecast(model.stepper, store, times, days=1, step_hours=hours).load()
        found = deterministic(times, 24 // hours, model, source, XarrayBackend(), verbose=False).root
        theirs = found[first].values[:, 1:] / (hours * 3.6)
        np.testing.assert_allclose(theirs, ours.mean_total_precipitation_rate[:, 1:], rtol=1e-6, atol=1e-12)
        for k in range(4):
            np.testing.assert_allclose(found[f"t{k}k"].values, ours.temperature[:, :, k], rtol=1e-6)


def test_members_of_a_stochastic_network_have_the_noise_of_ours(tmp_path):
    store, statistics = store_of(tmp_path, small_planet(times=24))
    network = {"kind": "sfno", "embed_dim": 4, "blocks": 1, "noise": {"channels": 2}, "norm": "layer"}
    loss = {"kind": "crps", "members": 2}
    phases = [{"updates": 2, "batch_size": 2}]
    em.train(store, statistics, tmp_path / "train", network=network, loss=loss, phases=phases, **SHORT)
    source, model = AnalysisSource(store), Emulator(tmp_path / "train" / "checkpoint", store, seed=3)
    times = list(source.dataset.time.values[4:6])
    options = {"members": 3, "kind": "none", "seed": 3}
    ours = em.forecast(model.stepper, store, times, days=0.5, ensemble=options).load()
    found = ensemble(times, 2, 3, model, source, XarrayBackend(), Zero(), 2, verbose=False).root
    for member in range(3):
        compare(found.isel(ensemble=member), ours.isel(member=member), source)
    assert float(abs(ours.temperature.diff("member")).max()) > 1e-4


def test_bad_input_is_refused_in_a_sentence(paths):
    with pytest.raises(ValueError, match="Expected forcing of .*sst"):
        Emulator(paths[1])
    with pytest.raises(ValueError, match="Expected step_hours among those of the network, 6, got 12"):
        Emulator(paths[1], paths[0], step_hours=12)
    with pytest.raises(NotImplementedError, match="the folder or URL of a checkpoint"):
        Emulator.from_pretrained()
