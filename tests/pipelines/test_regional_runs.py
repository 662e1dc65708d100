"""Regions from the source to the report: a box across Greenwich, a Lambert map, and points of a region."""

import json

import numpy as np
import pytest
import xarray as xr
import yaml
from regional_sources import LAMBERT, REGIONS

import emulator as em
from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.model.saved_model import grid_from_json, load_model
from emulator.sources.foreign import open_any_forecast
from emulator.sources.options import SourceOptions
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from emulator.store.schema import grid_of
from emulator.verify.assemble import open_scores
from emulator.verify.plane_spectrum import plane_spectrum
from pipelines.cli import main

NETWORKS = {
    "box": {"kind": "unet", "width": 8, "depth": 1},
    "projected": {"kind": "unet", "width": 8, "depth": 1},
    "region_points": {"kind": "graph", "refinement": 3, "width": 8, "rounds": 2},
}
slow = pytest.mark.slow


def experiment(folder, kind):
    """Sources of a region and the YAML of an experiment on them; returns its path."""
    folder.mkdir()
    REGIONS[kind]().to_netcdf(folder / "source.nc")
    raw = {
        "directory": str(folder / "run"),
        "ingest": {"sources": [{"path": str(folder / "source.nc")}]},
        "stats": {"period": {"end": "2001-01-07"}},
        "train": {
            "period": {"end": "2001-01-07"},
            "network": NETWORKS[kind],
            "conservation": {"kind": "none"},
            "phases": [{"updates": 60 if kind != "region_points" else 150}],
            "optimizer": {"warmup_steps": 5},
        },
        "rollout": {
            "period": {"start": "2001-01-08"},
            "every_hours": 12,
            "lead_days": 1,
            "also": ["netcdf"],
            "long_run_days": 2,
        },
        "verify": {"regions": ["global", "europe", "tropics"], "climatology": {"end": "2001-01-07"}},
        "report": {"title": "A region"},
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The run directories by kind of region."""
    folder = tmp_path_factory.mktemp("regions")
    found: dict = {}
    for kind in REGIONS:
        path = experiment(folder / kind, kind)
        assert main(["run", str(path), "--check"]) == 0
        assert main(["run", str(path)]) == 0
        found[kind] = folder / kind / "run"
    return found


@slow
@pytest.mark.parametrize("kind", REGIONS)
def test_the_forecast_beats_persistence_over_the_domain(runs, kind):
    """The daily cycle and the wave are there to be learnt: neighbours are neighbours, and nothing is shuffled."""
    scores = open_scores(runs[kind] / "scores.nc")
    assert list(scores["region"].values) == ["domain", "europe"]
    rmse = scores["rmse"].sel(region="domain").isel(lead_time=1)
    assert (rmse.sel(forecast="emulator") < 0.9 * rmse.sel(forecast="persistence")).all()
    skipped = json.loads(scores.attrs["budgets_skipped"])
    assert set(skipped) == {"emulator", "truth"}
    for reasons in skipped.values():  # for want of fields, and not since the region is open
        assert set(reasons) == {"dry_air", "water", "energy"}
        assert all(reason.startswith("missing specific_humidity") for reason in reasons.values())


@slow
@pytest.mark.parametrize("kind", REGIONS)
def test_spectra_of_regions_that_have_sides_are_those_of_the_verified_fields(runs, kind):
    scores, truth = open_scores(runs[kind] / "scores.nc"), open_analysis(runs[kind] / "analysis.zarr")
    assert ("power" in scores) == (kind != "region_points")
    if kind == "region_points":
        return
    power = scores["power"].sel(source="truth", channel="surface_pressure")
    assert power.sizes["wavenumber"] == min(grid_of(truth).shape)
    starts = open_forecast(runs[kind] / "forecast.zarr")["init_time"].values
    for lead in scores["spectrum_lead"].values:
        field = truth["surface_pressure"].sel(time=starts + lead).values.astype(np.float64)
        np.testing.assert_allclose(power.sel(spectrum_lead=lead), plane_spectrum(field).mean(0), rtol=1e-9)


@slow
@pytest.mark.parametrize("kind", REGIONS)
def test_store_checkpoint_and_forecast_have_the_grid(runs, kind):
    grid = grid_of(open_analysis(runs[kind] / "analysis.zarr"))
    model, forecast = load_model(runs[kind] / "train" / "checkpoint"), open_forecast(runs[kind] / "forecast.zarr")
    assert grid.kind == kind
    for other in (grid_from_json(model.metadata["grid"]), grid_of(forecast)):
        assert other.kind == kind and other.same_as(grid)
        np.testing.assert_allclose(other.cell_area, grid.cell_area, rtol=1e-12)


@slow
@pytest.mark.parametrize("check", [["--check"], []])
def test_members_of_spherical_noise_are_refused(runs, check, capsys):
    path, output = runs["box"].parent / "experiment.yaml", runs["box"] / "other.zarr"
    ensemble = "rollout.ensemble={kind: noise, members: 3}"
    assert main(["rollout", str(path), *check, ensemble, f"rollout.output={output}"]) != 0
    text = " ".join(capsys.readouterr().err.split())
    assert "noise" in text and "11 x 14 box" in text and not output.exists()


@slow
@pytest.mark.parametrize("check", [["--check"], []])
def test_grib_of_a_map_is_refused_before_a_forecast_is_made(runs, check, capsys):
    pytest.importorskip("eccodes", exc_type=ImportError)
    path, output = runs["projected"].parent / "experiment.yaml", runs["projected"] / "other.zarr"
    assert main(["rollout", str(path), *check, "rollout.also=[grib]", f"rollout.output={output}"]) != 0
    text = " ".join(capsys.readouterr().err.split())
    assert "rows of latitude for GRIB" in text and "lambert" in text and not output.exists()


@slow
def test_netcdf_of_a_map_has_its_grid_mapping(runs):
    (path, *_) = sorted((runs["projected"] / "forecast_netcdf").glob("*.nc"))
    with xr.open_dataset(path, decode_coords="all") as forecast:
        assert forecast["temperature"].encoding["grid_mapping"] == "crs"
        assert forecast["crs"].attrs["grid_mapping_name"] == LAMBERT["grid_mapping_name"]
        assert forecast["latitude"].dims == ("y", "x")


@slow
@pytest.mark.parametrize("kind", REGIONS)
def test_netcdf_scores_as_the_store_does(runs, kind):
    truth, scores = runs[kind] / "analysis.zarr", []
    for forecast in ("forecast.zarr", "forecast_netcdf/*.nc"):
        scores.append(em.score(f"{runs[kind]}/{forecast}", truth, climatology=(None, "2001-01-07")))
    assert grid_of(open_any_forecast(f"{runs[kind]}/forecast_netcdf/*.nc")).kind == kind
    np.testing.assert_allclose(scores[0]["rmse"], scores[1]["rmse"], rtol=1e-9)


@slow
def test_budgets_of_an_open_region_are_refused(runs):
    with pytest.raises(ValueError, match="globe.*11 x 14 box"):
        em.budgets(open_forecast(runs["box"] / "forecast.zarr"), open_analysis(runs["box"] / "analysis.zarr"))


@slow
def test_grib_of_a_box_has_its_place(runs, tmp_path):
    pytest.importorskip("eccodes", exc_type=ImportError)
    from emulator.exports.messages import write_grib

    forecast = open_forecast(runs["box"] / "forecast.zarr").isel(init_time=0, lead_time=slice(0, 2))
    assert write_grib(forecast, tmp_path / "a.grib2") == 8  # two static fields
    (tmp_path / "store").mkdir()
    source = SourceOptions(str(tmp_path / "a.grib2"), select={"lead_time": 0})
    ingest(IngestOptions(source), tmp_path / "store" / "a.zarr")
    again = open_analysis(tmp_path / "store" / "a.zarr")
    assert grid_of(again).same_as(grid_of(forecast), tolerance=1e-5)
    np.testing.assert_allclose(again["temperature"][0], forecast["temperature"][0], atol=2e-3)


@slow
@pytest.mark.parametrize("kind", REGIONS)
def test_the_report_has_maps_where_cells_have_sides(runs, kind):
    page = next((runs[kind] / "report").glob("*.html")).read_text()
    assert "Domain" in page and "The grid is a region" in page
    assert ("Maps of" in page) == (kind != "region_points")


def test_spectral_networks_are_refused_by_the_check(tmp_path, capsys):
    path = experiment(tmp_path / "box", "box")
    for stage in ("ingest", "stats"):
        assert main([stage, str(path)]) == 0
    for change, facts in (
        ("train.network={kind: sfno}", ("11 x 14 box", "sfno", "graph", "unet")),
        ("train.conservation.kind=sequential", ("budgets", "11 x 14 box", "kind=none")),
        ("train.network={kind: unet, depth: 1, noise: {}}", ("noise", "11 x 14 box")),
        ("train.loss={kind: spectral}", ("11 x 14 box",)),
    ):
        assert main(["train", str(path), "--check", change]) != 0
        text = " ".join(capsys.readouterr().err.split())
        assert all(fact in text for fact in facts), text
