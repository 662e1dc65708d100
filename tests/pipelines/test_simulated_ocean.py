"""The embedded ocean from the configuration in the documentation to a store: masks, steps, and budgets of what it records."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from emulator.embedded.veros import DEPTH_FIELDS, FLUXES, HEAT_CAPACITY, STATES
from emulator.planet.grid import CLOSED
from emulator.store.analysis import open_analysis
from emulator.store.masks import domain_of
from emulator.verify.assemble import open_scores
from pipelines.cli import main
from pipelines.config import ConfigError, SimulateConfig
from pipelines.simulate import check

DOCUMENTED = yaml.safe_load(
    re.search(
        r"### An ocean.*?```yaml\n(.*?)```",
        (Path(__file__).parents[2] / "docs" / "data.md").read_text(),
        re.DOTALL,
    )[1]
)


def test_the_documented_simulation_can_be(monkeypatch):
    config = SimulateConfig(directory="x", **DOCUMENTED["simulate"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"the package veros for .*emulator\[ocean\]"):
        check(config, set())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert check(config, set()) == "1800 + 3600 days of veros into x"
    with pytest.raises(ConfigError, match="step_hours of whole days"):
        check(config.model_copy(update={"step_hours": 6}), set())


def test_a_store_of_the_ocean_closes_its_budgets_step_by_step(tmp_path):
    pytest.importorskip("veros", reason="Veros is not installed: the extra emulator[ocean]")
    short = {"step_hours": 48, "spin_up_days": 2, "days": 6, "chunk_days": 4}
    options = DOCUMENTED["simulate"]["options"] | {"snapshots": True}
    raw = DOCUMENTED | {"simulate": DOCUMENTED["simulate"] | short | {"options": options}, "directory": str(tmp_path)}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(raw))
    assert main(["run", str(tmp_path / "e.yaml")]) == 0
    store = open_analysis(tmp_path / "analysis.zarr").load()
    assert store.attrs["time_step_seconds"] == 172800 and len(store.time) == 3
    assert store.attrs[CLOSED] == 1
    mask = store.sea_water_mask.values
    for name in (*STATES, *FLUXES):
        inside = np.broadcast_to(domain_of(store, name), store[name].shape[1:])
        np.testing.assert_array_equal(inside, mask if name in DEPTH_FIELDS else mask[0])
        np.testing.assert_array_equal(np.isfinite(store[name].values), np.stack([inside] * 3) > 0)
        assert store[name].attrs["cell_methods"].startswith("time: mean" if name in FLUXES else "time: point")
    thickness = np.diff(store.depth_bounds, axis=1)[:, :, None]
    weights = store.cell_area.values * mask[0] / (store.cell_area.values * mask[0]).sum()
    for name, flux, unit in (
        ("sea_water_potential_temperature", "mean_downward_heat_flux_into_sea_water", 1024 * HEAT_CAPACITY),
        ("sea_water_salinity", "mean_virtual_salt_flux_into_sea_water", 1.024),
    ):
        column = np.nansum(store[name].values.astype(np.float64) * thickness, axis=1)
        change = np.diff((column * weights).sum((1, 2))) * unit / 172800
        entering = np.nansum(store[flux].values.astype(np.float64) * weights, axis=(1, 2))[1:]
        rounding = np.nanmax(store[name].values) * np.finfo(np.float32).eps * 2080 * unit / 172800
        np.testing.assert_allclose(change, entering, rtol=0, atol=rounding / 50, err_msg=name)  # errors of 17000 cells
        assert np.abs(entering).max() > rounding / 5


@pytest.mark.slow
def test_the_experiment_runs_from_nothing_to_a_report(tmp_path):
    """`conf/climate/ocean.yaml`, shortened: what it writes keeps heat and salt for all leads, and the report shows it."""
    pytest.importorskip("veros", reason="Veros is not installed: the extra emulator[ocean]")
    short = [f"directory={tmp_path}", "simulate.step_hours=24", "simulate.spin_up_days=2", "simulate.days=40"]
    short += ["simulate.chunk_days=20", "stats.period.end=2001-01-31", "train.period.end=2001-01-31"]
    short += ["train.phases=[{updates: 4, batch_size: 2}]", "train.network.widths=[4]", "train.network.dilations=[1]"]
    short += [
        "rollout.period.start=2001-02-01",
        "rollout.every_hours=72",
        "rollout.lead_days=6",
        "rollout.long_run_days=20",
    ]
    conf = Path(__file__).parents[2] / "conf" / "climate" / "ocean.yaml"
    assert main(["run", str(conf), *short, "verify.climatology.end=2001-01-31"]) == 0
    scores = open_scores(tmp_path / "scores.nc")
    assert list(scores["budget"].values) == ["ocean_heat", "ocean_salt"]
    relative = scores["budget_relative"].isel(audit_lead_time=slice(1, None))
    kept = relative.sel(audit_source="emulator").values
    np.testing.assert_allclose(kept[np.isfinite(kept)], 0, rtol=0, atol=1e-8)
    assert np.isfinite(kept).any()
    free = relative.sel(audit_source="without corrections", budget="ocean_heat").values
    assert np.nanmax(np.abs(free)) > 1e-6
    assert "Drift and variability by depth" in (tmp_path / "report" / "report.html").read_text()
