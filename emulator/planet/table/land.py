"""The land: soil, snow and vegetation.

Of the soil there are ECMWF's four layers as fields of their own (its bounds are 0, 7, 28, 100 and 289 cm), and fields with a
dimension `soil_layer`.
"""

from emulator.planet.table.entries import Variable, aloft, fixed, share, surface

_WETNESS = "volume_fraction_of_condensed_water_in_soil"
_SOIL = {"vertical": "soil_layer", "role": "forcing"}


def _layer(number: int, temperature: int, water: int) -> tuple[Variable, Variable]:
    return (
        surface(f"soil_temperature_level_{number}", "K", "soil_temperature", "forcing", short=f"stl{number}",
                parameter=temperature),
        surface(f"volumetric_soil_water_layer_{number}", "m3 m-3", _WETNESS, "forcing", minimum=0, maximum=1,
                short=f"swvl{number}", parameter=water),
    )  # fmt: skip


TABLE = (
    share("land_sea_mask", "land_area_fraction", "static", cell="fixed", short="lsm", parameter=172, cmip="sftlf",
          also="land_fraction"),
    *_layer(1, 139, 39),
    *_layer(2, 170, 40),
    *_layer(3, 183, 41),
    *_layer(4, 236, 42),
    aloft("soil_temperature", "K", "soil_temperature", **_SOIL, minimum=150, maximum=400, short="sot", parameter=260360,
          cmip="tsl"),
    aloft("volumetric_soil_water", "m3 m-3", _WETNESS, **_SOIL, minimum=0, maximum=1, short="vsw", parameter=260199),
    aloft("soil_water_content", "kg m-2", "mass_content_of_water_in_soil_layer", **_SOIL, minimum=0, cmip="mrsol",
          also="mrlsl"),
    surface("total_soil_water_content", "kg m-2", "mass_content_of_water_in_soil", "forcing", minimum=0, cmip="mrso"),
    share("soil_wetness", role="forcing"),  # what evaporates, as a share of what open water would
    surface("skin_reservoir_content", "m", "lwe_thickness_of_canopy_water_amount", "forcing", minimum=0, short="src",
            parameter=198),
    # snow
    surface("snow_depth", "m", "lwe_thickness_of_surface_snow_amount", "forcing", minimum=0, short="sd", parameter=141,
            cmip="snw", also="weasd swe"),
    surface("snow_thickness", "m", "surface_snow_thickness", "forcing", minimum=0, short="sde", parameter=3066,
            cmip="snd"),
    share("snow_cover", "surface_snow_area_fraction", "forcing", short="snowc", parameter=260038, cmip="snc"),
    surface("snow_density", "kg m-3", "snow_density", "forcing", minimum=0, maximum=1000, short="rsn", parameter=33),
    share("snow_albedo", role="forcing", short="asn", parameter=32),
    surface("temperature_of_snow_layer", "K", "temperature_in_surface_snow", "forcing", minimum=150, maximum=350,
            short="tsn", parameter=238, cmip="tsn"),
    # surface and vegetation
    share("forecast_albedo", "surface_albedo", "forcing", short="fal", parameter=243),
    surface("forecast_surface_roughness", "m", "surface_roughness_length", "forcing", minimum=0, short="fsr",
            parameter=244),
    surface("leaf_area_index", "m2 m-2", "leaf_area_index", "forcing", minimum=0, cmip="lai"),
    surface("leaf_area_index_high_vegetation", "m2 m-2", None, "forcing", minimum=0, short="lai_hv", parameter=67),
    surface("leaf_area_index_low_vegetation", "m2 m-2", None, "forcing", minimum=0, short="lai_lv", parameter=66),
    share("high_vegetation_cover", None, "static", cell="fixed", short="cvh", parameter=28),
    share("low_vegetation_cover", None, "static", cell="fixed", short="cvl", parameter=27),
    share("lake_cover", None, "static", cell="fixed", short="cl", parameter=26),
    fixed("type_of_high_vegetation", "1", None, short="tvh", parameter=30),
    fixed("type_of_low_vegetation", "1", None, short="tvl", parameter=29),
    fixed("soil_type", "1", "soil_type", short="slt", parameter=43),
)  # fmt: skip
