"""A downscaling network trained on pairs, by the trainer of forecasts: stores opened, scales measured, checkpoint saved."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from emulator.data.channels import Channels, Layout
from emulator.downscaling.downscaler import Downscaler, Scales, make_downscaler
from emulator.downscaling.mean import about_mean, find_mean, held_mean
from emulator.downscaling.measuring import measured
from emulator.downscaling.noise import degrees_of
from emulator.downscaling.options import DOWNSCALING, PLACE, DownscalingOptions
from emulator.downscaling.pairs import PairBatch, Pairs
from emulator.downscaling.plan import Plan
from emulator.files.one_writer import one_writer
from emulator.kernels import freed_memory
from emulator.kernels.denormals import flushed
from emulator.losses.scaled import ScaledError, channel_weights
from emulator.model import checkpoint
from emulator.model.assemble import static_features
from emulator.model.saved_model import grid_to_json
from emulator.model.stepper import StepResult
from emulator.options import as_before
from emulator.parallel.distributed import device_of, process_group, wait_for_all
from emulator.parallel.processes import processes_of
from emulator.planet.grid import Grid
from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of
from emulator.training.recipe import Recipe
from emulator.training.run import StageHooks
from emulator.training.trainer import Placement, Trainer
from emulator.training.window import StepLoss, WindowOptions

log = logging.getLogger(__name__)
NOT_IDENTITY = {"fine", "coarse", "output", "save_every", "save_minutes", "keep", "log_every", "overwrite"}
NOT_IDENTITY |= {"cache_gigabytes", "loader_threads", "mean"}
ALONE = StageHooks()  # a notebook's: nothing surrounds the training


def train_downscaling(fine, coarse, output, **options) -> Downscaler:
    """Train a downscaling network on two analysis stores, or go on with a training that was stopped; the trained network.

    Args:
      fine, coarse: stores of the same weather, at the same times or the fine one at several within a step of the coarse one.
      output: folder that receives `checkpoint/` and logs.
      options: of `emulator.downscaling.options.DownscalingOptions`.

    Raises `ValueError` for options or stores that do not go together, and `Diverged` where the loss is no longer finite.
    """
    from emulator.downscaling.saved import load_downscaler

    training = DownscalingTraining(DownscalingOptions.of({"fine": fine, "coarse": coarse, "output": output} | options))
    training.run()
    return load_downscaler(Path(output) / "checkpoint")


class PairWindow(nn.Module):
    """The loss of a batch of pairs, in the place of `emulator.training.window.Window`."""

    def __init__(self, step: Downscaler, loss: StepLoss):
        super().__init__()
        self.step, self.loss = step, loss

    def forward(self, batch: PairBatch, options: WindowOptions) -> tuple[Tensor, StepResult]:
        """The loss, a scalar, and the fine fields as the diagnostics of a step."""
        given, clock, truth = batch.forcing[:, 0], batch.clock[:, 0], batch.diagnostic[:, 0]
        step, none = self.step, truth[:, :0]
        guess, seen = step.centre(given, clock, batch.coarse)
        with torch.autocast(given.device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
            if step.generative is not None:
                target = ((truth.unflatten(1, guess.shape[1:3]) - guess) / step.residual_std).flatten(1, 2).float()
                level = torch.rand(len(target), device=target.device)
                noise = step.drawn(len(target), None, target.device)
                weights = self.loss.error.weights
                errors = step.generative.error(step.network, target, seen, level, noise, weights=weights)
                return errors.mean(), StepResult(none, truth, {})
            added = step.network(seen)
        fine = step.finished(added, guess, batch.coarse).flatten(1, 2).float()
        return self.loss.error(none, fine, none, truth), StepResult(none, fine, {})


class DownscalingTraining:
    """A training that is put together and then run.

    Args:
      options: what is trained on what, and how. hooks: as of a training of forecasts.
    """

    def __init__(self, options: DownscalingOptions, hooks: StageHooks = ALONE):
        self.options, self.hooks = options, hooks
        self.processes = hooks.processes or processes_of(os.environ)
        self.device = device_of(self.processes)

    @flushed()
    def run(self) -> None:
        """Train and write `output/checkpoint`; the first of several processes writes.

        Raises `Interrupted` after saving when asked to stop, `Diverged`, and `Busy` where another process trains there.
        """
        freed_memory.keep()
        with process_group(self.processes, self.device):
            self._run()

    def _run(self) -> None:
        options, first, output = self.options, self.processes.rank == 0, Path(self.options.output)
        fine, coarse, plan = self._opened()
        if why := self._left_alone(fine, coarse):
            log.info("%s is complete, %s", output / "checkpoint", why)
            return
        identity, pairs = self.identity(fine, coarse), self._pairs(fine, coarse, plan)
        step = self._step(fine, pairs, plan).to(self.device)
        parameters = sum(p.numel() for p in step.network.parameters())
        log.info("%s with %d parameters, %d pairs", options.network["kind"], parameters, len(pairs))
        loss = StepLoss(_error(step, options.variable_weights)).to(self.device)
        placement = Placement(self.processes)
        recipe = Recipe.of(options)
        trainer = Trainer(step, loss, pairs, recipe, output, identity, placement=placement, window=PairWindow)
        with one_writer(output) if first else contextlib.nullcontext():
            reporting = self.hooks.reporting if first else StageHooks().reporting
            with self.hooks.stopping() as asked, reporting(identity, recipe.updates) as report:
                trainer.run(report, asked)
            tensors = trainer.tensors()
            if first:
                about = self._about(fine, coarse, pairs, step.mean) | {"identity": identity, "update": trainer.update}
                checkpoint.save(output / "checkpoint", tensors | _places(fine), about)
        wait_for_all()

    @property
    def _config(self) -> dict:
        return {n: getattr(self.options, n) for n in ("network", "kind", "objective")}

    def describe(self) -> str:
        """One line: the network, its fields and how long it trains. Raises `ValueError` as `run` does."""
        fine, coarse, plan = self._opened()
        if why := self._left_alone(fine, coarse):
            return f"complete in {Path(self.options.output) / 'checkpoint'}, {why}"
        pairs = self._pairs(fine, coarse, plan, cache=0)
        scales = Scales.blank(plan, len(_static(fine)), pairs.grid)
        step = make_downscaler(self._config, plan, pairs.grid, pairs.coarse.grid, scales, self._mean(pairs))
        parameters = sum(p.numel() for p in step.network.parameters())
        within = f", {plan.steps} steps of each" if plan.steps > 1 else ""
        within += f" about the mean of {self.options.mean}" if step.mean is not None else ""
        return (
            f"{self.options.network['kind']} with {parameters:,} parameters, {plan.targets.count} channels from "
            f"{pairs.coarse.grid.describe()} to {pairs.grid.describe()}{within}; {self.options.updates} updates on "
            f"{len(pairs)} pairs"
        )

    def identity(self, fine: xr.Dataset, coarse: xr.Dataset, degrees: int | None = None) -> str:
        """Hash of all that decides the weights, wherever it lies. Raises `CheckpointError` where the mean is nowhere.

        `degrees`: of the noise's spectra; None: those of this version.
        """
        values = {n: v for n, v in as_before(self.options).items() if n not in NOT_IDENTITY}
        marks = [str(store.attrs.get("fingerprint")) for store in (fine, coarse)]
        if self.options.mean is not None:
            about = self._held_mean() or checkpoint.describe(self.options.mean)
            marks.append(f"mean {about['sha256']}")
        if degrees := self._degrees(grid_of(fine)) if degrees is None else degrees:
            marks.append(f"noise of {degrees} degrees")
        text = json.dumps(values, sort_keys=True, default=str)
        return hashlib.sha256("\n".join([text, *marks]).encode()).hexdigest()[:16]

    def _held_mean(self) -> dict | None:
        """What the finished checkpoint says of its mean, where that is gone from its own place."""
        if self.options.mean is None or self.options.overwrite or self.options.mean.exists():
            return None
        return held_mean(self.options.output)

    def _opened(self) -> tuple[xr.Dataset, xr.Dataset, Plan]:
        fine, coarse = (open_analysis(path) for path in (self.options.fine, self.options.coarse))
        return fine, coarse, Plan.of(fine, coarse, self.options.targets, self.options.inputs)

    def _left_alone(self, fine: xr.Dataset, coarse: xr.Dataset) -> str:
        """Why a finished checkpoint cannot be made anew, and is let be; "" where there is none, or where it can.

        Raises `ValueError` where one of another training would be replaced.
        """
        path = Path(self.options.output) / "checkpoint"
        if self.options.overwrite or not path.exists():
            return ""
        told = checkpoint.describe(path)
        degrees = told.get("degrees", 0)  # of earlier versions none: white noise
        if told.get("identity") != self.identity(fine, coarse, degrees):
            raise ValueError(
                f"Expected another output of the training, or overwrite=true, since the finished one in {path} has other "
                "settings or data"
            )
        if degrees != self._degrees(grid_of(fine)):
            return (
                "from a version whose samples begin as white noise (overwrite=true trains with noise of their spectra)"
            )
        return f"and holds the mean that is no longer at {self.options.mean}" if self._held_mean() else ""

    def _pairs(self, fine, coarse, plan: Plan, cache: float | None = None) -> Pairs:
        options, size = self.options, self.options.cache_gigabytes if cache is None else cache
        period = options.period.start, options.period.end
        return Pairs(
            fine, coarse, plan, period, (options.fine, options.coarse), int(size * 1e9), options.loader_threads
        )

    def _step(self, fine: xr.Dataset, pairs: Pairs, plan: Plan) -> Downscaler:
        mean = self._mean(pairs)
        how = self.options.scale_samples, self._degrees(pairs.grid)
        scales = measured(pairs, _static(fine), *how, mean=mean, device=self.device)
        torch.manual_seed(self.options.seed)
        return make_downscaler(self._config, plan, pairs.grid, pairs.coarse.grid, scales, mean)

    def _degrees(self, grid: Grid) -> int:
        """Of the spectra of the noise that samples begin as; 0 where it is white, or nothing is sampled."""
        return degrees_of(grid) if self.options.kind == "generative" else 0

    def _mean(self, pairs: Pairs) -> Downscaler | None:
        """The network of the mean, where samples are drawn about one."""
        path = self.options.mean
        return None if path is None else find_mean(path, pairs.plan, pairs.grid, pairs.coarse.grid)

    def _about(self, fine, coarse, pairs: Pairs, mean: Downscaler | None) -> dict:
        config = self.hooks.config or json.loads(json.dumps(dataclasses.asdict(self.options), default=str))
        times = pairs.times[pairs.some_starts() + 1]
        return {
            "schema": DOWNSCALING,
            "config": dict(config),
            "plan": pairs.plan.to_json(),
            "grid": grid_to_json(pairs.grid),
            "coarse_grid": grid_to_json(pairs.coarse.grid),
            "period": [str(times.min()), str(times.max())],
            "store": {key: fine.attrs.get(key) for key in ("fingerprint", "source")},
            "coarse_store": {key: coarse.attrs.get(key) for key in ("fingerprint", "source")},
            "static_features": len(_static(fine)),
            "degrees": self._degrees(pairs.grid),
            **({} if mean is None else {"mean": about_mean(mean)}),
            "places": {name: _text(fine[name].attrs) for name in _fixed(fine)},
            "provenance": dict(self.hooks.provenance),
        }


def _static(fine: xr.Dataset) -> Tensor:
    layout = Layout.of(fine)
    return static_features(fine, dataclasses.replace(layout, masks=0), grid_of(fine))


def _fixed(fine: xr.Dataset) -> tuple[str, ...]:
    """Fields of the fine grid that do not change, without levels."""
    static = Layout.of(fine).static
    return tuple(name for name, levels in zip(static.names, static.levels, strict=True) if not levels)


def _places(fine: xr.Dataset) -> dict[str, Tensor]:
    return {f"{PLACE}{name}": torch.from_numpy(fine[name].values.astype(np.float32)) for name in _fixed(fine)}


def _text(attributes) -> dict[str, str]:
    return {key: value for key, value in attributes.items() if isinstance(value, str)}


def _error(step: Downscaler, by_variable: dict[str, float]) -> ScaledError:
    """The squared error in units of the residual's spread, so that what the residual is of (`Scales`) scores 1.

    `weights` of it are those of the generative objectives' errors, `(made channel, *fine)` of mean 1.
    """
    plan, none = step.plan, torch.zeros(0)
    targets = Layout(
        prognostic=Channels((), ()), diagnostic=plan.targets, forcing=Channels((), ()), static=Channels((), ())
    )
    weights = channel_weights(targets, by_variable, 1.0)[1].repeat(plan.steps)
    area = torch.as_tensor(step.grid.area)
    error = ScaledError(area, none, step.residual_std.flatten(), none, weights)
    return error
