"""Distributions of weights that a training leaves beside its checkpoint: SWAG of its states, Laplace of its last layer."""

import copy
import logging
from pathlib import Path

import torch
from torch import Tensor

from emulator.data.samples import Samples
from emulator.model import checkpoint
from emulator.model.posterior import Posterior
from emulator.model.step import Step
from emulator.training.options import TrainOptions
from emulator.training.options.sections import ParallelOptions, PosteriorOptions

log = logging.getLogger(__name__)
MEASURED = 4  # samples that the size of a channel's error is measured by


def swag(states: list[Path], names: list[str], rank: int, base: str) -> Posterior:
    """Of the weights in a training's states, oldest first: mean, variances, and the deviations of the last `rank`.

    Raises `ValueError` for fewer than 3 states.
    """
    if len(states) < 3:
        raise ValueError(
            f"Expected 3 states of a training or more for train.posterior swag, got {len(states)}: train.keep and "
            "train.save_every say how many there are"
        )
    found = [checkpoint.load(path)[0] for path in states]
    tensors = {}
    for name in names:
        weights = torch.stack([tensor[f"step/network.{name}"] for tensor in found])
        mean = weights.mean(0)
        tensors[f"mean/{name}"] = mean
        tensors[f"variance/{name}"] = weights.var(0, unbiased=False)
        tensors[f"deviations/{name}"] = (weights - mean)[-rank:]
    return Posterior("swag", tensors, base)


def laplace(step: Step, samples: Samples, options: PosteriorOptions, base: str) -> Posterior:
    """Of one layer's weight `(out, in)`, of which every output of the network is a linear function of one row alone.

    With the features f of all cells, and errors of channel c that are independent from cell to cell with a variance v_c, the
    precision of row c is the sum of `f f^T / v_c`, plus that of the prior. The sum is estimated without knowing the features:
    the gradient of a sum of outputs with random signs is, row by row, a random vector of just this covariance.
    """
    weights = dict(step.network.named_parameters())
    if weights.get(options.layer) is None or weights[options.layer].ndim != 2:
        fitting = [name for name, weight in weights.items() if weight.ndim == 2]
        raise ValueError(f"Expected posterior.layer among the matrices {', '.join(fitting)}, got {options.layer!r}")
    weight, generator = weights[options.layer], torch.Generator().manual_seed(0)
    starts = samples.some_starts(1, step.layout.lengths[0])
    starts = starts[torch.linspace(0, len(starts) - 1, options.samples).round().long().numpy()]
    variance = torch.stack([_squares(step, samples, start) for start in starts[:MEASURED]]).mean(0).clamp(min=1e-12)
    sign = variance.rsqrt().view(-1, *[1] * len(samples.grid.shape))
    rows, draws = torch.zeros(weight.shape[0], dtype=torch.float64), []
    for start in starts:
        output, _, _ = _outputs(step, samples, start)
        signs = torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1
        (drawn,) = torch.autograd.grad((output * signs * sign).sum(), weight)
        draws.append(drawn.double())
        rows += drawn.double().square().sum(1) / len(starts)
    live = rows > 0
    unit = torch.cat([drawn[live] / rows[live].sqrt()[:, None] for drawn in draws])
    values, axes = torch.linalg.eigh(unit.T @ unit / len(unit))  # of a covariance whose trace is 1, shared by all rows
    precision = len(samples.starts(1)) * rows[:, None] * values.clamp(min=0) + options.prior
    kept = {"mean": weight.detach(), "axes": axes.float(), "std": precision.rsqrt().float()}
    return Posterior("laplace", {f"{part}/{options.layer}": tensor for part, tensor in kept.items()}, base)


def _outputs(step: Step, samples: Samples, start) -> tuple[Tensor, Tensor, Tensor]:
    """What the network makes of a sample, with gradients, and the errors of state and diagnostics in its units."""
    batch, made = samples.batch([start], 1).to(step.device), []
    hook = step.network.register_forward_hook(lambda module, given, output: made.append(output))
    try:
        result = step(batch.start(), *next(iter(batch.inputs()))[:2], step.anchor(batch.start()))
    finally:
        hook.remove()
    state, diagnostic = batch.truth(0)
    scale = step.diagnostic_scale.std.view(1, -1, *[1] * (diagnostic.dim() - 2))
    change = torch.where(step.change_std > 0, step.change_std, torch.ones_like(step.change_std))
    return made[0], (result.state - state) / change, (result.diagnostic - diagnostic) / scale


@torch.no_grad()
def _squares(step: Step, samples: Samples, start) -> Tensor:
    """Mean square errors of a sample, area-weighted, in the network's units, `(channel,)`."""
    _, state, diagnostic = _outputs(step, samples, start)
    area = torch.as_tensor(samples.grid.area).to(state)
    return (torch.cat([state, diagnostic], 1)[0].square() * area).flatten(1).sum(1)


def write_posterior(options: PosteriorOptions, step: Step, samples: Samples, output: Path, states: list[Path]) -> None:
    """Write `output/posterior` for the checkpoint in `output`; `states`: of the training, oldest first."""
    base = checkpoint.describe(output / "checkpoint")["sha256"]
    if options.kind == "swag":
        trained = [name for name, parameter in step.network.named_parameters() if parameter.requires_grad]
        made = swag(states, trained, options.rank, base)
    else:
        written = copy.deepcopy(step)  # the averaged or best weights, not the last ones
        written.load_state_dict(checkpoint.load(output / "checkpoint")[0])
        made = laplace(written, samples, options, base)
    made.save(output / "posterior")
    count = sum(made.tensors[f"mean/{name}"].numel() for name in made.names())
    log.info("distribution of %d weights (%s) in %s", count, options.kind, output / "posterior")


def check_posterior(options: TrainOptions) -> None:
    """Raises `ValueError` for a distribution of weights that a training cannot leave."""
    asked = options.posterior
    if asked is None:
        return
    if options.parallel != ParallelOptions():
        raise ValueError(
            "Expected train.posterior in a training whose processes hold whole states and networks, got others"
        )
    if options.start is not None and options.start.lora is not None:
        raise ValueError("Expected a training without start.lora for train.posterior, got one")
    if asked.kind == "laplace" and (options.boundary is not None or options.objective != {"kind": "regression"}):
        raise ValueError("Expected no boundary and objective regression for posterior laplace, got others")
    if asked.kind == "swag" and options.keep < 3:
        raise ValueError(
            f"Expected train.keep of 3 or more, states of which posterior swag is made, got {options.keep}"
        )
    if asked.kind == "laplace" and (options.network.get("noise") or options.predict != "change" or options.steps):
        raise ValueError("Expected predict change, the store's own step and no noise for posterior laplace, got others")
