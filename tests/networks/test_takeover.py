"""Weights that go on with other channels, grids and truncations: the network's function at the start is the old one's."""

import dataclasses

import pytest
import torch
from small_sfno import awaken

from emulator.networks import registry
from emulator.networks.adapters import adaptable, matching
from emulator.networks.channel_axes import ChannelAxis, axes_of
from emulator.networks.remembered import learned, remembered
from emulator.networks.signature import Channel, Signature
from emulator.networks.takeover import Affine, Known, matched, rescale, take_over
from emulator.options import Options
from emulator.planet.grid import Grid
from emulator.sphere.transform import transform

GRID = Grid.gaussian(8)
STAGES = {"widths": [4, 8], "depths": [1, 1], "strides": [2, 2], "stencils": [2, 4], "further_stencils": [2]}
STAGES |= {"near": 2, "far": [2, 2], "head_width": 2}
SMALL_AURORA = {"embed_dim": 8, "depths": [1, 1], "up_depths": [1, 1], "heads": [2, 2], "window": [2, 2, 4]}
SMALL_AURORA |= {"latent_levels": 2, "perceiver_heads": 2}
KINDS = {
    "sfno": {"kind": "sfno", "embed_dim": 6, "blocks": 2, "spectral_layers": 2},
    "sfno as published": {"kind": "sfno", "embed_dim": 6, "blocks": 1, "encoder_layers": 0, "position": "learned"},
    "sfno that adds its input": {"kind": "sfno", "embed_dim": 6, "blocks": 1, "big_skip": "add"},
    "graph": {"kind": "graph", "refinement": 1, "width": 6, "rounds": 2},
    "unet": {"kind": "unet", "width": 4, "depth": 1},
    "attention_unet": {"kind": "attention_unet", "width": 4, "depth": 1},
    "samudra": {"kind": "samudra", "widths": [4], "dilations": [1]},
    "samudra without norms": {"kind": "samudra", "widths": [4], "dilations": [1], "norm": "none"},
    "fno": {"kind": "fno", "width": 4, "blocks": 1, "modes": [3, 4], "hidden": 6, "padding": 2},
    "mgno": {"kind": "mgno", "width": 4, "layers": 2, "depth": 2},
    "fuxi": {"kind": "fuxi", "width": 8, "blocks": 2, "heads": 2, "window": 2, "groups": 2},
    "wxformer": {"kind": "wxformer", **STAGES},
    "wxformer as published": {"kind": "wxformer", "decoder": "transposed", **STAGES},
    "column": {"kind": "column", "width": 6},
    "column by levels": {"kind": "column", "design": "recurrence", "width": 4, "layers": 2},
    "aurora": {"kind": "aurora", **SMALL_AURORA},
    "vector_cnn": {"kind": "vector_cnn", "width": 6, "vectors": 3, "blocks": 1},
}
KEPT = "column by levels", "aurora", "mgno"  # whose units stay, or an offset is left out
BY_LEVEL = "column by levels", "aurora"  # which read any levels by the same weights


def state(name, levels=None):
    if levels is None:
        return [Channel(name, "state")]
    return [Channel(name, "state", n, at) for n, at in enumerate(levels)]


def signature(states, forcing=("sun",), diagnostics=("rain",)):
    inputs = [*states, *(Channel(n, "forcing") for n in forcing), Channel("sin_latitude", "place")]
    return Signature(tuple(inputs), (*states, *(Channel(n, "diagnostic") for n in diagnostics)))


OLD = signature([*state("temperature", (250.0, 500.0, 850.0)), *state("pressure")], ("sun", "ice"), ("rain", "heat"))
NEW = signature(
    [*state("humidity", (500.0,)), *state("pressure"), *state("temperature", (300.0, 500.0, 850.0))],
    ("ice", "sun", "co2"),
    ("heat", "cloud"),
)
SAME_LEVELS = signature(
    [*state("humidity", (500.0,)), *state("pressure"), *state("temperature", (250.0, 500.0, 850.0)), *state("snow")],
    ("sun", "co2"),
    ("heat", "cloud"),
)


