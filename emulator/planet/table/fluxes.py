"""Energy, water and momentum that pass the surface and the top: means over the step, downward positive as ECMWF has them.

ECMWF's `avg_` names are those of its newer encoding, its accumulations stand with the mean rate that they become.
"""

from emulator.planet.table.entries import Variable, flux

_DIVERGENCE = "positive where the column loses water to its neighbours"
_EVAPORATION = "downward positive (evaporation negative)"
_RATE = {"units": "kg m-2 s-1", "sign": "positive"}
_UP = {"units": "W m-2", "sign": "upward positive", "minimum": 0}
_DOWN = {"units": "W m-2", "minimum": 0}
_NET = {"units": "W m-2"}
_CLEAR = "assuming_clear_sky"

TABLE = (
    # water
    flux("mean_total_precipitation_rate", standard_name="precipitation_flux", **_RATE, minimum=0, short="mtpr",
         parameter=235055, cmip="pr", also="avg_tprate tp total_precipitation pratesfc prate"),
    flux("mean_convective_precipitation_rate", standard_name="convective_precipitation_flux", **_RATE, minimum=0,
         short="mcpr", parameter=235030, cmip="prc", also="avg_cpr cp convective_precipitation cprat"),
    flux("mean_large_scale_precipitation_rate", standard_name="stratiform_precipitation_flux", **_RATE, minimum=0,
         short="mlspr", parameter=235029, also="avg_lsprate lsp large_scale_precipitation"),
    flux("mean_snowfall_rate", standard_name="snowfall_flux", **_RATE, minimum=0, short="msr", parameter=235031,
         cmip="prsn", also="avg_tsrwe sf snowfall"),
    flux("mean_evaporation_rate", standard_name="water_evapotranspiration_flux", units="kg m-2 s-1", sign=_EVAPORATION,
         short="mer", parameter=235043, cmip="-evspsbl", also="avg_ie e evaporation"),
    flux("mean_vertically_integrated_moisture_divergence", units="kg m-2 s-1", sign=_DIVERGENCE, short="mvimd",
         parameter=235054, also="avg_vimdf vimd vertically_integrated_moisture_divergence "
                                "-tendency_of_total_water_path_due_to_advection"),
    flux("mean_vertical_integral_of_divergence_of_mass_flux", units="kg m-2 s-1",
         sign="positive where the column loses air to its neighbours"),
    flux("mean_vertical_integral_of_divergence_of_total_energy_flux", units="W m-2",
         sign="positive where the column loses energy to its neighbours"),
    flux("mean_runoff_rate", standard_name="runoff_flux", **_RATE, short="mror", parameter=235048, cmip="mrro",
         also="avg_rorwe ro runoff"),
    flux("mean_surface_runoff_rate", standard_name="surface_runoff_flux", **_RATE, short="msror", parameter=235020,
         cmip="mrros", also="avg_surfror sro surface_runoff"),
    flux("mean_sub_surface_runoff_rate", standard_name="subsurface_runoff_flux", **_RATE, short="mssror",
         parameter=235021, also="avg_ssurfror ssro sub_surface_runoff"),
    flux("mean_snowmelt_rate", standard_name="surface_snow_melt_flux", **_RATE, short="msmr", parameter=235024, cmip="snm",
         also="avg_smr smlt snowmelt"),
    # radiation at the surface
    flux("mean_surface_net_short_wave_radiation_flux", standard_name="surface_net_downward_shortwave_flux", **_NET,
         short="msnswrf", parameter=235037, cmip="rss", also="avg_snswrf ssr surface_net_solar_radiation -nswrs"),
    flux("mean_surface_net_long_wave_radiation_flux", standard_name="surface_net_downward_longwave_flux", **_NET,
         short="msnlwrf", parameter=235038, cmip="rls", also="avg_snlwrf str surface_net_thermal_radiation -nlwrs"),
    flux("mean_surface_downward_short_wave_radiation_flux", standard_name="surface_downwelling_shortwave_flux_in_air",
         **_DOWN, short="msdwswrf", parameter=235035, cmip="rsds",
         also="avg_sdswrf ssrd surface_solar_radiation_downwards sdswrf dswrfsfc"),
    flux("mean_surface_downward_long_wave_radiation_flux", standard_name="surface_downwelling_longwave_flux_in_air",
         **_DOWN, short="msdwlwrf", parameter=235036, cmip="rlds",
         also="avg_sdlwrf strd surface_thermal_radiation_downwards sdlwrf dlwrfsfc"),
    flux("mean_surface_upward_short_wave_radiation_flux", standard_name="surface_upwelling_shortwave_flux_in_air", **_UP,
         cmip="rsus", also="suswrf uswrfsfc"),
    flux("mean_surface_upward_long_wave_radiation_flux", standard_name="surface_upwelling_longwave_flux_in_air", **_UP,
         cmip="rlus", also="sulwrf ulwrfsfc"),
    flux("mean_surface_net_short_wave_radiation_flux_clear_sky",
         standard_name=f"surface_net_downward_shortwave_flux_{_CLEAR}", **_NET, short="msnswrfcs", parameter=235051,
         also="avg_snswrfcs ssrc surface_net_solar_radiation_clear_sky"),
    flux("mean_surface_net_long_wave_radiation_flux_clear_sky",
         standard_name=f"surface_net_downward_longwave_flux_{_CLEAR}", **_NET, short="msnlwrfcs", parameter=235052,
         also="avg_snlwrfcs strc surface_net_thermal_radiation_clear_sky"),
    flux("mean_surface_downward_short_wave_radiation_flux_clear_sky",
         standard_name=f"surface_downwelling_shortwave_flux_in_air_{_CLEAR}", **_DOWN, short="msdwswrfcs",
         parameter=235068, cmip="rsdscs", also="avg_sdswrfcs ssrdc surface_solar_radiation_downward_clear_sky"),
    flux("mean_surface_downward_long_wave_radiation_flux_clear_sky",
         standard_name=f"surface_downwelling_longwave_flux_in_air_{_CLEAR}", **_DOWN, short="msdwlwrfcs",
         parameter=235069, cmip="rldscs", also="avg_sdlwrfcs strdc surface_thermal_radiation_downward_clear_sky"),
    flux("mean_surface_upward_short_wave_radiation_flux_clear_sky",
         standard_name=f"surface_upwelling_shortwave_flux_in_air_{_CLEAR}", **_UP, cmip="rsuscs"),
    # radiation at the top
    Variable("mean_top_downward_short_wave_radiation_flux", "W m-2", "forcing", "toa_incoming_shortwave_flux", cell="mean",
             minimum=0, short="mtdwswrf", parameter=235053, cmip="rsdt",
             also="avg_tdswrf tisr toa_incident_solar_radiation dswrftoa"),
    flux("mean_top_net_short_wave_radiation_flux", standard_name="toa_net_downward_shortwave_flux", **_NET,
         short="mtnswrf", parameter=235039, also="avg_tnswrf tsr top_net_solar_radiation"),
    flux("mean_top_net_long_wave_radiation_flux", standard_name="toa_net_downward_longwave_flux", **_NET, short="mtnlwrf",
         parameter=235040, cmip="-rlut", also="avg_tnlwrf ttr top_net_thermal_radiation -ulwrftoa"),
    flux("mean_top_upward_short_wave_radiation_flux", standard_name="toa_outgoing_shortwave_flux", **_UP, cmip="rsut",
         also="uswrftoa"),
    flux("mean_top_net_short_wave_radiation_flux_clear_sky",
         standard_name=f"toa_net_downward_shortwave_flux_{_CLEAR}", **_NET, short="mtnswrfcs", parameter=235049,
         also="avg_tnswrfcs tsrc top_net_solar_radiation_clear_sky"),
    flux("mean_top_net_long_wave_radiation_flux_clear_sky",
         standard_name=f"toa_net_downward_longwave_flux_{_CLEAR}", **_NET, short="mtnlwrfcs", parameter=235050,
         cmip="-rlutcs", also="avg_tnlwrfcs ttrc top_net_thermal_radiation_clear_sky"),
    flux("mean_top_upward_short_wave_radiation_flux_clear_sky",
         standard_name=f"toa_outgoing_shortwave_flux_{_CLEAR}", **_UP, cmip="rsutcs"),
    # turbulence
    flux("mean_surface_sensible_heat_flux", standard_name="surface_downward_sensible_heat_flux", **_NET, short="msshf",
         parameter=235033, cmip="-hfss", also="avg_ishf sshf surface_sensible_heat_flux -shtflsfc -shtfl"),
    flux("mean_surface_latent_heat_flux", standard_name="surface_downward_latent_heat_flux", **_NET, short="mslhf",
         parameter=235034, cmip="-hfls", also="avg_slhtf slhf surface_latent_heat_flux -lhtflsfc -lhtfl"),
    flux("mean_eastward_turbulent_surface_stress", standard_name="surface_downward_eastward_stress", units="N m-2",
         sign="eastward momentum downward positive", short="metss", parameter=235041, cmip="tauu",
         also="avg_iews ewss eastward_turbulent_surface_stress -uflx"),
    flux("mean_northward_turbulent_surface_stress", standard_name="surface_downward_northward_stress", units="N m-2",
         sign="northward momentum downward positive", short="mntss", parameter=235042, cmip="tauv",
         also="avg_inss nsss northward_turbulent_surface_stress -vflx"),
)  # fmt: skip
