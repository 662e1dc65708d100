"""Networks of the literature beside their authors' code: seconds of a forward and a backward pass, in turn in one process.

The same sizes, random weights and inputs; batch 1 where no other is named. The authors' packages: `pip install --target
FOLDER --no-deps ...` and --peers FOLDER (miles-credit with timm, torchvision, einops, segmentation-models-pytorch and
huggingface_hub; microsoft-aurora with timm, torchvision and einops; samudra, on Python 3.12, with jaxtyping and what its
packages import; neuraloperator with tensorly, tensorly-torch and opt_einsum). To add one, add what makes a pair to PAIRS.
"""

import datetime
import importlib
import sys
from collections.abc import Callable

import measure
import torch
import torch.nn.functional as F

from emulator.networks.aurora import Aurora, AuroraOptions
from emulator.networks.fno import Waves
from emulator.networks.registry import build
from emulator.networks.signature import Channel, Signature
from emulator.planet.grid import Grid

Pair = tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]  # ours and theirs, forward
CHANNELS = dict(levels=8, channels=5, surface_channels=5, input_only_channels=5)  # 50 in at each of two times, 45 out


def fuxi(rows: int, patch: int, width: int, window: int, blocks: int = 6, batch: int = 1) -> Pair:
    """miles-credit's of the same parts, without spectral norm."""
    from credit.models.fuxi import Fuxi as Published

    grid = Grid.gaussian(rows)
    size = dict(image_height=rows, image_width=2 * rows, patch_height=patch, patch_width=patch, window_size=window)
    design = dict(dim=width, num_groups=32, num_heads=width // 32, depth=blocks, use_spectral_norm=False, interp=False)
    theirs = Published(**size, **CHANNELS, frames=2, frame_patch_size=2, **design)
    options = dict(width=width, blocks=blocks, heads=width // 32, window=window, patch=patch, groups=32)
    ours = build({"kind": "fuxi", **options}, 100, 45, grid)
    x = torch.randn(batch, 50, 2, *grid.shape)
    flat = x.transpose(1, 2).flatten(1, 2)
    return lambda: ours(flat), lambda: theirs(x)


def wxformer(rows: int, width: int, decoder: str, stencils=(4, 8, 16), limited: bool = False, batch: int = 1) -> Pair:
    """miles-credit's of the same parts, today's (shuffle) or that of the paper (transposed)."""
    name = {"shuffle": "credit.models.wxformer.crossformer", "transposed": "credit.models.crossformer"}[decoder]
    grid = Grid.gaussian(rows)
    widths, depths, far = tuple(width * 2**n for n in range(4)), (2, 2, 2, 2), (4, 4, 2, 1)
    theirs = importlib.import_module(name).CrossFormer(
        image_height=rows, image_width=2 * rows, **CHANNELS, frames=2, dim=widths, depth=depths, dim_head=16, interp=False,
        global_window_size=far, local_window_size=3, cross_embed_strides=(2, 2, 2, 2), use_spectral_norm=limited,
        cross_embed_kernel_sizes=(stencils, (2, 4), (2, 4), (2, 4)),
    )  # fmt: skip
    options = dict(
        widths=widths, depths=depths, strides=(2, 2, 2, 2), stencils=stencils, near=3, far=far, head_width=16
    )
    ours = build({"kind": "wxformer", **options, "decoder": decoder, "spectral_norm": limited}, 100, 45, grid)
    x = torch.randn(batch, 50, 2, *grid.shape)
    return lambda: ours(x.flatten(1, 2)), lambda: theirs(x)


def aurora(rows: int, patch: int, width: int, batch: int = 1) -> Pair:
    """4 surface, 3 static and 5 variables on 8 levels at two times; normalisation is a part of theirs."""
    from aurora import Batch, Metadata
    from aurora.model.aurora import Aurora as Published

    grid, levels = Grid.equiangular(rows), (50, 100, 200, 300, 500, 700, 850, 1000)
    surface, static, levelled = ("2t", "10u", "10v", "msl"), ("lsm", "z", "slt"), ("z", "u", "v", "t", "q")
    depths, heads = (2, 2, 2), (4, 8, 16)
    theirs = Published(
        encoder_depths=depths, encoder_num_heads=heads, decoder_depths=depths, decoder_num_heads=heads[::-1],
        patch_size=patch, embed_dim=width, num_heads=8, use_lora=False,
    )  # fmt: skip
    times = [datetime.datetime(2001, 7, 1)] * batch
    where = torch.from_numpy(grid.latitude), torch.from_numpy(grid.longitude)
    fields = Batch(
        {name: torch.randn(batch, 2, *grid.shape) for name in surface},
        {name: torch.randn(*grid.shape) for name in static},
        {name: torch.randn(batch, 2, len(levels), *grid.shape) for name in levelled},
        Metadata(*where, tuple(times), atmos_levels=levels),
    )

    def state(time):
        flat = [Channel(name, "state", time=time) for name in surface]
        return flat + [Channel(name, "state", n, at, time) for name in levelled for n, at in enumerate(levels)]

    clock = [Channel(name, "clock") for name in ("sin_day_of_year", "cos_day_of_year")]
    inputs = (*state(-1), *state(0), *(Channel(name, "static") for name in static), *clock)
    options = AuroraOptions(patch, width, depths, depths, heads, perceiver_heads=8)
    ours = Aurora(Signature(inputs, tuple(state(0)), 6.0), grid, options)
    x = torch.randn(batch, len(inputs), *grid.shape)

    def published():
        made = theirs(fields)
        return torch.cat([field.flatten() for group in (made.surf_vars, made.atmos_vars) for field in group.values()])

    return lambda: ours(x), published


def samudra(rows: int, widths: tuple[int, ...], expansion: int, edges: str = "samudra2", batch: int = 2) -> Pair:
    """Theirs always with Samudra 2's edges, ours with these; 50 channels in and 45 out."""
    from samudra.models.modules import blocks
    from samudra.models.modules.unet_backbone import UNetBackbone

    def create_block(in_channels, out_channels, dilation, n_layers, pad, checkpoint_simple):
        return blocks.ConvNeXtBlock(in_channels, out_channels, 3, dilation, n_layers, pad=pad, upscale_factor=expansion)

    grid, dilations = Grid.gaussian(rows), [2**n for n in range(len(widths))]
    doubling = blocks.ZonallyPeriodicBilinearUpsample
    once = [1] * len(widths)
    unet = UNetBackbone(
        50, list(widths), dilations, once, "circular", create_block, blocks.AvgPool(), lambda **_: doubling(), None
    )
    decoder = torch.nn.Conv2d(widths[0], 45, 3)
    options = dict(widths=widths, dilations=dilations, expansion=expansion, edges=edges)
    ours, x = build({"kind": "samudra", **options}, 50, 45, grid), torch.randn(batch, 50, *grid.shape)
    return lambda: ours(x), lambda: decoder(F.pad(F.pad(unet(x), (1, 1, 0, 0), mode="circular"), (0, 0, 1, 1)))


def waves(rows: int, width: int, modes: tuple[int, int], batch: int = 4) -> Pair:
    """The spectral layer of a planar Fourier operator beside neuraloperator's, which keeps as many waves."""
    from neuralop.layers.spectral_convolution import SpectralConv

    ours, theirs = Waves(width, width, modes), SpectralConv(width, width, (2 * modes[0], 2 * modes[1] - 2), bias=False)
    x = torch.randn(batch, width, rows, 2 * rows)
    last = x.contiguous(memory_format=torch.channels_last)
    return lambda: ours(last), lambda: theirs(x)


PAIRS = {
    "fuxi, 48 x 96, patch 2, width 128": lambda: fuxi(48, 2, 128, 6),
    "fuxi, 48 x 96, patch 2, width 128, batch 4": lambda: fuxi(48, 2, 128, 6, batch=4),
    "fuxi, 96 x 192, patch 2, width 256": lambda: fuxi(96, 2, 256, 8, 8),
    "wxformer, 48 x 96, width 32, shuffle": lambda: wxformer(48, 32, "shuffle"),
    "wxformer, 48 x 96, width 32, transposed": lambda: wxformer(48, 32, "transposed"),
    "wxformer, 48 x 96, width 32, shuffle, spectral norm": lambda: wxformer(48, 32, "shuffle", limited=True),
    "wxformer, 48 x 96, width 32, shuffle, stencils to 32": lambda: wxformer(48, 32, "shuffle", (4, 8, 16, 32)),
    "wxformer, 96 x 192, width 64, shuffle": lambda: wxformer(96, 64, "shuffle"),
    "aurora, 96 x 192, patch 4, embed 64": lambda: aurora(96, 4, 64),
    "aurora, 96 x 192, patch 4, embed 64, batch 4": lambda: aurora(96, 4, 64, 4),
    "aurora, 96 x 192, patch 4, embed 128": lambda: aurora(96, 4, 128),
    "samudra, 48 x 96, widths 48 to 96, batch 2": lambda: samudra(48, (48, 64, 96), 2),
    "samudra, 48 x 96, widths 48 to 96, across poles, batch 2": lambda: samudra(48, (48, 64, 96), 2, "sphere"),
    "samudra, 48 x 96, widths 50 to 75, expansion 4, batch 2": lambda: samudra(48, (50, 62, 75), 4),
    "samudra, 96 x 192, widths 70 to 130, batch 1": lambda: samudra(96, (70, 95, 120, 130), 2, batch=1),
    "fno waves, 48 x 96, width 32, batch 4": lambda: waves(48, 32, (12, 16)),
}


def rows(arguments):
    for name, make in PAIRS.items():
        if arguments.only not in name:
            continue
        ours, theirs = make()
        for what, passes in (("forward and backward", _both), ("forward", _forward)):
            pair = (passes(ours), passes(theirs))
            first, second, ratio = measure.side_by_side(*pair, arguments.repeats)
            yield measure.row(f"{what}, {name}", first, second, "s", median_of_ratios=round(ratio, 3))


def _both(forward):
    return lambda: forward().square().mean().backward()


def _forward(forward):
    return torch.no_grad()(forward)


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--only", default="", help="those whose name has this part")
    arguments = parser.parse_args()
    measure.prepare(arguments)
    measure.report(arguments, rows(arguments))


if __name__ == "__main__":
    sys.exit(main())
