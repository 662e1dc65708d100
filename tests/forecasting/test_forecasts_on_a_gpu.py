"""Forecasts of every kind as if on a GPU, by tensors without values: nothing is left on the CPU, nothing waits.

From the initial states to the finished store, all that a rollout does runs, but for the copy to the host itself, in whose
place zeros land; it is counted, and has to be the only one. What cannot be faked: streams and page-locked memory, a given
dry mass, which is compared with the states' own once before a forecast begins, and digests of weights.
"""

import pytest
import torch
from fake_gpu import CUDA, fake_gpu, on_host
from masked_ocean import made_truth
from small_planet import numpy_statistics, small_planet
from small_training import VALUES

from emulator.data.channels import Layout, More
from emulator.data.samples import Samples
from emulator.forecasting import forecaster as forecaster_module
from emulator.forecasting.blocks import Block
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.options import EnsembleOptions, SlabOptions
from emulator.forecasting.schedule import Schedule
from emulator.forecasting.sea import SlabSea
from emulator.forecasting.writing import Output, write
from emulator.model.assemble import make_step
from emulator.model.conserving import ConservationOptions, conservation
from emulator.model.step import Step
from emulator.model.step_buffers import StepBuffers
from emulator.model.stepper import Cascade
from emulator.parallel.host_copies import HostCopies, Landing
from emulator.store.forecast import open_forecast
from emulator.store.schema import grid_of

UNET = {"kind": "unet", "width": 4, "depth": 1}
GRAPH = {"kind": "graph", "refinement": 1, "width": 8, "rounds": 2}
NOISY = {"kind": "sfno", "embed_dim": 8, "blocks": 1, "noise": {"channels": 2}, "condition": ["time_of_year"]}


@pytest.fixture(scope="module")
def planet():
    return small_planet(times=24, nlat=8, levels=3).assign_attrs(time_step_seconds=21600.0, fingerprint="small")


@pytest.fixture
def landed(monkeypatch):
    """How many tensors went to the host in every copy that was begun; zeros land in their place."""
    counts = []

    def begin(copies, tensors):
        assert {tensor.device for tensor in tensors} == {CUDA}
        counts.append(len(tensors))
        return Landing([on_host(torch.zeros)(tuple(tensor.shape), dtype=tensor.dtype) for tensor in tensors])

    monkeypatch.setattr(HostCopies, "begin", begin)
    monkeypatch.setattr(Block, "fields", on_host(Block.fields))  # within the mode no tensor has numbers
    return counts


def made(data, network=UNET, kind="sequential", more=None) -> Step:
    """A step whose statistics are those of nothing: what they are does not matter here."""
    ocean = "depth" in data.dims
    layout = Layout.of(data, None if ocean else {"prognostic": VALUES["prognostic"]}, more=more)
    scheme = None
    if not ocean:
        options = ConservationOptions.of({"kind": kind})
        scheme = conservation(options, Samples(data, layout), numpy_statistics(data)).scheme
        for length in layout.lengths:
            scheme.lasting(float(length))  # made once for a length, on the host
    grid = grid_of(data)
    return make_step(network, layout, grid, StepBuffers.blank(layout, grid.shape), scheme).eval()


def members(kind, **more):
    return EnsembleOptions(members=2, kind=kind, cycles=1, cycle_hours=6.0, lag_hours=6.0, **more)


CASES = {  # models and ensemble
    "single": (lambda data: [made(data)], None),
    "messages on a mesh and a projection": (lambda data: [made(data, GRAPH, "projection")], None),
    "uncorrected": (lambda data: [Step.without_scheme(made(data))], None),
    "time means": (lambda data: [made(data)], None),
    "an ensemble": (lambda data: [made(data)], members("noise", control=True)),
    "bred vectors": (lambda data: [made(data)], members("bred")),
    "lagged members": (lambda data: [made(data)], members("lagged")),
    "noise and conditions of the network": (lambda data: [made(data, NOISY)], members("none")),
    "a cascade beside another model": (lambda data: in_turns(made(data), made(data)), members("noise")),
    "two input times and long steps": (lambda data: [made(data, more=More(history=2, steps=(6, 12)))], None),
    "members over slabs": (lambda data: [made(data)], members("noise")),
    "fields that do not exist everywhere": (lambda data: [made(data, more=More(mask_channels=True))], None),
}


def in_turns(first, second):
    return [Cascade([(0, first), (1, second)]), second]


@pytest.mark.parametrize("case", CASES)
def test_a_forecast_lies_on_its_device(planet, monkeypatch, landed, case):
    """From the first state to the fields that are written; from the second step of a model on no copy is waited for."""
    models, ensemble = CASES[case]
    data = ocean() if "exist" in case else planet
    models, times = models(data), list(data["time"].values[[8, 12]][: 1 if ensemble else 2])
    monkeypatch.setattr(forecaster_module, "BLOCK_BYTES", 1)  # a lead a block
    schedule = Schedule.every(4, 2, mean=True) if "mean" in case else Schedule.every(3)
    with fake_gpu() as copies:
        models = [moved(model) for model in models]
        sea = SlabSea(SlabOptions(depth=50.0, convergence=0.0), models[0], data) if "slab" in case else None
        length = models[0].at(1).layout.lengths[-1]
        forecaster = Forecaster(models, data, 4, ensemble, length, sea=sea)
        shapes = []
        for number, (here, block) in enumerate(forecaster.blocks(times, schedule)):
            if number == len(schedule.ends) - 2:  # the next lead has been computed
                copies.up.clear()
            assert {state.device for state in here.states} == {CUDA}
            shapes += [{name: field.shape for name, field in block.fields().items()}]
        assert not copies.up and not copies.down
        assert len(landed) == len(shapes) == len(schedule.ends) + (not schedule.mean)  # once for every lead
    assert shapes[-1].keys() >= {*forecaster.step.layout.prognostic.names, *forecaster.step.layout.diagnostic.names}


def test_a_store_is_written_beside_the_forecast(planet, tmp_path, landed):
    """What is restarted from lands too, for every block but the last, and the states' copies are all that do."""
    model, path = made(planet), tmp_path / "forecast.zarr"
    with fake_gpu() as copies:
        forecaster = Forecaster([model.to(CUDA)], planet, 4)
        write(
            Output(path, {"title": "x"}, ["weights"]),
            forecaster,
            list(planet["time"].values[[8, 12]]),
            Schedule.every(2),
        )
        assert not copies.down and landed == [2, 3] + [2, 3, 3]  # the template's leads, then the forecast's
    with open_forecast(path) as store:
        assert store.sizes["init_time"] == 2 and store.sizes["lead_time"] == 3
        assert not store["temperature"].values.any()  # the zeros that landed


def ocean():
    return made_truth().assign_attrs(time_step_seconds=21600.0, vertical_coordinate="pressure")


def moved(model):
    if isinstance(model, Cascade):
        return Cascade([(start, moved(stage)) for start, stage in model.stages])
    return model if model.device == CUDA else model.to(CUDA)
