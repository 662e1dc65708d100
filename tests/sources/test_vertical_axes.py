"""Vertical coordinates as files record them: which kind, in which units and order, with which bounds."""

import numpy as np
import pytest
import xarray as xr

from emulator.sources.axes import Axes, add_vertical, vertical_coordinate

CASES = {  # name of the coordinate, its attributes and values, the field's attributes -> kind, values in a store
    "CMIP ocean": ("lev", {"standard_name": "depth", "units": "m", "positive": "down"}, [5, 15], {}, "depth", [5, 15]),
    "NEMO": ("deptht", {"units": "m"}, [0.5, 1.5], {}, "depth", [0.5, 1.5]),
    "POP": ("z_t", {"units": "centimeters", "positive": "down"}, [500, 1500], {}, "depth", [5, 15]),
    "from below": ("depth", {"units": "m"}, [15, 5], {}, "depth", [5, 15]),
    "counted upward": (
        "lev",
        {"standard_name": "depth", "units": "m", "positive": "up"},
        [-15, -5],
        {},
        "depth",
        [5, 15],
    ),
    "CMIP soil": (
        "depth",
        {"standard_name": "depth", "units": "m"},
        [0.1, 2],
        {"standard_name": "soil_temperature"},
        "soil_layer",
        [1, 2],
    ),
    "soil from below": ("sdepth", {"units": "cm"}, [289, 7, 28], {}, "soil_layer", [1, 2, 3]),
    "numbers of layers": ("soil_layer", {}, [2, 3], {}, "soil_layer", [2, 3]),
    "heights": ("height", {"standard_name": "height", "units": "km"}, [0.01, 1, 2], {}, "height", [2000, 1000, 10]),
    "heights by name": ("heightAboveGround", {"units": "m"}, [100, 10], {}, "height", [100, 10]),
    "CMIP pressure": (
        "plev",
        {"standard_name": "air_pressure", "units": "Pa"},
        [85000, 50000],
        {},
        "level",
        [500, 850],
    ),
    "pressure by its units": ("p", {"units": "mbar"}, [500, 850], {}, "level", [500, 850]),
    "sigma": (
        "lev",
        {"standard_name": "atmosphere_sigma_coordinate", "units": "1"},
        [0.9, 0.1],
        {},
        "level",
        [0.1, 0.9],
    ),
    "ARCO-ERA5": ("level", {}, [500, 850], {}, "level", [500, 850]),
}


def on_axis(name, attributes, values, field):
    data = np.arange(float(len(values)))
    return xr.Dataset({"field": (name, data, field)}, {name: (name, np.asarray(values, float), attributes)})


@pytest.mark.parametrize("case", CASES)
def test_kinds_units_and_order(case):
    name, attributes, values, field, kind, expected = CASES[case]
    dataset, axes = on_axis(name, attributes, values, field), Axes()
    add_vertical(axes, dataset, dataset.field)
    assert axes.axis == kind and axes.dims == {kind: name} and axes.bounds is None
    np.testing.assert_allclose(axes.coordinates[kind], expected)
    np.testing.assert_array_equal(sorted(axes.order[kind]), range(len(values)))
    if kind != "soil_layer":  # the values of the file, taken in that order
        ratio = np.abs(np.asarray(values, float)[axes.order[kind]]) / axes.coordinates[kind]
        np.testing.assert_allclose(ratio, ratio[0])


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("band", {"units": "m"}),
        ("lev", {"units": "m"}),  # up or down?
        ("altitude", {"standard_name": "altitude", "units": "m"}),  # above the sea, not the ground
        ("lev", {"standard_name": "ocean_sigma_coordinate", "units": "1"}),
    ],
)
def test_what_is_no_axis_that_is_known(name, attributes):
    dataset = on_axis(name, attributes, [1, 2], {})
    assert vertical_coordinate(dataset.field) is None


@pytest.mark.parametrize("turned", [False, True])
def test_bounds_go_with_their_values(turned):
    dataset = on_axis("lev", {"units": "cm", "positive": "down", "bounds": "lev_bnds"}, [500, 1500, 4000], {})
    dataset["lev_bnds"] = ("lev", "bnds"), [[0.0, 1000], [1000, 2000], [2000, 6000]]
    dataset, axes = dataset.isel(lev=slice(None, None, -1 if turned else 1)), Axes()
    add_vertical(axes, dataset, dataset.field)
    np.testing.assert_allclose(axes.bounds, [[0, 10], [10, 20], [20, 60]])


def test_a_depth_without_units():
    dataset = on_axis("lev", {"standard_name": "depth"}, [5, 15], {})
    with pytest.raises(ValueError, match="units of the coordinate lev that convert to m, got none"):
        add_vertical(Axes(), dataset, dataset.field)
