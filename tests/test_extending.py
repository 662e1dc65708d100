"""The worked examples of docs/extending.md: each file is put into a copy of the package, and all else follows."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs/extending.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)
FILES = {block.split("\n", 1)[0].removeprefix("# "): block for block in BLOCKS if block.startswith("# emulator/")}


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the package with the files of the page."""
    folder = tmp_path_factory.mktemp("extended")
    for name in ("emulator", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        assert not (folder / name).exists() and (folder / name).parent.is_dir(), name
        (folder / name).write_text(text)
    return folder


def run(folder, code):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "tests")])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_row_of_the_table_has_an_example():
    rows = re.findall(r"^\| a[n]? .*?\| (\d) \| `([\w/]+)/` \|", TEXT, re.M)
    assert len(rows) == 13 and all(count == "1" for count, _ in rows)
    assert {folder for _, folder in rows} == {str(Path(name).parent) for name in FILES}


def test_a_network_is_listed_checked_and_configured(extended):
    out = run(
        extended,
        """
from pipelines.cli import main
from pipelines.config import TrainConfig
from pipelines.parse import parse
from emulator.networks import registry
from emulator.planet.grid import Grid
assert main(["models", "columns"]) == 0
paths = dict(store="a", statistics="b", output="c")
config = parse(TrainConfig, paths | {"network": {"kind": "columns", "width": 8}}, "here")
network = registry.build(config.network.model_dump(), 5, 3, Grid.gaussian(8))
print(sum(p.numel() for p in network.parameters()) == 5 * 8 + 8 + 8 * 3 + 3)
try:
    parse(TrainConfig, paths | {"network": {"kind": "columns", "widht": 8}}, "here")
except ValueError as error:
    print(error)
""",
    )
    assert "columns" in out and "hidden channels" in out and "True" in out and "nearest: network.width" in out


def test_a_loss_is_configured_checked_and_trained_with(extended):
    out = run(
        extended,
        """
import math
import torch
from pipelines.config import TrainConfig
from pipelines.load import parse
from pipelines.train import options_of
from small_planet import numpy_statistics, small_planet
from small_training import samples_of, weighted
paths = dict(store="a", statistics="b", output="c")
config = parse(TrainConfig, paths | {"loss": {"kind": "log_cosh", "sharpness": 2.0}}, "here")
print(config.loss.model_dump())
options = options_of(config)
planet = small_planet(times=12)
error = weighted(samples_of(planet), numpy_statistics(planet))
made, absolute = error.loss(options.loss), error.error("l1")
states = [torch.zeros(2, n, *planet["temperature"].shape[-2:]) for n in (error.scales[0].numel(), error.scales[1].numel())]
size = 0.7
units = absolute.unit.split([part.shape[1] for part in states])
off = [state + size / unit for state, unit in zip(states, units)]
torch.testing.assert_close(made(*states, *off), torch.tensor(math.log(math.cosh(2 * size)) / 2), rtol=1e-5, atol=0)
print(options.members == 1)
for wrong in ({"kind": "log_cosh", "sharpnes": 1.0}, {"kind": "log_cosh", "sharpness": 0}, {"kind": "log_cosch"}):
    try:
        parse(TrainConfig, paths | {"loss": wrong}, "here")
    except ValueError as error:
        print(error)
""",
    )
    assert "{'kind': 'log_cosh', 'sharpness': 2.0}" in out and "True" in out
    assert "nearest: loss.sharpness" in out and "greater than 0 at loss.sharpness" in out and "'log_cosch'" in out


@pytest.mark.slow
def test_an_observation_operator_observes_and_passes_quality_control(extended):
    out = run(
        extended,
        """
import numpy as np
import torch
import emulator as em
from small_planet import small_planet
planet = small_planet(times=2)
network = {"name": "top", "kind": "stations", "operator": "warmest", "errors": {"temperature": 1e-6}, "levels": [0.5]}
found = em.observe({"networks": [network]}, planet)
from emulator.assimilation.geometry import Geometry
from emulator.assimilation.quality import screen
geometry = Geometry.of(planet, ["temperature"])
columns = torch.as_tensor(planet["temperature"].values.astype(float))
index, weight, _ = geometry.corners(found.latitude, found.longitude)
each = (columns.flatten(2).numpy()[:, :, index] * weight).sum(2).max(1)
expected = np.concatenate([each[n, found.time == t] for n, t in enumerate(planet["time"].values)])
print(np.allclose(found.value, expected, atol=1e-4), set(screen(found, geometry).tolist()))
""",
    )
    assert "True {''}" in out


