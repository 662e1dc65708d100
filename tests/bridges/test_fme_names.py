"""Names of fme, and that its pickles are opened only for who says so."""

import pytest
from small_planet import small_planet

from emulator.bridges.analysis_source import AnalysisSource
from emulator.bridges.foreign.fme_model import name_of
from emulator.bridges.foreign.registry import ForeignError, make_foreign
from emulator.bridges.lexicon import LexiconError

# What ACE2-ERA5 reads and gives, as its checkpoint names them.
NAMES = {
    "PRESsfc": ("surface_pressure", None, 1.0),
    "surface_temperature": ("skin_temperature", None, 1.0),
    "TMP2m": ("2m_temperature", None, 1.0),
    "Q2m": ("2m_specific_humidity", None, 1.0),
    "UGRD10m": ("10m_u_component_of_wind", None, 1.0),
    "VGRD10m": ("10m_v_component_of_wind", None, 1.0),
    "DSWRFtoa": ("mean_top_downward_short_wave_radiation_flux", None, 1.0),
    "USWRFtoa": ("mean_top_upward_short_wave_radiation_flux", None, 1.0),
    "ULWRFtoa": ("mean_top_net_long_wave_radiation_flux", None, -1.0),
    "DSWRFsfc": ("mean_surface_downward_short_wave_radiation_flux", None, 1.0),
    "USWRFsfc": ("mean_surface_upward_short_wave_radiation_flux", None, 1.0),
    "DLWRFsfc": ("mean_surface_downward_long_wave_radiation_flux", None, 1.0),
    "ULWRFsfc": ("mean_surface_upward_long_wave_radiation_flux", None, 1.0),
    "LHTFLsfc": ("mean_surface_latent_heat_flux", None, -1.0),
    "SHTFLsfc": ("mean_surface_sensible_heat_flux", None, -1.0),
    "PRATEsfc": ("mean_total_precipitation_rate", None, 1.0),
    "tendency_of_total_water_path_due_to_advection": ("mean_vertically_integrated_moisture_divergence", None, -1.0),
    "HGTsfc": ("geopotential_at_surface", None, 1 / 9.81),
    "land_fraction": ("land_sea_mask", None, 1.0),
    "ocean_fraction": ("ocean_fraction", None, 1.0),
    "sea_ice_fraction": ("sea_ice_cover", None, 1.0),
    "global_mean_co2": ("carbon_dioxide_mole_fraction", None, 1.0),
    "air_temperature_0": ("temperature", 0, 1.0),
    "eastward_wind_3": ("u_component_of_wind", 3, 1.0),
    "northward_wind_1": ("v_component_of_wind", 1, 1.0),
    "specific_total_water_2": ("specific_humidity", 2, 1.0),
}


def test_names_and_signs():
    planet = small_planet(times=3, nlat=4)
    found = {text: (n.variable, n.level, n.factor) for text in NAMES for n in [name_of(planet, text)]}
    assert found == {
        text: pytest.approx(expected) if text == "HGTsfc" else expected for text, expected in NAMES.items()
    }
    wet = planet.assign(specific_total_water=planet.specific_humidity)
    assert name_of(wet, "specific_total_water_2").variable == "specific_total_water"
    for text in ("air_temperature_4", "h500", "made_up"):
        with pytest.raises(LexiconError, match=f"(for {text}|got '{text}')"):
            name_of(planet, text)


def test_a_pickle_is_refused_without_consent(tmp_path):
    source = AnalysisSource(small_planet(times=3, nlat=4).assign_attrs(time_step_seconds=21600.0))

    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    import pickle

    (tmp_path / "ckpt.tar").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(
        ForeignError, match="trust_pickle: true to open .*ckpt.tar: .* can run any program as you while"
    ):
        make_foreign({"kind": "fme", "checkpoint": str(tmp_path / "ckpt.tar")}, source)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ForeignError, match="Expected a checkpoint of fme at .*, got no file there"):
        make_foreign({"kind": "fme", "checkpoint": str(tmp_path / "none.tar"), "trust_pickle": True}, source)
