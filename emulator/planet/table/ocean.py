"""The ocean, its ice and its waves. States lie on depths; GRIB's numbers are those of snapshots, and of means for fluxes."""

from emulator.planet.table.entries import aloft, flux, share, surface

_DEPTH = {"vertical": "depth"}
_CURRENT = {"units": "m s-1", "minimum": -20, "maximum": 20}
_WAVE = {"role": "diagnostic", "minimum": 0}
_COMES_FROM = {"role": "diagnostic", "minimum": 0, "maximum": 360, "sign": "from where they come, clockwise from north"}

TABLE = (
    surface("sea_surface_temperature", "K", "sea_surface_temperature", "forcing", minimum=200, maximum=350, short="sst",
            parameter=34, cmip="tos", also="avg_tos"),
    surface("sea_surface_salinity", "g kg-1", "sea_surface_salinity", minimum=0, maximum=100, short="sos",
            parameter=262100, cmip="sos", also="avg_sos"),
    surface("sea_surface_height", "m", "sea_surface_height_above_geoid", minimum=-50, maximum=50, short="zos",
            parameter=262124, cmip="zos", also="avg_zos"),
    surface("ocean_mixed_layer_depth", "m", "ocean_mixed_layer_thickness_defined_by_sigma_t", "diagnostic", minimum=0,
            short="mlotst030", parameter=262114, cmip="mlotst", also="avg_mlotst030"),
    surface("eastward_surface_sea_water_velocity", standard_name="surface_eastward_sea_water_velocity", **_CURRENT,
            short="sve", parameter=262140, also="avg_sve"),
    surface("northward_surface_sea_water_velocity", standard_name="surface_northward_sea_water_velocity", **_CURRENT,
            short="svn", parameter=262139, also="avg_svn"),
    share("ocean_fraction", "sea_area_fraction", "forcing"),
    # at depth
    aloft("sea_water_potential_temperature", "K", "sea_water_potential_temperature", **_DEPTH, minimum=250, maximum=330,
          short="thetao", parameter=262501, cmip="thetao", also="avg_thetao"),
    aloft("sea_water_salinity", "g kg-1", "sea_water_salinity", **_DEPTH, minimum=0, maximum=100, short="so",
          parameter=262500, cmip="so", also="avg_so"),
    aloft("eastward_sea_water_velocity", standard_name="eastward_sea_water_velocity", **_DEPTH, **_CURRENT, short="uoe",
          parameter=262506, cmip="uo", also="avg_uoe"),
    aloft("northward_sea_water_velocity", standard_name="northward_sea_water_velocity", **_DEPTH, **_CURRENT, short="von",
          parameter=262505, cmip="vo", also="avg_von"),
    aloft("upward_sea_water_velocity", "m s-1", "upward_sea_water_velocity", "diagnostic", **_DEPTH, short="wo",
          parameter=262507, cmip="wo", also="avg_wo"),
    # through its surface
    flux("mean_downward_heat_flux_into_sea_water", "W m-2", "surface_downward_heat_flux_in_sea_water", "forcing",
         short="avg_hfds", parameter=263108, cmip="hfds"),
    flux("mean_eastward_sea_surface_stress", "N m-2", "downward_eastward_stress_at_sea_water_surface", "forcing",
         sign="eastward momentum downward positive", short="avg_tauuoe", parameter=263110, cmip="tauuo",
         also="tauuoe avg_tauuo"),
    flux("mean_northward_sea_surface_stress", "N m-2", "downward_northward_stress_at_sea_water_surface", "forcing",
         sign="northward momentum downward positive", short="avg_tauvon", parameter=263109, cmip="tauvo",
         also="tauvon avg_tauvo"),
    flux("mean_ocean_q_flux", "W m-2", None, "forcing", sign="positive where currents warm the mixed layer",
         also="qflux q_flux"),
    # ice
    share("sea_ice_cover", "sea_ice_area_fraction", "forcing", short="ci", parameter=31, cmip="siconc",
          also="sea_ice_fraction avg_siconc"),
    surface("sea_ice_thickness", "m", "sea_ice_thickness", "forcing", minimum=0, short="sithick", parameter=262000,
            cmip="sithick", also="avg_sithick"),
    surface("eastward_sea_ice_velocity", standard_name="eastward_sea_ice_velocity", **_CURRENT, role="diagnostic",
            short="siue", parameter=262003, cmip="siu", also="avg_siue"),
    surface("northward_sea_ice_velocity", standard_name="northward_sea_ice_velocity", **_CURRENT, role="diagnostic",
            short="sivn", parameter=262004, cmip="siv", also="avg_sivn"),
    # waves
    surface("significant_height_of_combined_wind_waves_and_swell", "m", "sea_surface_wave_significant_height", **_WAVE,
            maximum=40, short="swh", parameter=140229, also="vhm0 hs"),
    surface("significant_height_of_wind_waves", "m", "sea_surface_wind_wave_significant_height", **_WAVE, maximum=40,
            short="shww", parameter=140234),
    surface("significant_height_of_total_swell", "m", "sea_surface_swell_wave_significant_height", **_WAVE, maximum=40,
            short="shts", parameter=140237),
    surface("mean_wave_period", "s",
            "sea_surface_wave_mean_period_from_variance_spectral_density_inverse_frequency_moment", **_WAVE, maximum=60,
            short="mwp", parameter=140232, also="vtm10"),
    surface("mean_zero_crossing_wave_period", "s",
            "sea_surface_wave_mean_period_from_variance_spectral_density_second_frequency_moment", **_WAVE, maximum=60,
            short="mp2", parameter=140221, also="vtm02"),
    surface("peak_wave_period", "s", "sea_surface_wave_period_at_variance_spectral_density_maximum", **_WAVE, maximum=60,
            short="pp1d", parameter=140231, also="vtpk"),
    surface("mean_wave_direction", "degree", "sea_surface_wave_from_direction", **_COMES_FROM, short="mwd",
            parameter=140230, also="vmdr"),
    surface("mean_direction_of_wind_waves", "degree", "sea_surface_wind_wave_from_direction", **_COMES_FROM, short="mdww",
            parameter=140235),
    surface("mean_direction_of_total_swell", "degree", "sea_surface_swell_wave_from_direction", **_COMES_FROM,
            short="mdts", parameter=140238),
)  # fmt: skip
