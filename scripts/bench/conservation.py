"""What the conservation schemes add to a training step and to a rollout step of an SFNO: 64 x 128, 40 channels, CPU.

The same step is timed with and without its scheme, turn by turn, so that a busy machine slows both alike; medians.
`ratio` is the step without over the step with the scheme: 0.91 means 10 % added.
"""

import argparse
import json
import platform
import statistics
import time

import torch

import emulator
from emulator.conservation import Atmosphere, SchemeOptions, build, fluxes
from emulator.data.channels import Channels, Layout
from emulator.data.normalisation import Normalizer
from emulator.model.step import Step
from emulator.model.step_buffers import StepBuffers
from emulator.networks.sfno import SFNO, SFNOOptions
from emulator.planet.constants import ERA5
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels

SIGMA = (0, 0.05, 0.14, 0.26, 0.42, 0.60, 0.77, 0.90, 1)
LEVELS = len(SIGMA) - 1
PROGNOSTIC = {
    "temperature": (LEVELS, 250.0, 15.0, 1.0),
    "specific_humidity": (LEVELS, 3e-3, 1e-3, 3e-4),
    "u_component_of_wind": (LEVELS, 5.0, 10.0, 2.0),
    "v_component_of_wind": (LEVELS, 0.0, 10.0, 2.0),
    "surface_pressure": (0, 9.8e4, 2e3, 200.0),
}
DIAGNOSTIC = {
    fluxes.PRECIPITATION: (3e-5, 1e-5),
    fluxes.EVAPORATION: (-3e-5, 1e-5),
    "mean_top_net_short_wave_radiation_flux": (240.0, 50.0),
    "mean_top_net_long_wave_radiation_flux": (-235.0, 30.0),
    "mean_surface_net_short_wave_radiation_flux": (160.0, 40.0),
    "mean_surface_net_long_wave_radiation_flux": (-60.0, 20.0),
    "mean_surface_sensible_heat_flux": (-20.0, 10.0),
    fluxes.LATENT_HEAT: (-75.0, 20.0),
}


def make_step(grid: Grid) -> tuple[Step, torch.Tensor]:
    """An SFNO step in physical units around a plausible atmosphere, and a state to start from."""
    layout = Layout(
        Channels(tuple(PROGNOSTIC), tuple(count for count, *_ in PROGNOSTIC.values())),
        Channels(tuple(DIAGNOSTIC), (0,) * len(DIAGNOSTIC)),
        Channels((), ()),
        Channels((), ()),
    )
    channels = [values[1:] for values in PROGNOSTIC.values() for _ in range(max(1, values[0]))]
    mean, std, change = (torch.tensor(column) for column in zip(*channels, strict=True))
    blank = StepBuffers.blank(layout, grid.shape)
    shaped = (-1, 1, 1)
    buffers = StepBuffers(
        Normalizer(mean, std),
        Normalizer(*(torch.tensor(column) for column in zip(*DIAGNOSTIC.values(), strict=True))),
        blank.forcing,
        change.view(shaped),
        (mean - 10 * std).view(shaped),
        (mean + 10 * std).view(shaped),
        blank.damping,
        blank.resting,
        torch.zeros(40 - len(mean), *grid.shape),
    )
    predicted = layout.prognostic.count + layout.diagnostic.count
    network = SFNO(40, predicted, *grid.shape, options=SFNOOptions(embed_dim=64, blocks=4))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, len(mean), *grid.shape, generator=generator)
    state = mean.view(shaped) + std.view(shaped) * noise.clamp(-2, 2)
    return Step(network, layout, buffers), state


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def compare(plain, corrected, repeats: int) -> tuple[float, float, float]:
    """Median milliseconds without and with the scheme, and the median of the ratios of neighbours in time."""
    for _ in range(2):
        plain(), corrected()
    pairs = [(timed(plain), timed(corrected)) for _ in range(repeats)]
    without, with_ = zip(*pairs, strict=True)
    ratio = statistics.median(a / b for a, b in pairs)
    return statistics.median(without), statistics.median(with_), ratio


def cases(repeats: int):
    grid = Grid.gaussian(64)
    step, state = make_step(grid)
    atmosphere = Atmosphere(torch.as_tensor(grid.area), Levels.sigma(SIGMA), ERA5, torch.zeros(grid.shape), 21600.0)
    variances = {name: values[3] ** 2 for name, values in PROGNOSTIC.items()}
    variances |= {name: std**2 for name, (_, std) in DIAGNOSTIC.items()}
    optimizer = torch.optim.AdamW(step.parameters(), lr=0.0)
    nothing = torch.zeros(1, 0, *grid.shape)

    def train(model):
        result = model(state, nothing, nothing, model.anchor(state))
        loss = ((result.state - state) / step.change_std).square().mean() + result.diagnostic.square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def roll(model):
        with torch.no_grad():
            model(state, nothing, nothing, anchors[model])

    plain = Step.without_scheme(step)
    for kind in ("sequential", "projection"):
        step.scheme = build(SchemeOptions(kind=kind), atmosphere, (*PROGNOSTIC, *DIAGNOSTIC), variances)
        anchors = {step: step.anchor(state), plain: None}
        for name, run in (("training step", train), ("rollout step", roll)):
            without, with_, ratio = compare(lambda run=run: run(plain), lambda run=run: run(step), repeats)
            yield {
                "case": f"{kind}, {name}",
                "ours": round(with_, 2),
                "peer": round(without, 2),
                "ratio": round(ratio, 4),
                "unit": "ms",
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = {
        "machine": f"{platform.machine()}, {arguments.threads} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "emulator": getattr(emulator, "__version__", "unknown"),
    }
    if arguments.json:
        print(json.dumps(machine))
    else:
        print(", ".join(f"{key} {value}" for key, value in machine.items()))
    for result in cases(arguments.repeats):
        if arguments.json:
            print(json.dumps(result))
        else:
            print(
                f"{result['case']:28s} without {result['peer']:8.2f} ms   with {result['ours']:8.2f} ms   "
                f"adds {100 * (1 / result['ratio'] - 1):5.1f} %"
            )


if __name__ == "__main__":
    main()
