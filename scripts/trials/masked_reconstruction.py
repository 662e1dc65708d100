"""States of which a part is hidden, found by a network, by interpolation and by climatology.

    python scripts/trials/masked_reconstruction.py RUN OUTPUT [--updates 500]

RUN: a finished quickstart. Trains a U-Net on its training period to find the hidden cells of all prognostic variables (shares
of 25 to 90 %, patches of 2 x 2 cells), and prints root-mean-square errors at hidden cells of later times, in units of the
spread about the time mean, of all variables together. `interpolation`: means of the eight nearest known cells by the inverse
of the squared distance, `nearest`: the nearest one, both of departures from `climatology`: the training period's mean at
a time's hour within 30 days of its day of the year.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import emulator as em
from emulator.data.samples import Samples
from emulator.model import checkpoint
from emulator.store.analysis import open_analysis
from emulator.training.masks import masked
from emulator.training.options.phases import MaskOptions

MASKS = {"patch": 2, "window": 4, "lead": 0}
SHARES = (0.25, 0.5, 0.75, 0.9)
KINDS = ("local", "windows")
NEIGHBOURS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="directory with analysis.zarr, statistics.nc and train/checkpoint")
    parser.add_argument("output", type=Path)
    parser.add_argument("--end", default="2002-03-02", help="of the training's period")
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--times", type=int, default=16)
    options = parser.parse_args()
    config = checkpoint.describe(options.run / "train" / "checkpoint")["config"]
    step = em.train(
        options.run / "analysis.zarr",
        options.run / "statistics.nc",
        options.output,
        **{name: config[name] for name in ("prognostic", "forcing")},
        diagnostic=[],
        network={"kind": "unet", "width": options.width, "depth": 2},
        conservation={"kind": "none"},
        gaps="told",
        period={"end": options.end},
        optimizer={"lr": 4e-3, "warmup_steps": 40},
        phases=[{"updates": options.updates, "masks": {"share": 0.25, "share_to": 0.9, "kind": "mixed", **MASKS}}],
    ).eval()
    dataset = open_analysis(options.run / "analysis.zarr")
    seen = Samples(dataset, step.layout, end=options.end, cache_bytes=0)
    samples = Samples(dataset, step.layout, start=options.end, cache_bytes=0)
    starts = samples.starts(1)
    starts = starts[np.linspace(0, len(starts) - 1, options.times).astype(int)]
    whole, normal = samples.batch(starts, 1), climatology(seen, samples.times[starts + 1])
    for kind in KINDS:
        for share in SHARES:
            errors = errors_of(step, samples, whole, normal, MaskOptions(share, kind=kind, **MASKS))
            print(f"{kind:8} {share:.0%}", {name: round(error, 3) for name, error in errors.items()}, flush=True)


def climatology(seen: Samples, times: np.ndarray) -> torch.Tensor:
    """Means of the training period by hour and season of some times, every other day, `(time, channel, *space)`."""
    known, found = pd.DatetimeIndex(seen.times[:-1]), []
    for time in pd.DatetimeIndex(times):
        apart = np.abs((known.day_of_year - time.day_of_year + 182) % 365 - 182)
        near = np.flatnonzero((apart <= 30) & (apart % 2 == 0) & (known.hour == time.hour))
        found.append(seen.batch(near, 1).state[:, 0].mean(0))
    return torch.stack(found)


def errors_of(step: em.Step, samples: Samples, whole, normal: torch.Tensor, options: MaskOptions) -> dict[str, float]:
    """At hidden cells, of the network, of interpolation and of climatology, in units of the spread."""
    batch = masked(whole, options, samples, [(9, n, 0) for n in range(len(whole.state))])
    truth, known = batch.state[:, 1], ~batch.state[:, 0].isnan()
    given = next(batch.inputs())
    with torch.no_grad():
        found = step(batch.start(), given.forcing, given.clock).state
    departure = truth - normal
    guesses = {"network": found - normal, "climatology": torch.zeros_like(departure)}
    guesses |= {name: interpolated(departure, known[:, 0], samples.grid, n) for name, n in COUNTS.items()}
    errors = {name: ((guess - departure) / step.spread)[~known] for name, guess in guesses.items()}
    return {name: float(error.square().mean().sqrt()) for name, error in errors.items()}


COUNTS = {"interpolation": NEIGHBOURS, "nearest": 1}


def interpolated(fields: torch.Tensor, known: torch.Tensor, grid: em.Grid, count: int) -> torch.Tensor:
    """Means of the nearest known cells by the inverse of their squared distances, `(batch, channel, *space)`.

    `known`: `(batch, *space)`, of whose cells alone fields are read.
    """
    latitude, longitude = (np.radians(angle).ravel() for angle in grid.mesh())
    place = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)])
    place = torch.from_numpy(place.T)
    found = fields.clone()
    for row, there in zip(found, known.flatten(1), strict=True):
        chord, index = torch.cdist(place[~there], place[there]).topk(count, largest=False)
        weight = chord.square().reciprocal()
        weight = (weight / weight.sum(1, keepdim=True)).to(fields.dtype)
        flat = row.flatten(1)
        row.view(len(row), -1)[:, ~there] = (flat[:, there][:, index] * weight).sum(-1)
    return found


if __name__ == "__main__":
    main()
