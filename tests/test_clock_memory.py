"""What is kept is what is computed, with room for all times, some or none, and in another process."""

import pickle

import numpy as np
import pytest

from emulator import clock_memory
from emulator.calendar import day_and_hour
from emulator.clock_memory import ClockMemory
from emulator.grid import Grid
from emulator.insolation import clock_features

GRID = Grid.gaussian(8)
TIMES = np.datetime64("2001-12-30", "ns") + np.arange(12) * np.timedelta64(6, "h")
EXPECTED = clock_features(*day_and_hour(TIMES), 6.0, *GRID.mesh())


@pytest.mark.parametrize("rows", [0, 3, 12, 100])
def test_kept_features_are_the_computed_ones(monkeypatch, rows):
    monkeypatch.setattr(clock_memory, "BYTES", rows * EXPECTED[0].nbytes)
    memory, chance = ClockMemory(TIMES, 6.0, GRID), np.random.default_rng(0)
    for index in chance.integers(0, 12, 60):
        out = np.full_like(EXPECTED[0], np.nan)
        memory.write(int(index), out)
        np.testing.assert_array_equal(out, EXPECTED[index])
        out[:] = 0  # what was handed out is the caller's
    sent = pickle.dumps(memory)
    assert len(sent) < EXPECTED.nbytes
    copy, out = pickle.loads(sent), np.empty_like(EXPECTED[0])
    for _ in range(2):
        copy.write(7, out)
        np.testing.assert_array_equal(out, EXPECTED[7])
