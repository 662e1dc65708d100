"""What a GPU gives: transform, training step and rollout step of SFNO and graph network, against torch-harmonics' own.

One run within five minutes on one GPU prints one JSON object a line: rates of products and of copies to and from the host;
then every case in float32, TF32 and bfloat16, eager and compiled, ours and torch-harmonics' (the same function, sizes and
optimiser) called in turn, medians, with the peak memory of each: `ratio` is how many times as fast ours is, `product_share`
the share of the measured rate of products. Cases that would begin after `--seconds` are named as left out.
The products of our transform are exact float32 in every precision; so are those of torch-harmonics' in bfloat16, where all
else of it runs under autocast, which its transforms cannot.
`--device cpu --small` tries all of it without a GPU, where memory is not told and figures mean nothing.
"""

import contextlib
import functools
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator

import conservation
import measure
import torch
from torch import nn

from emulator.conservation import Atmosphere, SchemeOptions, build
from emulator.model.step import Step
from emulator.networks.cost import products
from emulator.networks.graph import GraphNetwork, GraphOptions
from emulator.networks.sfno import SFNO, SFNOOptions
from emulator.parallel import rates
from emulator.parallel.host_copies import HostCopies
from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels
from emulator.sphere.mesh import MeshOptions, graph_of
from emulator.sphere.transform import SphericalTransform

PUBLISHED = {"encoder_layers": 0, "pre_norm": "none", "activation": False, "inner_skip": "none", "big_skip": "none"}
HALF = {"mlp_precision": "bfloat16", "filter_precision": "bfloat16"}
LARGE = {"nlat": 180, "channels": 73, "embed": 256, "blocks": 6, "refinement": 5, "width": 256, "rounds": 8}
SMALL = {"nlat": 16, "channels": 4, "embed": 8, "blocks": 1, "refinement": 1, "width": 8, "rounds": 2}
PEER = importlib.util.find_spec("torch_harmonics") is not None
PRECISIONS = ("float32", "tf32", "bfloat16")
COMPILING = 60.0  # seconds that a case with torch.compile may take on a GPU

Work = Callable[[], object]


