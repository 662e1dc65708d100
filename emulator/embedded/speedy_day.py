"""A day of the embedded reference model as one compiled program: what it computes and which fields come out of it.

`jax` and `jcm` are imported when a day is computed, never with this module.
"""

import logging
from typing import Any

import numpy as np

from emulator.embedded.courses import CO2
from emulator.embedded.fluxes import SURFACE

# XLA hands reductions over short axes to the YNN library, whose kernels take a quarter of the model's whole time; matrix
# products stay with it. Median CPU seconds per simulated day at T31 on two cores, side by side: 0.62 instead of 0.82.
# Neither one thread (0.71), nor no YNN at all (0.85), nor fast-math (0.75 against 0.77) is better.
COMPILER_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}

log = logging.getLogger(__name__)

LEVEL_FIELDS = ("temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity", "geopotential")
FLUXES = (
    "mean_total_precipitation_rate",
    "mean_evaporation_rate",
    *SURFACE,
    "mean_top_net_short_wave_radiation_flux",
    "mean_top_net_long_wave_radiation_flux",
    "mean_top_downward_short_wave_radiation_flux",
)
BOUNDARY_FIELDS = (
    "sea_surface_temperature",
    "sea_ice_cover",
    "soil_temperature_level_1",
    "soil_wetness",
    "snow_cover",
)


class CompiledDay:
    """`(state, forcing) -> (state, fields)` over a day, compiled when forcing of a new structure is first given.

    Fields are on the model's own axes, `(output time, [level,] longitude, latitude)`: `LEVEL_FIELDS`, `surface_pressure`,
    `BOUNDARY_FIELDS`, carbon dioxide [ppmv] and `FLUXES`, these as means over the steps between outputs.

    Args:
      model: the built `jcm.model.Model`. step_minutes: its step. output_hours: between outputs.
    """

    def __init__(self, model: Any, step_minutes: int, output_hours: int):
        self._model, self._seconds, self._hours = model, step_minutes * 60, output_hours
        self._programs: dict = {}

    def __call__(self, state, forcing):
        import jax

        kind = jax.tree_util.tree_structure(forcing), tuple(map(np.shape, jax.tree_util.tree_leaves(forcing)))
        if kind not in self._programs:
            lowered = jax.jit(self._integrate).lower(state, forcing)
            try:
                self._programs[kind] = lowered.compile(compiler_options=COMPILER_OPTIONS)
            except jax.errors.JaxRuntimeError as error:  # another version of XLA may not know the option
                log.info("the reference model is compiled without options: %s", error)
                self._programs[kind] = lowered.compile()
        return self._programs[kind](state, forcing)

    def _integrate(self, state, forcing):
        """A day in one compiled loop: a scan over output steps around a scan over model steps that sums the fluxes.

        The physics computes every flux anyway, so the sums cost nothing that can be measured.
        """
        import jax
        import jax.numpy as jnp
        import jax_datetime
        from jcm.date import DateData
        from jcm.forcing import land_snow_cover, land_wetness
        from jcm.physics_interface import verify_state

        seconds = self._seconds
        inner_steps = self._hours * 3600 // seconds
        dycore, pressure = self._model.dycore, self._model.dycore.constants.p0
        step = self._model._get_op_split_step_fn(forcing)

        def model_step(carry, _):
            (dynamics, physics, clock, count), sums = carry
            dynamics, physics = step(dynamics, physics, DateData(clock, count, seconds))
            clock = clock + jax_datetime.Timedelta(seconds=jnp.int32(seconds))
            sums = jax.tree_util.tree_map(jnp.add, sums, fluxes_of(physics))
            return ((dynamics, physics, clock, count + jnp.int32(1)), sums), None

        def output_step(state, _):
            zeros = {name: jnp.zeros(self._model.coords.horizontal.nodal_shape) for name in FLUXES}
            (state, sums), _ = jax.lax.scan(model_step, (state, zeros), None, length=inner_steps)
            dynamics, _, clock, count = state
            grid_state = verify_state(dycore.to_physics_state(dynamics))  # sets small negative humidities to zero
            now = forcing.select(DateData(clock, count, seconds))
            fields = {
                "temperature": grid_state.temperature,
                "u_component_of_wind": grid_state.u_wind,
                "v_component_of_wind": grid_state.v_wind,
                "specific_humidity": grid_state.specific_humidity,
                "geopotential": grid_state.geopotential,
                "surface_pressure": grid_state.normalized_surface_pressure * pressure,
                CO2: now.co2_vmr,
                "sea_surface_temperature": now.sea_surface_temperature,
                "sea_ice_cover": now.sice_am,
                "soil_temperature_level_1": now.stl_am,
                # as evaporation and the albedo take them, glaciers included
                "soil_wetness": land_wetness(now.soilw_am, now.glacier_fraction),
                "snow_cover": land_snow_cover(now.snowc_am, now.glacier_fraction),
            }
            return state, fields | {name: total / inner_steps for name, total in sums.items()}

        return jax.lax.scan(output_step, state, None, length=24 // self._hours)


def fluxes_of(physics) -> dict:
    """The step's fluxes from the model's diagnostics, canonical names and signs, on the model's own axes.

    Radiation at the surface is what the atmosphere loses there, so that its energy budget closes; what the model reports
    for the surface differs. Short wave: its `net_heat_flux` also reflects the near-infrared band, which the atmosphere
    does not get back (0.04 W m-2 in the global mean, 11 over ice); `rsns` is the atmosphere's side. Long wave: the part
    of the downward flux that the surface reflects is taken from another flux of the step (jcm 3.0), so the atmosphere
    loses 1.4 W m-2 more in the global mean than `rlns` says; its side is the flux at the top less what the layers absorb.
    With these, heating and moistening by the physics equal top minus surface flux to 0.01 W m-2.
    """
    exchange = physics["surface_exchange"]
    short_wave, long_wave = physics["_shortwave_rad"], physics["_longwave_rad"]
    return {
        "mean_total_precipitation_rate": exchange.precipitation,
        "mean_evaporation_rate": -exchange.evaporation,
        "mean_surface_net_short_wave_radiation_flux": short_wave.rsns,
        "mean_surface_net_long_wave_radiation_flux": -(long_wave.ftop + long_wave.dfabs.sum(axis=0)),
        "mean_surface_sensible_heat_flux": -exchange.sensible_heat_flux,
        "mean_surface_latent_heat_flux": -exchange.latent_heat_flux,
        "mean_top_net_short_wave_radiation_flux": short_wave.ftop,
        "mean_top_net_long_wave_radiation_flux": -long_wave.ftop,
        "mean_top_downward_short_wave_radiation_flux": short_wave.fsol,
    }