def network(config, told, grid=GRID, seed=0):
    torch.manual_seed(seed)
    made = awaken(registry.build(config, len(told.inputs), len(told.outputs), grid, signature=told), seed)
    for moment in remembered(made).values():
        moment += torch.rand(moment.shape)
    return made


def taken(config, new=NEW, old=OLD, grid=GRID, before=None, old_grid=GRID, old_config=None):
    """An old network, a new one with its weights, and what became of them."""
    one = network(old_config or config, old, old_grid)
    other = network(config, new, grid, seed=3)
    rows = take_over(
        other,
        lambda: axes_of(other, config, new, grid),
        Known(new, grid),
        Known(old, old_grid, learned(one)),
    )
    return one.eval(), other.eval(), {row.name: row for row in rows}


def fed(told, values, grid=GRID):
    """An input with the fields of some labels, 0 elsewhere."""
    x = torch.zeros(2, len(told.inputs), *grid.shape)
    for n, channel in enumerate(told.inputs):
        if (name := where(channel)) in values:
            x[:, n] = values[name]
    return x


def where(channel):
    return channel.name, channel.at


@pytest.mark.parametrize("kind", KINDS)
def test_the_function_is_the_old_one_for_channels_added_dropped_and_reordered(kind):
    if kind == "sfno that adds its input":
        kept = {row for row, n in taken(KINDS[kind])[2].items() if n.what == "changed"}
        assert "residual.weight" in kept  # whose new rows and columns are zero as all others'
    rows = same_function(KINDS[kind], SAME_LEVELS if kind in BY_LEVEL else NEW)
    if kind not in BY_LEVEL:
        assert {row.what for row in rows.values()} == {"taken", "changed"}
        assert any("3 added" in row.how and "2 dropped" in row.how and "reordered" in row.how for row in rows.values())


def same_function(config, new, old=OLD):
    """Compares the outputs that both have, and that new ones are zero; what became of the weights."""
    one, other, rows = taken(config, new, old)
    generator = torch.Generator().manual_seed(5)
    values = {where(c): torch.randn(2, *GRID.shape, generator=generator) for c in new.inputs}
    both = {where(c) for c in old.inputs} & set(values)
    with torch.no_grad():
        before = one(fed(old, {name: values[name] for name in both}))
        after = other(fed(new, values))
    assert len(both) >= 6
    labels = [where(c) for c in old.outputs]
    for n, channel in enumerate(new.outputs):
        expected = before[:, labels.index(where(channel))] if where(channel) in labels else torch.zeros(2, *GRID.shape)
        torch.testing.assert_close(after[:, n], expected, rtol=1e-4, atol=2e-5, msg=f"{channel}")
    assert before.std() > 0.05
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_channels_take_every_bit(kind):
    one, other, rows = taken(KINDS[kind], OLD, OLD)
    for name, tensor in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    assert {row.what for row in rows.values()} == {"taken"}


FINER = Grid.gaussian(12)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("sfno") and kind != "vector_cnn"])
def test_weights_that_know_no_grid_go_on_with_another(kind):
    one, other, rows = taken(KINDS[kind], OLD, OLD, FINER)
    assert {row.what for row in rows.values()} == {"taken"} and rows.keys() == learned(one).keys()
    assert all(torch.equal(tensor, learned(one)[name]) for name, tensor in learned(other).items())
    assert other(fed(OLD, {}, FINER)).isfinite().all()


def test_filters_of_scalars_and_vectors_go_on_by_degree():
    _, _, rows = taken(KINDS["vector_cnn"], OLD, OLD, FINER)
    changed = {name: row.how for name, row in rows.items() if row.what != "taken"}
    assert list(changed) == ["blocks.0.filter.weight"] and "degrees: 8 to 12" in changed["blocks.0.filter.weight"]


WINDS = "u_component_of_wind", "v_component_of_wind"
STRESS = "eastward_stress", "northward_stress"


def winds(names=WINDS, levels=(500.0, 850.0)):
    return [channel for name in names for channel in state(name, levels)]


