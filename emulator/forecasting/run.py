"""Forecasts with trained models from an analysis store: one call for a notebook, and what a batch stage is made of."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from emulator.forecasting.ensembles import EnsembleOptions
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.schedule import Schedule
from emulator.forecasting.writing import Output, Progress, ThinOptions, compact_json, in_memory, silent, write
from emulator.kernels import freed_memory
from emulator.model.saved_model import check_match, load_model
from emulator.model.step import Step
from emulator.model.stepper import Cascade, Stepper
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast


def forecast(
    model: Stepper | Sequence[Stepper] | str | os.PathLike,
    analysis: xr.Dataset | str | os.PathLike,
    init,
    days: float,
    *,
    ensemble: EnsembleOptions | Mapping | int | None = None,
    thin: ThinOptions | Mapping | None = None,
    output: str | os.PathLike | None = None,
    batch_size: int = 8,
) -> xr.Dataset:
    """Forecasts `(init_time, lead_time, [member,] level, latitude, longitude)` of `days` days.

    Args:
      model: what `emulator.load_model` gives, or the path of a checkpoint; several share the members of an ensemble.
      analysis: the analysis store, opened or its path, with the initial states and the forcing.
      init: initial time or times that the store has, as dates, text or datetime64.
      ensemble: options, or a number of members with the default ones.
      thin: what is kept of the forecasts.
      output: a store that is written, and opened; a stopped call goes on with it. None: in memory.
      batch_size: forecasts computed at a time.

    Raises `ValueError` for a model that does not fit the store, and for times that the store lacks.
    """
    freed_memory.keep()
    dataset = analysis if isinstance(analysis, xr.Dataset) else open_analysis(analysis)
    models = [model] if isinstance(model, Stepper | str | os.PathLike) else list(model)
    models = [load_model(one) if isinstance(one, str | os.PathLike) else one for one in models]
    for one in models:
        if metadata := getattr(one, "metadata", None):
            check_match(metadata, dataset, "the model", "the analysis")
    ensemble = EnsembleOptions(ensemble) if isinstance(ensemble, int) else ensemble
    ensemble = EnsembleOptions(**ensemble) if isinstance(ensemble, Mapping) else ensemble
    thin = ThinOptions(**thin) if isinstance(thin, Mapping) else thin
    forecaster = Forecaster(models, dataset, batch_size, ensemble)
    times = _times(dataset, init)
    steps = round(days * 86400 / forecaster.forcing.step_seconds)
    options = thin or ThinOptions()
    schedule = Schedule.of(forecaster.forcing, times, steps, options.every_hours, options.mean)
    attributes = attributes_of(dataset, models[0], ensemble)
    if output is None:
        return in_memory(forecaster, times, schedule, attributes, thin)
    weights = [getattr(one, "metadata", {}).get("sha256") for one in models]
    write(Output(Path(output), attributes, weights, thin), forecaster, times, schedule)
    return open_forecast(output)


def _times(dataset: xr.Dataset, init) -> list:
    """Initial times as the store has them. Raises `ValueError` for one that it lacks."""
    wanted = [init] if isinstance(init, str) or np.ndim(init) == 0 else list(init)
    index = dataset.indexes["time"]
    times = []
    for time in wanted:
        try:
            position = index.get_loc(str(time) if not isinstance(time, str) else time)
        except KeyError:
            position = None
        if isinstance(position, slice):  # a date without an hour is its first time
            position = position.start if position.start < position.stop else None
        if position is None:
            raise ValueError(f"Expected initial times of the analysis, {index[0]} to {index[-1]}, got {time}")
        times.append(dataset["time"].values[position])
    return times


def attributes_of(
    dataset: xr.Dataset, model: Stepper, ensemble: EnsembleOptions | None = None, scheme: bool = True
) -> dict:
    """What a forecast store says of where it comes from; `scheme` false: the corrections were left out."""
    kept = ("vertical_coordinate", "constants", "source", "history")
    attributes = {name: dataset.attrs[name] for name in kept if name in dataset.attrs}
    attributes |= {"title": "emulator forecast", "time_step_seconds": dataset.attrs["time_step_seconds"]}
    if saved := getattr(model, "metadata", None):
        attributes |= {
            "time_step_seconds": saved["step_seconds"],
            "checkpoint": saved["sha256"],
            "conservation": saved["config"]["conservation"]["kind"],
            "training_period": " to ".join(saved["period"]),
            **{name: value for name, value in saved["scheme"].items() if name.startswith("unaccounted")},
        }
    if not scheme:
        attributes["conservation"] = "none"
    return attributes | ({"ensemble": compact_json(ensemble)} if ensemble else {})


@dataclasses.dataclass(frozen=True)
class Models:
    """The models of a batch of forecasts.

    Attributes:
      steppers: one for each checkpoint that members take turns among; the first may be a cascade.
      weights: digests of their weights, each with the step that it takes over at.
    """

    steppers: list[Stepper]
    weights: list[list]

    @property
    def first(self) -> Step:
        """The one that makes the first step of the first member."""
        return self.steppers[0].at(1)

    @classmethod
    def load(
        cls,
        checkpoint: Path,
        store: Path,
        cascade: Sequence[tuple[float, Path]] = (),
        more: Sequence[Path] = (),
        device=None,
    ) -> "Models":
        """Checkpoints that fit the analysis store at `store`, on a device.

        `cascade`: pairs of a lead in days and the checkpoint that takes over there; `more`: for other members. Raises
        `ValueError` for one that does not fit the store or the first.
        """
        dataset = open_analysis(store)

        def load(path: Path) -> Step:
            step = load_model(path, device)
            check_match(step.metadata, dataset, path, store)
            if path != checkpoint and step.layout != first.layout:
                raise ValueError(f"Expected {path} with the channels of {checkpoint}, got others")
            return step

        first = load(checkpoint)
        seconds = first.metadata["step_seconds"]
        starts = [0, *(round(days * 86400 / seconds) for days, _ in cascade)]
        if starts != sorted(set(starts)):
            raise ValueError(f"Expected cascade.from_days to increase, got {[days for days, _ in cascade]}")
        stages = list(zip(starts, [first, *(load(path) for _, path in cascade)], strict=True))
        others = [load(path) for path in more]
        weights = [[(start, step.metadata["sha256"]) for start, step in stages]]
        weights += [[(0, step.metadata["sha256"])] for step in others]
        return cls([Cascade(stages) if cascade else first, *others], weights)

    def check_members(self, ensemble: EnsembleOptions | None, checkpoint: Path) -> None:
        """Raises `ValueError` for fewer members than checkpoints, and for members that would all be the same."""
        members = ensemble.members if ensemble else 1
        if len(self.steppers) > members:
            raise ValueError(
                f"Expected at least {len(self.steppers)} members for {len(self.steppers)} checkpoints, got {members}"
            )
        alike = ensemble is not None and ensemble.kind == "none" and len(self.steppers) == 1
        stages = getattr(self.steppers[0], "stages", ((0, self.steppers[0]),))
        if alike and all(step.noise is None for _, step in stages):
            raise ValueError(
                f"Expected a network with noise, or member_checkpoints, for an ensemble of kind none; {checkpoint} has no "
                "noise, and all members would be the same"
            )


__all__ = ["Models", "Progress", "attributes_of", "forecast", "silent"]
