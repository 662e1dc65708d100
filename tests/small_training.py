"""A small training on the small planet, put together as `emulator.training.run` does, shared by the tests."""

import dataclasses

import torch
from small_planet import numpy_statistics

from emulator.data.channels import Layout, More
from emulator.data.samples import Samples
from emulator.losses.build import Weighted
from emulator.model import checkpoint
from emulator.model.assemble import buffers, make_step
from emulator.model.conserving import ConservationOptions, conservation
from emulator.parallel.space import ALONE
from emulator.training.layout import chosen
from emulator.training.options import TrainOptions
from emulator.training.recipe import Recipe
from emulator.training.trainer import Placement, Trainer
from emulator.training.window import StepLoss

VALUES = {
    "store": "x",
    "statistics": "x",
    "output": "x",
    "prognostic": [
        "temperature",
        "surface_pressure",
        "specific_humidity",
        "u_component_of_wind",
        "v_component_of_wind",
    ],
    "network": {"kind": "sfno", "embed_dim": 8, "blocks": 1},
    "phases": [{"updates": 12, "batch_size": 3}, {"updates": 6, "rollout_steps": 2, "batch_size": 2}],
    "ema": 0.9,
}
CONFIG = TrainOptions.of(VALUES)
NOISY = {"kind": "sfno", "embed_dim": 8, "blocks": 2, "noise": {"channels": 2}, "norm": "layer"}
STOCHASTIC = TrainOptions.of(VALUES | {"network": NOISY, "loss": {"kind": "crps", "members": 2}})
RECIPE = dataclasses.replace(Recipe.of(CONFIG), save_every=5, log_every=2, warmup=3)


def samples_of(planet, config=CONFIG, space=ALONE) -> Samples:
    dataset = planet.assign_attrs(time_step_seconds=21600.0)
    return Samples(dataset, Layout.of(dataset, chosen(config), more=More(gaps=config.gaps)), space=space)


def weighted(samples, statistics, config=CONFIG) -> Weighted:
    return Weighted(samples, statistics, config.variable_weights, config.level_weights, config.diagnostic_weight)


def loss_of(samples, statistics, config=CONFIG, penalty=None) -> StepLoss:
    found = weighted(samples, statistics, config)
    return StepLoss(found.loss(config.loss), penalty, single_error=found.error())


def buffers_of(samples, statistics, config=CONFIG):
    return buffers(samples, statistics, config.damping, config.margin)


def trainer(planet, directory, recipe=RECIPE, identity="same", network=None, config=CONFIG, **more) -> Trainer:
    """`more`: the trainer's validation, and `processes`, `sharded`, `space`, `products`, `device`."""
    placement = Placement(**{name: more.pop(name) for name in ("processes", "sharded", "space") if name in more})
    statistics, samples = numpy_statistics(planet), samples_of(planet, config, placement.space)
    scheme = conservation(ConservationOptions.of(config.conservation), samples, statistics).scheme
    constants = buffers_of(samples, statistics, config)
    torch.manual_seed(0)
    how = constants, scheme, config.predict, placement.space
    step = make_step(config.network | (network or {}), samples.layout, samples.grid, *how)
    step.to(device := more.pop("device", torch.device("cpu")))
    products = more.pop("products", 0)
    loss = loss_of(samples, statistics, config)
    loss.error.to(device)
    made = Trainer(step, loss, samples, recipe, directory, identity, **more, placement=placement)
    made.logged.products = products
    return made


def same_state(a, b):
    first, second = (checkpoint.load(checkpoint.numbered(d, "state")[-1])[0] for d in (a, b))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=0, msg=name)
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()
