"""A network of other code goes through training, checkpoint and forecast like those of the package."""

import numpy as np
import pytest
from test_rollout import config as rollout_config

from emulator.model.saved_model import load_model
from emulator.store.forecast import open_forecast
from pipelines import rollout
from pipelines.cli import main

NETWORK = "network={kind: external, factory: 'other_network:columns', options: {width: 6}}"


def test_from_the_check_to_a_forecast_by_its_checkpoint(finished, tmp_path, monkeypatch, capsys):
    command = ["train", str(finished), f"output={tmp_path / 'train'}", NETWORK]
    assert main([*command, "--check"]) == 0
    assert "external with " in capsys.readouterr().out
    assert main([*command, "phases=[{updates: 3}]"]) == 0
    checkpoint = tmp_path / "train" / "checkpoint"
    rollout.rollout(rollout_config(finished, tmp_path / "forecast.zarr", checkpoint=checkpoint, maximum_inits=2))
    assert np.isfinite(open_forecast(tmp_path / "forecast.zarr")["temperature"]).all()
    monkeypatch.delattr("other_network.columns")
    with pytest.raises(ValueError, match="importable package.module:name .* has no attribute 'columns'"):
        load_model(checkpoint)
