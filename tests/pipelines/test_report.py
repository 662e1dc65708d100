import json
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.config import ReportConfig, VerifyConfig
from pipelines.report import report
from pipelines.verify import verify

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from made_scores import made_scores


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Path:
    return made_scores(tmp_path_factory.mktemp("scored"))


def test_page_with_everything_and_its_numbers_beside_it(scored, tmp_path):
    run = xr.open_zarr(scored.parent / "analysis.zarr").load()
    long = run[["temperature", "surface_pressure", "specific_humidity", "half_level_a", "half_level_b"]]
    long = long.isel(time=slice(0, None, 4)).rename(time="prediction_timedelta")
    long = long.assign_coords(prediction_timedelta=np.arange(15).astype("timedelta64[D]").astype("timedelta64[ns]"))
    long = long.expand_dims(time=[np.datetime64("2001-01-09", "ns")]).assign(
        half_level_a=run["half_level_a"], half_level_b=run["half_level_b"]
    )
    long.attrs = run.attrs | {"emulator_schema": "forecast-1"}
    for array in long.variables.values():
        array.encoding = {}
    long.to_zarr(tmp_path / "long.zarr", zarr_format=3)
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps({"update": u, "loss": 2 / u}) for u in range(1, 30)))
    report(
        ReportConfig(
            scores=scored, output=tmp_path / "r", long_run=tmp_path / "long.zarr", metrics=tmp_path / "metrics.jsonl"
        )
    )
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == [
        "report.html",
        "scores.csv",
        "scores.json",
        "scores.nc",
    ]
    text = (tmp_path / "r" / "report.html").read_text()
    assert "A run of 14 days" in text and "Loss over 29 updates" in text
    assert json.loads((tmp_path / "r" / "scores.json").read_text())["verdict"]


def test_persistence_alone_makes_a_page(scored, tmp_path):
    verify(
        VerifyConfig(
            truth=scored.parent / "analysis.zarr",
            output=tmp_path / "scores.nc",
            persistence_lead_hours=[24, 72],
            variables=["temperature", "surface_pressure"],
        )
    )
    report(ReportConfig(scores=tmp_path / "scores.nc", output=tmp_path / "r"))
    text = (tmp_path / "r" / "report.html").read_text()
    assert "There was no forecast to judge" in text
    assert "reference (truth)" in text  # the truth's own budgets


def test_bad_input_is_one_sentence_and_leaves_nothing(scored, tmp_path):
    out = tmp_path / "r"
    with pytest.raises(ValueError, match="Expected scores at .* got nothing there"):
        report(ReportConfig(scores=tmp_path / "none.nc", output=out))
    (tmp_path / "text.nc").write_text("these are no scores")
    with pytest.raises(ValueError, match="Expected scores in NetCDF"):
        report(ReportConfig(scores=tmp_path / "text.nc", output=out))
    xr.Dataset({"x": 1.0}).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(ValueError, match="scores_schema 'scores-1'"):
        report(ReportConfig(scores=tmp_path / "other.nc", output=out))
    with pytest.raises(ValueError, match="metrics at .* got nothing there"):
        report(ReportConfig(scores=scored, output=out, metrics=tmp_path / "none.jsonl"))
    with pytest.raises(ValueError, match="store at .* got nothing there"):
        report(ReportConfig(scores=scored, output=out, long_run=tmp_path / "none.zarr"))
    assert not out.exists()
