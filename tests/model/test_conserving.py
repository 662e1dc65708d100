"""Budgets that cannot be closed with a store's variables are refused before anything is trained, with what would do."""

import pytest
from small_planet import FLUXES, numpy_statistics

from emulator.model import conserving
from emulator.model.assemble import layout_of
from emulator.model.conserving import ConservationOptions

LATENT = "mean_surface_latent_heat_flux"


def prepared(planet, without=(), levels=True, **conservation):
    dataset = planet.drop_vars(list(without)).assign_attrs(time_step_seconds=21600.0)
    statistics = numpy_statistics(dataset)
    dataset = dataset if levels else dataset.assign_attrs(levels_selected=1)
    options = ConservationOptions.of(conservation)
    return conserving.prepared(options, dataset, layout_of(dataset), statistics)


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
