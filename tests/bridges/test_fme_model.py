"""A checkpoint of fme with random weights gives in our store what fme's own inference gives."""

import dataclasses
import datetime
import json

import cftime
import numpy as np
import pytest
import torch
import xarray as xr
from small_planet import small_planet
from small_store import write_store

import emulator as em
from emulator.bridges.analysis_source import AnalysisSource
from emulator.bridges.foreign.fme_model import name_of

pytest.importorskip("fme", reason="fme is not installed: it pins a torch-harmonics of its own")
from fme.ace.data_loading.batch_data import BatchData, PrognosticState
from fme.ace.stepper.single_module import StepperConfig, load_stepper
from fme.core.coordinates import HybridSigmaPressureCoordinate, LatLonCoordinates
from fme.core.corrector.atmosphere import AtmosphereCorrectorConfig
from fme.core.dataset_info import DatasetInfo
from fme.core.normalizer import NetworkAndLossNormalizationConfig, NormalizationConfig
from fme.core.registry import ModuleSelector
from fme.core.step.single_module import SingleModuleStepConfig
from fme.core.step.step import StepSelector

LEVELS = 4
STATE = ["PRESsfc", *(f"{name}_{k}" for name in ("air_temperature", "specific_total_water") for k in range(LEVELS))]
FORCING = ["HGTsfc", "DSWRFtoa"]
GIVEN = ["PRATEsfc", "LHTFLsfc", "tendency_of_total_water_path_due_to_advection"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """With fme's gravity, on rows of equal angle: their areas are its weights, cosines. Those of Gaussian rows are others."""
    planet = small_planet(times=12)
    rows = em.Grid.equiangular(planet.sizes["latitude"], planet.sizes["longitude"]).latitude
    constants = json.dumps(json.loads(planet.attrs["constants"]) | {"gravity": 9.80665})
    planet = planet.assign_coords(latitude=rows).assign_attrs(constants=constants)
    sun = 340 + 0 * planet.surface_pressure + np.arange(12).reshape(-1, 1, 1)
    planet["mean_top_downward_short_wave_radiation_flux"] = sun.assign_attrs(role="forcing", units="W m-2")
    return write_store(tmp_path_factory.mktemp("fme"), planet)


# What ACE2 is trained with, but for its budget of energy.
CORRECTED = {
    "conserve_dry_air": True,
    "zero_global_mean_moisture_advection": True,
    "moisture_budget_correction": "precipitation",
    "force_positive_names": ["PRATEsfc"],
}


def written(path, store, corrector):
    """A spherical Fourier network of fme, its rows from south to north, without training."""
    planet = em.open_analysis(store)
    torch.manual_seed(0)
    means = {text: 0.0 for text in [*FORCING, *STATE, *GIVEN]}
    stds = dict.fromkeys(means, 1.0)
    means |= {"PRATEsfc": 3e-5, "LHTFLsfc": 80.0}
    stds |= {"PRATEsfc": 1e-5, "LHTFLsfc": 20.0, GIVEN[2]: 1e-5}
    for text in [*STATE, *FORCING]:
        name = name_of(planet, text)
        field = planet[name.variable] if name.level is None else planet[name.variable].isel(level=name.level)
        means[text], stds[text] = float(field.mean()) * name.factor, float(field.std()) * abs(name.factor) + 1e-6
    step = SingleModuleStepConfig(
        builder=ModuleSelector("SphericalFourierNeuralOperatorNet", {"embed_dim": 4, "num_layers": 1}),
        in_names=[*FORCING, *STATE],
        out_names=[*STATE, *GIVEN],
        normalization=NetworkAndLossNormalizationConfig(NormalizationConfig(means=means, stds=stds)),
        corrector=AtmosphereCorrectorConfig(**corrector),
    )
    config = StepperConfig(StepSelector("single_module", dataclasses.asdict(step)))
    about = DatasetInfo(
        horizontal_coordinates=LatLonCoordinates(
            lat=torch.tensor(planet.latitude.values[::-1].copy()), lon=torch.tensor(planet.longitude.values)
        ),
        vertical_coordinate=HybridSigmaPressureCoordinate(
            ak=torch.tensor(planet.half_level_a.values), bk=torch.tensor(planet.half_level_b.values)
        ),
        timestep=datetime.timedelta(hours=6),
    )
    torch.save({"stepper": config.get_stepper(about).get_state()}, path)
    return path


@pytest.fixture(scope="module", params=[{}, CORRECTED], ids=["free", "corrected"])
def corrector(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(store, corrector, tmp_path_factory):
    return written(tmp_path_factory.mktemp("ace") / "ckpt.tar", store, corrector)


def batch(source, texts, times):
    fields = source.read([name_of(source.dataset, text) for text in texts], times)[..., ::-1, :].copy()
    dates = cftime.num2date(
        times.astype("datetime64[s]").astype(int)[None], "seconds since 1970-01-01", "proleptic_gregorian"
    )
    data = {text: torch.from_numpy(fields[None, :, k]) for k, text in enumerate(texts)}
    return BatchData.new_on_device(data, xr.DataArray(dates, dims=["sample", "time"]), horizontal_dims=["lat", "lon"])


def test_a_checkpoint_gives_what_fme_gives_and_its_budgets_are_audited(store, checkpoint, corrector, tmp_path):
    source = AnalysisSource(store)
    times = source.dataset.time.values[2:7]
    section = {"kind": "fme", "checkpoint": str(checkpoint), "trust_pickle": True}
    whole = em.foreign_forecast(section, store, times[0], days=1, output=tmp_path / "f.zarr").load()
    found = whole.isel(init_time=0)
    stepper = load_stepper(checkpoint)
    stepper.set_eval()
    with torch.no_grad():
        own, _ = stepper.predict(PrognosticState(batch(source, STATE, times[:1])), batch(source, FORCING, times))
    assert len(own.data) == len(STATE) + len(GIVEN)
    for text, theirs in own.data.items():
        name = name_of(source.dataset, text)
        ours = found[name.variable] if name.level is None else found[name.variable].isel(level=name.level)
        theirs = theirs[0].numpy()[:, ::-1] / name.factor
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours.values[1:], theirs, rtol=0, atol=1e-5 * scale, err_msg=text)
    change = found.temperature.diff("lead_time")
    assert float(abs(change).max()) > 1
    heat = found.mean_surface_latent_heat_flux.isel(lead_time=slice(1, None)) / 2.5e6
    np.testing.assert_allclose(found.mean_evaporation_rate.isel(lead_time=slice(1, None)), heat, rtol=1e-6)
    left = abs(em.budgets(whole).budget_relative.isel(init_time=0, lead_time=slice(1, None))).max("lead_time")
    if corrector:
        assert float(left.sel(budget="dry_air")) < 3e-8 and float(left.sel(budget="water")) < 3e-7
    else:
        assert float(left.sel(budget="dry_air")) > 1e-5 and float(left.sel(budget="water")) > 1e-2
