"""What a window of one sample takes of memory, found by running it on fields of zeros."""

import torch
from torch import nn

from emulator.data.samples import Batch
from emulator.losses.options import members_of
from emulator.model.assemble import make_step
from emulator.model.step import StepBuffers
from emulator.parallel.rates import most_held
from emulator.planet.grid import Grid
from emulator.planet.insolation import CLOCK_FEATURES
from emulator.training.options import TrainOptions
from emulator.training.window import StepLoss, Window, WindowOptions


def window_bytes(options: TrainOptions, layout, grid: Grid, error: nn.Module) -> int:
    """Bytes that a window of one step and one forecast takes at most, forward and backward, besides the weights.

    Without conservation, whose corrections keep little.
    """
    blank = StepBuffers.blank(layout, grid.shape, options.predict)
    step = make_step(options.network, layout, grid, blank, None, options.predict)
    rows = members_of(options.loss)

    def zeros(times: int, channels: int) -> torch.Tensor:
        return torch.zeros(rows, times, channels, *grid.shape)

    prognostic = layout.prognostic.count
    batch = Batch(
        zeros(layout.history + 1, prognostic),
        zeros(1, layout.diagnostic.count),
        zeros(1, layout.given.count),
        zeros(1, len(CLOCK_FEATURES)),
        zeros(1, step.noise.count) if step.noise else None,
        torch.full((rows, 1), float(layout.lengths[0]), dtype=torch.float64) if layout.lengths != (1,) else None,
        zeros(1, prognostic) if step.prediction.reference else None,
    )
    window = Window(step, StepLoss(error))
    return most_held(lambda: window(batch, WindowOptions(precision=options.precision))[0].backward()) // rows
