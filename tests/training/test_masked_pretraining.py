"""What masked pretraining is for: hidden cells are found better than by climatology or by the nearest known ones."""

import dataclasses

import numpy as np
import pytest
import torch
from small_planet import numpy_statistics, small_planet
from small_store import FREE
from small_training import CONFIG, RECIPE, buffers_of, loss_of, samples_of

from emulator.model.assemble import make_step
from emulator.training.masks import masked
from emulator.training.options.phases import MaskOptions, Phase
from emulator.training.trainer import Trainer

NETWORK = {"kind": "unet", "width": 16, "depth": 2}
TOLD = dataclasses.replace(
    CONFIG,
    prognostic=("v_component_of_wind", "surface_pressure"),
    diagnostic=(),
    network=NETWORK,
    conservation=FREE,
    gaps="told",
)
SHARES = (0.25, 0.5, 0.75, 0.9)


def nearest(state, known, mesh):
    """Every cell's value where it is known, else that of the nearest cell where it is, `(batch, channel, *space)`."""
    latitude, longitude = (np.radians(part).ravel() for part in mesh)
    place = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)])
    near = torch.from_numpy(place.T @ place)
    found = state.clone()
    for row in range(len(state)):
        there = known[row].flatten()
        index = near[:, there].argmax(1)
        flat = state[row].flatten(1)[:, there][:, index]
        found[row] = torch.where(known[row], state[row], flat.view_as(state[row]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "windows"])
def test_hidden_cells_are_found_better_than_by_climatology_and_by_the_nearest(tmp_path, kind):
    """Errors at hidden cells of later times, in units of the spread about the time mean."""
    planet = small_planet(1100)
    learnt, later = planet.isel(time=slice(0, 1000)), planet.isel(time=slice(1000, None))
    statistics, samples = numpy_statistics(learnt), samples_of(learnt, TOLD)
    torch.manual_seed(0)
    step = make_step(NETWORK, samples.layout, samples.grid, buffers_of(samples, statistics, TOLD), None)
    options = MaskOptions(0.25, 0.9, kind, patch=2, window=2, lead=0)
    recipe = dataclasses.replace(RECIPE, phases=(Phase(1000, 1, 4, masks=options),), lr=4e-3, save_every=2000)
    Trainer(step, loss_of(samples, statistics, TOLD), samples, recipe, tmp_path, "masked").run()

    held, errors = samples_of(later, TOLD), []
    whole = held.batch(held.starts(1)[::5], 1)
    for share in SHARES:
        hiding = dataclasses.replace(options, share=share, share_to=None)
        batch = masked(whole, hiding, held, [(9, n, 0) for n in range(len(whole.state))])
        truth, known = batch.state[:, 1], ~batch.state[:, 0].isnan()
        given = next(batch.inputs())
        with torch.no_grad():
            found = step(batch.start(), given.forcing, given.clock).state
        anomaly = nearest((truth - step.resting), known[:, 0], held.grid.mesh())
        guesses = {"network": found, "nearest": step.resting + anomaly, "climatology": step.resting}
        errors.append(
            {
                name: float((((guess - truth) / step.spread)[~known]).square().mean().sqrt())
                for name, guess in guesses.items()
            }
        )
        print(kind, share, {name: round(value, 3) for name, value in errors[-1].items()})
    at_half = errors[SHARES.index(0.5)]
    assert at_half["network"] < 0.9 * at_half["nearest"] and at_half["network"] < 0.6 * at_half["climatology"]
    ours = [each["network"] for each in errors]
    assert ours == sorted(ours) and ours[-1] > 1.2 * ours[0]
