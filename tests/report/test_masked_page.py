"""The report of a masked two-level ocean: stores on disk, scored, and every map, table and curve of the page from them."""

import csv
import json

import numpy as np
import pytest
from masked_ocean import HEIGHT, THETAO, made_forecast, made_truth, masks, with_outside

from emulator.report import maps
from emulator.report.figures import plot
from emulator.report.page import write_report
from emulator.report.panels import long_run
from emulator.report.sample_maps import draw_maps
from emulator.report.view import View
from emulator.store.analysis import open_analysis
from emulator.store.forecast import create_forecast, finish_forecast, open_forecast, write_forecast_init
from emulator.verify.assemble import open_scores
from emulator.verify.inputs import open_inputs
from emulator.verify.options import VerifyOptions
from emulator.verify.verification import verify_to_file

INITS, LEADS = (24, 28, 32, 40, 44), 12


def write_forecasts(path, forecast):
    """A forecast store, initial time by initial time."""
    fixed = [name for name, field in forecast.data_vars.items() if "lead_time" not in field.dims]
    times, leads = forecast["init_time"].values, forecast["lead_time"].values
    create_forecast(path, forecast.isel(init_time=0, drop=True), times, leads, forecast.attrs)
    for index in range(len(times)):
        write_forecast_init(path, forecast.drop_vars(fixed).isel(init_time=index, drop=True), index)
    finish_forecast(path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with `analysis.zarr`, `forecast.zarr`, `long.zarr`, `scores.nc` and the report in `page`."""
    folder = tmp_path_factory.mktemp("ocean")
    truth = made_truth()
    attributes = {"emulator_schema": "analysis-1", "complete": True}
    truth.assign_attrs(attributes).to_zarr(folder / "analysis.zarr", zarr_format=3)
    write_forecasts(folder / "forecast.zarr", with_outside(made_forecast(truth, INITS, LEADS), 50.0))
    run = made_forecast(truth, (0,), 56).isel(lead_time=slice(0, None, 4))
    write_forecasts(folder / "long.zarr", with_outside(run, 50.0))
    inputs = open_inputs(
        folder / "analysis.zarr",
        {"ocean model": folder / "forecast.zarr"},
        VerifyOptions(regions=("global", "tropics")),
        long_runs={"long run": folder / "long.zarr"},
    )
    verify_to_file(inputs, folder / "scores.nc", notes={"run": json.dumps({"versions": {}})})
    write_report(folder / "scores.nc", folder / "page", "A masked ocean", long_run=open_forecast(folder / "long.zarr"))
    return folder


def test_the_page_names_levels_with_their_units_and_says_what_is_masked(written):
    text = (written / "page" / "report.html").read_text()
    assert "Sea water potential temperature, 5 m" in text and "m, 5" not in text
    assert "Drift and variability by depth" in text
    assert "Sea water potential temperature exists on" in text and "(domain sea_floor)" in text
    assert "fields filled smoothly outside their domain" in text
    assert ">nan<" not in text.lower()
    with open(written / "page" / "scores.csv") as file:
        levels = {(row["variable"], row["level"]) for row in csv.DictReader(file)}
    assert levels == {
        (THETAO, "5 m"),
        (THETAO, "100 m"),
        (HEIGHT, ""),
        ("soil_temperature", "layer 1"),
        ("soil_temperature", "layer 2"),
        ("temperature", "500 hPa"),
        ("temperature", "850 hPa"),
    }


def drawn(figure):
    """The fields of a figure's maps and whether their ground is grey."""
    axes = [axis for axis in figure.axes if "geo" in axis.spines and axis.get_visible()]
    return [
        (np.ma.filled(np.ma.masked_invalid(mesh.get_array()), np.nan), axis.get_facecolor(), mesh)
        for axis in axes
        for mesh in axis.collections
        if hasattr(mesh, "_coordinates")
    ]


def test_maps_are_grey_where_nothing_is_and_coloured_by_what_is(written):
    from matplotlib.colors import to_rgba

    store = open_forecast(written / "forecast.zarr").load()
    for level, exists in zip((5, 100), masks()["sea_floor"] > 0, strict=True):
        figure = plot(store, THETAO, level=level, truth=open_analysis(written / "analysis.zarr"))
        assert f"{level} m" in figure.get_suptitle()
        ours, theirs, difference = drawn(figure)
        for values, ground, mesh in (ours, theirs, difference):
            assert np.isfinite(values).sum() == exists.sum() and ground == to_rgba(maps.PALE)
            assert mesh.norm.vmax < 290  # noise of 50 lies under the mask
        assert difference[2].norm.vmax < 5
    (whole,) = drawn(plot(store, "temperature", level=850))
    assert np.isfinite(whole[0]).all() and whole[1] != to_rgba(maps.PALE)


def test_sample_maps_of_every_axis(written, monkeypatch, tmp_path):
    from emulator.report import sample_maps

    seen = []
    monkeypatch.setattr(sample_maps, "_style", lambda values: seen.append(values) or {})
    store = open_forecast(written / "forecast.zarr").load()
    assert draw_maps(store, tmp_path / "a.png") == len(seen) == 6  # four fields and two masks
    titles = {title for title, _, _ in sample_maps._fields(store)}
    assert any("temperature, 2001" in title and title.endswith("100 m") for title in titles)
    assert any(title.endswith("layer 2") for title in titles) and any(title.endswith("850 hPa") for title in titles)
    assert max(np.nanmax(values) for values in seen) < 300


def test_a_long_run_is_judged_where_it_exists(written):
    view = View(open_scores(written / "scores.nc"))
    run = open_forecast(written / "long.zarr")
    area = np.full((8, 16), 1 / 128)
    array, exists = long_run._field(view, run, f"{THETAO} 5 m")
    means, departures = long_run._reduce(array, exists, area, view, f"{THETAO} 5 m")
    here = masks()["sea_floor"][0] > 0
    values = run[THETAO].values[0, :, 0][:, here].astype(np.float64)
    np.testing.assert_allclose(means, values.mean(axis=1), rtol=1e-12)
    mean, deviation = (
        float(view.scores[f"climatology_{name}"].sel(channel=f"{THETAO} 5 m")) for name in ("mean", "std")
    )
    np.testing.assert_allclose(departures, np.abs(values - mean).max(axis=1) / deviation, rtol=1e-9)


def test_every_panel_is_drawn(written):
    page = (written / "page" / "report.html").read_text()
    assert page.count("<figure") >= 8
    scores = open_scores(written / "scores.nc")
    assert {"case_forecast", "climate_bias_map", "power_ratio", "mean_error_map"} <= set(scores.data_vars)