def test_a_kind_of_analysis_is_configured_and_draws_to_the_observations(extended):
    out = run(
        extended,
        """
import torch
from lorenz96 import COUNT, Dense, everywhere, nature
import numpy as np
from emulator.assimilation.kinds.registry import build
from emulator.assimilation.window import Window
from pipelines.config import CycleConfig
from pipelines.parse import parse
paths = dict(store="a", checkpoint="b", observations="c", output="d", start="2001-01-01", end="2001-01-02")
config = parse(CycleConfig, paths | {"analysis": {"kind": "descent", "damping": 0.5}}, "here").analysis
truth = nature(1)
observed, background = everywhere(truth, np.random.default_rng(0), 0.1), truth + 1
window = Window(background, [observed], covariance=Dense(torch.eye(COUNT).double()))
moved = build(config.model_dump()).analyse(window).state
print(float((moved - truth).abs().mean()) < 0.7)
""",
    )
    assert out == "True\n"


def test_a_kind_of_prediction_is_configured_and_steps(extended):
    out = run(
        extended,
        """
import torch
from emulator.model.predictions import PREDICTIONS, Known
from pipelines.config import TrainConfig
from pipelines.parse import parse
paths = dict(store="a", statistics="b", output="c")
assert parse(TrainConfig, paths | {"predict": "tendency"}, "here").predict == "tendency"
try:
    parse(TrainConfig, paths | {"predict": "tendancy"}, "here")
except ValueError as error:
    print(error)
one = torch.ones(2, 1, 3, 4)
known = Known(state=3 * one, resting=one, mean=one, std=one, change=0.5 * one, damping=one)
print(float(PREDICTIONS["tendency"].following(known, 4 * one).mean()))
""",
    )
    assert "5.0" in out and "tendency" in out and "change" in out


def test_a_score_of_long_runs_stands_among_the_others(extended):
    out = run(
        extended,
        """
import numpy as np
from emulator.planet.grid import Grid
from emulator.verify.long_climate import Pair, yearly_scores
from emulator.verify.yearly import Moments, years_of
grid = Grid.gaussian(4)
time = np.datetime64("2001-01-01", "ns") + np.arange(3 * 365) * np.timedelta64(1, "D")
moments, north = Moments.of(time, 1), np.sign(grid.mesh()[0]).ravel()
year = (moments.year - 2002)[:, None]
one, other = (np.broadcast_to((280 + size * north + year * north)[None], (1, 1095, 32)) for size in (3, 2))
pair = Pair(*(years_of(lambda part, r=r: r[:, part], moments, grid.area.ravel(), None) for r in (one,)),
            years_of(lambda part: other[:, part], moments, grid.area.ravel(), None)[0], grid, grid.area.ravel())
found = yearly_scores(pair)
print(round(float(found["climate_contrast_bias"]), 6), round(float(found["climate_contrast_spread"]), 6))
""",
    )
    assert out.split() == ["2.0", "2.0"]


def test_from_an_embedded_model_and_a_format_to_a_store(extended, tmp_path):
    out = run(
        extended,
        f"""
import json
from pathlib import Path
import numpy as np
import emulator as em
from pipelines.cli import main
from small_planet import small_planet
folder = Path({str(tmp_path)!r})
simulate = "simulate: {{model: resting, days: 2, spin_up_days: 0}}"
(folder / "e.yaml").write_text(f"directory: {{folder}}/run\\n{{simulate}}\\ningest: {{{{}}}}\\n")
assert main(["run", str(folder / "e.yaml")]) == 0
store = em.open_analysis(folder / "run" / "analysis.zarr")
assert store.sizes["time"] == 8 and (store["temperature"] == 260).all()
planet = small_planet(times=4)[["temperature", "half_level_a", "half_level_b"]]
text = json.dumps(planet.assign_coords(time=planet["time"].astype("int64")).to_dict())
(folder / "planet.txt").write_text(text)
em.ingest(str(folder / "planet.txt"), folder / "other.zarr")
np.testing.assert_allclose(em.open_analysis(folder / "other.zarr")["temperature"], planet["temperature"], rtol=1e-6)
print("done")
""",
    )
    assert "done" in out


def test_a_vertical_axis_is_ingested_beside_levels(extended, tmp_path):
    out = run(
        extended,
        f"""
from pathlib import Path
import numpy as np
import emulator as em
from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.sources.options import SourceOptions
from source_files import truth
folder = Path({str(tmp_path)!r})
truth().to_netcdf(folder / "a.nc")
wind = truth()[["temperature"]].rename(temperature="u", level="theta") / 10
wind["u"].attrs, wind["theta"].attrs = {{"units": "m s-1"}}, {{"units": "K"}}
wind.to_netcdf(folder / "b.nc")
sources = [SourceOptions(str(folder / "a.nc")), SourceOptions(str(folder / "b.nc"), rename={{"u": "u_component_of_wind"}})]
ingest(IngestOptions(sources), folder / "a.zarr")
store = em.open_analysis(folder / "a.zarr")
np.testing.assert_array_equal(store.theta, [850, 500, 300])
np.testing.assert_allclose(store.u_component_of_wind, wind.u[:, ::-1], rtol=1e-6)
em.statistics(folder / "a.zarr", folder / "s.nc")
import xarray as xr
found = xr.load_dataset(folder / "s.nc")
print(found.u_component_of_wind.dims, found.temperature.dims)
""",
    )
    assert "('statistic', 'theta') ('statistic', 'level')" in out


