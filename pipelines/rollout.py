"""Forecasts from many initial times, written as a Zarr store that other tools open."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from emulator.data.boundary import Boundary
from emulator.data.channels import Layout
from emulator.data.climatology import Climatology
from emulator.data.forcing import check_offsets
from emulator.exports.export import check_formats
from emulator.forecasting.driving import Forecasts, check_driving, driven
from emulator.forecasting.ensembles import check_ensemble
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.models import Models
from emulator.forecasting.nudging import NudgedBy, nudged_by
from emulator.forecasting.oceans import make_sea
from emulator.forecasting.options import (
    DiffusionOptions,
    DrivingOptions,
    EnsembleOptions,
    RestoringOptions,
    ThinOptions,
    ocean_options,
)
from emulator.forecasting.pressure import check_pressures
from emulator.forecasting.restoring import RestoredTo, restored_to
from emulator.forecasting.run import attributes_of, step_length
from emulator.forecasting.schedule import Schedule, count_steps
from emulator.forecasting.sea import Sea
from emulator.forecasting.together import together
from emulator.forecasting.writing import Output, silent, write
from emulator.kernels import freed_memory
from emulator.kernels.denormals import flushed
from emulator.model.assemble import make_network, network_of
from emulator.model.checkpoint import describe
from emulator.model.coupled import check_single_steps
from emulator.model.posterior import Posterior
from emulator.model.saved_model import check_match, load_model, with_gaps, with_step
from emulator.model.step import Step
from emulator.model.stepper import Stepper
from emulator.parallel.distributed import device_of, process_group, space_of, use
from emulator.parallel.processes import processes_of
from emulator.parallel.space import ALONE, Space
from emulator.planet.calendar import TimeStep
from emulator.sphere.random_fields import degrees_on
from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of
from pipelines.config import RolloutConfig
from pipelines.finish_rollout import finish_rollout
from pipelines.foreign_rollout import check_foreign, foreign_rollout
from pipelines.progress import progress
from pipelines.starts import starts_of


@flushed()
def rollout(config: RolloutConfig, part: tuple[int, int] | None = None) -> None:
    """Write the forecasts, those of the uncorrected network, and the long run, as far as the configuration asks.

    Each initial time is written once; a stopped stage goes on where it was, also inside a forecast, and ends with the same
    numbers. With `part` `(i, N)`, or as one of several processes that a launcher has started, only every N-th group of
    initial times is computed; whoever writes the last one finishes the store. With `parallel.space` so many processes hold
    every forecast together, each a band of latitudes, and count as one. Raises `ValueError` when a checkpoint does not match
    the store.
    """
    freed_memory.keep()
    processes = processes_of(os.environ)
    processes.divided(config.parallel.space)
    use(device := device_of(processes))
    alone = config.parallel.space == 1  # processes that each compute their own forecasts need not meet
    with contextlib.nullcontext() if alone else process_group(processes, device):
        space = space_of(processes, config.parallel.space, device)
        _rollout(config, part, device, space)


def _rollout(config: RolloutConfig, part: tuple[int, int] | None, device: torch.device, space: Space) -> None:
    data = processes_of(os.environ).divided(space.size)
    share, watched = part or (data.rank + 1, data.size), progress if space.rank == 0 else silent
    if config.model is not None:
        foreign_rollout(config, share, watched)
        return
    dataset, ensemble = open_analysis(config.store), ensemble_of(config)
    check_formats(config.also, dataset)
    models = _models(config, device, space).bounded(config.bounds)
    saved = getattr(models.first, "metadata", None)
    dataset = with_gaps(with_step(dataset, saved), saved)
    models.check(dataset, ensemble, config.store, checkpoints_of(config))
    length = step_length(models.first.layout, dataset, config.step_hours)
    models = models.diffused(config.diffusion and DiffusionOptions.of(config.diffusion.model_dump()), length)
    first = models.first
    step = TimeStep.of(dataset).times(length)
    steps = count_steps(step, config.lead_days, config.lead)
    inits = starts_of(config, length, first.layout.history).of(dataset, steps, str(config.store))
    thin, weights, drawn = ThinOptions.of(config.thin.model_dump()), models.weights(), models.drawn(ensemble)
    if config.vertical is not None:
        predicted = (*first.layout.prognostic.names, *first.layout.diagnostic.names)
        check_pressures(dataset, config.vertical.pressure, predicted, thin)

    if share[1] > 1 and config.boundary is not None and config.boundary.checkpoint is not None:
        raise ValueError(
            f"Expected one process with a global emulator at the boundary, got {share[1]}; roll that emulator out first and "
            "give its store as rollout.boundary.store"
        )
    boundary, nudged, told = boundary_of(config, models.stages(), dataset, Forecasts(inits, step, steps))
    asked, restored = restoring_of(config, models.stages(), dataset, length)

    def made(steppers: Sequence[Stepper], output: Path, ensemble=None, offsets: Mapping = config.offsets) -> Forecaster:
        sea = sea_of(config, steppers[0].at(1), dataset, length, ensemble, output)
        how = ensemble, length, config.climatology, sea, offsets, restored
        return Forecaster(steppers, dataset, config.batch_size, *how).driven_by(boundary, nudged)

    climates = {config.output: config.offsets}
    climates |= {store: config.scenarios[name].offsets for name, store in config.scenario_stores.items()}
    for store, offsets in climates.items():
        forecaster = made(drawn.steppers, store, ensemble, offsets)
        schedule = Schedule.of(forecaster.forcing, inits, steps, thin.every_hours, thin.mean)
        attributes = attributes_of(dataset, first, ensemble, length, offsets, asked) | told
        write(Output(store, attributes, drawn.weights(), thin, share), forecaster, inits, schedule, watched)
    if config.uncorrected_inits:
        uncorrected = Step.without_scheme(first)
        plain = made([uncorrected], config.uncorrected)
        count = min(config.uncorrected_inits, len(inits))
        some = [inits[i] for i in np.unique(np.linspace(0, len(inits) - 1, count).round().astype(int))]
        attributes = attributes_of(dataset, uncorrected, None, length, config.offsets, asked) | told
        output = Output(config.uncorrected, attributes, [weights[0][:1]], None, share)
        write(output, plain, some, Schedule.every(steps), watched)
    if config.long_run_days or config.long_run_lead:
        every = max(1, round(86400 / step.seconds))
        total = count_steps(step, config.long_run_days, config.long_run_lead)
        alone = made(models.steppers[:1], config.long_run)
        attributes = attributes_of(dataset, first, None, length, config.offsets, asked) | told
        output = Output(config.long_run, attributes, weights[:1], None, share)
        write(output, alone, inits[:1], Schedule.every(total, every), watched)
    if space.rank == 0:
        finish_rollout(config)


def _models(config: RolloutConfig, device: torch.device | str, space: Space = ALONE) -> Models:
    stages = [(stage.from_days, stage.checkpoint) for stage in config.cascade]
    return Models.load(config.checkpoint, stages, config.member_checkpoints, device, space)


def checkpoints_of(config: RolloutConfig) -> list[Path]:
    """All checkpoints: the first, those that take over from it, and those of other members."""
    return [config.checkpoint, *(stage.checkpoint for stage in config.cascade), *config.member_checkpoints]


def ensemble_of(config: RolloutConfig) -> EnsembleOptions | None:
    """The ensemble's options, if there is one."""
    return EnsembleOptions.of(config.ensemble.model_dump()) if config.ensemble else None


