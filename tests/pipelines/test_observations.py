"""Reports against stations: a paired comparison, METAR against a gridded forecast, and a real forecast file."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from emulator.verify.assemble import open_scores
from pipelines.cli import main
from pipelines.config import IngestConfig, ReportConfig, VerifyConfig
from pipelines.ingest import ingest
from pipelines.report import report
from pipelines.verify import verify


def verif_text(path, errors, seed=0):
    """61 days of hourly temperatures at a station, and a forecast with an error of a given bias and spread."""
    rng = np.random.default_rng(seed)
    rows = ["# variable: T", "# units: $^oC$", "date leadtime location lat lon altitude obs fcst p0"]
    truth = 5 * np.sin(np.arange(62 * 24) / 24 * 2 * np.pi) + np.cumsum(
        np.random.default_rng(1).normal(0, 0.3, 62 * 24)
    )
    for day, date in enumerate(pd.date_range("2012-01-01", periods=61)):
        for lead in range(25):
            obs = truth[24 * day + lead]
            forecast = obs + errors[0] + errors[1] * rng.standard_normal()
            rows.append(f"{date:%Y%m%d} {lead} 415 49.35 -122.77 0 {obs:.4f} {forecast:.4f} 1.0")
    path.write_text("\n".join(rows))


def paired_comparison(raw, kf, folder):
    verify(VerifyConfig(forecasts={"raw": raw, "kf": kf}, observations={"path": raw}, output=folder / "scores.nc"))
    report(ReportConfig(scores=folder / "scores.nc", output=folder / "report", title="Raw and filtered"))
    frames = [pd.read_csv(p, sep=r"\s+", comment="#") for p in (raw, kf)]
    scores = open_scores(folder / "scores.nc").sel(region="stations", channel="2m_temperature")
    for name, frame in zip(("raw", "kf"), frames, strict=True):
        direct = frame.groupby("leadtime").apply(lambda x: np.sqrt(np.mean((x.fcst - x.obs) ** 2)))
        np.testing.assert_allclose(scores["rmse"].sel(forecast=name), direct, rtol=1e-10)
        direct = frame.groupby("leadtime").apply(lambda x: np.mean(x.fcst - x.obs))
        np.testing.assert_allclose(scores["bias"].sel(forecast=name), direct, atol=1e-10)
    squares = [((f.fcst - f.obs) ** 2).to_numpy().reshape(61, 25) for f in frames]
    gain = scores["difference"].sel(baseline="raw", forecast="kf")
    expected = 100 * (np.sqrt(squares[1].mean(0) / squares[0].mean(0)) - 1)
    np.testing.assert_allclose(gain, expected, rtol=1e-9)
    page = (folder / "report" / "report.html").read_text()
    assert "Errors of kf are" in page and "All stations" in page
    return scores


def test_paired_comparison_at_a_station(tmp_path):
    verif_text(tmp_path / "raw.txt", (2.0, 1.5))
    verif_text(tmp_path / "kf.txt", (0.1, 1.0), seed=5)
    scores = paired_comparison(tmp_path / "raw.txt", tmp_path / "kf.txt", tmp_path / "out")
    assert scores["significant"].sel(baseline="raw", forecast="kf").all()
    np.testing.assert_allclose(scores["rmse"].sel(forecast="raw").mean(), 2.5, rtol=0.05)


def test_the_real_paired_comparison(shared_data, tmp_path):
    """Kalman-filtered against raw forecasts: it removes most of the error, and the interval says so."""
    folder = shared_data / "observations"
    scores = paired_comparison(folder / "raw.txt", folder / "kf.txt", tmp_path)
    gain = scores["difference"].sel(baseline="raw", forecast="kf")
    half = scores["difference_half_width"].sel(baseline="raw", forecast="kf")
    sure = scores["significant"].sel(baseline="raw", forecast="kf")
    assert (gain < 0).all() and sure.sum() >= 8
    assert ((gain + half) < 0).where(sure, True).all()


def gridded_forecast(path, start, days, temperature):
    """A forecast store under WeatherBench 2's names with 2 m temperature and the ground's height."""
    latitude, longitude = np.linspace(87.5, -87.5, 36), np.arange(72) * 5.0
    inits = np.datetime64(start, "ns") + np.arange(days) * np.timedelta64(1, "D")
    leads = (np.arange(5) * 12).astype("timedelta64[h]").astype("timedelta64[ns]")
    field = np.broadcast_to(temperature(latitude)[None, None, :, None], (days, 5, 36, 72)).astype(np.float32)
    ground = np.full((36, 72), 9.80665 * 100.0, np.float32)
    dataset = xr.Dataset(
        {
            "2m_temperature": (("time", "prediction_timedelta", "latitude", "longitude"), field, {"units": "K"}),
            "geopotential_at_surface": (("latitude", "longitude"), ground, {"units": "m2 s-2", "role": "static"}),
        },
        {"time": inits, "prediction_timedelta": leads, "latitude": latitude, "longitude": longitude},
    )
    dataset.to_zarr(path, zarr_format=3)


def test_metar_against_a_gridded_forecast(shared_data, tmp_path):
    gridded_forecast(tmp_path / "f.zarr", "2020-01-02", 25, lambda phi: 300 - 40 * np.sin(np.radians(phi)) ** 2)
    observations = {"path": shared_data / "observations" / "metar_2020-01.parquet"}
    verify(
        VerifyConfig(
            forecasts={"zonal mean": tmp_path / "f.zarr"}, observations=observations, output=tmp_path / "scores.nc"
        )
    )
    scores = open_scores(tmp_path / "scores.nc")
    assert scores.sizes["init_time"] == 25 and scores.sizes["region"] > 8
    assert json.loads(scores.attrs["provenance"])["zonal mean"]["height_correction"].startswith("2m_temperature by 6.5")
    # Minneapolis in January is far colder than 280 K; the bias there is that of the mean of its reports
    from emulator.verify.stations import open_observations

    truth = open_observations(observations["path"])
    at = truth.isel(cell=int(np.flatnonzero(truth["station"].values == "KMSP")[0]))
    valid = np.datetime64("2020-01-02T12", "ns") + np.arange(25) * np.timedelta64(1, "D")
    observed = at["2m_temperature"].sel(time=valid).values
    phi = float(at["latitude"])
    said = 300 - 40 * np.sin(np.radians(phi)) ** 2 - 0.0065 * (float(at["elevation"]) - 100)
    known = np.isfinite(at["2m_temperature"].sel(time=valid - np.timedelta64(12, "h")).values) & np.isfinite(observed)
    bias = scores["bias"].sel(forecast="zonal mean", region="KMSP", channel="2m_temperature").isel(lead_time=1)
    np.testing.assert_allclose(bias, (said - observed[known]).mean(), atol=0.1)  # rows are interpolated linearly
    report(ReportConfig(scores=tmp_path / "scores.nc", output=tmp_path / "report"))
    assert "KMSP" in (tmp_path / "report" / "scores.csv").read_text()


def test_csv_observations_against_a_gridded_forecast_by_the_command_line(tmp_path, capsys):
    gridded_forecast(tmp_path / "f.zarr", "2020-01-02", 6, lambda phi: 280 + 0 * phi)
    times = pd.date_range("2020-01-01", "2020-01-10", freq="12h")
    lines = ["time,station,latitude,longitude,elevation,2m_temperature [degC]"]
    lines += [f"{t:%Y-%m-%dT%H:%M},S{s},{10 * s},{50 * s},100,{6.85 + s}" for t in times for s in (1, 2)]
    (tmp_path / "o.csv").write_text("\n".join(lines))
    (tmp_path / "v.yaml").write_text(
        f"forecasts: {{model: {tmp_path / 'f.zarr'}}}\nobservations: {{path: {tmp_path / 'o.csv'}}}\n"
        f"output: {tmp_path / 'scores.nc'}\n"
    )
    assert main(["verify", str(tmp_path / "v.yaml"), "--check"]) == 0
    assert "model against 2 stations" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "v.yaml")]) == 0
    bias = open_scores(tmp_path / "scores.nc")["bias"].sel(forecast="model", channel="2m_temperature")
    np.testing.assert_allclose(bias.sel(region="S1"), -1.0, atol=1e-4)
    np.testing.assert_allclose(bias.sel(region="stations"), -1.5, atol=1e-4)


def test_the_real_ifs_forecast_file(shared_data, tmp_path):
    """Four initial times 12 h apart and leads of 0 and 6 h, against the analyses in the file itself.

    Those have no truth at 6 h: the report has a marked gap there and says so.
    """
    source = {"path": str(shared_data / "nwp" / "pl_regular_ll.grib")}
    ingest(IngestConfig(sources=[source], output=tmp_path / "f.zarr", kind="forecast"))
    analysis = source | {"select": {"lead_time": 0}}
    ingest(IngestConfig(sources=[analysis], output=tmp_path / "a.zarr"))
    verify(
        VerifyConfig(forecasts={"ifs": tmp_path / "f.zarr"}, truth=tmp_path / "a.zarr", output=tmp_path / "scores.nc")
    )
    scores = open_scores(tmp_path / "scores.nc")
    at = scores["rmse"].sel(region="global", channel="temperature 500 hPa", forecast="ifs")
    np.testing.assert_array_equal(at, [0.0, np.nan])
    assert scores.attrs["missing_truth"] == 4
    report(ReportConfig(scores=tmp_path / "scores.nc", output=tmp_path / "report", title="IFS"))
    page = (tmp_path / "report" / "report.html").read_text()
    assert "The truth lacks 4 valid times" in page and len(page) < 15e6


def test_neither_or_both_truths_are_refused(tmp_path):
    with pytest.raises(ValueError, match="either truth or observations"):
        VerifyConfig(forecasts={}, output=tmp_path / "s.nc")
