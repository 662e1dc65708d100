"""Sections of downscaling: where stages find each other's files, and objectives that are refused when they are read."""

import pytest
import yaml

from pipelines.config import ConfigError
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
        ({"objective": {"kind": "edm"}}, "kind: generative beside an objective, got deterministic"),
        ({"objective": {"knid": 3}}, "kind: generative beside an objective, got deterministic"),
        ({"network": {"kind": "unet", "wdth": 3}}, "network.wdth"),
    ],
)
def test_a_wrong_objective_or_network_is_refused_with_the_configuration(tmp_path, values, said):
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, train_downscaling={"fine": "f"} | values)
