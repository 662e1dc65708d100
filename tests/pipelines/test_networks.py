"""One interface: every kind is built from a configuration, keeps the shape of space, and learns."""

import dataclasses
import datetime
import json

import numpy as np
import pytest
import torch
import yaml

from emulator.networks.graph import GraphOptions
from emulator.networks.torch_harmonics_sfno import TorchHarmonicsOptions
from emulator.networks.unet import UNetOptions
from emulator.planet.grid import Grid
from emulator.sphere.mesh import MeshOptions
from pipelines.config import (
    ConfigError,
    ExternalConfig,
    GraphConfig,
    SFNOConfig,
    TorchHarmonicsConfig,
    TrainConfig,
    UNetConfig,
)
from pipelines.load import load_stage, parse
from pipelines.networks import KINDS, make_network


def columns(inputs, outputs, shape, width):
    """A network as a user would bring it: every cell by itself, and a field of its own."""
    layers = [torch.nn.Conv2d(inputs, width, 1), torch.nn.GELU(), torch.nn.Conv2d(width, outputs, 1)]
    return torch.nn.Sequential(torch.nn.LayerNorm(shape), *layers)


PATHS = {"store": "a", "statistics": "b", "output": "c"}
CONFIGS = {
    "sfno": SFNOConfig(embed_dim=8, blocks=2),
    "graph": GraphConfig(width=8, rounds=2, refinement=1),
    "unet": UNetConfig(width=8, depth=2),
    "torch_harmonics": TorchHarmonicsConfig(embed_dim=8, num_layers=2),
    "external": ExternalConfig(factory=f"{__name__}:columns", options={"width": 8}),
}
GRIDS = [Grid.gaussian(12), Grid.equiangular(13, 24, poles=True), Grid.equiangular(12)]


def test_every_kind_is_tested_here():
    assert set(CONFIGS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.describe())
def test_every_kind_keeps_the_shape_of_space_and_learns(kind, grid):
    if kind == "torch_harmonics" and grid is GRIDS[2]:
        with pytest.raises(ConfigError, match="does not fit .* pole-to-pole"):
            make_network(CONFIGS[kind], 3, 2, grid)
        return
    torch.manual_seed(0)
    net = make_network(CONFIGS[kind], 3, 2, grid)
    x = torch.randn(2, 3, *grid.shape)
    target = torch.stack([x[:, 0] - 0.5 * x[:, 1], torch.tanh(x[:, 2])], 1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        y = net(x)
        assert y.shape == target.shape and y.dtype == torch.float32
        loss = (y - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_a_point_grid_takes_the_graph_and_no_other():
    n = np.arange(200) + 0.5
    grid = Grid.points(np.degrees(np.arcsin(1 - n / 100)), n * 137.507764 % 360, np.ones(200))
    net = make_network(CONFIGS["graph"], 3, 2, grid)
    assert net(torch.randn(2, 3, 200)).shape == (2, 2, 200)
    for kind in set(KINDS) - {"graph", "external"}:
        with pytest.raises(ConfigError, match="got 200 points"):
            make_network(CONFIGS[kind], 3, 2, grid)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"factory": "no_such_package:network"}, "importable package.module:name .* got 'no_such_package:network'"),
        ({"factory": f"{__name__}:no_such_name"}, "importable .* has no attribute 'no_such_name'"),
        ({"factory": "not a name"}, "importable"),
        ({"factory": f"{__name__}:columns", "options": {"width": 8, "depth": 3}}, "does not take .*'depth'"),
        ({"factory": f"{__name__}:columns"}, "does not take what it is given: .*'width'"),
        ({"factory": "torch"}, "does not take what it is given: .* not a callable"),
        ({"factory": "builtins:repr"}, "does not take what it is given: too many"),
        ({"factory": "torch.nn:Identity"}, "Expected a network with parameters to train"),
        ({"factory": "builtins:print"}, "Expected a torch module from the factory 'builtins:print', got NoneType"),
    ],
)
def test_an_external_network_that_cannot_be_made_is_told(given, told):
    with pytest.raises(ConfigError, match=told) as caught:
        make_network(ExternalConfig(**given), 3, 2, GRIDS[0])
    assert "does not fit" not in str(caught.value)  # the grid is not at fault