def test_vectors_are_taken_as_a_whole_wherever_their_components_stand():
    """An offset of components is what a dropped vector would be at, so that none is dropped here."""
    config = KINDS["vector_cnn"]
    old = signature([*state("temperature", (500.0, 850.0)), *winds()], ("sun", "ice"))
    other_winds = [channel for pair in zip(*[iter(winds(WINDS[::-1]))] * 2, strict=True) for channel in pair[::-1]]
    new = signature([*winds(STRESS, None), *other_winds, *state("snow"), *state("temperature", (500.0, 850.0))])
    rows = same_function(config, new, old)
    assert {row.what for row in rows.values()} == {"taken", "changed"}
    assert "inputs: 1 added, reordered" in rows["vector_encoder.weight"].how
    for kind in (config, config | {"encoder_layers": 0}):
        without = signature([*state("temperature", (500.0, 850.0)), *state("snow")], ("sun", "ice"))
        rows = same_function(kind, signature([*without.outputs[:3], *winds()], ("sun", "ice")), without)
        assert {name.partition(".")[0] for name, row in rows.items() if row.what == "new"} == {
            "vector_encoder", "vector_decoder", "given_components", "made_components",
        }  # fmt: skip


def test_hidden_channels_of_the_first_and_last_layers_can_only_grow():
    for kind, fewer in (
        ("samudra", signature(OLD.outputs[:4], ("ice",), ("rain", "heat"))),
        ("mgno", signature(OLD.outputs[:4], ("ice",), ("rain", "heat"))),
        ("wxformer", signature(OLD.outputs[:4], ("sun", "ice"), ("heat",))),
    ):
        with pytest.raises(ValueError, match=r"Expected no fewer (in|out)puts than the \d of the checkpoint, since"):
            taken(KINDS[kind], fewer, OLD)


def test_a_layer_that_only_other_numbers_of_channels_have_is_not_made_up():
    """Samudra's first block adds its input as it is where it is as wide as its output."""
    with pytest.raises(ValueError, match=r"Expected down.0.skip.weight in the checkpoint, .* for its number of inputs"):
        taken(KINDS["samudra"] | {"widths": [len(OLD.inputs)]})


def test_what_is_new_of_hidden_channels_learns():
    """Zero weights on both sides would never have a gradient."""
    for kind, name in (("samudra", "down.0.first.weight"), ("wxformer", "head.0.weight")):
        _, other, _ = taken(KINDS[kind], NEW)
        other(torch.randn(2, len(NEW.inputs), *GRID.shape)).square().sum().backward()
        weights = dict(other.named_parameters())
        onward = {"down.0.first.weight": "down.0.second.weight", "head.0.weight": "head.2.weight"}[name]
        assert weights[name][-1].any() and weights[onward].grad[:, -1].any()


LIMITED = KINDS["wxformer"] | {"spectral_norm": True}


@pytest.mark.parametrize(
    "config",
    [
        LIMITED,
        KINDS["samudra"] | {"norm": "whole"},
        KINDS["samudra"] | {"widths": [len(NEW.inputs)]},
        KINDS["mgno"] | {"after": 1},
        KINDS["mgno"] | {"residual": True},
    ],
)
def test_layers_that_more_channels_would_change_take_the_same_ones_alone(config):
    one, other, rows = taken(config, OLD, OLD)
    assert {row.what for row in rows.values()} == {"taken"}
    x = torch.randn(1, len(OLD.inputs), *GRID.shape)
    with torch.no_grad():
        assert torch.equal(one(x), other(x))
    with pytest.raises(ValueError, match="Expected the channels of the checkpoint in their order"):
        taken(config)


def test_a_longer_history_has_weights_of_zero_for_what_is_older():
    past = tuple(dataclasses.replace(c, time=-1) for c in OLD.inputs if c.role == "state")
    longer = dataclasses.replace(OLD, inputs=past + OLD.inputs)
    one, other, rows = taken(KINDS["aurora"], longer, OLD)
    x = torch.randn(1, len(longer.inputs), *GRID.shape)
    with torch.no_grad():
        torch.testing.assert_close(other(x), one(x[:, len(past) :]), rtol=1e-5, atol=1e-5)
    assert "times: 1 to 2" in rows["encoder.levelled.weights.temperature"].how


