"""Budgets that cannot be closed with a store's variables are refused before anything is trained, with what would do."""

import dataclasses

import numpy as np
import pytest
import torch
from small_planet import FLUXES, numpy_statistics
from small_training import VALUES, samples_of, trainer

from emulator.conservation import fluxes
from emulator.data.channels import Layout
from emulator.model import conserving
from emulator.model.conserving import ConservationOptions
from emulator.training.options import TrainOptions
from emulator.training.recipe import Recipe

LATENT = "mean_surface_latent_heat_flux"


def prepared(planet, without=(), levels=True, **conservation):
    dataset = planet.drop_vars(list(without)).assign_attrs(time_step_seconds=21600.0)
    statistics = numpy_statistics(dataset)
    dataset = dataset if levels else dataset.assign_attrs(levels_selected=1)
    options = ConservationOptions.of(conservation)
    return conserving.prepared(options, dataset, Layout.of(dataset), statistics)


@pytest.mark.parametrize(
    "without, conservation, words",
    [
        ([LATENT], {}, [f"Expected {LATENT} among", "budget energy needs", "budgets=[dry_air,water] or", "kind=none"]),
        (
            ["mean_evaporation_rate"],
            {"budgets": ["energy", "water"]},
            ["Expected mean_evaporation_rate among", "budget water needs", "budgets=[energy] or", "kind=none"],
        ),
        (FLUXES, {}, ["budget water needs; ", f"{LATENT}, which the budget energy needs", "budgets=[dry_air] or"]),
        (
            ["specific_humidity"],
            {"kind": "projection"},
            ["budget dry_air needs", "train with train.conservation.kind=none"],
        ),
        (["surface_pressure"], {}, ["Expected surface_pressure", "sigma levels", "train.conservation.kind=none"]),
        (FLUXES, {"kind": "none", "penalty": 1.0}, ["kind=none and train.conservation.penalty=0"]),
        (
            [],
            {"budgets": ["column_water"]},
            ["Expected mean_vertically_integrated_moisture_divergence among", "budget column_water needs"],
        ),
        ([], {"kind": "projection", "controls": ["geopotential"]}, ["controls", "geopotential"]),
    ],
)
def test_what_a_budget_lacks_is_named_with_what_would_do(planet, without, conservation, words):
    with pytest.raises(ValueError) as refused:
        prepared(planet, without, **conservation)
    assert all(word in str(refused.value) for word in words), refused.value


def test_a_store_without_columns_closes_no_budget(planet):
    with pytest.raises(ValueError, match=r"levels that make up columns.*train\.conservation\.kind=none"):
        prepared(planet, levels=False)


@pytest.mark.parametrize("conservation", [{"kind": "none"}, {"budgets": []}])
def test_without_budgets_nothing_is_needed(planet, conservation):
    assert prepared(planet, ["surface_pressure", *FLUXES], **conservation) is None


@pytest.mark.parametrize("budgets", [["dry_air"], ["dry_air", "water"], ["dry_air", "water", "energy"]])
@pytest.mark.parametrize("kind", ["sequential", "projection"])
def test_what_the_sentence_offers_is_accepted(planet, kind, budgets):
    without = [] if "energy" in budgets else [LATENT] if "water" in budgets else FLUXES
    atmosphere, saved = prepared(planet, without, kind=kind, budgets=budgets)
    assert atmosphere.has_surface_pressure and set(saved) == {"variances", "orography"}


def test_defaults_close_all_three(planet):
    assert prepared(planet) is not None and ConservationOptions.of({}).scheme.budgets == ("dry_air", "water", "energy")


def test_an_unknown_budget_is_refused_with_those_there_are():
    with pytest.raises(
        ValueError, match="among dry_air, water, energy, column_water, ocean_heat, ocean_salt, got momentum"
    ):
        ConservationOptions.of({"budgets": ["momentum"]})


