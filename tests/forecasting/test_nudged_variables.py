"""Which variables of a limited area are nudged, and what of the driving data is refused before a forecast begins."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from limited_area_stores import box, globe

from emulator.data.border import Border
from emulator.data.boundary import Boundary
from emulator.data.channels import Channels
from emulator.forecasting.nudging import nudged_by, nudged_variables
from emulator.forecasting.options import DrivingOptions, NudgingOptions
from emulator.planet.grid import Grid
from emulator.store.schema import grid_of

WIND = "u_component_of_wind"
MAP = Grid.projected(
    np.arange(6) * 3e5,
    np.arange(5)[::-1] * 3e5,
    {
        "grid_mapping_name": "lambert_conformal_conic",
        "standard_parallel": [40.0, 40.0],
        "longitude_of_central_meridian": 150.0,
        "latitude_of_projection_origin": 30.0,
        "earth_radius": 6371e3,
    },
)


def driving() -> xr.Dataset:
    dataset = globe(4)
    return dataset.assign({WIND: dataset["temperature"]})


def model(*names, at=(), masked=False):
    """What nudging asks of a model."""
    counts = {"temperature": 2, WIND: 2, "surface_pressure": 0}
    own = Channels(names, tuple(counts[name] for name in names))
    layout = SimpleNamespace(prognostic=own, at=dict(at))
    return SimpleNamespace(layout=layout, device="cpu", exists=np.ones(1, bool) if masked else None)


def boundary(names, domain=None, dataset=None, width=1):
    dataset = driving() if dataset is None else dataset
    domain = grid_of(box(globe(1))) if domain is None else domain
    channels = Channels.of(dataset, names)
    return Boundary(dataset, Border(channels.names, channels.levels, width), domain, "the globe")


def asked(*variables):
    return NudgingOptions(length_km=6000, hours=6, variables=variables or None)


def test_winds_on_a_map_of_another_frame_are_nudged_only_if_they_are_named():
    names = "temperature", WIND
    on_map, on_box = boundary(names, MAP), boundary(names)
    with pytest.raises(ValueError, match=f"winds on another map .*x and y: all that are to be nudged, {WIND} only if"):
        nudged_variables(asked(), model(*names), on_map)
    assert nudged_variables(asked("temperature"), model(*names), on_map) == ["temperature"]
    assert nudged_variables(asked(WIND), model(*names), on_map) == [WIND]
    assert nudged_variables(asked(), model(*names), on_box) == list(names)
    assert nudged_variables(asked(), model("temperature"), boundary(["temperature"], MAP)) == ["temperature"]


def test_variables_on_other_levels_are_left_and_the_log_says_so(caplog):
    names = "temperature", "surface_pressure"
    told = model(*names, at={"temperature": (300.0, 850.0)})
    options = DrivingOptions(store="globe.zarr", nudging=asked())
    area = boundary(names)
    init = area.dataset["time"].values[0]
    with caplog.at_level(logging.INFO):
        found = nudged_by(options, [told], area, 21600.0, init)
    assert found.fields.channels.names == ("surface_pressure",)
    assert "nudging draws surface_pressure and leaves temperature" in caplog.text
    assert found.at([init], [init]).shape == (1, 1, *area.frame.domain.shape)
    with pytest.raises(ValueError, match="on the levels of the state .* the globe has other ones of temperature"):
        nudged_variables(asked("temperature"), told, area)
    with pytest.raises(ValueError, match="both the state and its boundary, of which there are none, got none"):
        nudged_variables(asked(), model(WIND), area)
    with pytest.raises(ValueError, match="both the state and its boundary, temperature, surface_pressure, got snow"):
        nudged_variables(asked("snow"), told, area)


def test_driving_data_that_lack_a_value_inside_the_domain_are_refused_with_its_place():
    dataset = driving()
    lacks = dataset["temperature"].copy()
    lacks[:, 1, 6, 12] = np.nan  # the frame and its surroundings are whole
    area = boundary(["temperature"], dataset=dataset.assign(temperature=lacks))
    time = dataset["time"].values
    area.given([None], [time[0]], [time[1]])
    north, east = (
        dataset["latitude"].values[6],
        dataset["longitude"].values[11],
    )  # which the cell beside may take part in
    words = (
        rf"whole domain of 9 x 11 box .* lacks some of temperature\[1\].* latitude {north:.5g}, longitude {east:.5g}"
    )
    options = DrivingOptions(store="globe.zarr", nudging=asked())
    with pytest.raises(ValueError, match=words):
        nudged_by(options, [model("temperature")], area, 21600.0, time[0])


@pytest.mark.parametrize("masked", [0, 1])
def test_masked_fields_of_any_stage_are_refused(masked):
    area, options = boundary(["temperature"]), DrivingOptions(store="globe.zarr", nudging=asked())
    stages = [model("temperature", masked=n == masked) for n in range(2)]
    with pytest.raises(ValueError, match=f"exist everywhere .* masked ones of model {masked + 1}"):
        nudged_by(options, stages, area, 21600.0, area.dataset["time"].values[0])
