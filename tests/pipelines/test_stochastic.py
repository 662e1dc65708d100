"""A stochastic network from its configuration to verified ensembles: trained by CRPS, rolled out by its own noise."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from test_rollout import assert_equal
from test_rollout import config as rollout_config

from emulator.data.channels import Channels
from emulator.data.forcing import Forcing
from emulator.forecasting import forecaster
from emulator.forecasting.forecaster import Forecaster
from emulator.model.assemble import conditions
from emulator.model.saved_model import load_model
from emulator.model.scalars import Scalars
from emulator.planet.insolation import CLOCK_FEATURES
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from pipelines import rollout
from pipelines.cli import main
from pipelines.config import ConfigError, TrainConfig
from pipelines.parse import parse

NOISE = {"members": 4, "kind": "none", "seed": 3}
OVERRIDES = [
    "network.noise={channels: 2, length_scales: [4000, 1500]}",
    "network.blocks=2",
    "network.condition=[time_of_year, sea_surface_temperature]",
    "loss={kind: crps, members: 3}",
    "phases=[{updates: 20, batch_size: 4, single: true}, {updates: 40, batch_size: 4}]",
    "validation={period: {start: 2001-01-13}, every: 20, windows: 3, steps: 3}",
]


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
    """The folder of a stochastic network, trained on the tiny planet."""
    output = tmp_path_factory.mktemp("stochastic") / "train"
    assert main(["train", str(finished), f"output={output}", *OVERRIDES]) == 0
    return output


def run(finished, trained, output, **options) -> xr.Dataset:
    rollout.rollout(rollout_config(finished, output, checkpoint=trained / "checkpoint", **options))
    return open_forecast(output).load()


@pytest.fixture(scope="module")
def members(finished, trained, tmp_path_factory):
    return run(finished, trained, tmp_path_factory.mktemp("members") / "forecast.zarr", ensemble=NOISE)


def test_the_check_tells_what_members_cost(finished, tmp_path, capsys):
    assert main(["train", str(finished), f"output={tmp_path / 'o'}", *OVERRIDES, "--check"]) == 0
    assert "(1 x 4 x 3 members)" in capsys.readouterr().out


def test_validation_chose_the_weights_by_the_score(finished, trained):
    saved = json.loads((trained / "checkpoint" / "checkpoint.json").read_text())
    rows = [json.loads(line) for line in (trained / "validation.jsonl").read_text().splitlines()]
    assert saved["update"] == max(rows, key=lambda row: row["skill"])["update"]
    assert rows[-1]["skill"] == pytest.approx(1 - rows[-1]["rollout"] / rows[-1]["rollout_persistence"])


def test_members_start_alike_and_part_and_everyones_budgets_are_closed(members):
    state = members["temperature"]
    assert state.dims[:3] == ("init_time", "lead_time", "member")
    assert not state.isel(lead_time=0).std("member").values.any()
    spread = state.isel(lead_time=slice(1, None)).std("member").mean(("level", "latitude", "longitude"))
    assert (spread > 0).all()
    for budget in ("dry_air", "water", "energy"):
        assert float(np.abs(members[f"residual_after_{budget}"]).max()) < 1e-6


def test_members_depend_on_seed_time_member_and_step_alone(finished, trained, members, tmp_path):
    """Whatever is computed with them: other members, initial times, batches."""
    fewer = run(finished, trained, tmp_path / "fewer.zarr", ensemble=NOISE | {"members": 2}, batch_size=3)
    np.testing.assert_allclose(fewer["temperature"], members["temperature"].isel(member=slice(0, 2)), rtol=2e-5)
    later = run(finished, trained, tmp_path / "later.zarr", ensemble=NOISE, batch_size=1, maximum_inits=2)
    np.testing.assert_allclose(later["temperature"], members["temperature"].isel(init_time=slice(0, 2)), rtol=2e-5)
    single = run(finished, trained, tmp_path / "single.zarr", maximum_inits=1)
    other = run(finished, trained, tmp_path / "other.zarr", ensemble=NOISE | {"seed": 0, "members": 2}, maximum_inits=1)
    np.testing.assert_allclose(single["temperature"], other["temperature"].isel(member=0), rtol=2e-5)
    assert np.abs(single["temperature"] - members["temperature"].isel(member=0))[0, -1].max() > 1e-3


def test_parts_together_are_the_whole(finished, trained, members, tmp_path):
    output = tmp_path / "parts.zarr"
    for part in ((2, 2), (1, 2)):
        given = rollout_config(finished, output, checkpoint=trained / "checkpoint", ensemble=NOISE)
        rollout.rollout(given, part=part)
    assert_equal(open_forecast(output).load(), members)


def test_a_rollout_that_was_stopped_inside_a_forecast_ends_bit_for_bit_the_same(
    finished, trained, members, tmp_path, monkeypatch
):
    monkeypatch.setattr(forecaster, "BLOCK_BYTES", 1)
    output, stops, blocks = tmp_path / "stopped.zarr", [], Forecaster.blocks
    given = rollout_config(finished, output, checkpoint=trained / "checkpoint", ensemble=NOISE)

    def stopping(self, times, schedule, position=None):
        for number, pair in enumerate(blocks(self, times, schedule, position)):
            yield pair
            if len(schedule.ends) > 1 and len(stops) < 3 and number == 1:
                stops.append(position.number if position else 0)
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Forecaster, "blocks", stopping)
        for _ in range(10):
            try:
                rollout.rollout(given)
                break
            except KeyboardInterrupt:
                assert not output.exists()
    assert max(stops) > 0
    assert_equal(open_forecast(output).load(), members)


def test_lagged_members_are_older_forecasts_of_the_first_member(finished, trained, tmp_path):
    ensemble = {"members": 2, "kind": "lagged", "lag_hours": 12, "seed": 0}
    lagged = run(finished, trained, tmp_path / "lagged.zarr", ensemble=ensemble, maximum_inits=2)
    singles = run(finished, trained, tmp_path / "singles.zarr", maximum_inits=2)
    np.testing.assert_allclose(
        lagged["temperature"].isel(init_time=1, member=1, lead_time=0),
        singles["temperature"].isel(init_time=0, lead_time=2),
        rtol=2e-5,
    )


def test_perturbed_starts_and_the_networks_noise_add_up(finished, trained, members, tmp_path):
    ensemble = NOISE | {"kind": "bred", "amplitude": 0.2, "cycles": 2, "cycle_hours": 6}
    found = run(finished, trained, tmp_path / "bred.zarr", ensemble=ensemble, maximum_inits=1)
    assert (found["temperature"].isel(lead_time=0).std("member").mean(("latitude", "longitude")) > 0).all()


def test_the_uncorrected_network_and_the_long_run_have_noise_too(finished, trained, tmp_path):
    options = {"uncorrected_inits": 1, "long_run_days": 2, "maximum_inits": 1}
    where = {name: tmp_path / f"{name}.zarr" for name in ("uncorrected", "long_run")}
    run(finished, trained, tmp_path / "f.zarr", ensemble=NOISE, **options, **where)
    assert all(path.exists() for path in where.values())


def test_an_ensemble_of_equal_members_is_refused(finished, tmp_path):
    with pytest.raises(ValueError, match="a network with noise, or member_checkpoints, for an ensemble of kind none"):
        rollout.rollout(rollout_config(finished, tmp_path / "f.zarr", ensemble=NOISE))
    assert not (tmp_path / "f.zarr").exists()


def test_the_ensemble_is_verified_with_its_spread(finished, trained, members, tmp_path):
    run(finished, trained, tmp_path / "forecast.zarr", ensemble=NOISE)
    truth, yaml = finished.parent / "run" / "analysis.zarr", tmp_path / "verify.yaml"
    forecasts = f"forecasts: {{ensemble: {tmp_path / 'forecast.zarr'}}}"
    yaml.write_text(f"{forecasts}\ntruth: {truth}\noutput: {tmp_path / 'scores.nc'}\n")
    assert main(["verify", str(yaml)]) == 0
    scores = xr.open_dataset(tmp_path / "scores.nc", decode_timedelta=True)
    at = scores.sel(forecast="ensemble", region="global", channel="surface_pressure").isel(lead_time=-1)
    assert at["spread"] > 0 and at["crps"] < at["mae"] * 1.01


# --- scalars ---------------------------------------------------------------------------------------------------------


def test_scalars_are_the_time_of_the_year_and_the_mean_of_a_forcing(finished, trained):
    step = load_model(trained / "checkpoint")
    assert step.scalars.names == ("time_of_year", "sea_surface_temperature") and step.scalars.count == 3
    truth = open_analysis(finished.parent / "run" / "analysis.zarr")
    given = Forcing(truth, step.layout.forcing)
    forcing, clock, *_ = given.inputs(truth["time"].values[[0, 9]])
    found = step.scalars(step.forcing_scale(forcing), clock)
    day = 2 * np.pi * np.array([0, 2.25]) / 365.25
    np.testing.assert_allclose(found[:, 0], np.sin(day), atol=1e-6)
    np.testing.assert_allclose(found[:, 1], np.cos(day), atol=1e-6)
    where = step.layout.forcing.slices["sea_surface_temperature"]
    np.testing.assert_allclose(found[:, 2], step.forcing_scale(forcing)[:, where].mean((1, 2, 3)), atol=1e-6)


def test_a_uniform_forcing_is_told_exactly_and_unknown_conditions_are_refused():
    channels = Channels(("co2", "soil"), (0, 2))
    forcing = torch.full((2, 3, 4, 8), 0.7)
    forcing[1, 0] = float("nan")  # missing: the mean of the training period
    found = Scalars(["co2"], channels)(forcing, torch.zeros(2, len(CLOCK_FEATURES), 4, 8))
    torch.testing.assert_close(found, torch.tensor([[0.7], [0.0]]))
    for name in ("soil", "lead", "temperature"):
        with pytest.raises(ValueError, match=f"conditions among time_of_year, co2 .*got {name}"):
            Scalars([name], channels)


def test_a_network_learns_to_heed_its_scalars(trained):
    step = load_model(trained / "checkpoint")
    weights = [p for name, p in step.named_parameters() if "modulation.weight" in name]
    assert weights and all(w.any() for w in weights)
    with pytest.raises(ValueError, match="'sfno' cannot be given what it asks for.*co2"):
        conditions({"kind": "sfno", "condition": ["co2"]}, step.layout, None)


PATHS = {"store": "a", "statistics": "b", "output": "c"}


def test_what_cannot_be_trained_is_refused():
    for kind in ("crps", "energy"):
        with pytest.raises(ConfigError, match=f"Expected network.noise with loss.kind {kind}"):
            parse(TrainConfig, PATHS | {"loss": {"kind": kind}}, "x")
    with pytest.raises(ConfigError, match="greater than or equal to 2 at loss.members"):
        parse(TrainConfig, PATHS | {"loss": {"kind": "crps", "members": 1}}, "x")
    with pytest.raises(
        ConfigError, match=r"Unknown key network.noise.length_scale .*nearest: network.noise.length_scales"
    ):
        parse(TrainConfig, PATHS | {"network": {"noise": {"length_scale": [1]}}}, "x")
