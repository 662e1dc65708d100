"""The network is the published one: with the weights of the package microsoft-aurora it computes the same function.

Not compared: the package's normalisation, and its encodings of place and area, which are given to ours (docs/models.md).
"""

import datetime
import re

import pytest
import torch
from torch.testing import assert_close

from emulator.networks.aurora import Aurora, AuroraOptions
from emulator.networks.signature import Channel, Signature
from emulator.planet.grid import Grid

aurora = pytest.importorskip("aurora.model.aurora")

SURFACE, STATIC, LEVELLED = ("2t", "10u", "10v", "msl"), ("lsm", "z", "slt"), ("z", "u", "v", "t", "q")
CLOCK = ("sin_day_of_year", "cos_day_of_year")
NAMES = [
    (r"^backbone\.time_mlp", "lead"),
    (r"^backbone\.encoder_layers\.(\d+)\.downsample\.reduction", r"merge.\1.linear"),
    (r"^backbone\.encoder_layers\.(\d+)\.downsample", r"merge.\1"),
    (r"^backbone\.encoder_layers", "down"),
    (r"^backbone\.decoder_layers\.(\d+)\.upsample\.lin1", r"split.-\1.first"),
    (r"^backbone\.decoder_layers\.(\d+)\.upsample\.lin2", r"split.-\1.second"),
    (r"^backbone\.decoder_layers\.(\d+)\.upsample", r"split.-\1"),
    (r"^backbone\.decoder_layers", "up"),
    (r"norm1\.ln_modulation\.1", "norm.modulation"),
    (r"norm2\.ln_modulation\.1", "mlp_norm.modulation"),
    (r"attn\.qkv", "query_key_value"),
    (r"attn\.proj", "out"),
    (r"mlp\.fc1", "mlp.layers.0"),
    (r"mlp\.fc2", "mlp.layers.1"),
    (r"(level_agg|level_decoder)", "perceiver"),
    (r"(layers\.\d+)\.0\.to_q", r"\1.query"),
    (r"(layers\.\d+)\.0\.to_kv", r"\1.key_value"),
    (r"(layers\.\d+)\.0\.to_out", r"\1.out"),
    (r"(layers\.\d+)\.1\.net\.0", r"\1.mlp.layers.0"),
    (r"(layers\.\d+)\.1\.net\.2", r"\1.mlp.layers.1"),
    (r"(perceiver\.layers\.\d+)\.2\.", r"\1.norm."),
    (r"(perceiver\.layers\.\d+)\.3\.", r"\1.mlp_norm."),
    (r"surf_mlp\.net\.0", "surface_mlp.layers.0"),
    (r"surf_mlp\.net\.2", "surface_mlp.layers.1"),
    (r"atmos_latents", "latent_codes"),
    (r"surf_level_encoding", "surface_code"),
    (r"surf_norm", "surface_norm"),
    (r"atmos_levels_embed", "level"),
    (r"pos_embed", "place"),
    (r"scale_embed", "size"),
    (r"absolute_time_embed", "time"),
    (r"lead_time_embed", "lead"),
    (r"surf_token_embeds", "surface"),
    (r"atmos_token_embeds", "levelled"),
    (r"surf_heads\.(\w+)\.(weight|bias)", r"surface.\2s.\1"),
    (r"atmos_heads\.(\w+)\.(weight|bias)", r"levelled.\2s.\1"),
]


def signature(levels, history=2) -> Signature:
    def state(time):
        surface = [Channel(name, "state", time=time) for name in SURFACE]
        return surface + [Channel(v, "state", n, at, time) for v in LEVELLED for n, at in enumerate(levels)]

    inputs = [channel for age in reversed(range(history)) for channel in state(-age)]
    inputs += [Channel(name, "static") for name in STATIC] + [Channel(name, "clock") for name in CLOCK]
    return Signature(tuple(inputs), tuple(state(0)), 6.0)


