"""Members that are corrected together: closed budgets, parts and restarts bit for bit, and what would break it refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from pointwise_network import registered  # noqa: F401
from small_planet import numpy_statistics, small_planet
from small_training import VALUES, buffers_of, samples_of

from emulator.forecasting import forecaster as forecasting
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.options import EnsembleOptions
from emulator.forecasting.schedule import Schedule
from emulator.forecasting.writing import Output, in_memory, write
from emulator.model.assemble import make_step
from emulator.model.conserving import ConservationOptions, conservation
from emulator.model.stepper import Cascade
from emulator.store.forecast import open_forecast
from emulator.training.options import TrainOptions

NETWORK = {"kind": "pointwise", "noise": {"channels": 1}}
PLANET = small_planet(times=40, nlat=8).assign_attrs(time_step_seconds=21600.0, fingerprint="planet")
TOGETHER = EnsembleOptions(3, "noise", variances="ensemble")
STEPS = Schedule.every(4)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def step_of(kind="projection"):
    """A network that nobody has trained; all have the same weights."""
    options = TrainOptions.of(VALUES | {"network": NETWORK})
    statistics, samples = numpy_statistics(PLANET), samples_of(PLANET, options)
    scheme = conservation(ConservationOptions(kind=kind), samples, statistics).scheme
    torch.manual_seed(1)
    constants = buffers_of(samples, statistics, options)
    return make_step(options.network, samples.layout, samples.grid, constants, scheme).eval()


def times(count=3):
    return PLANET["time"].values[16 : 16 + 2 * count : 2]


def forecast(ensemble=TOGETHER, models=None, batch_size=6, count=3) -> xr.Dataset:
    return in_memory(Forecaster(models or [step_of()], PLANET, batch_size, ensemble), times(count), STEPS, {})


@pytest.fixture(scope="module")
def ours():
    return forecast()


def test_every_member_closes_its_budgets_and_tells_the_ratio(ours):
    by_step = forecast(dataclasses.replace(TOGETHER, variances="step"))
    for budget in ("dry_air", "water", "energy"):
        left = ours[f"residual_after_{budget}"]
        assert left.dims == ("init_time", "lead_time", "member") and float(np.abs(left).max()) < 1e-6
    for name in ("specific_humidity", "mean_total_precipitation_rate"):
        assert float(ours[name].isel(lead_time=slice(1, None)).min()) >= 0
    mean, largest = (
        ours[f"variance_ratio_{what}_temperature"].isel(lead_time=slice(1, None)) for what in ("mean", "largest")
    )
    assert (mean > 0).all() and (largest >= mean).all() and mean.attrs["units"] == "1"
    np.testing.assert_array_equal(mean, mean.isel(member=[0, 0, 0]))
    assert not [name for name in by_step if str(name).startswith("variance_ratio")]
    np.testing.assert_array_equal(ours["temperature"].isel(lead_time=0), by_step["temperature"].isel(lead_time=0))
    apart = np.abs(ours["temperature"] - by_step["temperature"]).isel(lead_time=-1)
    assert (apart.max(("level", "latitude", "longitude")) > 0).all()


def written(path, part=(1, 1), stop_at=None) -> xr.Dataset | None:
    made = Forecaster([step_of()], PLANET, 3, TOGETHER)
    if stop_at is not None:
        blocks = made.blocks

        def breaking(times, schedule, position=None):
            for number, block in enumerate(blocks(times, schedule, position)):
                if schedule is STEPS and number == stop_at:
                    raise KeyboardInterrupt
                yield block

        made.blocks = breaking
    write(Output(Path(path), {"title": "a test"}, ("weights",), None, part), made, times(), STEPS)
    return open_forecast(path).load() if Path(path).exists() else None


def test_parts_and_restarts_are_the_whole_bit_for_bit(tmp_path, monkeypatch):
    whole = written(tmp_path / "whole.zarr")
    assert written(tmp_path / "parts.zarr", (2, 2)) is None
    xr.testing.assert_identical(written(tmp_path / "parts.zarr", (1, 2)), whole)
    monkeypatch.setattr(forecasting, "BLOCK_BYTES", 1)  # a block for each lead
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "stopped.zarr", stop_at=2)
    assert list((tmp_path / "stopped.zarr.progress").glob("restart-*"))
    xr.testing.assert_identical(written(tmp_path / "stopped.zarr"), whole)


def test_members_do_not_depend_on_the_starts_that_are_computed_with_them(ours):
    alone = forecast(batch_size=3, count=1)
    for name in ("temperature", "surface_pressure"):
        np.testing.assert_allclose(alone[name], ours[name].isel(init_time=[0]), rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["lagged", "bred"])
def test_initial_states_that_are_forecasts_are_made_with_the_variances_of_the_step(kind):
    options = EnsembleOptions(3, kind, cycles=2, variances="ensemble")
    ours, by_step = (forecast(dataclasses.replace(options, variances=each), count=1) for each in ("ensemble", "step"))
    start = {"lead_time": 0}
    np.testing.assert_array_equal(ours["temperature"].isel(start), by_step["temperature"].isel(start))
    assert float(np.abs(ours["residual_after_energy"]).max()) < 1e-6


def test_a_cascade_goes_on_together():
    once, cascade = forecast(count=1), forecast(models=[Cascade([(0, step_of()), (2, step_of())])], count=1)
    np.testing.assert_array_equal(once["temperature"], cascade["temperature"])


@pytest.mark.parametrize(
    ("models", "options", "batch_size", "message"),
    [
        (["projection", "projection"], {}, 8, "one checkpoint without member_checkpoints or weights"),
        (["projection"], {"weights": Path("posterior")}, 8, "one checkpoint without member_checkpoints or weights"),
        (["projection"], {}, 2, "a batch_size of 3 or more .* got 2"),
        (["sequential"], {}, 8, "conservation.kind projection .* got one with sequential"),
        (["none"], {}, 8, "conservation.kind projection .* got one with none"),
    ],
)
def test_what_cannot_be_corrected_together_is_refused(models, options, batch_size, message):
    ensemble = dataclasses.replace(TOGETHER, **options)
    with pytest.raises(ValueError, match=message):
        Forecaster([step_of(kind) for kind in models], PLANET, batch_size, ensemble)