class Bench:
    """Sizes, device and time of a run."""

    def __init__(self, arguments):
        self.sizes = SMALL if arguments.small else LARGE
        self.device, self.repeats = torch.device(arguments.device), arguments.repeats
        self.backend, self.end = arguments.backend, time.monotonic() + arguments.seconds
        self.rate = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        return self.sizes["nlat"], 2 * self.sizes["nlat"]

    def fields(self) -> torch.Tensor:
        return torch.randn(1, self.sizes["channels"], *self.shape, device=self.device)

    def left(self) -> float:
        return self.end - time.monotonic()

    def held(self) -> int:
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0

    def peak(self, work: Work, before: int) -> float | None:
        """MiB that some work held at most beyond what was held before it was made; None on a CPU."""
        if self.device.type != "cuda":
            work()
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        torch.cuda.synchronize(self.device)
        return round((torch.cuda.max_memory_allocated(self.device) - before) / 2**20, 1)

    def compared(self, case: str, ours: Callable[[], Work], peer: Callable[[], Work] | None, **more) -> dict:
        """A row of two kinds of work, each made here; `count`: operations, of which the share of the product rate is told."""
        made, memory = [], []
        for make in (ours, peer):
            if make is not None:
                before = self.held()
                made.append(make())
                made[-1]()  # compiles, and makes the optimiser's moments
                memory.append(self.peak(made[-1], before))
        if peer is None:
            for _ in range(2):
                made[0]()
            timed = sorted(measure.seconds(made[0], self.device.type) for _ in range(self.repeats))
            first, second, ratio = timed[len(timed) // 2], None, None
        else:
            first, second, ratio = measure.side_by_side(*made, self.repeats, self.device.type)
            more |= {"peer_peak_mib": memory[1]}
        found = measure.row(case, first, second, "s", peak_mib=memory[0], **more)
        if ratio is not None:
            found["ratio"] = round(ratio, 3)
        if count := more.pop("count", 0):
            del found["count"]
            share = count / first / self.rate
            found |= {"gflop": round(count / 1e9, 3), "product_share": round(share, 4)}
        return found


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """What the process allows of float32 products; TF32 on GPUs alone."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee" if name == "float32" else "tf32"
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value


def machine_rates(bench: Bench) -> Iterator[dict]:
    small = bench.sizes is SMALL
    for name in PRECISIONS:
        dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
        with precision(name):
            rate = rates.product_rate(bench.device, dtype, 256 if small else None)
        bench.rate = rate  # the last, of bfloat16, is what shares refer to
        yield rated(f"matrix products, {name}", rate / 1e9, "GF/s")
    size = 1 << (20 if small else 28)
    yield rated("copies within the device", rates.copy_rate(bench.device, size) / 1e9, "GB/s")
    there, here = torch.zeros(size // 4, device=bench.device), torch.zeros(size // 4)
    ways = {"pageable": here}
    if bench.device.type == "cuda":
        ways["page-locked"] = here.pin_memory()
    for name, host in ways.items():
        for way, work in {
            "to": lambda host=host: there.copy_(host),
            "from": lambda host=host: host.copy_(there),
        }.items():
            taken = min(measure.seconds(work, bench.device.type) for _ in range(4))
            yield rated(f"copies {way} the device, {name}", size / taken / 1e9, "GB/s")
    copies = HostCopies(bench.device)
    taken = min(measure.seconds(lambda: copies.begin([there]).arrive(), bench.device.type) for _ in range(4))
    yield rated("copies from the device as forecasts make them", size / taken / 1e9, "GB/s")


def rated(case: str, rate: float, unit: str) -> dict:
    return {"case": case, "ours": round(rate, 2), "peer": None, "ratio": None, "unit": unit}


def transforms(bench: Bench) -> Iterator[dict]:
    """Analysis and synthesis of the network's channels, ours in the order that networks keep."""
    channels = bench.sizes["embed"]
    ours = SphericalTransform(*bench.shape).to(bench.device)
    cells = torch.randn(bench.shape[0] * bench.shape[1], channels, device=bench.device)
    image = torch.randn(channels, *bench.shape, device=bench.device)
    for name in PRECISIONS[:2]:
        with precision(name), torch.no_grad():
            peer = peer_transform(bench, ours.lmax)
            there_and_back = peer and (lambda peer=peer: lambda: peer[1](peer[0](image)))
            case = f"transform, {described(bench)}, {channels} channels, {name}"
            yield bench.compared(
                case, lambda: lambda: ours.synthesise(ours.analyse(cells)), there_and_back, precision=name
            )


def peer_transform(bench: Bench, lmax: int):
    if not PEER:
        return None
    from torch_harmonics import InverseRealSHT, RealSHT

    options = {"lmax": lmax, "mmax": lmax, "grid": "legendre-gauss"}
    return [kind(*bench.shape, **options).float().to(bench.device) for kind in (RealSHT, InverseRealSHT)]


def described(bench: Bench) -> str:
    return "{} x {}".format(*bench.shape)


def training(network: nn.Module, x: torch.Tensor, half: bool) -> Work:
    fused = not any(p.is_complex() for p in network.parameters())  # torch has no fused kernel for those
    optimizer = torch.optim.AdamW(network.parameters(), fused=fused)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            loss = network(x).float().square().mean()
        loss.backward()
        optimizer.step()

    return step


def forecasting(network: nn.Module, x: torch.Tensor, half: bool) -> Work:
    network.eval()

    def step():
        with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            return network(x)

    return step


STEPS = {"training step": training, "rollout step": forecasting}


def sfno(bench: Bench, name: str, compiled: bool) -> Iterator[dict]:
    half, sizes = name == "bfloat16", bench.sizes
    options = SFNOOptions(sizes["embed"], sizes["blocks"], **PUBLISHED, **(HALF if half else {}))

    def ours():
        return SFNO(sizes["channels"], sizes["channels"], *bench.shape, options=options)

    case = f"SFNO, {{}}, {described(bench)}, embed {sizes['embed']}, {sizes['blocks']} blocks, {name}"
    peer = functools.partial(peer_sfno, bench) if PEER else None
    yield from steps(bench, case, (ours, peer), (name, compiled))


def peer_sfno(bench: Bench) -> nn.Module:
    from emulator.networks.torch_harmonics import TorchHarmonicsOptions, TorchHarmonicsSFNO

    options = TorchHarmonicsOptions(bench.sizes["embed"], bench.sizes["blocks"])
    network = TorchHarmonicsSFNO(bench.sizes["channels"], bench.sizes["channels"], *bench.shape, options=options)
    for part in network.modules():
        if type(part).__name__ in ("RealSHT", "InverseRealSHT"):
            part.forward = functools.partial(exact, part.forward, bench.device.type)
    return network


def exact(forward, device: str, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast(device, enabled=False):
        return forward(x if x.is_complex() else x.float())


def graph(bench: Bench, name: str, compiled: bool) -> Iterator[dict]:
    sizes, edges = bench.sizes, edges_of(bench.sizes["nlat"], bench.sizes["refinement"])
    half = "bfloat16" if name == "bfloat16" else "float32"
    options = GraphOptions(width=sizes["width"], rounds=sizes["rounds"], precision=half)

    def ours():
        return GraphNetwork(sizes["channels"], sizes["channels"], edges, options)

    case = f"graph, {{}}, {described(bench)}, {len(edges.nodes)} nodes, width {sizes['width']}, {name}"
    yield from steps(bench, case, (ours, None), (name, compiled))


@functools.cache
def edges_of(nlat: int, refinement: int):
    return graph_of(Grid.gaussian(nlat), MeshOptions(refinement))


def steps(bench: Bench, case: str, makers, how: tuple[str, bool]) -> Iterator[dict]:
    """Both steps of a network and, where there is one, of its peer."""
    (ours, peer), (name, compiled), x = makers, how, bench.fields()
    count = products(ours().to(bench.device), bench.sizes["channels"], bench.shape)
    half = name == "bfloat16"
    for what, work in STEPS.items():

        def made(maker, autocast, work=work):
            return lambda: work(ready(bench, maker(), compiled), x, autocast)

        # a forward pass is a third of the operations of one with gradients
        about = {"precision": name, "compiled": compiled, "count": count if work is training else count // 3}
        yield bench.compared(case.format(what), made(ours, False), peer and made(peer, half), **about)


def ready(bench: Bench, network: nn.Module, compiled: bool) -> nn.Module:
    network = network.to(bench.device)
    if compiled:
        torch._dynamo.reset()
        network.compile(backend=bench.backend)
    return network


def forecasts(bench: Bench) -> Iterator[dict]:
    """A whole step with closed budgets; `peer` is the step without them, then the same without copies to the host."""
    grid = Grid.gaussian(bench.sizes["nlat"])
    step, state = conservation.make_step(grid)
    atmosphere = Atmosphere(
        torch.as_tensor(grid.area), Levels.sigma(conservation.SIGMA), ERA5, torch.zeros(grid.shape), 21600.0
    )
    variances = {name: values[3] ** 2 for name, values in conservation.PROGNOSTIC.items()}
    variances |= {name: std**2 for name, (_, std) in conservation.DIAGNOSTIC.items()}
    step, state = step.to(bench.device).eval(), state.to(bench.device)
    nothing = torch.zeros(1, 0, *grid.shape, device=bench.device)
    plain, copies = Step.without_scheme(step), HostCopies(bench.device)

    def rolled(model, copied=False):
        anchor, arriving = model.anchor(state), []

        def work():
            with torch.no_grad():
                result = model(state, nothing, nothing, anchor)
            if copied:
                arriving.append(copies.begin([result.state, result.diagnostic]))
                if len(arriving) > 1:
                    arriving.pop(0).arrive()

        return lambda: work

    for kind in ("sequential", "projection"):
        step.scheme = build(
            SchemeOptions(kind=kind), atmosphere, (*conservation.PROGNOSTIC, *conservation.DIAGNOSTIC), variances
        )
        yield bench.compared(f"forecast step, {described(bench)}, {kind}", rolled(step), rolled(plain))
    yield bench.compared(f"forecast step and copies, {described(bench)}", rolled(step, True), rolled(step))


def rows(arguments) -> Iterator[dict]:
    bench = Bench(arguments)
    yield from machine_rates(bench)
    yield from transforms(bench)
    cases = [(network, name, False) for name in reversed(PRECISIONS) for network in (sfno, graph)]
    cases += [(network, name, True) for name in ("bfloat16", "float32") for network in (sfno, graph)]
    yield from forecasts(bench)
    for network, name, compiled in cases:
        needed = COMPILING if compiled and bench.device.type == "cuda" else 0
        if bench.left() < needed:
            about = f"{network.__name__}, {name}{', compiled' * compiled}"
            yield {"case": about, "ours": None, "peer": None, "ratio": None, "unit": "s", "left_out": "no time left"}
            continue
        with precision(name):
            yield from network(bench, name, compiled)
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--small", action="store_true", help="sizes that a CPU can try")
    parser.add_argument("--seconds", type=float, default=270.0, help="after which no further case begins")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.set_defaults(device="cuda", json=True)
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit("Expected a GPU, torch finds none; --device cpu --small tries all cases without one")
    measure.prepare(arguments)
    measure.report(arguments, rows(arguments), device=arguments.device)


if __name__ == "__main__":
    sys.exit(main())
