"""DYffusion from its configurations to verified members: checks before anything runs, a rollout stopped inside windows."""

import contextlib
import shutil

import numpy as np
import pytest
from test_rollout import assert_equal
from test_rollout import config as rollout_config

from emulator.forecasting import forecaster
from emulator.forecasting.forecaster import Forecaster
from emulator.store.forecast import open_forecast
from pipelines import rollout
from pipelines.cli import main

pytestmark = pytest.mark.slow
SHORT = [
    "phases=[{updates: 8}]",
    "loss={kind: l1}",
    "validation={period: {start: 2001-01-13}, every: 4, windows: 3, steps: 4}",
]
INSIDE = ["objective={kind: dyffusion_interpolator, horizon: 3}", "network.dropout=0.2", "network.drop_path=0.2"]
NOISE = {"members": 3, "kind": "none", "seed": 3}


def train(finished, output, *overrides) -> int:
    return main(["train", str(finished), f"output={output}", *SHORT, *overrides])


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
    """A folder with the interpolator and the forecaster, trained on the tiny planet."""
    folder = tmp_path_factory.mktemp("windows")
    assert train(finished, folder / "inside", *INSIDE) == 0
    assert train(finished, folder / "ahead", ahead(folder / "inside")) == 0
    return folder


def ahead(inside) -> str:
    return f"objective={{kind: dyffusion, interpolator: {inside / 'checkpoint'}}}"


def test_the_check_tells_of_both_trainings_and_of_an_interpolator_that_is_not_there(
    finished, trained, tmp_path, capsys
):
    assert train(finished, tmp_path / "a", *INSIDE, "--check") == 0
    assert train(finished, tmp_path / "b", ahead(trained / "inside"), "--check") == 0
    assert capsys.readouterr().out.count("sfno with ") == 2
    assert train(finished, tmp_path / "b", ahead(tmp_path / "nowhere"), "--check") != 0
    assert "Expected a checkpoint in" in capsys.readouterr().err
    wrong = rollout_config(finished, tmp_path / "f.zarr", checkpoint=trained / "inside" / "checkpoint")
    with pytest.raises(ValueError, match="got an interpolator"):
        rollout.check(wrong, set())


def test_the_check_of_a_rollout_refuses_an_ocean_and_another_amplitude_of_noise(finished, trained, tmp_path):
    ahead, output = trained / "ahead" / "checkpoint", tmp_path / "f.zarr"
    plain = rollout_config(finished, output).checkpoint
    ocean = {"ocean": {"kind": "slab", "depth": 50, "convergence": 0}}
    for more in ({"checkpoint": ahead}, {"cascade": [{"from_days": 0.5, "checkpoint": ahead}]}):
        with pytest.raises(ValueError, match="with an ocean, got one whose steps belong to windows"):
            rollout.check(rollout_config(finished, output, **{"checkpoint": plain} | more | ocean), set())
    for amplitude in (1.0, 0.5):
        given = rollout_config(finished, output, checkpoint=ahead, ensemble=NOISE | {"noise_amplitude": amplitude})
        with contextlib.nullcontext() if amplitude == 1 else pytest.raises(ValueError, match="noise_amplitude 1 .*0.5"):
            rollout.check(given, set())


def test_a_moved_interpolator_is_the_same_one(finished, trained, tmp_path, caplog):
    shutil.copytree(trained / "inside", tmp_path / "inside")
    before = (trained / "ahead" / "checkpoint" / "weights.safetensors").read_bytes()
    assert train(finished, trained / "ahead", ahead(tmp_path / "inside")) == 0
    assert (trained / "ahead" / "checkpoint" / "weights.safetensors").read_bytes() == before


def test_a_rollout_that_was_stopped_inside_windows_ends_bit_for_bit_the_same(finished, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(forecaster, "BLOCK_BYTES", 1)
    checkpoint, stops, blocks = trained / "ahead" / "checkpoint", [], Forecaster.blocks

    def given(output):
        return rollout_config(finished, output, checkpoint=checkpoint, ensemble=NOISE, lead_days=1.25)

    def stopping(self, times, schedule, position=None):
        for number, pair in enumerate(blocks(self, times, schedule, position)):
            yield pair
            if len(schedule.ends) > 1 and len(stops) < 3 and number == 1:
                stops.append(position.number if position else 0)
                raise KeyboardInterrupt

    rollout.rollout(given(tmp_path / "whole.zarr"))
    with monkeypatch.context() as patched:
        patched.setattr(Forecaster, "blocks", stopping)
        for _ in range(10):
            try:
                rollout.rollout(given(tmp_path / "stopped.zarr"))
                break
            except KeyboardInterrupt:
                pass
    assert max(stops) % 3
    whole = open_forecast(tmp_path / "whole.zarr").load()
    assert_equal(open_forecast(tmp_path / "stopped.zarr").load(), whole)
    for budget in ("dry_air", "water", "energy"):
        assert float(np.abs(whole[f"residual_after_{budget}"]).max()) < 1e-6


def test_the_whole_chain_runs_with_it(finished, trained, tmp_path):
    overrides = [f"rollout.checkpoint={trained / 'ahead' / 'checkpoint'}", f"rollout.output={tmp_path / 'f.zarr'}"]
    overrides += ["rollout.ensemble={members: 2, kind: none}", "rollout.long_run_days=2", "rollout.maximum_inits=3"]
    assert main(["rollout", str(finished), *(each.removeprefix("rollout.") for each in overrides)]) == 0
    given = [f"forecasts={{ours: {tmp_path / 'f.zarr'}}}", f"output={tmp_path / 'scores.nc'}"]
    assert main(["verify", str(finished), *given]) == 0