@pytest.fixture(scope="module")
def moving(planet):
    """The planet with the divergence of moisture that its water's budget asks for, column by column."""
    dataset = planet.assign_attrs(time_step_seconds=21600.0)
    # From the fields as they are stored; the first step's start is not known.
    humidity, pressure = (dataset[n].values.astype(np.float64) for n in ("specific_humidity", "surface_pressure"))
    thickness = np.diff(dataset["half_level_b"].values)[:, None, None] * pressure[:, None]
    water = (humidity * thickness).sum(1) / 9.81
    gain = -dataset[fluxes.EVAPORATION].values - dataset[fluxes.PRECIPITATION].values
    divergence = gain - np.diff(water, axis=0, prepend=water[:1]) / 21600
    area = np.cos(np.radians(dataset["latitude"].values))[:, None]
    divergence -= (divergence * area).sum((1, 2), keepdims=True) / (area.sum() * divergence.shape[2])
    attributes = {"units": "kg m-2 s-1", "cell_methods": "time: mean"}
    dims = dataset["surface_pressure"].dims
    return dataset.assign({fluxes.DIVERGENCE: (dims, divergence.astype(np.float32), attributes)})


def test_latitude_bands_are_closed_in_a_training_and_from_its_checkpoint(moving, tmp_path):
    """Water band by band after a step of the trained network, by the columns' budgets and the transport's divergence."""
    asked = {"kind": "projection", "bands": [-30.0, 30.0]}
    config = TrainOptions.of(VALUES | {"conservation": asked, "phases": [{"updates": 4, "batch_size": 2}]})
    made = trainer(moving, tmp_path, dataclasses.replace(Recipe.of(config), warmup=1), config=config)
    made.run()
    step, samples = made.step, made.samples
    batch = samples.batch(samples.starts(1)[:2], 1)
    before = samples.layout.prognostic.unpack(batch.state[:, 0])
    with torch.no_grad():
        result = step(batch.state[:, 0], batch.forcing[:, 0], batch.clock[:, 0], step.anchor(batch.state[:, 0]))
    after = samples.layout.prognostic.unpack(result.state) | samples.layout.diagnostic.unpack(result.diagnostic)
    air = step.scheme.atmosphere
    transport = after[fluxes.DIVERGENCE].double()
    transport = transport - air.mean(transport).reshape(-1, 1, 1)
    columns = step.scheme.budgets["water"].columns(before, after) + 21600 * transport
    number = torch.bucketize(air.latitude, torch.tensor(asked["bands"], dtype=torch.float64))
    assert step.scheme.setup.bands is not None
    for band in range(3):
        assert float(air.mean(columns * (number == band)).abs().max()) < 1e-6  # of 20 kg m-2
    options = ConservationOptions.of(asked)
    kept = conserving.conservation(options, samples, numpy_statistics(moving))
    saved = {"scheme": kept.saved, "layout": samples.layout.to_json(), "levels": air.levels.to_json()}
    saved |= {"constants": dataclasses.asdict(air.constants), "step_seconds": air.step_seconds}
    restored = conserving.restore_scheme(saved, options, samples.grid)
    for name, value in step.scheme(before, after)[0].items():
        assert torch.equal(restored(before, after)[0][name], value), name


@pytest.mark.parametrize(
    ("conservation", "words"),
    [
        ({"kind": "projection", "bands": [0.0]}, "mean_vertically_integrated_moisture_divergence"),
        ({"kind": "sequential", "bands": [0.0]}, "'projection' alone, got 'sequential'"),
        ({"kind": "projection", "bands": [30.0, -30.0]}, r"increasing latitudes .* got \[30.0, -30.0\]"),
    ],
)
def test_bands_that_cannot_be_closed_are_refused(planet, conservation, words):
    with pytest.raises(ValueError, match=words):
        prepared(planet, **conservation)


def test_water_by_column_goes_with_a_penalty(moving):
    """The truth, whose columns close, costs nothing like what a wetter state does."""
    samples = samples_of(moving)
    options = ConservationOptions.of({"kind": "none", "budgets": ["column_water"], "penalty": 1.0})
    penalty = conserving.conservation(options, samples, numpy_statistics(moving)).penalty
    batch = samples.batch(samples.starts(1)[1:3], 1)
    before = samples.layout.prognostic.unpack(batch.state[:, 0])
    after = samples.layout.prognostic.unpack(batch.state[:, 1])
    after |= samples.layout.diagnostic.unpack(batch.diagnostic[:, 0])
    assert float(penalty(before, after).max()) < 10
    wetter = after | {"specific_humidity": after["specific_humidity"] * 1.05}
    assert float(penalty(before, wetter).min()) > 100
