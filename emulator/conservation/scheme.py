"""What all schemes share: the choice of budgets and knobs, the anchor, the record of what a correction did."""

import dataclasses
import types
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from emulator.conservation import fluxes
from emulator.conservation.amounts import OnePass
from emulator.conservation.anchors import make_anchor
from emulator.conservation.atmosphere import Atmosphere, State
from emulator.conservation.budgets import Anchor, Budget, ColumnWater, Declared, DryAir, Water
from emulator.conservation.energy import Energy
from emulator.conservation.options import SchemeOptions
from emulator.conservation.sea import Sea
from emulator.planet.quantities.registry import quantities
from emulator.planet.variables import known


class LackingVariables(ValueError):
    """Budgets that cannot be formed; `lacking` has the names of the absent variables by budget."""

    def __init__(self, lacking: dict[str, list[str]]):
        self.lacking = lacking
        first, *others = (f"{', '.join(names)}{{}}, which the budget {name} needs" for name, names in lacking.items())
        super().__init__(
            "; ".join([f"Expected {first.format(' among the variables')}", *(o.format("") for o in others)])
        )


def make_budgets(options: SchemeOptions, atmosphere: Atmosphere | Sea, variables) -> dict[str, Budget]:
    """The chosen budgets by name, for a model that knows the named `variables`.

    Raises `LackingVariables` naming what each budget lacks, and `ValueError` for budgets of air where there is sea, or the
    other way round.
    """
    medium = "sea" if isinstance(atmosphere, Sea) else "air"
    if other := [name for name in options.budgets if quantities()[name].medium != medium]:
        fitting = ", ".join(name for name, quantity in quantities().items() if quantity.medium == medium)
        raise ValueError(f"Expected budgets of the {medium}, {fitting}, got {', '.join(other)}")
    variables = set(variables)
    species = tuple(name for name in fluxes.WATER_SPECIES if name in variables) or (fluxes.HUMIDITY,)
    rates = options.unaccounted
    water = Water(atmosphere, species, rates.moistening)
    energy_options = (options.energy, options.heat_capacity, options.kinetic)
    makers = {
        "dry_air": lambda: DryAir(atmosphere, species, rates.dry_mass),
        "water": lambda: water,
        "energy": lambda: Energy(atmosphere, *energy_options, snow=fluxes.SNOWFALL in variables, heating=rates.heating),
        "column_water": lambda: ColumnWater(water),
    }
    budgets = {
        name: makers[name]() if name in makers else Declared(atmosphere, quantity)
        for name, quantity in quantities().items()
        if name in options.budgets
    }
    lacking = {name: [need for need in budget.required if need not in variables] for name, budget in budgets.items()}
    if lacking := {name: names for name, names in lacking.items() if names}:
        raise LackingVariables(lacking)
    return budgets


@dataclasses.dataclass(frozen=True)
class Correction:
    """What a scheme did: changed fields, saturations by what saturated; where they are known already, residuals before and
    after by budget; `told`: what else the record has, by its name there.
    """

    changed: State = dataclasses.field(default_factory=dict)
    saturations: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    before: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    after: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    told: dict[str, Tensor] = dataclasses.field(default_factory=dict)