def sea_of(
    config: RolloutConfig,
    model: Stepper,
    dataset: xr.Dataset,
    length: int,
    ensemble: EnsembleOptions | None = None,
    output: Path | None = None,
) -> Sea | None:
    """The ocean that forecasts into `output` are coupled with, if there is one. Raises `ValueError` as `make_sea` does."""
    if config.ocean is None:
        return None
    if config.parallel.space > 1 and config.ocean.kind != "slab":
        raise ValueError(f"Expected rollout.parallel.space 1 with a network as the ocean, got {config.parallel.space}")
    return make_sea(ocean_options(config.ocean.model_dump()), model, dataset, length, ensemble, output)


def restoring_of(
    config: RolloutConfig, models: Sequence[Stepper], dataset: xr.Dataset, length: int
) -> tuple[RestoringOptions | None, RestoredTo | None]:
    """How surface fluxes answer, as it was asked for and made. Raises `ValueError` as `restored_to` does."""
    if config.restoring is None:
        return None, None
    if config.parallel.space > 1:
        raise ValueError(f"Expected rollout.parallel.space 1 with restoring, got {config.parallel.space}")
    asked = RestoringOptions.of(config.restoring.model_dump())
    return asked, restored_to(asked, models, dataset, length)


def boundary_of(
    config: RolloutConfig,
    models: Sequence[Stepper],
    dataset: xr.Dataset,
    forecasts: Forecasts,
    check_only: bool = False,
) -> tuple[Boundary | None, NudgedBy | None, dict]:
    """Driving data of a limited area, as far as the forecasts go, and what of them nudges states; see `driven`.

    Args:
      models: that take turns, those of cascades one by one. check_only: nothing is made for them.
    """
    model = models[0]
    asked = config.boundary and DrivingOptions.of(config.boundary.model_dump())
    if model.layout.border is not None and (config.long_run_days or config.long_run_lead):
        raise ValueError(
            "Expected no long run of a limited area with a boundary, whose driving data do not go on; set long_run_days: 0"
        )
    if check_only:
        boundary, told = check_driving(asked, model, grid_of(dataset), forecasts), {}
    else:
        boundary, told = driven(asked, model, grid_of(dataset), forecasts, config.output)
    return boundary, nudged_by(asked, models, boundary, forecasts.step.seconds, forecasts.inits[0]), told


