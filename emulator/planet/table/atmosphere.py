"""The atmosphere: fields on levels, columns, and what is near the ground."""

from emulator.planet.table.entries import aloft, fixed, share, surface

_WATER = "atmosphere_mass_content_of_water"
_MIXED = {"role": "diagnostic", "minimum": 0}

TABLE = (
    aloft("geopotential", "m2 s-2", "geopotential", short="z", parameter=129, cmip="zg", also="gh geopotential_height"),
    aloft(
        "temperature", "K", "air_temperature", minimum=50, maximum=400, short="t", parameter=130, cmip="ta",
        also="air_temperature",
    ),
    aloft(
        "u_component_of_wind", "m s-1", "eastward_wind", minimum=-400, maximum=400, short="u", parameter=131, cmip="ua",
        also="eastward_wind",
    ),
    aloft(
        "v_component_of_wind", "m s-1", "northward_wind", minimum=-400, maximum=400, short="v", parameter=132, cmip="va",
        also="northward_wind",
    ),
    aloft(
        "specific_humidity", "kg kg-1", "specific_humidity", minimum=-1e-3, maximum=0.2, short="q", parameter=133,
        cmip="hus",
    ),
    aloft("relative_humidity", "%", "relative_humidity", "diagnostic", short="r", parameter=157, cmip="hur"),
    aloft(
        "vertical_velocity", "Pa s-1", "lagrangian_tendency_of_air_pressure", "diagnostic", short="w", parameter=135,
        cmip="wap",
    ),
    aloft("vorticity", "s-1", "atmosphere_relative_vorticity", "diagnostic", short="vo", parameter=138),
    aloft("divergence", "s-1", "divergence_of_wind", "diagnostic", short="d", parameter=155),
    aloft("potential_vorticity", "K m2 kg-1 s-1", "ertel_potential_vorticity", "diagnostic", short="pv", parameter=60),
    aloft(
        "specific_cloud_liquid_water_content", "kg kg-1", "mass_fraction_of_cloud_liquid_water_in_air", short="clwc",
        parameter=246,
    ),
    aloft("specific_cloud_ice_water_content", "kg kg-1", "mass_fraction_of_cloud_ice_in_air", short="ciwc", parameter=247),
    aloft("specific_rain_water_content", "kg kg-1", "mass_fraction_of_rain_in_air", short="crwc", parameter=75),
    aloft("specific_snow_water_content", "kg kg-1", "mass_fraction_of_snow_in_air", short="cswc", parameter=76),
    aloft("specific_total_water", "kg kg-1", "mass_fraction_of_water_in_air", minimum=-1e-3, maximum=0.2),
    aloft("ozone_mass_mixing_ratio", "kg kg-1", "mass_fraction_of_ozone_in_air", short="o3", parameter=203),
    aloft("wind_speed", "m s-1", "wind_speed", "diagnostic", minimum=0, maximum=400, short="ws"),
    share("fraction_of_cloud_cover", "cloud_area_fraction_in_atmosphere_layer", vertical="level", short="cc",
          parameter=248, cmip="cl"),
    # near the ground
    surface(
        "surface_pressure", "Pa", "surface_air_pressure", minimum=3e4, maximum=1.2e5, short="sp", parameter=134, cmip="ps",
        also="pressfc",
    ),
    surface(
        "mean_sea_level_pressure", "Pa", "air_pressure_at_mean_sea_level", minimum=8e4, maximum=1.2e5, short="msl",
        parameter=151, cmip="psl", also="prmsl",
    ),
    surface(
        "2m_temperature", "K", "air_temperature", minimum=150, maximum=360, short="2t", parameter=167, cmip="tas",
        also="t2m trefht tmp2m",
    ),
    surface("2m_dewpoint_temperature", "K", "dew_point_temperature", short="2d", parameter=168, cmip="tdps", also="d2m"),
    surface(
        "2m_specific_humidity", "kg kg-1", "specific_humidity", "diagnostic", minimum=-1e-3, maximum=0.2, short="2sh",
        parameter=174096, cmip="huss", also="sh2 q2m",
    ),
    surface(
        "2m_relative_humidity", "%", "relative_humidity", "diagnostic", short="2r", parameter=260242, cmip="hurs", also="r2",
    ),
    surface("10m_wind_speed", "m s-1", "wind_speed", "diagnostic", minimum=0, short="10si", parameter=207, cmip="sfcwind",
            also="si10"),
    surface("10m_u_component_of_wind", "m s-1", "eastward_wind", short="10u", parameter=165, cmip="uas",
            also="u10 ugrd10m"),
    surface("10m_v_component_of_wind", "m s-1", "northward_wind", short="10v", parameter=166, cmip="vas",
            also="v10 vgrd10m"),
    surface("100m_u_component_of_wind", "m s-1", "eastward_wind", "diagnostic", short="100u", parameter=228246, also="u100"),
    surface("100m_v_component_of_wind", "m s-1", "northward_wind", "diagnostic", short="100v", parameter=228247,
            also="v100"),
    surface("instantaneous_10m_wind_gust", "m s-1", "wind_speed_of_gust", "diagnostic", minimum=0, short="i10fg",
            parameter=228029),
    surface(
        "skin_temperature", "K", "surface_temperature", minimum=150, maximum=400, short="skt", parameter=235, cmip="ts",
        also="surface_temperature",
    ),
    surface("boundary_layer_height", "m", "atmosphere_boundary_layer_thickness", **_MIXED, short="blh", parameter=159,
            cmip="zmla"),
    # columns
    surface("total_column_water", "kg m-2", _WATER, "diagnostic", short="tcw", parameter=136, also="total_water_path"),
    surface("total_column_water_vapour", "kg m-2", f"{_WATER}_vapor", "diagnostic", short="tcwv", parameter=137,
            cmip="prw", also="pwat"),
    surface("total_column_cloud_water", "kg m-2", "atmosphere_mass_content_of_cloud_condensed_water", **_MIXED,
            short="cwat", parameter=260102, cmip="clwvi"),
    surface("total_column_cloud_liquid_water", "kg m-2", "atmosphere_mass_content_of_cloud_liquid_water", **_MIXED,
            short="tclw", parameter=78),
    surface("total_column_cloud_ice_water", "kg m-2", "atmosphere_mass_content_of_cloud_ice", **_MIXED, short="tciw",
            parameter=79, cmip="clivi"),
    surface("total_column_rain_water", "kg m-2", None, **_MIXED, short="tcrw", parameter=228089),
    surface("total_column_snow_water", "kg m-2", None, **_MIXED, short="tcsw", parameter=228090),
    surface("total_column_ozone", "kg m-2", "atmosphere_mass_content_of_ozone", **_MIXED, short="tco3", parameter=206),
    surface("convective_available_potential_energy", "J kg-1",
            "atmosphere_convective_available_potential_energy_wrt_surface", **_MIXED, short="cape", parameter=59),
    share("total_cloud_cover", "cloud_area_fraction", short="tcc", parameter=164, cmip="clt"),
    share("low_cloud_cover", "low_type_cloud_area_fraction", short="lcc", parameter=186),
    share("medium_cloud_cover", "medium_type_cloud_area_fraction", short="mcc", parameter=187),
    share("high_cloud_cover", "high_type_cloud_area_fraction", short="hcc", parameter=188),
    # the ground below
    fixed("geopotential_at_surface", "m2 s-2", "surface_geopotential", short="z", parameter=129, cmip="orog", also="hgtsfc"),
    fixed("standard_deviation_of_orography", "m", None, minimum=0, short="sdor", parameter=160),
    fixed("slope_of_sub_gridscale_orography", "1", None, minimum=0, short="slor", parameter=163),
    fixed("angle_of_sub_gridscale_orography", "radian", None, short="anor", parameter=162),
    fixed("anisotropy_of_sub_gridscale_orography", "1", None, minimum=0, short="isor", parameter=161),
)  # fmt: skip