def renamed(name: str, value: torch.Tensor, splits: int):
    """Name and value here of one of the package's weights."""
    for pattern, by in NAMES:
        name = re.sub(pattern, by, name)
    name = re.sub(r"split\.-(\d+)", lambda found: f"split.{splits - 1 - int(found[1])}", name).replace(
        "biass", "biases"
    )
    if ".weights." in name and name.startswith("encoder"):
        value = value[:, 0].flip(1)  # ours are of the newest state first
        if name.startswith("encoder.surface") and name.rpartition(".")[2] in STATIC:
            value = value.sum(1, keepdim=True)  # which the package takes in once for each of two times
    return name, value


def test_the_small_network_has_as_many_parameters():
    peer = aurora.AuroraSmallPretrained()
    options = AuroraOptions(
        patch=4, embed_dim=256, depths=(2, 6, 2), up_depths=(2, 6, 2), heads=(4, 8, 16), perceiver_heads=8
    )
    with torch.device("meta"):
        net = Aurora(signature(range(50, 700, 50)), Grid.equiangular(720, 1440), options)
    ours, theirs = (sum(p.numel() for p in module.parameters()) for module in (net, peer))
    twice = len(STATIC) * 256 * 4**2  # static fields taken in once for each of two times
    assert theirs == 112_797_584 and ours == theirs - twice


@pytest.mark.parametrize("stages", [2, 3])
def test_it_is_the_published_function(stages):
    torch.manual_seed(0)
    levels, grid = (100, 250, 500, 700, 1000), Grid.equiangular(24, 48)
    depths, heads, width = (2,) * stages, (2, 4, 8)[:stages], 16
    peer = aurora.Aurora(
        encoder_depths=depths, encoder_num_heads=heads, decoder_depths=depths, decoder_num_heads=heads[::-1],
        patch_size=2, embed_dim=width, num_heads=4, use_lora=False,
    ).eval()  # fmt: skip
    for parameter in peer.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    options = AuroraOptions(patch=2, embed_dim=width, depths=depths, up_depths=depths, heads=heads)
    net = Aurora(signature(levels), grid, options)
    net.load_state_dict(dict(renamed(name, value, stages - 1) for name, value in peer.state_dict().items()))
    batch = batch_of(grid, levels)
    encode, codes = aurora_positions()
    places = encode(width, batch.metadata.lat.float(), batch.metadata.lon.float(), 2, *codes)
    for ours, theirs in zip((net.encoder.place_codes, net.encoder.size_codes), places, strict=True):
        assert ours.shape == theirs.shape
        ours.copy_(theirs)
    with torch.no_grad():
        y, expected = net(inputs_of(batch.normalise(surf_stats={}))), peer(batch).normalise(surf_stats={})
    expected = torch.cat([*expected.surf_vars.values(), *(v[:, 0] for v in expected.atmos_vars.values())], 1)
    assert expected.std() > 0.1
    assert_close(y, expected, rtol=1e-5, atol=1e-5)


def aurora_positions():
    from aurora.model.fourier import pos_expansion, scale_expansion
    from aurora.model.posencoding import pos_scale_enc

    return pos_scale_enc, (pos_expansion, scale_expansion)


def batch_of(grid, levels):
    """Two times of random fields of the right size, at the beginning of the year that the package counts hours from."""
    from aurora import Batch, Metadata

    def fields(names, *shape):
        return {name: torch.randn(*shape, *grid.shape) for name in names}

    batch = Batch(
        fields(SURFACE, 1, 2),
        fields(STATIC),
        fields(LEVELLED, 1, 2, len(levels)),
        Metadata(
            torch.from_numpy(grid.latitude),
            torch.from_numpy(grid.longitude),
            (datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC),),
            atmos_levels=levels,
        ),
    )
    return batch.unnormalise(surf_stats={})


def inputs_of(batch):
    """As ours takes them in."""
    parts = []
    for time in range(2):
        parts += [field[:, time : time + 1] for field in batch.surf_vars.values()]
        parts += [field[:, time] for field in batch.atmos_vars.values()]
    parts += [field[None, None] for field in batch.static_vars.values()]
    like = parts[-1]
    return torch.cat([*parts, torch.zeros_like(like), torch.ones_like(like)], 1)
