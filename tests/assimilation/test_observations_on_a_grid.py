"""Observations as inputs of a network: means and confidences in closed form, and what is refused."""

import numpy as np
import pytest
import torch
from small_planet import small_planet

from emulator.assimilation.geometry import Geometry
from emulator.assimilation.learned.gridding import Gridding, RawChannel
from emulator.assimilation.observations import Observations

GEOMETRY = Geometry.of(small_planet(times=1), ["temperature", "surface_pressure", "v_component_of_wind"])
SCALE = np.full(9, 2.0)


def rows(**columns) -> Observations:
    """Two rows in the cell of the fourth latitude and the seventh longitude, on the second level of temperature."""
    latitude, longitude = GEOMETRY.grid.latitude[3], GEOMETRY.grid.longitude[6]
    values = {
        "operator": ["point"] * 2,
        "variable": ["temperature"] * 2,
        "time": ["2001-01-01"] * 2,
        "latitude": [latitude + 1.0, latitude - 1.0],
        "longitude": [longitude + 2.0, longitude],
        "level": [GEOMETRY.at["temperature"][1] + 0.01] * 2,
        "value": [280.0, 283.0],
        "error": [1.0, 2.0],
        "system": ["soundings"] * 2,
    }
    return Observations(**{name: np.array(column) for name, column in (values | columns).items()})


def test_observations_of_a_cell_are_averaged_by_their_errors():
    given = Gridding(GEOMETRY, SCALE)(rows(), np.array([1.0, -2.0]))
    precision = 1.0 + 1 / 4
    expected = (1.0 - 2.0 / 4) / precision / 2.0  # in units of the scale
    sure = precision * 4 / (1 + precision * 4)
    assert given.value[0, 1, 3, 6] == pytest.approx(expected) and given.confidence[0, 1, 3, 6] == pytest.approx(sure)
    assert int((given.confidence > 0).sum()) == 1 and given.raw.shape[1] == 0


def test_an_observation_without_confidence_is_as_one_that_is_not_there():
    whole, part = Gridding(GEOMETRY, SCALE), rows().where([0])
    without = whole(rows(confidence=np.array([1.0, 0.0])), np.array([1.0, np.nan]))
    assert all(torch.equal(*pair) for pair in zip(without, whole(part, np.array([1.0])), strict=True))


def test_the_component_of_a_vector_beyond_a_pole_has_its_other_sign():
    """Nearest to a point at the pole may be a cell on its other side."""
    north = rows(latitude=np.full(2, 89.9), variable=np.full(2, "v_component_of_wind")).where([0])
    corners, weight, beyond = GEOMETRY.corners(north.latitude, north.longitude)
    given = Gridding(GEOMETRY, SCALE)(north, np.array([1.0]))
    nearest = np.argmax(weight[:, 0])
    sign = -1.0 if beyond[nearest, 0] else 1.0
    assert given.value[0].flatten(1)[:, corners[nearest, 0]].sum() == pytest.approx(sign * 0.5)


def test_raw_values_are_normalised_by_channel_and_know_no_operator():
    raw = (RawChannel("sounder", "temperature", 0.3), RawChannel("sounder", "temperature", 0.6))
    gridding = Gridding(GEOMETRY, SCALE, None, raw, np.array([250.0, 270.0]), np.array([10.0, 5.0]))
    both = rows(system=np.full(2, "sounder"), operator=np.full(2, "radiance"), level=np.array([0.6, 0.3]))
    given = gridding(both, np.full(2, np.nan))
    assert given.raw[0, :, 3, 6].tolist() == pytest.approx([(283 - 250) / 10, (280 - 270) / 5])
    precision = np.array([10.0**2 / 4, 5.0**2])
    assert given.raw_confidence[0, :, 3, 6].tolist() == pytest.approx((precision / (1 + precision)).tolist())
    assert not given.confidence.any()


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"operator": ["radiance"] * 2}, "operator point of all systems but raw ones, got radiance of soundings"),
        ({"variable": ["surface_pressure"] * 2}, "trained with, temperature.*, got surface_pressure of soundings"),
        (
            {"system": ["sounder"] * 2},
            "raw systems temperature of sounder at 0.3, .* got temperature of sounder at 0.385",
        ),
    ],
)
def test_what_the_training_did_not_have_is_refused_in_a_sentence(columns, sentence):
    observed = np.array(["temperature" in label for label in GEOMETRY.channels.labels()])
    raw = (RawChannel("sounder", "temperature", 0.3),)
    gridding = Gridding(GEOMETRY, SCALE, observed, raw, np.zeros(1), np.ones(1))
    with pytest.raises(ValueError, match=sentence):
        gridding(rows(**columns), np.zeros(2))
