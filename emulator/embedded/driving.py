"""A scenario as `jcm` takes it: parameters of SPEEDY's physics, and the forcing of each simulated day."""

import dataclasses

import numpy as np

from emulator.embedded.courses import SST_LIMITS, SeaTemperatures, concentration
from emulator.embedded.options import Physics, Scenario, Swings
from emulator.planet.grid import Grid


def parameters(physics: Physics | None):
    """The parameters of jcm's SPEEDY, those of `physics` changed; None: its own."""
    from jcm.physics.speedy.params import Parameters

    own = Parameters.default()
    if physics is None:
        return own
    changed = {
        "convection": {"trcnv": physics.convection_hours},
        "shortwave_radiation": {"albcl": physics.cloud_albedo},
        "surface_flux": {"chs": physics.sea_exchange},
    }
    schemes = {
        scheme: dataclasses.replace(getattr(own, scheme), **{name: np.float32(value) for name, value in values.items()})
        for scheme, values in changed.items()
    }
    return dataclasses.replace(own, **schemes)


class Drive:
    """The forcing of a model under a scenario.

    Attributes:
      constant: jcm's `ForcingData` as far as it is the same every day of the simulation.

    Args:
      own: the model's forcing without a scenario. start: of the simulation. grid: of the model; sea: share of water in each
        of its cells, `(latitude, longitude)`.

    Raises `ValueError` for files of the scenario that cannot be used.
    """

    def __init__(self, scenario: Scenario, own, start: np.datetime64, grid: Grid, sea: np.ndarray):
        import jax.numpy as jnp

        self._co2 = self._sst = self._swings = None
        self._offset, changed = scenario.sst_offset, {}
        if isinstance(scenario.co2, int | float):
            changed["co2_vmr"] = jnp.array(float(scenario.co2))
        elif scenario.co2 is not None:
            self._co2 = concentration(scenario.co2, start)
        if isinstance(scenario.sst_offset, Swings):
            from emulator.embedded.swings import Offsets  # with torch, which no other simulation needs

            self._offset, self._swings = 0.0, Offsets(scenario.sst_offset, start, grid)
        if scenario.sst_file is not None:
            self._sst = SeaTemperatures(scenario.sst_file).on(grid, sea)
        elif self._offset:
            cycle = own.sea_surface_temperature
            changed["sea_surface_temperature"] = dataclasses.replace(cycle, values=cycle.values + self._offset)
        self.constant = own.copy(**changed) if changed else own

    def sea_temperature(self, moment: np.datetime64) -> np.ndarray:
        """K, as it is prescribed at a time, `(latitude, longitude)` float64."""
        if self._swings is None:
            return self._without_swings(moment)
        found, (low, high) = self._without_swings(moment) + self._swings.at(moment), SST_LIMITS
        if found.min() < low or found.max() > high:
            raise ValueError(
                f"Expected sea temperatures between {low:g} and {high:g} K, got {found.min():.1f} to {found.max():.1f} K "
                f"with sst_offset at {moment}"
            )
        return found

    def _without_swings(self, moment: np.datetime64) -> np.ndarray:
        if self._sst is not None:
            return self._sst.at(moment) + self._offset
        import jax.numpy as jnp
        import jax_datetime
        from jcm.date import DateData

        now = self.constant.select(DateData(jax_datetime.to_datetime(moment), jnp.int32(0), 0))
        return np.swapaxes(np.asarray(now.sea_surface_temperature, np.float64), -1, -2)[::-1]

    def of_day(self, first: np.datetime64, sea: np.ndarray | None = None):
        """The forcing of the day that begins at a time; `sea`: its sea temperature, where that is not prescribed.

        What changes in time has a value at the day's beginning and one at its end, and the model's steps take linear ones
        between. They depend on nothing but the day, so that a simulation that goes on is the one that was not stopped.
        """
        from jcm.forcing import BY_DATE_INTERP, make_time_series

        times, courses = first + np.arange(2) * np.timedelta64(1, "D"), {}
        if self._co2 is not None:
            courses["co2_vmr"] = self._co2(times)
        if sea is not None:
            courses["sea_surface_temperature"] = np.broadcast_to(np.swapaxes(sea[::-1], -1, -2), (2, *sea.shape[::-1]))
        elif self._sst is not None or self._swings is not None:
            fields = np.stack([self.sea_temperature(time) for time in times])
            # the model's order: longitude, then latitude from the south
            courses["sea_surface_temperature"] = np.swapaxes(fields[..., ::-1, :], -1, -2)
        leaves = {
            name: make_time_series(values.astype(np.float32), times, align_mode=BY_DATE_INTERP)
            for name, values in courses.items()
        }
        return self.constant.copy(**leaves) if leaves else self.constant
