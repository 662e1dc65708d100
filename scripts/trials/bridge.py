"""A stochastic interpolant as a bridge of one field from a time to six hours later: are its spectra those of the truth?

    python scripts/trials/bridge.py runs/quickstart/analysis.zarr --updates 800

trains a small SFNO by `emulator.generative.objectives.Interpolant` on the temperature of one level over a year, with noise of
the spectrum of the change, draws samples at times of the weeks after, and prints the power of samples and of their changes
over the truth's by total wavenumber.
"""

import argparse
import time

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulator.generative.objectives import Interpolant
from emulator.networks import registry
from emulator.networks.conditions import NOISE_TIME, noise_time
from emulator.planet.grid import Grid
from emulator.sphere.random_fields import SphericalNoise, degrees_on
from emulator.verify.metrics.spectra import power_spectrum, relative_power

YEAR = 1460  # steps of six hours
NETWORK = {
    "kind": "sfno", "embed_dim": 32, "blocks": 3, "scale_factor": 1.5, "stencil": 3, "mlp_ratio": 1, "encoder_layers": 0,
    "position": "learned", "pre_norm": "branch", "zero_output": True, "condition": [NOISE_TIME],
}  # fmt: skip


class Field:
    """Pairs of a field and its change over a step, normalised, `(row, 1, nlat, nlon)`."""

    def __init__(self, store: str, level: float):
        dataset = xr.open_zarr(store)
        field = dataset["temperature"].sel(level=level, method="nearest")
        self.level, self.values = float(field["level"]), torch.from_numpy(field.values.astype(np.float32))
        self.grid = Grid.from_coordinates(dataset["latitude"].values, dataset["longitude"].values)
        train = self.values[: YEAR + 1]
        self.mean, self.std = train.mean(0), train.std()
        self.size = train.diff(dim=0).std()

    def pairs(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        now, then = self.values[rows], self.values[rows + 1]
        return ((now - self.mean) / self.std)[:, None], ((then - now) / self.size)[:, None]


def trained(field: Field, noise: SphericalNoise, made: Interpolant, updates: int, batch: int) -> torch.nn.Module:
    torch.manual_seed(0)
    network = registry.build(NETWORK, 2, 1, field.grid)
    optimizer = torch.optim.AdamW(network.parameters(), lr=8e-3, weight_decay=0.1, betas=(0.9, 0.95))
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, updates, pct_start=0.1)
    generator, begun = np.random.default_rng(1), time.process_time()
    for update in range(updates):
        given, target = field.pairs(generator.integers(0, YEAR, batch))
        level = torch.from_numpy(generator.random(batch, np.float32))
        loss = made.error(told(network), target, given, level, noise.draw(generator, batch)[:, None]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if update % 50 == 49:
            print(
                f"update {update + 1}: loss {float(loss.detach()):.3f}, {time.process_time() - begun:.0f} s", flush=True
            )
    return network.eval()


def told(network: torch.nn.Module):
    return lambda noisy, at, given: network(torch.cat([given, noisy], 1), condition=noise_time(at))


@torch.no_grad()
def sampled(field: Field, noise: SphericalNoise, made: Interpolant, network, rows: np.ndarray) -> np.ndarray:
    """Changes over the step after some times, `(row, nlat, nlon)`, K."""
    generator, given = np.random.default_rng(2), field.pairs(rows)[0]
    drawn = noise.draw(generator, made.draws() * len(rows)).unflatten(0, (made.draws(), len(rows)))[:, :, None]
    return (made.integrate(told(network), drawn, given)[:, 0] * field.size).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store")
    parser.add_argument("--updates", type=int, default=800)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--level", type=float, default=0.51, help="as the store has it")
    parser.add_argument("--steps", type=int, default=8, help="of the sampler")
    parser.add_argument("--noise-level", type=float, default=1.0)
    given = parser.parse_args()
    field, made = Field(given.store, given.level), Interpolant(steps=given.steps, noise_level=given.noise_level)

    def spectrum(values):
        return power_spectrum(np.asarray(values, np.float64), field.grid).mean(0)

    past = field.values[: YEAR + 1]
    noise = SphericalNoise(field.grid, spectrum(past.diff(dim=0)[::10])[: degrees_on(field.grid)])
    network = trained(field, noise, made, given.updates, given.batch)
    rows = np.arange(YEAR + 20, len(field.values) - 1, 4)
    change, now = sampled(field, noise, made, network, rows), field.values[rows].numpy()
    truth = field.values[rows + 1].numpy()

    error = np.sqrt(field.grid.mean((now + change - truth) ** 2).mean())
    still = np.sqrt(field.grid.mean((now - truth) ** 2).mean())
    print(f"{len(rows)} samples at {field.level:g}: error of one {error:.2f} K, of no change {still:.2f} K")
    for name, ours, theirs in (("states", now + change, truth), ("changes", change, truth - now)):
        ratio = relative_power(spectrum(ours), spectrum(theirs))[1:]
        ratio = ratio[np.isfinite(ratio)]
        off = 100 * np.abs(ratio - 1)
        print(f"power of {name} over the truth's, degrees 1 to {len(ratio)}: off by {off.max():.1f} % at most")
        print(" ".join(f"{each:.2f}" for each in ratio))


if __name__ == "__main__":
    main()
