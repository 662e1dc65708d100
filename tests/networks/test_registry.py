"""One interface: every kind is built from what YAML or JSON can hold, keeps the shape of space, and learns."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
from learning import assert_learns
from other_network import columns  # noqa: F401 (named in configurations)
from tiny_networks import TINY

from emulator.networks import registry
from emulator.networks.registry import NetworkError, build, kinds, network, options_of
from emulator.options import Options, option
from emulator.parallel.distributed import callable_parts
from emulator.planet.grid import Grid

CONFIGS = TINY | {
    "external": dict(kind="external", factory=f"{__name__}:columns", options={"width": 8}),
}
GRIDS = [Grid.gaussian(12), Grid.equiangular(13, 24, poles=True), Grid.equiangular(12)]


def test_every_kind_is_tested_here():
    assert set(CONFIGS) == set(kinds())


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.describe())
def test_every_kind_keeps_the_shape_of_space_and_learns(kind, grid):
    if kind == "torch_harmonics":
        pytest.importorskip("torch_harmonics")
    if kind == "torch_harmonics" and grid is GRIDS[2]:
        with pytest.raises(NetworkError, match="does not fit .* pole-to-pole"):
            build(CONFIGS[kind], 3, 2, grid)
        return
    torch.manual_seed(0)
    assert_learns(build(CONFIGS[kind], 3, 2, grid), grid)


def test_a_network_of_a_package_that_is_not_there_is_refused_by_the_packages_name(monkeypatch):
    for name in ("torch_harmonics", "torch_harmonics.examples.models"):
        monkeypatch.setitem(sys.modules, name, None)  # what Python takes for a package that cannot be imported
    with pytest.raises(
        NetworkError, match="torch-harmonics, which has wheels for x86-64 Linux alone.*failed: import of"
    ):
        build(CONFIGS["torch_harmonics"], 3, 2, GRIDS[0])


def test_a_point_grid_takes_graphs_and_columns_and_no_other():
    n = np.arange(200) + 0.5
    grid = Grid.points(np.degrees(np.arcsin(1 - n / 100)), n * 137.507764 % 360, np.ones(200))
    for kind in ("graph", "hierarchical", "column"):
        assert build(CONFIGS[kind], 3, 2, grid)(torch.randn(2, 3, 200)).shape == (2, 2, 200)
    for kind in set(kinds()) - {"graph", "hierarchical", "column", "external"}:
        with pytest.raises(NetworkError, match="got 200 points"):
            build(CONFIGS[kind], 3, 2, grid)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"factory": "no_such_package:network"}, "importable package.module:name .* got 'no_such_package:network'"),
        ({"factory": f"{__name__}:no_such_name"}, "importable .* has no attribute 'no_such_name'"),
        ({"factory": "not a name"}, "importable"),
        ({"factory": f"{__name__}:columns", "options": {"width": 8, "depth": 3}}, "does not take .*'depth'"),
        ({"factory": f"{__name__}:columns"}, "does not take the arguments: .*'width'"),
        ({"factory": "torch"}, "does not take the arguments: .* not a callable"),
        ({"factory": "builtins:repr"}, "does not take the arguments: too many"),
        ({"factory": "torch.nn:Identity"}, "Expected a network with parameters to train"),
        ({"factory": "builtins:print"}, "Expected a torch module from the factory 'builtins:print', got NoneType"),
    ],
)
def test_an_external_network_that_cannot_be_made_is_told(given, told):
    with pytest.raises(NetworkError, match=told) as caught:
        build(dict(kind="external", **given), 3, 2, GRIDS[0])
    assert "does not fit" not in str(caught.value)  # the grid is not at fault


def test_a_fault_inside_a_factory_stays_what_it_is():
    with pytest.raises(TypeError, match="string"):
        build(dict(kind="external", factory=f"{__name__}:columns", options={"width": "8"}), 3, 2, GRIDS[0])


def pooled(inputs, outputs, shape):
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Conv2d(inputs, outputs, 1))


def test_a_result_of_another_shape_is_refused_before_it_is_spread_over_the_grid():
    network = build(dict(kind="external", factory=f"{__name__}:pooled"), 3, 2, GRIDS[0])
    with pytest.raises(NetworkError, match=r"a result of shape \(4, 2, 12, 24\) .*:pooled', got \(4, 2, 1, 1\)"):
        network(torch.zeros(4, 3, 12, 24))


def test_the_graph_is_kept_in_its_file(tmp_path):
    config = CONFIGS["graph"] | {"file": str(tmp_path / "graph.npz")}
    build(config, 3, 2, GRIDS[0])
    assert (tmp_path / "graph.npz").exists()
    build(config, 3, 2, GRIDS[0])
    with pytest.raises(NetworkError, match="remove the file to have it built anew"):
        build(config, 3, 2, GRIDS[1])


@pytest.mark.parametrize("kind", kinds())
def test_options_of_every_kind_survive_json(kind):
    """What a checkpoint holds of the options gives the same options back."""
    given = {name: value for name, value in CONFIGS[kind].items() if name != "kind"}
    given |= {"noise": {"length_scales": [900, 0]}} if hasattr(options_of(kind), "noise") else {}
    options = options_of(kind).of(given)
    assert options_of(kind).of(json.loads(json.dumps(dataclasses.asdict(options)))) == options
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.kind = "other"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "gnn"}, "a kind among .*external, .*graph, .*unet, .*got 'gnn'"),
        ({"width": 8}, "got None"),
        ({"kind": "unet", "widht": 8}, "'unet' .* options among width, depth.* got widht"),
        ({"kind": "unet", "width": 0}, "'unet' .* width of at least 1, got 0"),
        ({"kind": "unet", "noise": {"length_scales": []}}, "length_scales of length 1 or more"),
        ({"kind": "unet", "noise": {"length_scales": [500, -1]}}, r"length_scales of at least 0, got \(500, -1\)"),
        ({"kind": "unet", "noise": {"correlation": 1}}, "correlation of at least 0 and below 1, got 1"),
        ({"kind": "unet", "depth": 5}, "'unet' does not fit 12 x 24 gaussian .*longitudes"),
        ({"kind": "graph", "radius": 0.5}, "radius of at least 0.58 and at most 4, got 0.5"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(config, message):
    with pytest.raises(NetworkError, match=message):
        build(config, 3, 2, GRIDS[0])


def test_a_network_is_added_by_registering_it(monkeypatch):
    monkeypatch.setattr(registry.NETWORKS, "_entries", registry.NETWORKS.all())

    @dataclasses.dataclass(frozen=True)
    class Pointwise(Options):
        bias: bool = option(True, "whether a constant is added")

    @network("pointwise", Pointwise)
    def pointwise(options, inputs, outputs, grid):
        return torch.nn.Conv2d(inputs, outputs, 1, bias=options.bias)

    assert "pointwise" in kinds() and options_of("pointwise") is Pointwise
    assert build({"kind": "pointwise", "bias": False}, 3, 2, GRIDS[0]).bias is None
    with pytest.raises(ValueError, match="one network of a kind of the name 'pointwise'"):
        network("pointwise", Pointwise)(pointwise)
    with pytest.raises(TypeError, match="limits among minimum"):
        option(1, "a number", least=0)


@pytest.mark.parametrize("kind", kinds())
def test_what_is_spread_over_processes_one_by_one_can_be_called(kind):
    """Containers of modules cannot, and torch refuses to spread them."""
    if kind == "torch_harmonics":
        pytest.importorskip("torch_harmonics")
    network = build(CONFIGS[kind], 3, 2, GRIDS[0])
    parts = list(callable_parts(network))
    assert not any(isinstance(part, torch.nn.ModuleList | torch.nn.ModuleDict) for part in parts)
    own = {id(p) for part in parts for p in part.parameters()}
    left = [p for p in network.parameters() if id(p) not in own]
    assert all(any(p is q for q in network._parameters.values()) for p in left)
