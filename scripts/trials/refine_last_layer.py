"""Refining the last spectral layer of a trained network alone, all else frozen (Spectral-Refiner, Cao et al. 2025).

    python scripts/trials/refine_last_layer.py runs/quickstart [--updates 360] [--power -1]

Trains the filter of the last block by the loss `spectral` (a Sobolev norm of the error of a step) on the training period,
and prints that loss, and the plain squared error, of held-out times before and after. The weights are the mean of those of
the second half of the updates.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from emulator.data.normalisation import open_statistics
from emulator.data.samples import Samples
from emulator.losses.build import Weighted
from emulator.losses.options import LossOptions
from emulator.model.saved_model import load_model
from emulator.store.analysis import open_analysis
from emulator.training.window import StepLoss, Window, WindowOptions

BATCH, HELD_OUT = 4, 24


def last_filter(network: torch.nn.Module) -> torch.nn.Parameter:
    """The weights of the last spectral layer."""
    return [parameter for name, parameter in network.named_parameters() if "filter" in name][-1]


def mean_loss(window: Window, samples: Samples, starts: np.ndarray) -> float:
    with torch.no_grad():
        parts = [
            window(samples.batch(some, 1), WindowOptions())[0] for some in np.array_split(starts, len(starts) // BATCH)
        ]
    return float(torch.stack(parts).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="directory with analysis.zarr, statistics.nc and train/checkpoint")
    parser.add_argument("--checkpoint", type=Path, help="another one than the run's")
    parser.add_argument("--end", default="2002-03-02", help="of the training's period")
    parser.add_argument("--updates", type=int, default=360)
    parser.add_argument("--lr", type=float, default=6e-3)
    parser.add_argument("--power", type=float, default=-1.0, help="of the loss: below 0 large scales count more")
    options = parser.parse_args()
    dataset, statistics = open_analysis(options.run / "analysis.zarr"), open_statistics(options.run / "statistics.nc")
    step = load_model(options.checkpoint or options.run / "train" / "checkpoint").train()
    seen, unseen = Samples(dataset, step.layout, end=options.end), Samples(dataset, step.layout, start=options.end)
    weighted = Weighted(seen, statistics, {})
    losses = {
        kind: Window(step, StepLoss(weighted.loss(LossOptions(kind=kind, power=options.power))))
        for kind in ("spectral", "mse")
    }
    starts = unseen.starts(1)
    held_out = starts[np.linspace(0, len(starts) - 1, HELD_OUT).astype(int)]

    def losses_now():
        return {kind: mean_loss(window.eval(), unseen, held_out) for kind, window in losses.items()}

    before, weight = losses_now(), last_filter(step.network)
    step.requires_grad_(False)
    weight.requires_grad_(True)
    optimizer = torch.optim.Adam([weight], options.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.updates)
    random = np.random.default_rng(0)
    mean, averaged = torch.zeros_like(weight), options.updates // 2
    for n in range(options.updates):
        batch = seen.batch(np.sort(random.choice(seen.starts(1), BATCH, replace=False)), 1)
        optimizer.zero_grad()
        losses["spectral"].train()(batch, WindowOptions())[0].backward()
        optimizer.step()
        schedule.step()
        if n >= options.updates - averaged:
            mean += weight.detach() / averaged
    with torch.no_grad():
        weight.copy_(mean)
    for kind, value in losses_now().items():
        print(f"{kind:9} {before[kind]:.4g} -> {value:.4g}  ({100 * (value / before[kind] - 1):+.1f} %)")
    share = weight.numel() / sum(p.numel() for p in step.network.parameters())
    print(f"{options.updates} updates of {weight.numel()} weights, {100 * share:.0f} % of the network")


if __name__ == "__main__":
    main()
