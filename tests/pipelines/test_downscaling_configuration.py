"""Sections of downscaling: where stages find each other's files, and objectives that are refused when they are read."""

import pytest
import yaml
from pair_of_stores import fine_planet, two_stores
from small_store import write_store

from emulator.planet.grid import Grid
from pipelines import verify
from pipelines.config import ConfigError, VerifyConfig
from pipelines.load import load_experiment


def read(folder, **sections):
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({"directory": str(folder / "run"), **sections}))
    return load_experiment(path)


def test_stages_find_each_others_stores(tmp_path):
    run, fine = tmp_path / "run", tmp_path / "fine.zarr"
    sections = {"ingest": {"grid": {"kind": "gaussian", "rows": 8}}, "train_downscaling": {"fine": str(fine)}}
    found = read(tmp_path, **sections, downscale={}, verify={})
    assert found.ingest.sources[0].path == str(fine) and found.train_downscaling.coarse == found.ingest.output
    assert found.train_downscaling.network.kind == "unet"
    assert found.downscale.checkpoint == found.train_downscaling.output / "checkpoint"
    assert found.verify.truth == fine and found.verify.coarse == found.downscale.store == found.ingest.output
    assert found.verify.forecasts == {"downscaled": run / "downscaled.zarr", "bilinear": run / "bilinear.zarr"}
    alone = read(tmp_path, **sections, downscale={"bilinear": None}, verify={})
    assert list(alone.verify.forecasts) == ["downscaled"]
    rolled = read(tmp_path, **sections, rollout={"lead_days": 1}, downscale={}, verify={})
    assert rolled.downscale.store == rolled.rollout.output


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "generative", "objective": {"kind": "flow"}}, "flow_matching.*'flow'"),
        ({"kind": "generative", "objective": {"kind": "edm", "rho": -1}}, "rho"),
        ({"kind": "generative", "objective": {"kind": "edm", "levels": "uniform"}}, "levels"),
        (
            {"kind": "generative", "objective": {"kind": "edm", "length_scale": 400}},
            "without length_scale .* got .* 400",
        ),
        ({"objective": {"kind": "edm"}}, "kind: generative beside an objective, got deterministic"),
        ({"mean": "m"}, "kind: generative beside mean, got deterministic and m"),
        ({"objective": {"knid": 3}}, "kind: generative beside an objective, got deterministic"),
        ({"network": {"kind": "unet", "wdth": 3}}, "network.wdth"),
    ],
)
def test_a_wrong_objective_or_network_is_refused_with_the_configuration(tmp_path, values, said):
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, train_downscaling={"fine": "f"} | values)


@pytest.mark.parametrize("stage", ["train_downscaling", "downscale", "rollout", "verify", "ingest"])
def test_what_is_no_section_is_refused_in_words(tmp_path, stage):
    sections = {"ingest": {}, "train_downscaling": {"fine": "f"}, "downscale": {}, "verify": {}}
    with pytest.raises(ConfigError, match=stage):
        read(tmp_path, **sections | {stage: "yes"})


def test_what_a_rollout_writes_on_the_coarse_grid_is_not_judged_by_the_fine_truth(tmp_path):
    rollout = {
        "lead_days": 1,
        "uncorrected_inits": 2,
        "long_run_days": 9,
        "ocean": {"kind": "emulator", "checkpoint": "c", "store": "s"},
    }
    sections = {"rollout": rollout, "downscale": {}}
    found = read(tmp_path, **sections, train_downscaling={"fine": "fine.zarr", "coarse": "c"}, verify={}).verify
    assert list(found.forecasts) == ["downscaled", "bilinear"] and str(found.truth) == "fine.zarr"
    assert not found.audit and not found.long_runs and not found.oceans
    with pytest.raises(ConfigError, match="verify.truth, a store on the fine grid, beside downscale"):
        read(tmp_path, **sections, verify={})
    assert str(read(tmp_path, **sections, verify={"truth": "own.zarr"}).verify.truth) == "own.zarr"
    assert read(tmp_path, **sections).verify is None
    rolled = read(tmp_path, rollout=rollout, verify={}).verify
    assert list(rolled.audit) == ["without corrections"] and list(rolled.long_runs) == list(rolled.oceans) == [
        "emulator"
    ]
    assert rolled.truth == tmp_path / "run" / "analysis.zarr"


def test_a_coarse_store_on_another_grid_is_refused_by_the_check_of_a_verification(tmp_path):
    fine, coarse = two_stores(tmp_path, 4, 9)
    finer = write_store(tmp_path, fine_planet(2, Grid.gaussian(24)), "finer.zarr")

    def said(store):
        return verify.check(VerifyConfig(truth=fine, coarse=store, output=tmp_path / "scores.nc"), set())

    assert "against" in said(coarse)
    with pytest.raises(ValueError, match="verify.coarse .*finer.zarr.*fine grid of cells below those of 24 x 48"):
        said(finer)