def test_a_fault_inside_a_factory_stays_what_it_is():
    with pytest.raises(TypeError, match="string"):
        make_network(ExternalConfig(factory=f"{__name__}:columns", options={"width": "8"}), 3, 2, GRIDS[0])


def pooled(inputs, outputs, shape):
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Conv2d(inputs, outputs, 1))


def test_a_result_of_another_shape_is_refused_before_it_is_spread_over_the_grid():
    network = make_network(ExternalConfig(factory=f"{__name__}:pooled"), 3, 2, GRIDS[0])
    with pytest.raises(ConfigError, match=r"a result of shape \(4, 2, 12, 24\) .*:pooled', got \(4, 2, 1, 1\)"):
        network(torch.zeros(4, 3, 12, 24))


def test_options_of_an_external_network_are_what_a_checkpoint_can_hold():
    network = {"kind": "external", "factory": "a:b", "options": {"width": 8, "blocks": [{"rate": 0.5}, None]}}
    config = parse(TrainConfig, PATHS | {"network": network}, "x")
    assert parse(TrainConfig, json.loads(config.model_dump_json()), "y") == config
    network["options"] = {"start": datetime.date(2001, 1, 1)}
    with pytest.raises(ConfigError, match="JSON value at network.options.start"):
        parse(TrainConfig, PATHS | {"network": network}, "x")


def test_the_graph_is_kept_in_its_file(tmp_path):
    config = CONFIGS["graph"].model_copy(update={"file": tmp_path / "graph.npz"})
    make_network(config, 3, 2, GRIDS[0])
    assert config.file.exists()
    make_network(config, 3, 2, GRIDS[0])
    with pytest.raises(ConfigError, match="remove the file to have it built anew"):
        make_network(config, 3, 2, GRIDS[1])


def test_configuration_and_library_name_the_same_options():
    for config, *options in (
        (GraphConfig, GraphOptions, MeshOptions),
        (UNetConfig, UNetOptions),
        (TorchHarmonicsConfig, TorchHarmonicsOptions),
    ):
        configured = {n: f.default for n, f in config.model_fields.items() if n not in ("kind", "file", "noise")}
        fields = [field for option in options for field in dataclasses.fields(option)]
        assert configured == {f.name: f.default for f in fields if f.name != "noise_channels"}


def test_the_kind_chooses_the_options_and_faults_name_the_key_as_written():
    assert parse(TrainConfig, PATHS | {"network": {"embed_dim": 32}}, "x").network == SFNOConfig(embed_dim=32)
    assert parse(TrainConfig, PATHS | {"network": {"kind": "unet"}}, "x").network == UNetConfig()
    for network, message in (
        ({"embed_dimm": 8}, "Unknown key network.embed_dimm in x; nearest: network.embed_dim$"),
        ({"kind": "graph", "embed_dim": 8}, "Unknown key network.embed_dim in x; known: .*rounds"),
        ({"kind": "gnn"}, "'gnn' .* does not match any of the expected tags"),
        ({"kind": "unet", "depth": 0}, "greater than or equal to 1 at network.depth in x, got 0"),
    ):
        message = message.replace("'gnn' .*", "Input tag 'gnn' found using 'kind'")
        with pytest.raises(ConfigError, match=message):
            parse(TrainConfig, PATHS | {"network": network}, "x")


def test_a_network_of_another_kind_takes_nothing_from_its_base(tmp_path):
    base = PATHS | {"seed": 3, "network": {"embed_dim": 24, "blocks": 2}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    for network, expected in (
        ({"kind": "graph", "rounds": 2}, GraphConfig(rounds=2)),
        ({"blocks": 3}, SFNOConfig(embed_dim=24, blocks=3)),
        ({"kind": "sfno", "blocks": 3}, SFNOConfig(embed_dim=24, blocks=3)),
    ):
        (tmp_path / "own.yaml").write_text(yaml.safe_dump({"base": "base.yaml", "network": network}))
        config = load_stage("train", tmp_path / "own.yaml")
        assert config.network == expected and config.seed == 3
