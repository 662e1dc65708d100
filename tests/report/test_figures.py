"""Figures for a notebook: what they show is what the datasets hold."""

import cartopy.crs as ccrs
import matplotlib
import numpy as np
import pytest
import xarray as xr

from emulator.planet.grid import Grid
from emulator.report.figures import plot
from emulator.report.maps import frame
from emulator.report.style import multiples, svg
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from emulator.store.schema import horizontal_coordinates


@pytest.fixture
def stores(scored):
    return open_forecast(scored.parent / "forecast.zarr"), open_analysis(scored.parent / "analysis.zarr")


def meshes(figure) -> list[np.ndarray]:
    """The fields drawn, one for each map, colour bars left out."""
    return [
        c.get_array().ravel()
        for a in figure.axes
        for c in a.collections
        if hasattr(c, "_coordinates") and "geo" in a.spines
    ]


def test_a_map_shows_the_field_at_its_level_and_lead(stores):
    forecast, _ = stores
    figure = plot(forecast, "temperature", level=500, lead="1D")
    field = forecast["temperature"].isel(init_time=0).sel(lead_time="24h", level=0.5)
    (drawn,) = meshes(figure)
    np.testing.assert_allclose(np.sort(drawn), np.sort(field.values.ravel()), rtol=1e-6)
    assert "500 hPa" in figure.get_suptitle() and "1 day" in figure.axes[0].get_title("left")


def test_beside_the_truth_stands_their_difference(stores):
    forecast, truth = stores
    init = forecast["init_time"].values[1]
    figure = plot(forecast, "surface_pressure", lead="2D", init=init, truth=truth)
    ours, theirs, difference = meshes(figure)
    np.testing.assert_allclose(ours - theirs, difference, rtol=1e-9, atol=1e-9)
    expected = truth["surface_pressure"].sel(time=init + np.timedelta64(2, "D")).values / 100  # hPa
    np.testing.assert_allclose(np.sort(theirs), np.sort(expected.ravel()), rtol=1e-6)
    with pytest.raises(ValueError, match="in the truth, got none there"):
        plot(forecast, "surface_pressure", truth=truth.isel(time=slice(0, 3)))


def test_a_member_or_the_mean_of_an_ensemble(stores):
    forecast, _ = stores
    both = xr.concat([forecast["surface_pressure"], forecast["surface_pressure"] + 1000], "member").to_dataset()
    (mean,), (second,) = (meshes(plot(both, "surface_pressure", member=member)) for member in (None, 1))
    np.testing.assert_allclose(second - mean, 5.0, rtol=1e-4)  # hPa


def test_analyses_in_any_order_of_rows(stores):
    _, truth = stores
    (one,), (other,) = (
        meshes(plot(t, "surface_pressure")) for t in (truth, truth.isel(latitude=slice(None, None, -1)))
    )
    np.testing.assert_array_equal(one, other)


def test_curves_and_budgets_of_scores(view):
    figure = plot(view.scores, "temperature", level=500, kind="curves")
    (axis,) = [a for a in figure.axes if a.get_visible()]
    line = next(line for line in axis.lines if line.get_label() == "emulator")
    at = view.scores["rmse"].sel(forecast="emulator", region="global", channel="temperature 500 hPa (sigma 0.5)")
    np.testing.assert_allclose(line.get_ydata(), at.values, rtol=1e-12)
    budgets = plot(view.scores, kind="budgets")
    assert [a.get_title("left") for a in budgets.axes] == ["Dry air", "Water", "Energy"]


def test_what_cannot_be_drawn_is_named(stores, view):
    forecast, truth = stores
    with pytest.raises(ValueError, match="'vorticity'"):
        plot(forecast, "vorticity")
    with pytest.raises(ValueError, match="a lead such as"):
        plot(forecast, "temperature", lead="soon")
    with pytest.raises(ValueError, match="map, curves, budgets"):
        plot(forecast, kind="pie")
    with pytest.raises(ValueError, match="rmse to draw curves"):
        plot(truth, kind="curves")
    with pytest.raises(ValueError, match="got those of"):
        plot(view.scores, "vorticity", kind="curves")


