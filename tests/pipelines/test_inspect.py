import numpy as np
import pytest
import xarray as xr

import emulator as em
from emulator.report.sample_maps import draw_maps
from pipelines.cli import main


@pytest.mark.parametrize(
    "store, words",
    [
        ("analysis.zarr", ["12 x 24 gaussian", "4 sigma", "72 times, every 6 h", "temperature", "m s-1", "diagnostic"]),
        ("forecast.zarr", ["9 initial times, every 6 h to 1.5 days", "checkpoint", "correction_rms_temperature"]),
    ],
)
def test_one_screen_tells_what_a_store_holds(finished, capsys, store, words):
    assert main(["inspect", str(finished.parent / "run" / store)]) == 0
    said = capsys.readouterr().out
    for word in words:
        assert word in said, said
    assert len(said.splitlines()) < 50


def test_an_absent_store_is_named(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "none.zarr")]) == 1
    assert "none.zarr" in capsys.readouterr().err


@pytest.mark.parametrize("store", ["analysis.zarr", "forecast.zarr"])
def test_sample_maps(finished, capsys, tmp_path, store):
    """A picture of many colours, and a sentence that tells how many maps are in it."""
    from PIL import Image

    target = tmp_path / "maps.png"
    assert main(["inspect", str(finished.parent / "run" / store), "--plot", str(target)]) == 0
    said = capsys.readouterr().out
    count = int(said.splitlines()[-1].split()[0])
    assert count >= 6 and str(target) in said
    picture = np.asarray(Image.open(target).convert("RGB"))
    rows = -(-count // 3)
    assert picture.shape[0] > 200 * rows and picture.shape[1] > 1000
    for row in range(rows):  # every row of maps has its own colours
        part = picture[row * picture.shape[0] // rows : (row + 1) * picture.shape[0] // rows]
        assert len(np.unique(part.reshape(-1, 3), axis=0)) > 100
    assert [p.name for p in tmp_path.iterdir()] == ["maps.png"]


def test_maps_of_points_and_of_gaps(tmp_path):
    times = np.datetime64("2001-01-01", "ns") + np.arange(3) * np.timedelta64(6, "h")
    values = np.random.default_rng(0).normal(280, 5, (3, 50)).astype(np.float32)
    values[1] = np.nan
    places = np.random.default_rng(1).random((2, 50))
    data = xr.Dataset(
        {"2m_temperature": (("time", "cell"), values, {"units": "K"}), "missing": ("time", [False, True, False])},
        {"time": times, "latitude": ("cell", 180 * places[0] - 90), "longitude": ("cell", 360 * places[1])},
    )
    assert draw_maps(data, tmp_path / "maps.png") == 1
    with pytest.raises(ValueError, match="to draw, got missing"):
        draw_maps(data[["missing"]], tmp_path / "none.png")
    with pytest.raises(ValueError, match="Expected to write maps to"):
        draw_maps(data, tmp_path / "nowhere" / "maps.png")


def test_one_pressure_level_is_one(tmp_path, capsys):
    """It makes no column, but it is what the store has; without any the line says so."""
    place = {"latitude": np.linspace(75, -75, 6), "longitude": np.arange(12) * 30.0}
    times = np.datetime64("2001-01-01", "ns") + np.arange(3) * np.timedelta64(6, "h")
    for name, level in (("one", {"level": ("level", [500.0], {"units": "hPa"})}), ("none", {})):
        values = np.full((3, *([1] * len(level)), 6, 12), 250.0)
        variable = "temperature" if level else "2m_temperature"
        field = (("time", *level, *place), values, {"units": "K"})
        xr.Dataset({variable: field}, {"time": times, **level, **place}).to_netcdf(tmp_path / f"{name}.nc")
        em.ingest(tmp_path / f"{name}.nc", tmp_path / f"{name}.zarr")
        assert main(["inspect", str(tmp_path / f"{name}.zarr")]) == 0
        said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("levels"))
        assert said.split() == (["levels", "1:", "500", "hPa"] if level else ["levels", "none"])
