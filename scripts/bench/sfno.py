"""A training step of the SFNO against torch-harmonics' and fme's: seconds, peak memory, share of the machine's product rate.

Forward, backward and Adam; 40 channels in and out, Gaussian grid, scale factor 1, batch 1. Against torch-harmonics ours
computes the same function; against fme it has the same parts (nonlinear encoder and decoder, norms, linear inner skip, the
input handed to the decoder, a learned position). Each network runs in a process of its own. Ours keep freed memory for
their next step; peers do with --kept. Peers: `pip install --target FOLDER --no-deps fme ...` and --peers FOLDER.
"""

import json
import statistics
import sys

import measure
import torch

from emulator.networks.cost import products
from emulator.networks.sfno import SFNO, SFNOOptions

CHANNELS = 40
SIZES = ((64, 64, 4), (96, 128, 8))  # rows, embed, blocks
PUBLISHED = {
    "encoder_layers": 0,
    "pre_norm": "none",
    "activation": False,
    "inner_skip": "none",
    "big_skip": "none",
}
HALF = {"mlp_precision": "bfloat16", "filter_precision": "bfloat16"}
DESIGNS = {"torch-harmonics": PUBLISHED, "fme": {"position": "learned"}}


def make(case):
    nlat, embed, blocks = case["nlat"], case["embed"], case["blocks"]
    shape = (nlat, 2 * nlat)
    if case["who"] == "ours":
        chosen = DESIGNS[case["design"]] | (HALF if case["half"] else {})
        options = SFNOOptions(embed_dim=embed, blocks=blocks, **chosen)
        return SFNO(CHANNELS, CHANNELS, *shape, options=options)
    if case["who"] == "torch-harmonics":
        from emulator.networks.torch_harmonics import TorchHarmonicsOptions, TorchHarmonicsSFNO

        return TorchHarmonicsSFNO(CHANNELS, CHANNELS, *shape, options=TorchHarmonicsOptions(embed, blocks))
    return fme_network(CHANNELS, CHANNELS, shape, embed, blocks)


def fme_network(inputs, outputs, shape, embed, blocks):
    """fme's SFNO with the options of its own climate emulator."""
    import fme.sht_fix
    from fme.ace.registry.sfno import SphericalFourierNeuralOperatorBuilder
    from fme.core.dataset_info import DatasetInfo
    from torch_harmonics.legendre import legpoly

    # fme 2026.10 is made for torch-harmonics 0.8 and calls a private function by the arguments that it had there; with this
    # one its outputs beside 0.9.3 are those of its own environment, bit by bit.
    def by_colatitude(mmax, lmax, colatitude, **options):
        return legpoly(mmax, lmax, torch.cos(colatitude), **options)

    fme.sht_fix._precompute_legpoly = by_colatitude
    builder = SphericalFourierNeuralOperatorBuilder(
        scale_factor=1,
        embed_dim=embed,
        num_layers=blocks,
        filter_type="linear",
        operator_type="dhconv",
        spectral_layers=3,
    )
    return builder.build(inputs, outputs, DatasetInfo(img_shape=shape))


def one(case, repeats, device):
    x = torch.randn(1, CHANNELS, case["nlat"], 2 * case["nlat"], device=device)
    network = make(case).to(device)
    result = measure.training_step(network, x, repeats)
    with torch.no_grad():
        network.eval()(x)
        result["inference"] = min(measure.seconds(lambda: network(x), device) for _ in range(3))
    return result


def rows(arguments):
    rate = measure.product_rate(device=arguments.device)
    half = measure.product_rate(torch.bfloat16, device=arguments.device)
    yield {"case": "matrix products, float32", "ours": round(rate, 1), "peer": None, "ratio": None, "unit": "GF/s"}
    yield {"case": "matrix products, bfloat16", "ours": round(half, 1), "peer": None, "ratio": None, "unit": "GF/s"}
    for nlat, embed, blocks in SIZES[: arguments.sizes]:
        case = {"nlat": nlat, "embed": embed, "blocks": blocks}
        for design in DESIGNS:
            cases = {
                "peer": {**case, "who": design},
                "float32": {**case, "who": "ours", "design": design, "half": False},
                "bfloat16 products": {**case, "who": "ours", "design": design, "half": True},
            }
            found = in_turn(cases, arguments)
            peer = found.pop("peer")
            count = products(make(cases["float32"]), CHANNELS, (nlat, 2 * nlat))
            for precision, ours in found.items():
                if "failed" in ours:
                    raise RuntimeError(ours["failed"])
                name = f"{nlat} x {2 * nlat}, embed {embed}, {blocks} blocks, {precision}, {design}"
                more = {"parameters": [ours["parameters"], peer.get("parameters")]}
                if "failed" in peer:
                    more["peer_failed"] = peer["failed"]
                if precision == "float32":
                    more["gflop"] = round(count / 1e9, 2)
                    more["share"] = round(count / ours["seconds"] / 1e9 / rate, 3)
                    if "seconds" in peer:
                        more["peer_share"] = round(count / peer["seconds"] / 1e9 / rate, 3)
                yield measure.row(f"step, {name}", round(ours["seconds"], 4), peer.get("seconds"), "s", **more)
                yield measure.row(f"inference, {name}", round(ours["inference"], 4), peer.get("inference"), "s")
                yield measure.row(f"memory, {name}", ours["peak_mib"], peer.get("peak_mib"), "MiB")


def in_turn(cases, arguments):
    """The median of every number over rounds in which each case runs once: other programs disturb all of them alike."""
    rounds = {name: [] for name in cases}
    for _ in range(arguments.rounds):
        for name, case in cases.items():
            if not rounds[name] or "failed" not in rounds[name][0]:
                rounds[name].append(measure.alone(__file__, case, arguments))
    return {
        name: all_of[0]
        if "failed" in all_of[0]
        else {key: statistics.median(r[key] for r in all_of) for key in all_of[0]}
        for name, all_of in rounds.items()
    }


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--sizes", type=int, default=2, choices=(1, 2), help="the small network alone, or both")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case runs, in turn")
    arguments = parser.parse_args()
    measure.prepare(arguments)
    if arguments.one:
        print(json.dumps(one(json.loads(arguments.one), arguments.repeats, arguments.device)))
        return
    measure.report(arguments, rows(arguments))


if __name__ == "__main__":
    sys.exit(main())