def test_a_quantity_a_metric_and_a_panel_reach_scores_and_report(extended, tmp_path):
    out = run(
        extended,
        f"""
from pathlib import Path
import numpy as np
import emulator as em
from pipelines.cli import main
from small_planet import small_planet
folder = Path({str(tmp_path)!r})
planet = small_planet(times=60)
attributes = {{"units": "kg kg-1", "cell_methods": "time: point"}}
humidity = planet["specific_humidity"]
planet["methane_mass_mixing_ratio"] = (humidity.dims, 0 * humidity.values + 1e-6, attributes)
rate = planet["mean_total_precipitation_rate"]
planet["mean_methane_emission_rate"] = (rate.dims, rate.values * 0, rate.attrs)
budgets = em.budgets(planet.assign_attrs(time_step_seconds=21600.0))
total = budgets["budget_total"].sel(budget="methane").isel(init_time=0).values
pressure = planet["surface_pressure"].values.astype(float)
np.testing.assert_allclose(total, 1e-6 * (em.Grid.gaussian(12).mean(pressure)) / 9.81, rtol=1e-6)
planet.drop_vars(["methane_mass_mixing_ratio", "mean_methane_emission_rate"]).to_netcdf(folder / "planet.nc")
ingest = f"ingest: {{{{sources: [{{{{path: {{folder}}/planet.nc}}}}]}}}}"
levels = "verify: {{variables: [temperature], levels: [0.9], events: []}}"
(folder / "e.yaml").write_text(f"directory: {{folder}}/run\\n{{ingest}}\\n{{levels}}\\nreport: {{{{}}}}\\n")
assert main(["run", str(folder / "e.yaml")]) == 0
import xarray as xr
scores = xr.open_dataset(folder / "run" / "scores.nc")
assert (scores["fourth_power_error"] >= scores["rmse"] * (1 - 1e-12)).where(scores["rmse"] > 0, True).all()
print("large misses count" in (folder / "run" / "report" / "report.html").read_text())
""",
    )
    assert "True" in out


def test_a_stepper_of_ones_own_makes_forecasts(planet, tmp_path):
    import numpy as np

    import emulator as em

    (block,) = [block for block in BLOCKS if "class Persistence" in block]
    names: dict = {"__name__": "page"}
    exec(block, names)
    dataset = planet.assign_attrs(time_step_seconds=21600.0)
    prognostic = em.Layout.of(dataset, {"diagnostic": []})
    times = dataset["time"].values[:2]
    forecast = em.forecast(names["Persistence"](prognostic), dataset, times, days=0.5)
    written = em.forecast(names["Persistence"](prognostic), dataset, times, days=0.5, output=tmp_path / "forecast.zarr")
    lagged = em.forecast(
        names["Persistence"](prognostic),
        dataset,
        dataset["time"].values[4],
        days=0.5,
        ensemble={"members": 2, "kind": "lagged"},
    )
    assert lagged.sizes["member"] == 2 and written.attrs["conservation"] == "none"
    with pytest.raises(ValueError, match="change_std.*got Persistence without"):
        em.forecast(names["Persistence"](prognostic), dataset, times, days=0.5, ensemble=2)
    other = dataclasses.replace(names["Persistence"](prognostic), digest=None)
    with pytest.raises(ValueError, match="attribute `digest` of Persistence"):
        em.forecast(other, dataset, times, days=0.5, output=tmp_path / "other.zarr")
    start = dataset["temperature"].isel(time=slice(0, 2)).values.astype(np.float32)
    for lead in range(3):
        np.testing.assert_array_equal(forecast["temperature"].isel(lead_time=lead).values, start)


def test_a_target_of_exports_writes_its_files(extended, tmp_path):
    out = run(
        extended,
        f"""
from pathlib import Path
from small_planet import small_planet
from small_store import write_store
import emulator as em
planet = small_planet(times=2, nlat=4)[["surface_pressure", "land_sea_mask"]]
folder = em.export(write_store(Path({str(tmp_path)!r}), planet), "means", {str(tmp_path / "out")!r})
print((folder / "2001.txt").read_text().split()[:2])
""",
    )
    assert "['surface_pressure', '98" in out