class Scheme:
    """A conservation scheme; subclasses provide `changes` and `correct`.

    Attributes:
      atmosphere, options, budgets: as given to `build`; budgets by name.
      required: fields that must be in the states.
      changes: fields a correction may change.
      compiled: the whole correction from compiled kernels, where there is one for the scheme's budgets and forms.
      errors: what corrections are compared with, by field: the root mean square, over levels, of a step's deviation.
      of_length: makes the same scheme for steps that are so many times as long; see `lasting`.
    """

    changes: tuple[str, ...] = ()
    compiled = None
    of_length: Callable[[float], "Scheme"] | None = None
    errors: Mapping[str, float] = types.MappingProxyType({})

    def __init__(self, options: SchemeOptions, atmosphere: Atmosphere | Sea, budgets: dict[str, Budget]):
        self.options, self.atmosphere, self.budgets = options, atmosphere, budgets
        self.required = tuple(dict.fromkeys(name for budget in budgets.values() for name in budget.required))
        self._dry_air = budgets.get("dry_air")
        self.one_pass = _one_pass(atmosphere, budgets)
        self._lasting: dict[float, Scheme] = {1.0: self}

    def lasting(self, length: float) -> "Scheme":
        """The scheme for steps that are so many times as long; kept, since there are few lengths."""
        if length not in self._lasting:
            self._lasting[length] = self.of_length(length)
        return self._lasting[length]

    def anchor(self, state: State) -> Anchor | None:
        """What a rollout from `state` is held to; None without a dry-air budget. Refuses another planet's mass."""
        if self._dry_air is None:
            return None
        self.atmosphere.check_state(state, self._dry_air.required)
        with torch.no_grad():
            return make_anchor(self.options.anchor, self.options.dry_mass, self._dry_air.mass(state))

    def advance(
        self, anchor: Anchor | None, outflow: Tensor | None = None, seconds: Tensor | None = None
    ) -> Anchor | None:
        """The anchor of the next step: grown by the data's own creep of dry mass, and less what left by open sides.

        `outflow`, `seconds`: those of the step that was made, as a call takes them.
        """
        if anchor is None:
            return None
        mass = anchor.dry_mass
        if self._dry_air.creep:
            mass = mass + self._dry_air.creep * self.atmosphere.step_seconds
        if outflow is not None:
            length = self.atmosphere.step_seconds if seconds is None else seconds.double()
            mass = mass - length * outflow[:, list(self.budgets).index("dry_air")].double()
        return Anchor(mass)

    def residuals(self, state0: State, state1: State, anchor: Anchor | None = None) -> dict[str, Tensor]:
        """Relative residual of every budget: `(batch,)` float64 by name."""
        return {
            name: budget.residual(state0, state1, anchor) / budget.scale(state0)
            for name, budget in self.budgets.items()
        }

    def correct(self, state0: State, state1: State, anchor: Anchor | None, scales: dict[str, Tensor]) -> "Correction":
        """The correction of a step; `scales` are the budgets' amounts at `state0`."""
        return Correction()

    def __call__(
        self,
        state0: State,
        state1: State,
        anchor: Anchor | None = None,
        seconds: Tensor | None = None,
        outflow: Tensor | None = None,
    ) -> tuple[State, dict[str, Tensor]]:
        """Correct a predicted step.

        Args:
          state0: fields at the start of the step, of which prognostic ones are used.
          state1: fields at its end, with the mean fluxes over it.
          anchor: from `anchor` and `advance`; None takes the dry mass of `state0`.
          seconds: true lengths of steps of calendar months, `(batch,)`; None: all are of `atmosphere.step_seconds`. What
            the data leave unaccounted stays the mean step's.
          outflow: of a domain with open sides what leaves it by them, the mean over the step per unit of the domain's area,
            outward positive, kg m-2 s-1 and W m-2, `(batch, budget)` in the order of `budgets`.

        Returns:
          The changed fields, and the record: `residual_before_<budget>` and `residual_after_<budget>` (relative),
          `correction_rms_<variable>` (the variable's units), `correction_share_<variable>` (of a step's deviation, where
          `build` got it), `saturation_<what>` and of a projection of ensembles `variance_ratio_mean_<control>` and
          `variance_ratio_largest_<control>`, each `(batch,)` float64, detached.

        Raises:
          ValueError: for a missing field, another number of levels, another grid, half precision, or batches that differ; and
            for an outflow of a closed domain, or none of an open one.
        """
        if seconds is not None:
            ratio = seconds.double() / self.atmosphere.step_seconds
            outflow = None if outflow is None else outflow * ratio[:, None]
            return over_nominal(*self(state0, of_nominal(state1, ratio), anchor, outflow=outflow), ratio)
        self.atmosphere.check_state(state0, [name for name in self.required if not is_mean(name)])
        self.atmosphere.check_state(state1, self.required)
        self._check_batch(state0, state1, anchor, outflow)
        own = anchor is None or self.options.anchor == "previous"
        if self.compiled is not None and self.compiled.serves(state0, state1):
            anchor = self._given_anchor(state0) if own else anchor
            return self.compiled(state0, state1, self._with_left(anchor, outflow))
        with torch.autocast(state1[self.required[0]].device.type, enabled=False):
            state0, state1 = self._prepared(state0, state1)
            if own:
                anchor = self._given_anchor(state0) or self._own_anchor(state0)
            anchor = self._with_left(anchor, outflow)
            with torch.no_grad():
                scales = {name: budget.scale(state0) for name, budget in self.budgets.items()}
            correction = self.correct(state0, state1, anchor, scales)
            with torch.no_grad():
                record = self._record(state0, state1, correction, anchor, scales)
        return correction.changed, record

    def _with_left(self, anchor: Anchor | None, outflow: Tensor | None) -> Anchor | None:
        """The anchor with what a rate of outflow takes out over the step."""
        if outflow is None:
            return anchor
        amounts = (self.atmosphere.step_seconds * outflow.double()).unbind(1)
        return Anchor(anchor and anchor.dry_mass, dict(zip(self.budgets, amounts, strict=True)))

    def _check_batch(self, state0: State, state1: State, anchor: Anchor | None, outflow: Tensor | None) -> None:
        stored = next((name for name in self.required if not is_mean(name)), None)
        batch = len(state1[self.required[0]])
        if stored is not None and len(state0[stored]) != batch:
            before = len(state0[stored])
            raise ValueError(f"Expected one batch size in a step, got {before} at its start and {batch} at its end")
        if anchor is not None and tuple(anchor.dry_mass.shape) != (batch,):
            raise ValueError(f"Expected an anchor of {batch} dry masses, got {tuple(anchor.dry_mass.shape)}")
        if self.atmosphere.open_sides != (outflow is not None):
            raise ValueError(
                f"Expected what leaves by the open sides of a domain, {', '.join(self.budgets)}, got none"
                if outflow is None
                else "Expected no outflow of what has no open sides, got one"
            )
        if outflow is not None and tuple(outflow.shape) != (batch, len(self.budgets)):
            expected = f"{(batch, len(self.budgets))}, of {', '.join(self.budgets)}"
            raise ValueError(f"Expected an outflow of shape {expected}, got {tuple(outflow.shape)}")

    def _prepared(self, state0: State, state1: State) -> tuple[State, State]:
        """The states with what the budgets' evaluations share."""
        if self.one_pass and (states := self.one_pass.begin(state0, state1)):
            return states
        energy = self.budgets.get("energy")
        return (state0, state1) if energy is None else energy.prepare(state0, state1)

    def _given_anchor(self, state0: State) -> Anchor | None:
        """The options' dry mass as an anchor, if they have one."""
        if self._dry_air is None or self.options.anchor != "given":
            return None
        like = state0[self._dry_air.required[0]]
        return Anchor(torch.full((len(like),), self.options.dry_mass, dtype=torch.float64, device=like.device))

    def _own_anchor(self, state0: State) -> Anchor | None:
        return None if self._dry_air is None else Anchor(self._dry_air.mass(state0))

    def _record(self, state0: State, state1: State, correction: "Correction", anchor, scales) -> dict[str, Tensor]:
        after = state1 | correction.changed
        record = {}
        for name, budget in self.budgets.items():
            before, left = correction.before.get(name), correction.after.get(name)
            before = budget.residual(state0, state1, anchor) if before is None else before
            if left is None:
                left = budget.residual(state0, after, anchor) if correction.changed else before
            record[f"residual_before_{name}"] = before / scales[name]
            record[f"residual_after_{name}"] = left / scales[name]
        for name in self.changes:
            square = self.atmosphere.mean_square(correction.changed[name], state1[name])
            record[f"correction_rms_{name}"] = square.sqrt()
        record |= self.shares(record)
        record |= {f"saturation_{name}": value.detach() for name, value in correction.saturations.items()}
        return record | correction.told

    def shares(self, record: dict) -> dict:
        """The sizes of a record's corrections as shares of a step's deviation, by the names that they are recorded with."""
        return {f"correction_share_{n}": record[f"correction_rms_{n}"] / error for n, error in self.errors.items()}


