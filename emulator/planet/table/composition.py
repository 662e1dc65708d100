"""Greenhouse gases and aerosols: as fields on levels by mass, near the ground or as series in time by number."""

from emulator.planet.table.entries import aloft, surface

_LITTLE = {"role": "forcing", "minimum": 0, "maximum": 0.1}

TABLE = (
    aloft("carbon_dioxide_mass_mixing_ratio", "kg kg-1", "mass_fraction_of_carbon_dioxide_in_air", **_LITTLE, short="co2",
          parameter=210061),
    aloft("methane_mass_mixing_ratio", "kg kg-1", "mass_fraction_of_methane_in_air", **_LITTLE, short="ch4",
          parameter=210062),
    aloft("nitrous_oxide_mass_mixing_ratio", "kg kg-1", "mass_fraction_of_nitrous_oxide_in_air", **_LITTLE, short="n2o",
          parameter=210063),
    surface("carbon_dioxide_mole_fraction", "mol mol-1", "mole_fraction_of_carbon_dioxide_in_air", **_LITTLE, cmip="co2",
            also="co2s global_mean_co2 mole_fraction_of_carbon_dioxide_in_air"),
    surface("methane_mole_fraction", "mol mol-1", "mole_fraction_of_methane_in_air", **_LITTLE, cmip="ch4",
            also="ch4s mole_fraction_of_methane_in_air"),
    surface("nitrous_oxide_mole_fraction", "mol mol-1", "mole_fraction_of_nitrous_oxide_in_air", **_LITTLE, cmip="n2o",
            also="n2os mole_fraction_of_nitrous_oxide_in_air"),
    surface("total_aerosol_optical_depth_550nm", "1", "atmosphere_optical_thickness_due_to_ambient_aerosol_particles",
            "forcing", minimum=0, short="aod550", parameter=210207, cmip="od550aer"),
)  # fmt: skip