def test_no_setting_of_matplotlib_is_left_behind(stores):
    before = dict(matplotlib.rcParams)
    plot(stores[0], "surface_pressure")
    assert dict(matplotlib.rcParams) == before


def drawn(grid):
    """A dataset of a field, and of land in the west, on a grid."""
    land = (np.arange(grid.shape[1]) < grid.shape[1] // 3) * np.ones(grid.shape)
    fields = {"2m_temperature": (grid.dims, grid.mesh()[0])}
    return xr.Dataset(fields | {"land_sea_mask": (grid.dims, land)}, horizontal_coordinates(grid))


@pytest.mark.parametrize("edges", [(40, 60, -20, 20), (40, 60, 150, 210), (40, 60, 100, 371), (-10, 10, 300, 340)])
def test_a_box_is_drawn_whole_and_in_its_place(edges, monkeypatch):
    monkeypatch.delenv("CARTOPY_DATA_DIR", raising=False)
    grid = Grid.box(5, 12, edges)
    found = frame(drawn(grid))
    assert not found.whole
    width = (edges[3] - edges[2]) % 360
    np.testing.assert_allclose(np.ptp(found.x), width, atol=1e-4)
    assert (np.diff(found.x, axis=1) > 0).all() and (np.diff(found.y, axis=0) < 0).all()
    west = ccrs.PlateCarree().transform_point(found.x[0, 1], found.y[0, 1], found.projection)[0]
    np.testing.assert_allclose((west - edges[2] - width / 12 + 180) % 360, 180, atol=1e-4)
    (line,) = found.coast  # between the last column of land and the first of the sea
    np.testing.assert_allclose(line[:, 0], found.x[0, 4], atol=1e-4)


def test_a_box_in_two_parts_is_drawn_in_one():
    grid = Grid.from_coordinates(np.arange(60.0, 40, -4), np.sort(np.arange(-20.0, 24, 4) % 360))
    found = frame(drawn(grid))
    np.testing.assert_array_equal(grid.longitude[found.columns], np.arange(-20, 24, 4) % 360)
    np.testing.assert_allclose(np.ptp(found.x), 44, atol=1e-4)


def test_a_map_is_drawn_in_its_own_coordinates(monkeypatch):
    monkeypatch.delenv("CARTOPY_DATA_DIR", raising=False)
    mapping = {
        "grid_mapping_name": "polar_stereographic",
        "latitude_of_projection_origin": 90.0,
        "straight_vertical_longitude_from_pole": 0.0,
        "standard_parallel": 70.0,
    }
    grid = Grid.projected(np.arange(9) * 1e6 - 4e6, np.arange(7)[::-1] * 1e6 - 3e6, mapping)
    dataset = drawn(grid)
    found = frame(dataset)
    assert found.projection is None
    np.testing.assert_allclose(found.x[0], np.arange(10) * 1e6 - 4.5e6)
    np.testing.assert_allclose(found.y[:, 0], np.arange(8)[::-1] * 1e6 - 3.5e6)
    (line,) = found.coast
    np.testing.assert_allclose(line[:, 0], -1.5e6)
    image = plot(dataset, "2m_temperature").axes[0].collections[0]
    np.testing.assert_array_equal(np.ma.getdata(image.get_array()).ravel(), grid.latitude.ravel())


def test_a_line_of_one_point_is_seen():
    """Scores of a single lead, as of downscaled analyses, are points; lines of several get no marks."""
    drawn = {}
    for count in (1, 3):
        figure, axes = multiples(1)
        (drawn[count],) = axes[0].plot(range(count), [2.0] * count)
        svg(figure, "a line", "line")
    assert drawn[1].get_marker() == "o" and drawn[3].get_marker() == "None"
