"""The spherical-harmonic transform against torch-harmonics' with float32 tables: time, accuracy, table memory.

A round trip is analysis and synthesis of all channels; both sides keep their own layout (ours channels last, torch-harmonics'
channels first, complex). "Inside a network" is ours between cells and coefficients in the order that networks keep. The two
are timed in turn; medians. Errors are relative root mean squares against torch-harmonics in float64.
"""

import json

import measure
import torch
import torch_harmonics
from torch_harmonics import InverseRealSHT, RealSHT

from emulator.sphere.transform import SphericalTransform, to_complex

# nlat, nlon, channels, grid, poles
CASES = (
    (64, 128, 64, "gaussian", False),
    (120, 240, 64, "gaussian", False),
    (120, 240, 192, "gaussian", False),
    (181, 360, 64, "equiangular", True),
)
PEER_GRID = {("gaussian", False): "legendre-gauss", ("equiangular", True): "equiangular"}


def pair(nlat, nlon, grid, poles, lmax=None):
    """Our transform, and torch-harmonics' two."""
    ours = SphericalTransform(nlat, nlon, grid, poles, lmax)
    options = {"lmax": ours.lmax, "mmax": ours.lmax, "grid": PEER_GRID[grid, poles]}
    return ours, (RealSHT(nlat, nlon, **options), InverseRealSHT(nlat, nlon, **options))


def timed(arguments, nlat, nlon, channels, grid, poles, lmax=None):
    device = arguments.device
    ours, peer = pair(nlat, nlon, grid, poles, lmax)
    ours, (forward, inverse) = ours.to(device), (module.float().to(device) for module in peer)
    field = torch.randn(nlat, nlon, channels, device=device)
    cells, image = ours.arrange(field), field.permute(2, 0, 1).contiguous()
    name = f"{nlat} x {nlon}, {channels} channels, T{ours.lmax - 1}"

    def ours_there_and_back():
        return ours.synthesis(ours.analysis(field))

    def inside():
        return ours.synthesise(ours.analyse(cells))

    def peer_there_and_back():
        return inverse(forward(image))

    with torch.no_grad():
        first, second, ratio = measure.side_by_side(ours_there_and_back, peer_there_and_back, arguments.repeats, device)
        within = measure.side_by_side(inside, peer_there_and_back, arguments.repeats, device)
    yield _row(f"round trip, {name}", first, second, ratio)
    yield _row(f"round trip inside a network, {name}", *within)

    field.requires_grad_(), image.requires_grad_()
    ones, others = torch.ones_like(field), torch.ones_like(image)
    yield _row(
        f"forward and backward, {name}",
        *measure.side_by_side(
            lambda: ours_there_and_back().backward(ones),
            lambda: peer_there_and_back().backward(others),
            arguments.repeats,
            device,
        ),
    )


def _row(case, ours, peer, ratio):
    return {
        "case": case,
        "ours": round(1e3 * ours, 2),
        "peer": round(1e3 * peer, 2),
        "ratio": round(ratio, 2),
        "unit": "ms",
    }


def sizes(nlat, nlon, channels, grid, poles, lmax=None):
    """Memory of the tables, and errors of analysis and synthesis."""
    ours, peer = pair(nlat, nlon, grid, poles, lmax)
    name = f"{nlat} x {nlon}, T{ours.lmax - 1}"
    tables = sum(b.nbytes for b in ours.buffers())
    theirs = sum(4 * b.numel() for module in peer for b in module.buffers() if b.is_floating_point())
    yield measure.row(f"tables, {name}", round(tables / 2**20, 2), round(theirs / 2**20, 2), "MiB")
    exact_there, exact_back = (module.double() for module in peer)
    field = torch.randn(nlat, nlon, 4, dtype=torch.float64)
    exact = exact_there(field.permute(2, 0, 1))
    found = to_complex(ours.analysis(field.float()))
    single_there, single_back = (module.float() for module in pair(nlat, nlon, grid, poles, lmax)[1])
    other = single_there(field.float().permute(2, 0, 1))
    yield measure.row(f"error of analysis, {name}", _error(found, exact), _error(other, exact), "")
    back = exact_back(exact)
    found = ours.synthesis(torch.view_as_real(exact).permute(1, 2, 3, 0).float()).permute(2, 0, 1)
    yield measure.row(f"error of synthesis, {name}", _error(found, back), _error(single_back(exact.cfloat()), back), "")


def _error(found, exact):
    return float(f"{((found - exact).abs().square().mean() / exact.abs().square().mean()).sqrt().item():.2e}")


def rows(arguments):
    for case in CASES:
        yield from timed(arguments, *case)
    # torch-harmonics' networks keep all degrees of an equiangular grid, beyond what its quadrature resolves
    yield from timed(arguments, 181, 360, 64, "equiangular", True, 180)
    for case in (CASES[0], CASES[1], CASES[3]):
        yield from sizes(*case)


def main() -> None:
    arguments = measure.parser(__doc__).parse_args()
    measure.prepare(arguments)
    if arguments.one:
        raise SystemExit(f"Expected no --one here, got {json.dumps(arguments.one)}")
    measure.report(arguments, rows(arguments), torch_harmonics=torch_harmonics.__version__)


if __name__ == "__main__":
    main()
