"""Winds as vectors: their transform against torch-harmonics' and two scalars', and the network of vectors beside an SFNO.

The transform of winds between cells and coefficients in the order that networks keep; torch-harmonics' in its own layout,
channels first and complex, with float32 tables. The networks as configured, with as many numbers a cell inside; 50 channels
in, 41 out, 48 x 96 Gaussian cells, batch 2. Each pair is timed in turn; medians.
"""

import measure
import torch
import torch_harmonics
from torch_harmonics import InverseRealVectorSHT, RealVectorSHT

from emulator.networks.registry import build
from emulator.networks.signature import Channel, Signature
from emulator.planet.grid import Grid
from emulator.sphere.transform import SphericalTransform, VectorTransform

CASES = ((48, 96, 32, 32), (48, 96, 32, 48), (120, 240, 64, 120))  # rows, columns, winds, degrees
LEVELLED = "temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity", "geopotential"
STATE = tuple(Channel(name, "state", n) for name in LEVELLED for n in range(8)) + (
    Channel("surface_pressure", "state"),
)
CHANNELS = Signature(STATE + tuple(Channel(f"feature_{n}", "clock") for n in range(9)), STATE)
VECTORS = dict(kind="vector_cnn", width=64, vectors=24)
PAIRS = [
    ({"scale_factor": scale}, {"scale_factor": scale, "filter": kind})
    for scale in (1, 1.5)
    for kind in ("real", "complex")
]


def transforms(arguments, nlat, nlon, winds, lmax):
    sizes = nlat, nlon, "gaussian", False, lmax
    ours, scalars = VectorTransform(*sizes), SphericalTransform(*sizes)
    options = {"lmax": lmax, "mmax": lmax, "grid": "legendre-gauss"}
    forward, inverse = (kind(nlat, nlon, **options).float() for kind in (RealVectorSHT, InverseRealVectorSHT))
    cells = torch.randn(nlat * nlon, 1, 2 * winds, requires_grad=True)
    image = torch.randn(winds, 2, nlat, nlon, requires_grad=True)

    def there_and_back(transform):
        def both():
            y = transform.synthesise(transform.analyse(cells))
            if torch.is_grad_enabled():
                y.backward(cells.detach())

        return both

    def peer():
        y = inverse(forward(image))
        if torch.is_grad_enabled():
            y.backward(image.detach())

    for what, passes in (("round trip", torch.no_grad()), ("forward and backward", torch.enable_grad())):
        name = f"{nlat} x {nlon}, {winds} winds, T{lmax - 1}"
        for whose, other in (("torch-harmonics", peer), ("scalars", there_and_back(scalars))):
            with passes:
                *times, ratio = measure.side_by_side(there_and_back(ours), other, arguments.repeats)
            first, second = (round(1e3 * taken, 2) for taken in times)
            yield measure.row(f"{what} beside {whose}, {name}", first, second, "ms", median_of_ratios=round(ratio, 2))


def networks(arguments, chosen, other):
    grid, counts = Grid.gaussian(48), (len(CHANNELS.inputs), len(CHANNELS.outputs))
    made = [VECTORS | chosen, dict(kind="sfno", embed_dim=64 + 2 * 24) | other]
    nets = [build(config, *counts, grid, signature=CHANNELS) for config in made]
    x = torch.randn(2, counts[0], *grid.shape)

    def step(net):
        return lambda: net(x).square().mean().backward()

    first, second, ratio = measure.side_by_side(*(step(net) for net in nets), arguments.repeats)
    parameters = [sum(p.numel() for p in net.parameters()) for net in nets]
    name = f"forward and backward, {chosen} beside SFNO {other}"
    yield measure.row(name, first, second, "s", median_of_ratios=round(ratio, 2), parameters=parameters)


def rows(arguments):
    for case in CASES:
        yield from transforms(arguments, *case)
    for pair in PAIRS:
        yield from networks(arguments, *pair)


def main() -> None:
    arguments = measure.parser(__doc__).parse_args()
    measure.prepare(arguments)
    measure.report(arguments, rows(arguments), torch_harmonics=torch_harmonics.__version__)


if __name__ == "__main__":
    main()
