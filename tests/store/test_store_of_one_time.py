"""A store of one time, as one analysis makes it, has the step that it records."""

from small_planet import small_planet
from small_store import write_store

from emulator.planet.calendar import TimeStep
from emulator.store.analysis import open_analysis


def test_a_time_alone_has_the_step_that_its_store_records(tmp_path):
    planet = small_planet(times=1, nlat=4)
    found = open_analysis(write_store(tmp_path, planet.assign_attrs(time_step_seconds=21600.0)))
    assert found.attrs["time_step_seconds"] == 21600 and TimeStep.of(found) == TimeStep(21600.0)
    assert open_analysis(write_store(tmp_path, planet, "plain.zarr")).attrs["time_step_seconds"] == 0