def _check_weights(config: RolloutConfig) -> None:
    """Raises `ValueError` where the members' weights are of another checkpoint, or of several."""
    posterior = Posterior.load(config.ensemble.weights)
    if config.cascade or config.member_checkpoints:
        raise ValueError(
            "Expected one checkpoint, without a cascade or member_checkpoints, for ensemble.weights, got others"
        )
    if posterior.base != (own := describe(config.checkpoint)["sha256"]):
        raise ValueError(
            f"Expected ensemble.weights of the checkpoint {config.checkpoint} ({own[:12]}), got those of "
            f"{posterior.base[:12]}"
        )


def check(config: RolloutConfig, made: set[Path]) -> str:
    """How many forecasts it would make, in words. Raises `ValueError`."""
    if config.model is not None:
        return check_foreign(config)
    saved = describe(config.checkpoint)
    dataset = with_gaps(with_step(open_analysis(config.store), saved), saved)
    for path in checkpoints_of(config):
        saved = describe(path)
        check_match(saved, dataset, path, config.store)
        if made := saved.get("climatology"):
            place, channels = config.climatology or saved["config"]["climatology"], Layout.from_json(saved["layout"])
            Climatology(place, channels.prognostic, grid_of(dataset)).check_made(made)
    if config.parallel.space > 1:
        space = Space.imagined(config.parallel.space)
        for path in checkpoints_of(config):
            saved = describe(path)
            make_network(network_of(saved["config"]), Layout.from_json(saved["layout"]), grid_of(dataset), space)
    check_formats(config.also, dataset)
    models = _models(config, "cpu") if config.ensemble or config.cascade or config.diffusion or config.ocean else None
    if config.ensemble is not None and config.ensemble.weights is not None:
        _check_weights(config)
    if config.diffusion is not None:
        asked = DiffusionOptions.of(config.diffusion.model_dump())
        models.diffused(asked, 1)
    if config.ensemble is not None or config.cascade:
        models.check(dataset, ensemble_of(config), config.store, checkpoints_of(config))
        together(models.steppers, ensemble_of(config), config.batch_size)
    if config.ensemble is not None and config.ensemble.kind in ("noise", "bred"):
        degrees_on(grid_of(dataset))
    layout = Layout.from_json(describe(config.checkpoint)["layout"])
    if config.vertical is not None:
        predicted = (*layout.prognostic.names, *layout.diagnostic.names)
        check_pressures(dataset, config.vertical.pressure, predicted, ThinOptions.of(config.thin.model_dump()))
    length = step_length(layout, dataset, config.step_hours)
    check_ensemble(ensemble_of(config), layout, TimeStep.of(dataset).times(length))
    for offsets in (config.offsets, *(scenario.offsets for scenario in config.scenarios.values())):
        check_offsets(offsets, layout.forcing.names)
    steps = count_steps(TimeStep.of(dataset).times(length), config.lead_days, config.lead)
    if config.long_run_days or config.long_run_lead:
        count_steps(TimeStep.of(dataset).times(length), config.long_run_days, config.long_run_lead)
    inits = starts_of(config, length, layout.history).of(dataset, steps, str(config.store))
    if config.ocean is not None:
        check_single_steps(models.steppers)
        sea_of(config, models.first, dataset, length).check(inits)
    if config.restoring is not None:
        restoring_of(config, [load_model(path, "cpu") for path in checkpoints_of(config)], dataset, length)
    if layout.border is not None or config.boundary is not None:
        forecasts = Forecasts(inits, TimeStep.of(dataset).times(length), steps)
        stages = [load_model(path, "cpu") for path in checkpoints_of(config)]
        boundary_of(config, stages, dataset, forecasts, check_only=True)
    count = len(inits)
    return f"{count} forecasts of {config.lead or f'{config.lead_days:g} days'} into {config.output}"
