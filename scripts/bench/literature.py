"""Networks of the literature beside their authors' code: seconds of a forward and a backward pass, in turn in one process.

Batch 1, the same sizes, random weights and inputs. The authors' packages: `pip install --target FOLDER --no-deps ...` and
--peers FOLDER (microsoft-aurora with timm, torchvision and einops). To add one, add what makes a pair of passes to PAIRS.
"""

import datetime
import sys
from collections.abc import Callable

import measure
import torch

from emulator.networks.aurora import Aurora, AuroraOptions
from emulator.networks.signature import Channel, Signature
from emulator.planet.grid import Grid

Pair = tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]  # ours and theirs, forward


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


PAIRS = {
    "aurora, 96 x 192, patch 4, embed 64": lambda: aurora(96, 4, 64),
    "aurora, 96 x 192, patch 4, embed 64, batch 4": lambda: aurora(96, 4, 64, 4),
    "aurora, 96 x 192, patch 4, embed 128": lambda: aurora(96, 4, 128),
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
