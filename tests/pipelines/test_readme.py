"""The README's example of one's own data runs as it is written, on real ERA5 states and on states of our own."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from small_planet import FLUXES, small_planet

from pipelines.cli import main

README = Path(__file__).resolve().parents[2] / "README.md"
TIMES = np.arange("2015-12-24", "2016-01-18", 6, "datetime64[h]").astype("datetime64[ns]")
LEVELS = [50, 500, 850]
SMALL = ["train.phases=[{updates: 3}]", "train.network={embed_dim: 8, blocks: 1}"]


def states_alone() -> xr.Dataset:
    """Pressure levels without surface pressure or fluxes."""
    planet = small_planet(times=len(TIMES), levels=len(LEVELS)).drop_vars([*FLUXES, "surface_pressure"])
    level = ("level", LEVELS, {"units": "hPa"})
    return planet.drop_dims("half_level").assign_coords(time=TIMES, level=level).drop_attrs(deep=False)


def era5_turning(shared_data) -> xr.Dataset:
    """A real state, which has no cloud water at 50 hPa, turned eastwards in time."""
    with xr.open_dataset(shared_data / "era5" / "era5_tl31_19590102T00.nc") as dataset:
        state = dataset.sel(level=LEVELS).drop_vars("time").load()
    turned = [state.roll(longitude=number) for number in range(len(TIMES))]
    return xr.concat(turned, "time").assign_coords(time=TIMES)


@pytest.fixture(params=[pytest.param("real", marks=pytest.mark.slow), "made"])
def example(request, tmp_path) -> Path:
    """The README's example on files of the folder, as the YAML of an experiment."""
    data = era5_turning(request.getfixturevalue("shared_data")) if request.param == "real" else states_alone()
    for number, part in enumerate((slice(0, 40), slice(40, None))):
        data.isel(time=part).to_netcdf(tmp_path / f"{number}.nc")
    (text,) = re.findall(r"```yaml\n(directory: runs/era5\n.*?)```", README.read_text(), re.S)
    text = text.replace("/data/era5/*.nc", str(tmp_path / "*.nc")).replace("runs/era5", str(tmp_path / "run"))
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    return path


def test_the_example_of_ones_own_data_runs_and_says_what_its_budgets_would_lack(example, capsys):
    run = example.parent / "run"
    assert main(["run", str(example), *SMALL]) == 0
    assert (run / "report" / "report.html").exists()

    kept = yaml.safe_load(example.read_text())
    del kept["train"]["conservation"]
    example.write_text(yaml.safe_dump(kept))
    capsys.readouterr()
    for more in ([], ["--check"]):
        assert main(["train", str(example), f"output={example.parent / 'again'}", *more]) == 1
        said = capsys.readouterr().err.strip().splitlines()[-1]
        water, energy = said.split("; ")[:2]
        assert water.endswith(
            "Expected mean_total_precipitation_rate, mean_evaporation_rate among the variables, which the budget water needs"
        )
        assert "mean_top_net_long_wave_radiation_flux" in energy and "the budget energy needs" in energy
        assert said.endswith("train with train.conservation.kind=none")
    elsewhere = f"output={example.parent / 'again'}"
    assert main(["train", str(example), "conservation.kind=none", elsewhere, "--check"]) == 0
