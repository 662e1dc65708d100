"""What a training step of a large SFNO takes on paper, by number of processes that hold its state together: from formulas.

    python scripts/bench/on_paper.py              # the table of docs/cluster.md, 0.25 degrees and 73 channels
    python scripts/bench/on_paper.py --confirm    # formulas against what small networks keep and multiply

One sample, float32, torch's own operations as on a GPU. Numbers that the backward pass keeps were counted once, as multiples
of cells and channels; operations are those of products with weights (C^2) and of the Legendre sums; bytes and messages are of
the exchanges of the transforms, which the program makes.
"""

import argparse
import dataclasses

import torch

from emulator.kernels import library
from emulator.networks import cost
from emulator.networks.registry import build
from emulator.planet.grid import Grid
from emulator.sphere.tables import truncation

GIB = 2**30
OUTER, INPUT, INNER = (
    14,
    2,
    10,
)  # numbers kept: a cell and channel of the outer grid, a cell and input, a block's inner cell
TABLES = 2  # Legendre tables of a transform


@dataclasses.dataclass(frozen=True)
class Model:
    """An SFNO of the shipped design on an equal-angle grid with rows at the poles."""

    nlat: int = 721
    inputs: int = 83
    outputs: int = 73
    width: int = 384
    blocks: int = 8
    scale: int = 1
    ratio: float = 2.0

    @property
    def outer(self) -> int:
        return self.nlat * 2 * (self.nlat - 1)

    @property
    def inner_rows(self) -> int:
        return (self.nlat - 1) // self.scale + 1

    @property
    def inner(self) -> int:
        return self.inner_rows * (2 * (self.nlat - 1) // self.scale)

    @property
    def degrees(self) -> int:
        columns = 2 * (self.nlat - 1)
        return min(self.inner_rows, columns // self.scale // 2, truncation(self.nlat, columns, "equiangular"))

    def kept(self) -> float:
        """Numbers that the backward pass keeps of a sample."""
        return (
            self.outer * (OUTER * self.width + INPUT * self.inputs)
            + INNER * (self.blocks - 1) * self.inner * self.width
        )

    def weights(self) -> float:
        c, hidden = self.width, self.ratio * self.width
        ends = self.inputs * c + c * c + (c + self.inputs) * c + c * self.outputs
        return self.blocks * (2 * self.degrees * c * c + 2 * c * hidden + c * c) + ends

    def products(self, coefficients: float) -> float:
        """Operations of products with weights, forward, of a sample with so many complex coefficients."""
        c, last = self.width, self.outer
        ends = 2 * last * (self.inputs * c + c * c + (c + self.inputs) * c + c * self.outputs)
        cells = (self.blocks - 1) * self.inner + last
        return ends + cells * (4 * self.ratio + 2) * c * c + 8 * self.blocks * coefficients * c * c

    def legendre(self) -> float:
        """Operations of the sums over latitude, forward; a grid's rows, folded, for every order and degree."""
        one = 2 * self.width * self.degrees**2  # complex: two sums of degrees^2 / 2 coefficients over half of the rows
        inner = 2 * (self.blocks - 1) * self.inner_rows
        return one * (inner + (2 + 2 * (self.scale > 1)) * self.nlat)

    def exchanges(self) -> list[int]:
        """Rows of the transforms of a forward pass, each of which is an exchange."""
        change = 2 if self.scale > 1 else 0
        return [self.nlat] * 2 + [self.inner_rows] * (2 * (self.blocks - 1) + change)

    def row(self, processes: int) -> str:
        """A row of the table, for each of some processes."""
        p, training = processes, 3  # a backward pass is two forward ones
        tables = TABLES * 4 * (self.nlat + self.inner_rows * (self.scale > 1)) * self.degrees**2 / 4
        memory = 16 * self.weights() + (4 * self.kept() + tables) / p
        work = training * (self.products(self.degrees**2 / 2) + self.legendre()) / p
        numbers = sum(2 * rows * self.degrees * self.width for rows in self.exchanges()) * (p - 1) / p**2
        sent, messages = 2 * 4 * numbers, 2 * len(self.exchanges()) * (p - 1)
        fits = "yes" if memory < 0.9 * 80e9 else "no"
        return f"| {p} | {memory / 1e9:.0f} | {fits} | {work / 1e12:.1f} | {sent / 1e9:.2f} | {messages} |"


def confirm() -> None:
    """Formulas over what is counted, for small networks on both kinds of inner grid."""
    for scale in (1, 3):
        for width, blocks in ((32, 2), (32, 4), (64, 3)):
            model = Model(37, 20, 13, width, blocks, scale)
            grid = Grid.equiangular(37, 72, poles=True)
            options = {"kind": "sfno", "embed_dim": width, "blocks": blocks, "scale_factor": scale}
            network = build(options, model.inputs, model.outputs, grid)
            parameters = sum(p.numel() for p in network.parameters())
            with library.set_aside():
                kept = cost.activations(network, torch.zeros(1, model.inputs, *grid.shape)) / 4
            counted = cost.products(network, model.inputs, grid.shape)
            ours = 3 * model.products(network.outer.plan.count / 2)
            print(
                f"scale {scale}, width {width}, blocks {blocks}: kept {model.kept() / kept:.3f}, weights "
                f"{model.weights() / parameters:.3f}, products with weights are {ours / counted:.2f} of all counted"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--confirm", action="store_true")
    parser.add_argument("--scale", type=int, default=1, help="of the inner grid")
    arguments = parser.parse_args()
    if arguments.confirm:
        confirm()
        return
    model = Model(scale=arguments.scale)
    print(f"{model.weights() / 1e6:.0f} million weights, {model.degrees} degrees")
    print("| processes | GB each | in 80 GB | TFLOP each | GB sent by each | messages from each |")
    print("|---|---|---|---|---|---|")
    for processes in (1, 2, 4, 8, 16, 32, 64):
        print(model.row(processes))


if __name__ == "__main__":
    main()
