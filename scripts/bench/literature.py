"""Networks of the literature beside their authors' code: seconds of a forward and a backward pass, in turn in one process.

Batch 1, the same sizes, random weights and inputs. The authors' packages: `pip install --target FOLDER --no-deps ...` and
--peers FOLDER (miles-credit with timm, torchvision, einops, segmentation-models-pytorch and huggingface_hub). To add one, add
what makes a pair of passes to PAIRS.
"""

import importlib
import sys
from collections.abc import Callable

import measure
import torch

from emulator.networks.registry import build
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


PAIRS = {
    "fuxi, 48 x 96, patch 2, width 128": lambda: fuxi(48, 2, 128, 6),
    "fuxi, 48 x 96, patch 2, width 128, batch 4": lambda: fuxi(48, 2, 128, 6, batch=4),
    "fuxi, 96 x 192, patch 2, width 256": lambda: fuxi(96, 2, 256, 8, 8),
    "wxformer, 48 x 96, width 32, shuffle": lambda: wxformer(48, 32, "shuffle"),
    "wxformer, 48 x 96, width 32, transposed": lambda: wxformer(48, 32, "transposed"),
    "wxformer, 48 x 96, width 32, shuffle, spectral norm": lambda: wxformer(48, 32, "shuffle", limited=True),
    "wxformer, 48 x 96, width 32, shuffle, stencils to 32": lambda: wxformer(48, 32, "shuffle", (4, 8, 16, 32)),
    "wxformer, 96 x 192, width 64, shuffle": lambda: wxformer(96, 64, "shuffle"),
}


def rows(arguments):
    for name, make in PAIRS.items():
        if arguments.only not in name:
            continue
        ours, theirs = make()
        for what, passes in (("forward and backward", _both), ("inference", _forward)):
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
