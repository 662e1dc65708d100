"""The models that a batch of forecasts is made with: loaded, told of bounds and diffusion, and held against the analysis."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from emulator.forecasting.options import DiffusionOptions, EnsembleOptions
from emulator.forecasting.writing import compact_json
from emulator.model.assemble import states_of
from emulator.model.bounds import released
from emulator.model.diffusion import decay_of, degrees_of, with_diffusion
from emulator.model.noise import Seeds
from emulator.model.posterior import Posterior, with_drawn_weights
from emulator.model.saved_model import check_match, digest_of, grid_from_json, load_model
from emulator.model.step import Step
from emulator.model.stepper import Cascade, Stepper, changed
from emulator.parallel.space import ALONE, Space


@dataclasses.dataclass(frozen=True)
class Models:
    """The models of a batch of forecasts: members take turns among `steppers`, each of which may be a cascade."""

    steppers: list[Stepper]

    @property
    def first(self) -> Stepper:
        """The one that makes the first step of the first member."""
        return self.steppers[0].at(1)

    @classmethod
    def load(
        cls,
        checkpoint: Path,
        cascade: Sequence[tuple[float, Path]] = (),
        more: Sequence[Path] = (),
        device=None,
        space: Space = ALONE,
    ) -> "Models":
        """Checkpoints on a device, for the processes that hold a state together.

        `cascade`: pairs of a lead in days and the checkpoint that takes over there; `more`: for other members. Raises
        `ValueError` for leads that do not increase.
        """
        first = load_model(checkpoint, device, space)
        seconds = first.metadata["step_seconds"]
        starts = [0, *(round(days * 86400 / seconds) for days, _ in cascade)]
        if starts != sorted(set(starts)):
            raise ValueError(f"Expected cascade.from_days to increase, got {[days for days, _ in cascade]}")
        loaded = [first, *(load_model(path, device, space) for _, path in cascade)]
        stages = list(zip(starts, loaded, strict=True))
        return cls([Cascade(stages) if cascade else first, *(load_model(path, device, space) for path in more)])

    def drawn(self, ensemble: EnsembleOptions | None) -> "Models":
        """One for each member, with weights of its own, where an ensemble asks for it; raises `ValueError` for several models
        beside that, and `CheckpointError` for what is no distribution of weights."""
        if ensemble is None or ensemble.weights is None:
            return self
        if len(self.stages()) > 1 or not isinstance(self.first, Step):
            raise ValueError(
                "Expected one checkpoint, without a cascade or member_checkpoints, for ensemble.weights, got others"
            )
        posterior = Posterior.load(ensemble.weights)
        seed, scale = ensemble.seed, ensemble.weights_scale
        return Models([with_drawn_weights(self.first, posterior, seed, n, scale) for n in range(ensemble.members)])

    def bounded(self, bounds: str) -> "Models":
        """The same models with bounds of a rollout; raises `ValueError` as `released` does."""
        return Models([changed(one, lambda step: released(step, bounds)) for one in self.steppers])

    def diffused(self, options: DiffusionOptions | None, length: int) -> "Models":
        """The same models with states that are diffused after each step of `length` steps of the store.

        Raises `ValueError` for models that are none of ours, a grid without degrees and fields that do not exist everywhere.
        """
        if options is None:
            return self
        return Models([changed(stepper, lambda step: _diffused(step, options, length)) for stepper in self.steppers])

    def stages(self) -> list[Stepper]:
        """All steppers, those of cascades one by one."""
        return [one for each in self.steppers for _, one in getattr(each, "stages", ((0, each),))]

    def weights(self) -> list[list]:
        """What tells their weights from others'. Raises `ValueError` for a model of which nothing does."""
        digests = [digest_of(stepper) for stepper in self.steppers]
        for stepper, digest in zip(self.steppers, digests, strict=True):
            if digest is None:
                raise ValueError(
                    f"Expected an attribute `digest` of {type(stepper).__name__}, which tells a store of its forecasts from "
                    "others; got none"
                )
        return digests

    def check(
        self,
        dataset: xr.Dataset,
        ensemble: EnsembleOptions | None,
        store: object = "the analysis",
        names: Sequence = (),
    ) -> None:
        """Raises `ValueError` for a model that does not fit the analysis or the first, fewer members than models, members
        that would all be the same, and an amplitude of noise that a model cannot have. `store` and `names` of all `stages`:
        for messages."""
        stages = self.stages()
        names = list(names) or ["the model", *(f"model {number}" for number in range(2, len(stages) + 1))]
        for stage, name in zip(stages, names, strict=True):
            if metadata := getattr(stage, "metadata", None):
                check_match(metadata, dataset, name, store)
            if stage.layout != stages[0].layout:
                raise ValueError(f"Expected {name} with the channels of {names[0]}, got others")
            if stage.device != stages[0].device:
                raise ValueError(f"Expected {name} on the device of {names[0]}, {stages[0].device}, got {stage.device}")
            if ensemble is not None and isinstance(stage.noise, Seeds):
                stage.noise.check_amplitude(ensemble.noise_amplitude)
        members = ensemble.members if ensemble else 1
        if len(self.steppers) > members:
            raise ValueError(
                f"Expected at least {len(self.steppers)} members for {len(self.steppers)} checkpoints, got {members}"
            )
        alike = (
            ensemble is not None and ensemble.kind == "none" and ensemble.weights is None and len(self.steppers) == 1
        )
        if alike and all(stage.noise is None for stage in stages):
            raise ValueError(
                f"Expected a network with noise, or member_checkpoints, for an ensemble of kind none; {names[0]} has no "
                "noise, and all members would be the same"
            )


def _diffused(step: Stepper, options: DiffusionOptions, length: int) -> Step:
    if not isinstance(step, Step) or not step.metadata:
        raise ValueError(f"Expected a model from a checkpoint for rollout.diffusion, got {type(step).__name__}")
    grid = grid_from_json(step.metadata["grid"])
    try:
        degrees = degrees_of(grid)
        decay = decay_of(degrees, options.hours, options.order, options.degree, length * step.metadata["step_seconds"])
    except ValueError as error:
        raise ValueError(f"{error} (rollout.diffusion)") from error
    smooth = with_diffusion(step, states_of(step.layout), grid, decay)
    smooth.diffused_by = compact_json(options)
    return smooth
