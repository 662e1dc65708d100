"""Networks of the literature beside their authors' code: seconds of a forward and a backward pass, in turn in one process.

The same sizes, random weights and inputs. The authors' packages: `pip install --target FOLDER --no-deps ...` and
--peers FOLDER (samudra, on Python 3.12 with jaxtyping and what its packages import; neuraloperator with tensorly,
tensorly-torch and opt_einsum). To add one, add what makes a pair of passes to PAIRS.
"""

import sys
from collections.abc import Callable

import measure
import torch
import torch.nn.functional as F

from emulator.networks.fno import Waves
from emulator.networks.registry import build
from emulator.planet.grid import Grid

Pair = tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]  # ours and theirs, forward


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
    "samudra, 48 x 96, widths 48 to 96": lambda: samudra(48, (48, 64, 96), 2),
    "samudra, 48 x 96, widths 48 to 96, across poles": lambda: samudra(48, (48, 64, 96), 2, "sphere"),
    "samudra, 48 x 96, widths 50 to 75, expansion 4": lambda: samudra(48, (50, 62, 75), 4),
    "samudra, 96 x 192, widths 70 to 130, batch 1": lambda: samudra(96, (70, 95, 120, 130), 2, batch=1),
    "fno waves, 48 x 96, width 32": lambda: waves(48, 32, (12, 16)),
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
