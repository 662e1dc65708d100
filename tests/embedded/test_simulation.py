"""Simulations of a model in closed form: what is written, and that the end is the same however it was stopped."""

import dataclasses
import sys
from datetime import date

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from emulator import embedded
from emulator.embedded.simulation import SimulationOptions, simulate

TEXT = '''
import dataclasses
from datetime import date
import numpy as np
from emulator.embedded import MODELS, Embedded
from emulator.planet.constants import Constants
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels

@dataclasses.dataclass(frozen=True)
class Settings:
    start: date
    step_hours: int
    warming: float = 1.0

class Warming:
    """The temperature of the whole planet rises evenly; a state is the number of days."""
    title = "a planet that warms"
    provenance = {"model": "warming", "versions": {"warming": "1"}}
    constants, grid, levels = Constants(), Grid.gaussian(4), Levels.sigma([0.0, 0.5, 1.0])
    static = {"land_sea_mask": np.zeros((4, 8), np.float32)}

    def __init__(self, settings):
        self.settings = settings

    def initial_state(self):
        return 0

    def advance_day(self, state):
        count = 24 // self.settings.step_hours
        days = state + np.arange(1, count + 1) / count
        temperature = 280 + self.settings.warming * days.reshape(-1, 1, 1, 1) + np.zeros((1, 2, 4, 8))
        return state + 1, {"temperature": temperature.astype(np.float32)}

    def save_state(self, state, path):
        path.write_text(str(state))

    def load_state(self, path):
        return int(path.read_text())

MODELS.register("warming", Embedded(Settings, Warming))
'''
NAME = "emulator.embedded.warming"


@pytest.fixture
def options(tmp_path, monkeypatch):
    """A simulation of a model in a folder of its own, as a file beside the others would be."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "warming.py").write_text(TEXT)
    monkeypatch.setattr(embedded, "__path__", [*embedded.__path__, str(tmp_path / "more")])
    yield SimulationOptions(
        tmp_path / "run", days=5, spin_up_days=3, chunk_days=2, start=date(2004, 2, 25), step_hours=12, model="warming"
    )
    embedded.MODELS._entries.pop("warming", None)
    sys.modules.pop(NAME, None)


@given(st.integers(1, 400), st.integers(0, 100), st.integers(1, 60))
def test_stops_cover_the_simulation(days, spin_up, chunk):
    stops = SimulationOptions("x", days=days, spin_up_days=spin_up, chunk_days=chunk).stops()
    assert stops[-1] == spin_up + days
    assert spin_up == 0 or spin_up in stops  # no chunk holds days of the spin-up
    steps = np.diff([0, *stops])
    assert np.all(steps > 0)
    assert np.all(steps <= max(chunk, 30))


def values(options):
    parts = [xr.load_dataset(path) for path in sorted(options.directory.glob("*.nc"))]
    return xr.concat([part.temperature for part in parts], "time")


def test_a_new_model_is_one_file(options):
    assert embedded.MODELS.names() == ["speedy", "veros", "warming"]
    seen = []
    simulate(options, lambda *progress: seen.append(progress))
    assert seen[0] == (0, 8, "") and seen[-1] == (8, 8, "")
    assert sorted(path.name for path in options.files()) == [
        "restart_000008.npz",
        "simulation.json",
        *(f"warming_{day}.nc" for day in ("20040228", "20040301", "20040303")),
    ]
    assert all(path.exists() for path in options.files())
    field = values(options)  # over a leap day
    times = np.datetime64("2004-02-28T12", "ns") + np.arange(10) * np.timedelta64(12, "h")
    np.testing.assert_array_equal(field.time.values, times)
    np.testing.assert_allclose(field.values[:, 0, 0, 0], 283 + np.arange(1, 11) / 2)
    first = xr.load_dataset(options.chunk(3))
    assert first.attrs["title"] == "a planet that warms" and first.attrs["time_step_seconds"] == 43200
    assert first.land_sea_mask.dims == ("latitude", "longitude") and first.temperature.attrs["units"] == "K"


@pytest.mark.parametrize("day", range(1, 9))
def test_stopped_on_any_day_and_started_again_it_ends_the_same(options, day):
    simulate(dataclasses.replace(options, directory=options.directory.with_name("whole")))
    model = sys.modules[NAME].Warming
    whole, done = model.advance_day, []

    def stop(self, state):
        done.append(1)
        if len(done) == day:
            raise KeyboardInterrupt
        return whole(self, state)

    model.advance_day = stop
    with pytest.raises(KeyboardInterrupt):
        simulate(options)
    model.advance_day = whole
    simulate(options)
    other = dataclasses.replace(options, directory=options.directory.with_name("whole"))
    xr.testing.assert_identical(values(options), values(other))
    assert sorted(p.name for p in options.directory.iterdir()) == sorted(p.name for p in other.directory.iterdir())


def test_another_simulation_in_the_folder_and_unknown_settings_are_refused(options):
    simulate(options)
    for change, message in (
        ({"settings": {"warming": 2.0}}, "with warming = 2.0 in .*, it holds one with None"),
        ({"model": "speedy"}, "with model = None"),
        ({"days": 4}, "with days = 4"),
    ):
        with pytest.raises(ValueError, match=message):
            simulate(dataclasses.replace(options, **change))
    fresh = dataclasses.replace(options, directory=options.directory.with_name("fresh"))
    with pytest.raises(ValueError, match="settings of warming among .*, got cooling"):
        simulate(dataclasses.replace(fresh, settings={"cooling": 1}))
    with pytest.raises(ValueError, match="embedded model among speedy, veros, warming, got 'absent'"):
        simulate(dataclasses.replace(fresh, directory=fresh.directory / "b", model="absent"))


def test_a_simulation_goes_on_with_the_fields_that_it_began_with(options):
    """A version of the model that gives more fields must not begin them in the middle of a series."""
    simulate(options)
    model = sys.modules[NAME].Warming
    whole = model.advance_day

    def more(self, state):
        state, fields = whole(self, state)
        return state, fields | {"soil_wetness": fields["temperature"][:, 0] / 1e3}  # without a CF name

    model.advance_day = more
    longer = dataclasses.replace(options, days=8)
    simulate(longer)
    assert values(longer).sizes["time"] == 16
    assert all("soil_wetness" not in xr.load_dataset(path) for path in options.directory.glob("*.nc"))
    anew = dataclasses.replace(options, directory=options.directory.with_name("anew"))
    simulate(anew)
    assert all("soil_wetness" in xr.load_dataset(path) for path in anew.directory.glob("*.nc"))
