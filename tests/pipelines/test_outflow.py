"""A limited area with closed budgets from driving data to the report, by one configuration."""

import numpy as np
import pytest
import yaml
from small_planet import small_planet
from small_store import write_store

import emulator as em
from emulator.verify.assemble import open_scores
from pipelines.cli import main


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The YAML of an experiment on a box, with the globe that drives it."""
    folder = tmp_path_factory.mktemp("outflow")
    planet = small_planet(28, nlat=24).assign_attrs(time_step_seconds=21600.0)
    globe = write_store(folder, planet, "globe.zarr")
    box = write_store(folder, planet.isel(latitude=slice(4, 19), longitude=slice(5, 29)), "box.zarr")
    raw = {
        "directory": str(folder / "run"),
        "stats": {"store": str(box)},
        "outflow": {"store": str(globe), "domain": str(box)},
        "train": {
            "store": str(box),
            "network": {"kind": "unet", "width": 4, "depth": 1},
            "boundary": {"store": str(globe), "width": 2, "outflow": str(folder / "run" / "outflow.nc")},
            "conservation": {"kind": "sequential"},
            "phases": [{"updates": 2, "batch_size": 2}],
        },
        "rollout": {
            "store": str(box),
            "period": {"start": "2001-01-03"},
            "every_hours": 12,
            "maximum_inits": 3,
            "lead_days": 1,
            "uncorrected_inits": 2,
        },
        "verify": {"truth": str(box), "climatology": {"end": "2001-01-07"}},
        "report": {"title": "Open sides"},
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def test_one_command_goes_from_driving_data_to_closed_budgets_on_the_page(experiment, capsys):
    run = experiment.parent / "run"
    assert main(["run", str(experiment), "--check"]) == 0
    assert main(["run", str(experiment)]) == 0
    scores = open_scores(run / "scores.nc")
    sources = [str(name) for name in scores["audit_source"].values]
    assert sources == ["emulator", "without corrections", "truth"]
    closed = np.abs(scores["budget_closed_relative"]).max(("audit_init_time", "audit_lead_time"))
    estimate = np.abs(scores["budget_relative"]).max(("audit_init_time", "audit_lead_time"))
    assert float(closed.sel(audit_source="emulator").max()) < 1e-8
    assert float(closed.sel(audit_source="truth").max()) < 1e-8  # of which the flux was made
    assert float(closed.sel(audit_source="without corrections").min()) > 1e-6
    assert float(estimate.sel(audit_source="emulator").min()) > 1e-6
    page = (run / "report" / "report.html").read_text()
    assert "Budgets with the given flux through the sides" in page
    assert "Budgets of an open domain: what passes its sides" in page
    assert "With the given flux, relative (rms)" in page


def test_a_globe_is_no_domain_and_a_flux_that_is_not_there_is_told(experiment, capsys):
    run, globe = experiment.parent / "run", experiment.parent / "globe.zarr"
    assert main(["outflow", str(experiment), "--check", f"domain={globe}"]) == 1
    assert "Expected a limited area as outflow.domain" in capsys.readouterr().err
    assert main(["train", str(experiment), "--check", f"boundary.outflow={run / 'absent.nc'}"]) == 1
    assert "train.boundary.outflow at" in capsys.readouterr().err


def test_from_python_too(experiment, tmp_path):
    em.outflow(experiment.parent / "globe.zarr", experiment.parent / "box.zarr", tmp_path / "outflow.nc")
    assert (tmp_path / "outflow.nc").exists()
