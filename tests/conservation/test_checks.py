"""Wrong units, signs and time cells are refused with a sentence that names the variable."""

import pytest

from emulator.conservation import check_means, check_units, fluxes
from emulator.planet.variables import VARIABLES

MEANS = {
    "surface_pressure": 98_500.0,
    "temperature": 248.0,
    "specific_humidity": 2.4e-3,
    fluxes.PRECIPITATION: 3.1e-5,
    fluxes.EVAPORATION: -3.1e-5,
    fluxes.LATENT_HEAT: -79.0,
    "mean_surface_sensible_heat_flux": -17.0,
    "mean_top_net_short_wave_radiation_flux": 241.0,
    "mean_top_net_long_wave_radiation_flux": -239.0,
    "mean_surface_net_short_wave_radiation_flux": 164.0,
    "mean_surface_net_long_wave_radiation_flux": -57.0,
}


def attributes(name, **changes):
    entry = VARIABLES[name]
    cell = {"point": "time: point", "mean": "time: mean (interval: 6 hours)", "fixed": None}[entry.cell]
    return {"units": entry.units, "standard_name": entry.standard_name, "cell_methods": cell} | changes


def test_the_tables_own_attributes_pass():
    check_units({name: attributes(name) for name in VARIABLES})
    check_units({"a variable of no table": {"units": "furlong"}})
    check_means(MEANS)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (fluxes.LATENT_HEAT, {"units": "J m-2"}, "in W m-2, got .J m-2., an amount over an interval: divide"),
        (fluxes.PRECIPITATION, {"units": "m"}, "in kg m-2 s-1, got .m., an amount over an interval"),
        (fluxes.PRECIPITATION, {"units": "mm day-1"}, "in kg m-2 s-1, got .mm day-1."),
        ("surface_pressure", {"units": "hPa"}, "Expected surface_pressure in Pa, got .hPa."),
        ("temperature", {"units": ""}, "Expected temperature in K, got 'no units'"),
        (fluxes.EVAPORATION, {"cell_methods": "time: sum"}, "as a mean over the step, got cell_methods 'time: sum'"),
        (fluxes.EVAPORATION, {"cell_methods": "time: point"}, "as a mean over the step"),
        ("temperature", {"cell_methods": "time: mean (interval: 1 day)"}, "as a snapshot"),
        (fluxes.EVAPORATION, {"sign": "positive"}, "with the sign 'downward positive"),
        (
            "mean_top_net_long_wave_radiation_flux",
            {"standard_name": "toa_outgoing_longwave_flux"},
            "downward positive .* turn its sign round",
        ),
        (fluxes.LATENT_HEAT, {"standard_name": "surface_upward_latent_heat_flux"}, "turn its sign round"),
    ],
)
def test_wrong_attributes_are_refused(name, changes, message):
    with pytest.raises(ValueError, match=message) as refusal:
        check_units({name: attributes(name, **changes)})
    assert name in str(refusal.value)


@pytest.mark.parametrize("name", sorted(set(MEANS) - {"temperature", "specific_humidity", "surface_pressure"}))
def test_turned_signs_are_refused(name):
    with pytest.raises(ValueError, match=rf"global mean of {name} between .* its sign is turned round"):
        check_means(MEANS | {name: -MEANS[name]})


@pytest.mark.parametrize("name", sorted(set(MEANS) - {"temperature", "specific_humidity", "surface_pressure"}))
def test_accumulations_are_refused(name):
    """Six hours' amount in place of the mean rate: a factor of 21 600."""
    with pytest.raises(ValueError, match=rf"global mean of {name} between .* its unit or its time cell is another"):
        check_means(MEANS | {name: 21600 * MEANS[name]})


@pytest.mark.parametrize(("name", "factor"), [("surface_pressure", 0.01), ("specific_humidity", 1000.0)])
def test_wrong_units_of_the_state_are_refused(name, factor):
    with pytest.raises(ValueError, match=f"global mean of {name}"):
        check_means(MEANS | {name: MEANS[name] * factor})


def test_latent_heat_must_be_that_of_evaporation():
    with pytest.raises(ValueError, match="near the latent heat of mean_evaporation_rate"):
        check_means(MEANS | {fluxes.EVAPORATION: 3 * MEANS[fluxes.EVAPORATION]})


@pytest.mark.parametrize("name", sorted(set(MEANS) - {"temperature", "specific_humidity", "surface_pressure"}))
def test_of_a_region_a_turned_sign_is_found_and_no_size(name):
    """A desert's rain and a polar night's sun are smaller than any globe's; cold ground takes heat from the air."""
    few = {key: MEANS[key] for key in MEANS if key not in (fluxes.LATENT_HEAT, fluxes.EVAPORATION) or key == name}
    check_means(few | {name: 1e-3 * MEANS[name]}, region=True)
    turned = MEANS | {name: -MEANS[name]}
    if name == "mean_surface_sensible_heat_flux":
        check_means(turned, region=True)
        return
    with pytest.raises(ValueError, match=f"regional mean of {name} .* its sign is turned round"):
        check_means(turned, region=True)


def test_of_a_region_too_latent_heat_goes_with_evaporation():
    check_means({fluxes.EVAPORATION: 0.0, fluxes.LATENT_HEAT: 0.0}, region=True)
    with pytest.raises(ValueError, match="near the latent heat of mean_evaporation_rate"):
        check_means(MEANS | {fluxes.EVAPORATION: 3 * MEANS[fluxes.EVAPORATION]}, region=True)
