"""Forecasts that several processes hold together are those of one process."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import xarray as xr
from pointwise_network import register as in_every_process  # noqa: F401
from pointwise_network import registered  # noqa: F401
from small_planet import numpy_statistics, small_planet
from small_training import VALUES, buffers_of, samples_of
from together import together

from emulator.forecasting import forecaster as forecasting
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.options import EnsembleOptions, SlabOptions, ThinOptions
from emulator.forecasting.schedule import Schedule
from emulator.forecasting.sea import SlabSea
from emulator.forecasting.writing import Output, write
from emulator.model.assemble import make_step
from emulator.model.conserving import ConservationOptions, conservation
from emulator.parallel.distributed import space_of
from emulator.parallel.processes import Processes
from emulator.store.forecast import open_forecast
from emulator.training.options import TrainOptions

NETWORK = {"kind": "pointwise", "noise": {"channels": 1}}
KINDS = {
    "single": (None, None, Schedule.every(4)),
    "noise of a region": (
        EnsembleOptions(3, "noise"),
        ThinOptions(("temperature", "surface_pressure"), region="tropics"),
        Schedule.every(3),
    ),
    "bred means": (EnsembleOptions(2, "bred", cycles=2), None, Schedule.every(4, 2, True)),
    "members together": (EnsembleOptions(3, "noise", variances="ensemble"), None, Schedule.every(3)),
    "over a slab": (None, None, Schedule.every(4)),
    "over a slab, of a region": (None, ThinOptions(region="tropics"), Schedule.every(3)),
}
STOPPED = "stopped"


def forecast(path, kind: str, together_: int = 1, stop_at: int | None = None) -> None:
    """Write the forecasts of a network that nobody has trained; with `stop_at` the loop breaks before that block."""
    torch.set_num_threads(1)
    processes = Processes(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Processes()
    space = space_of(processes, together_, torch.device("cpu"))
    options = TrainOptions.of(VALUES | {"network": NETWORK})
    planet = small_planet().assign_attrs(time_step_seconds=21600.0, fingerprint="planet")
    statistics, samples = numpy_statistics(planet), samples_of(planet, options, space)
    constants = buffers_of(samples, statistics, options)
    closing = "projection" if kind == "members together" else "sequential"
    scheme = conservation(ConservationOptions(kind=closing), samples, statistics).scheme
    torch.manual_seed(1)
    step = make_step(options.network, samples.layout, samples.grid, constants, scheme, space=space).eval()
    ensemble, thin, schedule = KINDS[kind]
    sea = SlabSea(SlabOptions(30.0, 5.0), step, planet) if "slab" in kind else None
    made = Forecaster([step], planet, 4, ensemble, sea=sea)
    data, times = processes.divided(space.size), planet["time"].values[16:26:2]
    if stop_at is not None:
        made.blocks = breaking(made.blocks, stop_at)
    forecasting.BLOCK_BYTES = 1  # a block for each lead
    output = Output(Path(path), {"title": "a test"}, ("weights",), thin, (data.rank + 1, data.size))
    try:
        write(output, made, times, schedule)
    except KeyboardInterrupt:
        assert stop_at is not None


def breaking(blocks, stop_at):
    count = 0

    def broken(times, schedule, position=None):
        nonlocal count
        for block in blocks(times, schedule, position):
            if len(times) > 1 and (count := count + 1) == stop_at:
                raise KeyboardInterrupt
            yield block

    return broken


def in_processes(space, *arguments) -> None:
    forecast(*arguments)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    made = {}

    def of(kind) -> xr.Dataset:
        if kind not in made:
            path = tmp_path_factory.mktemp("alone") / "forecast.zarr"
            forecast(path, kind)
            made[kind] = open_forecast(path).load()
        return made[kind]

    return of


def assert_near(ours: xr.Dataset, theirs: xr.Dataset, tolerance: float = 2e-6):
    assert list(ours.data_vars) == list(theirs.data_vars) and ours.sizes == theirs.sizes
    for name, field in theirs.data_vars.items():
        assert ours[name].dims == field.dims and ours[name].attrs == field.attrs
        assert np.isfinite(field.values).all()
        # what corrections record are small differences of large numbers
        near = (tolerance, tolerance * float(np.abs(field).max())) if "latitude" in field.dims else (1e-3, 3e-6)
        np.testing.assert_allclose(ours[name].values, field.values, *near, err_msg=name)


CASES = [("single", 2, 2)] + [
    pytest.param(*case, marks=pytest.mark.slow)
    for case in [
        ("single", 4, 2),
        ("noise of a region", 3, 3),
        ("bred means", 2, 2),
        ("members together", 2, 2),
        ("over a slab", 2, 2),
        ("over a slab, of a region", 3, 3),
    ]
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind, size, of_a_state", CASES)
def test_forecasts_of_processes_together_are_those_of_one(alone, tmp_path, kind, size, of_a_state):
    together(size, in_processes, str(tmp_path / "f.zarr"), kind, of_a_state, timeout=500)
    ours = open_forecast(tmp_path / "f.zarr")
    assert_near(ours.load(), alone(kind), 1e-5 if "bred" in kind else 2e-6)  # which grow what rounding begins
    rows = -(-ours.sizes["latitude"] // of_a_state)
    assert ("slab_share" in ours) == ("slab" in kind)
    assert ours["temperature"].encoding["chunks"][-2:] == (rows, 24)
    for name in ours.data_vars:
        if name.startswith("residual_after"):
            assert float(np.abs(ours[name]).max()) < 1e-6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.zarr"]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_stopped_rollout_goes_on_with_the_same_bits_and_with_another_number(alone, tmp_path):
    for name in ("straight", "stopped"):
        for stop_at in (None,) if name == "straight" else (4, None):
            together(2, in_processes, str(tmp_path / f"{name}.zarr"), "single", 2, stop_at, timeout=600)
            if stop_at:
                left = {path.name.split("-")[0] for path in (tmp_path / "stopped.zarr.progress").iterdir()}
                assert {"restart"} <= left and not (tmp_path / "stopped.zarr").exists()
    straight, stopped = (open_forecast(tmp_path / f"{name}.zarr").load() for name in ("straight", "stopped"))
    xr.testing.assert_identical(stopped, straight)
    together(2, in_processes, str(tmp_path / "other.zarr"), "single", 2, 4, timeout=600)
    forecast(tmp_path / "other.zarr", "single")
    xr.testing.assert_identical(open_forecast(tmp_path / "other.zarr").load(), alone("single"))
