import json
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.cli import main
from pipelines.config import ReportConfig, VerifyConfig
from pipelines.report import report
from pipelines.verify import verify

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from made_scores import made_analysis, made_forecast_store, made_scores


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


def test_models_side_by_side_and_the_gate_as_commands(tmp_path, capsys):
    truth = made_analysis(tmp_path / "analysis.zarr")
    for name, error in (("good", 0.2), ("bad", 0.35)):
        made_forecast_store(tmp_path / f"{name}.zarr", truth, range(28, 48, 2), 12, error)
        verify(
            VerifyConfig(
                forecasts={"emulator": tmp_path / f"{name}.zarr"},
                truth=tmp_path / "analysis.zarr",
                output=tmp_path / name / "scores.nc",
                variables=["surface_pressure"],
                climatology={"end": "2001-01-07"},
            )
        )
        report(ReportConfig(scores=tmp_path / name / "scores.nc", output=tmp_path / name))
    good, bad = (str(tmp_path / name / "scores.json") for name in ("good", "bad"))
    both = str(tmp_path / "both")
    assert main(["report", str(tmp_path / "good"), f"worse={tmp_path / 'bad' / 'scores.nc'}", "--output", both]) == 0
    assert "RMSE of worse against good, difference in %" in (tmp_path / "both" / "report.html").read_text()
    assert main(["gate", good, good]) == 0 and main(["gate", good, bad]) == 0
    assert main(["gate", bad, good, "--tolerance", "1000"]) == 0
    capsys.readouterr()
    assert main(["gate", bad, good]) == 1
    out = capsys.readouterr().out
    assert "worse" in out and "RMSE of" in out
    renamed = json.loads((tmp_path / "both" / "scores.json").read_text().replace('"worse"', '"other"'))
    (tmp_path / "renamed.json").write_text(json.dumps(renamed))
    assert main(["gate", f"{both}/scores.json", str(tmp_path / "renamed.json")]) == 1
    said = capsys.readouterr()
    assert "missing" not in said.out and said.err.count("Expected the baseline's forecasts") == 1
    assert main(["gate", good, f"{both}/no.json"]) == 1 and "No such file" in capsys.readouterr().err