def of_nominal(state: State, ratio: Tensor) -> State:
    """Fields whose mean fluxes bring over a step of the nominal length what they bring over one `ratio` `(batch,)` as long.

    All that budgets take from fluxes is their product with the length of the step.
    """
    return {name: _times(field, ratio) if is_mean(name) else field for name, field in state.items()}


def over_nominal(changed: State, record: dict[str, Tensor], ratio: Tensor) -> tuple[State, dict[str, Tensor]]:
    """What a scheme changed and recorded of fields from `of_nominal`, for the fields as they were."""
    changes = ("correction_rms_", "correction_share_")
    fluxes_of = {n for n in record for start in changes if n.startswith(start) and is_mean(n.removeprefix(start))}
    record = {name: value / ratio if name in fluxes_of else value for name, value in record.items()}
    return of_nominal(changed, 1 / ratio), record


def _times(field: Tensor, ratio: Tensor) -> Tensor:
    return field * ratio.to(field.dtype).view(-1, *[1] * (field.dim() - 1))


def _one_pass(atmosphere: Atmosphere, budgets: dict[str, Budget]) -> OnePass | None:
    """The pass that dry air, water and energy share; energy only without its term at the top."""
    water = [budget for budget in budgets.values() if type(budget) in (DryAir, Water)]
    energy = [budget for budget in budgets.values() if type(budget) is Energy and not budget.has_top]
    if not water + energy:
        return None
    species = water[0].species if water else (fluxes.HUMIDITY,)
    winds, moist = (energy[0].winds, energy[0].moist) if energy else ((), 0.0)
    return OnePass(atmosphere, water + energy, species, moist, ("temperature",) * len(energy), winds)


def is_mean(name: str) -> bool:
    """Whether a field is a mean over the step, so that the start of the step has none."""
    if (table := known(name)) is not None:
        return table.cell == "mean"
    return name.startswith("mean_") or any(name in quantity.fluxes for quantity in quantities().values())
