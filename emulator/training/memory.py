"""What a window of one sample takes of memory, found by running it on fields of zeros."""

from collections.abc import Callable

import torch
from torch import nn

from emulator.data.batch import Batch
from emulator.losses.options import members_of
from emulator.model.assemble import boundary_shape, make_step, network_of
from emulator.model.generative import noise_in_training
from emulator.model.noise import Seeds
from emulator.model.step_buffers import StepBuffers
from emulator.parallel.rates import most_held
from emulator.parallel.space import Space, band_of
from emulator.planet.grid import Grid
from emulator.planet.insolation import CLOCK_FEATURES
from emulator.training.options import TrainOptions
from emulator.training.window import StepLoss, Window, WindowOptions

TRIED = 8  # processes of which each is tried; of more some from the first to the last


def most_of_processes(held: Callable[[Space], int], size: int) -> int:
    """The most that one of `size` processes holds of a state that they hold together, as `held` finds it for one of them.

    Bands, the rows around them and whole windows are not of one size: who has most is seen by trying them.
    """
    tried = {n * (size - 1) // (min(size, TRIED) - 1) for n in range(min(size, TRIED))} if size > 1 else {0}
    return max(held(Space.imagined(size, rank)) for rank in sorted(tried))


def window_bytes(options: TrainOptions, layout, grid: Grid, error_of: Callable[[Space], nn.Module]) -> int:
    """Bytes that a window of one step and one forecast takes at most, forward and backward.

    Without weights and their gradients, and without conservation, whose corrections keep little. Where several processes hold
    a state together, of the one that takes most.

    Args:
      grid: of whole fields. error_of: the loss of a step, of a process's rows.
    """
    return most_of_processes(
        lambda space: _of_process(options, layout, grid, error_of(space), space), options.parallel.space
    )


def _of_process(options, layout, grid, error, space) -> int:
    blank = StepBuffers.blank(layout, grid.shape, options.predict)
    step = make_step(network_of(vars(options)), layout, grid, blank, None, options.predict, space)
    rows, band = members_of(options.loss), band_of(grid, space)
    step.rows = options.checkpoint_rows
    shape = grid.shape if band is None else (band.stop - band.start, *grid.shape[1:])

    def zeros(times: int, channels: int) -> torch.Tensor:
        return torch.zeros(rows, times, channels, *shape)

    prognostic = layout.prognostic.count
    batch = Batch(
        zeros(layout.history + step.horizon, prognostic),
        zeros(step.horizon, layout.diagnostic.count),
        zeros(step.horizon, layout.given.count),
        zeros(step.horizon, len(CLOCK_FEATURES)),
        _noise(step, zeros),
        torch.full((rows, 1), float(layout.lengths[0]), dtype=torch.float64) if layout.lengths != (1,) else None,
        zeros(1, prognostic) if step.prediction.reference else None,
        None if (outside := boundary_shape(layout, grid)) is None else torch.zeros(rows, 1, *outside),
    )
    for parameter in filter(lambda parameter: parameter.requires_grad, step.parameters()):
        parameter.grad = torch.zeros_like(parameter)  # there already: of the weights, whatever the batch
    window = Window(step, StepLoss(error))
    return (
        most_held(lambda: window(batch, WindowOptions(precision=options.precision, members=rows))[0].backward()) // rows
    )


def _noise(step, zeros: Callable[[int, int], torch.Tensor]) -> torch.Tensor | None:
    noise = noise_in_training(step)
    if isinstance(noise, Seeds):
        return zeros(step.horizon, noise.numbers)[..., 0, 0].long()
    return zeros(1, noise.count) if noise else None