def test_adapters_are_found_for_attention():
    for kind, pattern in (
        ("fuxi", "blocks.*.attention.mixing.weight"),
        ("fuxi", "blocks.*.attention.out.weight"),
        ("wxformer", "*.attentions.*.mixing.weight"),
        ("wxformer", "*.attentions.*.out.weight"),
        ("aurora", "*.query_key_value.weight"),
        ("aurora", "*.key_value.weight"),
        ("aurora", "*.out.weight"),
    ):
        names = matching([pattern], adaptable(network(KINDS[kind], OLD), 2), "weights")
        assert len(names) >= 2, (kind, pattern)


@pytest.mark.parametrize("kept, finer", [(8, 12), (12, 8)])
def test_filters_by_degree_are_cut_or_go_on_and_fields_of_low_degree_come_out_alike(kept, finer):
    """A network whose other layers are linear or see single cells is a function of the field, whatever the grid."""
    config = KINDS["sfno as published"] | {"norm": "none", "pre_norm": "none", "position": "none", "activation": False}
    config |= {"mlp_ratio": 0.0}
    old, new = Grid.gaussian(kept), Grid.gaussian(finer)
    one, other, rows = taken(config, OLD, OLD, new, old_grid=old)
    weight, before = other.blocks[0].filters[0].weight, one.blocks[0].filters[0].weight
    least = min(len(weight), len(before))
    assert len(weight) != len(before) and torch.equal(weight[:least], before[:least])
    assert all(torch.equal(each, before[-1]) for each in weight[least:])
    assert "cut" in rows["blocks.0.filters.0.weight"].how or "as the last" in rows["blocks.0.filters.0.weight"].how

    def field(grid):
        latitude, longitude = (torch.from_numpy(a).deg2rad().float() for a in grid.mesh())
        waves = [latitude.sin(), latitude.cos() * longitude.cos(), latitude.cos() ** 2 * (2 * longitude).sin()]
        return torch.stack([waves[n % 3] * (n + 1) / 4 for n in range(len(OLD.inputs))])[None]

    with torch.no_grad():
        coarse, fine = one(field(old))[0], other(field(new))[0]
    coefficients = [transform(grid, 4).analysis(y.permute(1, 2, 0)) for grid, y in ((old, coarse), (new, fine))]
    torch.testing.assert_close(*coefficients, rtol=1e-4, atol=1e-5)
    assert coefficients[0].abs().max() > 0.1


def test_a_learned_field_is_interpolated():
    one, other, rows = taken(KINDS["sfno as published"], OLD, OLD, FINER)
    before, after = one.position.field.detach(), other.position.field.detach()
    assert after.shape == (*FINER.shape, 6) and "interpolated" in rows["position.field"].how
    with torch.no_grad():
        one.position.field.copy_(torch.from_numpy(GRID.mesh()[0]).float()[..., None].expand(*GRID.shape, 6))
    take_over(other, dict, Known(OLD, FINER), Known(OLD, GRID, dict(one.named_parameters())))
    inner = slice(2, -2)  # a linear field is its own interpolation, short of the poles
    expected = torch.from_numpy(FINER.mesh()[0]).float()[inner, :, None].expand(-1, -1, 6)
    torch.testing.assert_close(other.position.field.detach()[inner], expected, rtol=1e-5, atol=1e-3)
    assert before.abs().mean() > 0


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k not in ("sfno as published", "sfno that adds its input", *KEPT)]
)
def test_layers_rescaled_to_other_units_keep_the_function(kind):
    said = rescaled_alike(KINDS[kind], OLD)
    assert all(text == "rescaled to the new statistics" for text in said.values())


def test_operators_rescaled_without_an_offset_keep_the_function():
    rescaled_alike(KINDS["mgno"], OLD, offset=0.0)


def affine(count, kept=None, offset=1.0, seed=1):
    """Factors and offsets, 1 and 0 for channels that are to keep their units."""
    generator = torch.Generator().manual_seed(seed + count)
    factor, shift = (torch.rand(count, generator=generator, dtype=torch.float64) + by for by in (0.5, -0.5))
    kept = torch.zeros(count, dtype=torch.bool) if kept is None else kept
    return Affine(torch.where(kept, 1.0, factor), torch.where(kept, 0.0, offset * shift))


def rescaled_alike(config, told, kept_inputs=None, kept_outputs=None, offset=1.0):
    """Rescales in float64 and compares the function of the physical fields; what was said."""
    one, other = (network(config, told).double().eval() for _ in range(2))
    inputs = affine(len(told.inputs), kept_inputs, offset)
    outputs = affine(len(told.outputs), kept_outputs, seed=2)
    said = rescale(other, axes_of(other, config, told, GRID), told, inputs, outputs)
    x = torch.randn(1, len(told.inputs), *GRID.shape, dtype=torch.float64)

    def on(scale, values):
        return values * scale.factor.view(-1, 1, 1) + scale.offset.view(-1, 1, 1)

    with torch.no_grad():
        expected, found = on(outputs, one(on(inputs, x))), other(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    return said


@pytest.mark.parametrize("components", [True, False])
def test_components_of_vectors_have_units_of_their_own(components):
    told = signature([*state("temperature", (500.0, 850.0)), *winds()], ("sun",))
    config = KINDS["vector_cnn"] | {"components": components}
    own_units = [c.name in WINDS for c in told.inputs], [c.name in WINDS for c in told.outputs]
    said = rescaled_alike(config, told, *(None if components else torch.tensor(units) for units in own_units))
    kept = {name for name, text in said.items() if "serves several channels" in text}
    heard = {"encoder.layers.0.weight", "decoder.layers.0.weight", "vector_encoder.weight", "vector_decoder.weight"}
    assert kept == (set() if components else heard)


def test_a_recurrence_keeps_the_units_of_what_has_levels():
    config, levels = (
        KINDS["column by levels"],
        [torch.tensor([c.level is not None for c in s]) for s in (OLD.inputs, OLD.outputs)],
    )
    said = rescaled_alike(config, OLD, *levels)
    assert said["columns.on_levels.weight"].startswith("kept") and said["columns.on_surface.bias"].startswith(
        "rescaled"
    )
    assert "but for what serves several channels" in said["columns.layers.0.weight"]


def test_weights_of_variables_keep_their_units_and_offsets_of_operators_are_left_out():
    made = network(KINDS["aurora"], OLD)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    said = rescale(made, axes_of(made, KINDS["aurora"], OLD, GRID), OLD, *(affine(count) for count in (7, 6)))
    assert all(torch.equal(before[name], tensor) for name, tensor in made.state_dict().items())
    assert (
        said["encoder.surface.weights.sun"]
        == said["decoder.levelled.biases.temperature"]
        == "kept, since it serves all levels"
    )
    made = network(KINDS["mgno"], OLD)
    said = rescale(made, axes_of(made, KINDS["mgno"], OLD, GRID), OLD, *(affine(count) for count in (7, 6)))
    assert said["layers.0.cycle.start.weight"] == "rescaled to the new statistics, but for the offset"


def test_an_offset_without_a_bias_is_said_to_be_left_out():
    config = KINDS["sfno as published"]
    made = network(config, OLD)
    one = Affine(torch.ones(len(OLD.inputs)).double(), torch.ones(len(OLD.inputs)).double())
    none = Affine(torch.ones(len(OLD.outputs)).double(), torch.zeros(len(OLD.outputs)).double())
    said = rescale(made, axes_of(made, config, OLD, GRID), OLD, one, none)
    assert "but for the offset" in said["encoder.layers.0.weight"]


@pytest.mark.parametrize(
    "change, what",
    [
        ({"embed_dim": 8}, "encoder.layers.0.weight of shape"),
        ({"filter": "real"}, "blocks.0.filters.0.weight of shape"),
    ],
)
def test_weights_of_another_size_are_refused_by_name(change, what):
    with pytest.raises(ValueError, match=what):
        taken(KINDS["sfno"] | change, OLD, OLD, old_config=KINDS["sfno"])


def test_what_is_new_keeps_its_start_and_what_is_gone_is_told():
    config = KINDS["sfno"]
    _, _, rows = taken(config | {"blocks": 3}, OLD, OLD, old_config=config)
    assert rows["blocks.2.filters.0.weight"].what == "new"
    _, _, rows = taken(config | {"blocks": 1}, OLD, OLD, old_config=config)
    assert rows["blocks.1.filters.0.weight"].what == "left" and rows["blocks.0.filters.0.weight"].what == "taken"


def test_levels_are_told_by_their_place_and_else_by_their_number():
    unknown = [Channel("temperature", "state", n) for n in range(3)]
    assert matched(state("temperature", (500.0, 850.0)), state("temperature", (250.0, 500.2, 850.0))) == [1, 2]
    assert matched(unknown, state("temperature", (250.0, 500.0, 850.0))) == [0, 1, 2]
    assert matched(unknown[:2], unknown) == [-1, -1]  # of other numbers of levels nobody knows which is which
    assert matched([Channel("a", "state", time=-1), Channel("a", "state")], [Channel("a", "state")]) == [-1, 0]


@pytest.fixture
def patches(monkeypatch):
    """A kind of network of patches of 2 x 2 cells, which says where their channels lie, or does not."""
    monkeypatch.setattr(registry.NETWORKS, "_entries", registry.NETWORKS.all())

    @dataclasses.dataclass(frozen=True)
    class Patched(Options):
        """None."""

    class Net(torch.nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.inward = torch.nn.Conv2d(inputs, 5, 2, 2)
            self.outward = torch.nn.Linear(5, 4 * outputs)  # patches first, channels within

        def forward(self, x):
            y = self.outward(self.inward(x).movedim(1, -1)).unflatten(-1, (2, 2, -1))
            return y.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)

    class Telling(Net):
        where = (ChannelAxis("outputs", 0, blocks=4),)
        channel_axes = {"outward.weight": where, "outward.bias": where}  # noqa: RUF012

    for name, made in (("patched", Net), ("telling", Telling)):
        registry.network(name, Patched)(lambda options, inputs, outputs, grid, made=made: made(inputs, outputs))
    return "telling", "patched"


def test_a_network_says_where_its_channels_lie_or_is_refused_other_ones(patches):
    telling, silent = patches
    KINDS[telling] = {"kind": telling}
    try:
        test_the_function_is_the_old_one_for_channels_added_dropped_and_reordered(telling)
    finally:
        del KINDS[telling]
    with pytest.raises(ValueError, match=r"where those of outward.weight lie \(channel_axes\)"):
        taken({"kind": silent})
    assert {row.what for row in taken({"kind": silent}, OLD, OLD)[2].values()} == {"taken"}


def test_a_network_that_knows_its_channels_is_taken_over_where_they_lie_one_by_one(monkeypatch):
    monkeypatch.setattr(registry.NETWORKS, "_entries", registry.NETWORKS.all())

    @dataclasses.dataclass(frozen=True)
    class Plain(Options):
        """None."""

    def flat(options, inputs, outputs, grid, signature):
        return torch.nn.Conv2d(inputs, outputs, 1)

    def cubes(options, inputs, outputs, grid, signature):
        """Times beside space, so that a state more widens the filter by one and not by two."""
        return torch.nn.Conv3d(len(signature.of("state")) // signature.times, outputs, (signature.times, 1, 1))

    for name, build in (("flat", flat), ("cubes", cubes)):
        registry.network(name, Plain, signature=True)(build)
    twice = tuple(dataclasses.replace(c, time=-1) for c in OLD.inputs if c.role == "state") + OLD.inputs
    told = dataclasses.replace(OLD, inputs=twice)
    for name, known in (("flat", 1), ("cubes", 0)):
        made = registry.build({"kind": name}, len(told.inputs), len(told.outputs), GRID, signature=told)
        blocks = {axis.blocks for axes in axes_of(made, {"kind": name}, told, GRID).values() for axis in axes}
        assert blocks == {known}, name
