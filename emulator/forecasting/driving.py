"""What drives the forecasts of a limited area: an analysis, stored forecasts, or a global emulator that runs beside them."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import xarray as xr

from emulator.data.boundary import Boundary
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.nudging import nudged_variables
from emulator.forecasting.options import DrivingOptions, ThinOptions, driving_store
from emulator.forecasting.schedule import Schedule
from emulator.forecasting.writing import Output, in_memory, write
from emulator.model.conserving import meaning_of
from emulator.model.saved_model import check_match, digest_of, load_model, with_gaps, with_step
from emulator.model.stepper import Stepper
from emulator.planet.calendar import TimeStep
from emulator.planet.grid import Grid
from emulator.store.analysis import open_analysis
from emulator.store.either import open_either
from emulator.store.forecast import open_forecast
from emulator.store.outflow import Outflow
from emulator.store.schema import fingerprint

log = logging.getLogger(__name__)
BATCH_SIZE = 8  # driving forecasts computed at a time


@dataclasses.dataclass(frozen=True)
class Forecasts:
    """The forecasts that are driven: their initial times, and the number and length of their steps."""

    inits: Sequence
    step: TimeStep
    steps: int

    def moments(self) -> tuple[list, list, list]:
        """Of every step of every forecast its initial time, start and end."""
        pairs = [(init, n) for init in self.inits for n in range(self.steps)]
        later = self.step.later
        return [i for i, _ in pairs], [later(i, n) for i, n in pairs], [later(i, n + 1) for i, n in pairs]


def driven(
    options: DrivingOptions | None,
    model: Stepper,
    domain: Grid,
    forecasts: Forecasts,
    output: Path | None = None,
) -> tuple[Boundary | None, dict]:
    """The driving data of forecasts, and what their store says of them; None and nothing for a model without a boundary.

    Args:
      options: None: the analysis with which the model was trained. output: of the forecasts; beside it those of a global
        emulator are written, in memory without one.
    Raises `ValueError` for driving data that lack variables, do not cover the boundary or do not reach as far as the
    forecasts, and for some with a model that takes none.
    """
    border = model.layout.border
    if border is None:
        if options is not None:
            raise ValueError("Expected no rollout.boundary with a network that was trained without one, got one")
        return None, {}
    options, record = options or _trained_with(model), {}
    outflow = _outflow(options, model, domain, record)
    if options.delay_hours and options.checkpoint is not None:
        _refuse_delay(options)
    if options.checkpoint is None:
        dataset = open_either(options.store)
        kind, told = ("forecast" if "lead_time" in dataset.dims else "analysis"), _told(dataset, options.store)
    else:
        beside = _Beside.of(options, model, domain, forecasts)
        dataset, told, kind = beside.forecasts(output), beside.told, "emulator"
    if options.delay_hours and kind == "analysis":
        _refuse_delay(options)
    boundary = Boundary(dataset, border, domain, options.store, options.delay_hours * 3600, outflow)
    boundary.check(*forecasts.moments())
    record |= {
        "kind": kind,
        "driving": told,
        "width": border.width,
        "place": border.place,
        "grid": boundary.grid.describe(),
        "delay_hours": options.delay_hours,
    }
    if options.nudging:
        names = nudged_variables(options.nudging, model, boundary)
        record["nudging"] = dataclasses.asdict(options.nudging) | {"variables": names}
    return boundary, {"boundary": json.dumps(record, sort_keys=True)}


def _told(dataset: xr.Dataset, path: Path) -> str:
    """What tells driving data from others: their fingerprint, or of stores of other tools the path, sizes and ends."""
    if own := dataset.attrs.get("fingerprint"):
        return str(own)
    ends = [str(dataset[name].values[[0, -1]]) for name in ("time", "init_time", "lead_time") if name in dataset]
    return fingerprint("driving", str(path), str(dict(dataset.sizes)), *ends)


def check_driving(
    options: DrivingOptions | None, model: Stepper, domain: Grid, forecasts: Forecasts
) -> Boundary | None:
    """Raises `ValueError` as `driven` does, without the forecasts of a global emulator, which take as long as others do.

    Gives the driving data, in place of such forecasts the analysis that they start from.
    """
    if options is None or options.checkpoint is None or model.layout.border is None:
        return driven(options, model, domain, forecasts)[0]
    if options.delay_hours:
        _refuse_delay(options)
    _Beside.of(options, model, domain, forecasts)
    outflow = _outflow(options, model, domain, {})
    boundary = Boundary(open_analysis(options.store), model.layout.border, domain, options.store, outflow=outflow)
    boundary.check_outflow(*forecasts.moments())
    return boundary


def _refuse_delay(options: DrivingOptions) -> NoReturn:
    raise ValueError(f"Expected delay_hours with stored forecasts at the boundary alone, got {options.delay_hours:g}")


def _trained_with(model: Stepper) -> DrivingOptions:
    known = getattr(model, "metadata", {}).get("config", {}).get("boundary") or {}
    if known.get("store") is None:
        raise ValueError("Expected rollout.boundary.store, driving data for this limited area, got none")
    return DrivingOptions(store=Path(known["store"]), outflow=known.get("outflow") and Path(known["outflow"]))


def _outflow(options: DrivingOptions, model: Stepper, domain: Grid, told: dict) -> Outflow | None:
    """What leaves the domain by its sides, where the model's budgets are closed with it.

    Raises `ValueError` where it is not given, or given to a model that takes none.
    """
    names = model.layout.border.outflow
    if not names:
        if options.outflow is not None:
            raise ValueError(
                "Expected no rollout.boundary.outflow with a network that was trained without one, got one"
            )
        return None
    if options.outflow is None:
        raise ValueError(
            f"Expected rollout.boundary.outflow, what leaves this limited area by its sides ({', '.join(names)}) as these "
            "driving data have it, got none; emulator outflow makes it of stored ones"
        )
    meaning = meaning_of(getattr(model, "scheme", None))
    outflow = Outflow(options.outflow, names, domain, meaning, options.delay_hours * 3600)
    told |= {"outflow": outflow.fingerprint, "outflow_of": "forecast" if outflow.of_forecasts else "analysis"}
    return outflow


@dataclasses.dataclass(frozen=True)
class _Beside:
    """A global emulator that drives forecasts from the same initial times, as far as they go."""

    options: DrivingOptions
    emulator: Stepper
    forecaster: Forecaster
    names: tuple[str, ...]
    inits: Sequence
    steps: int

    @classmethod
    def of(cls, options: DrivingOptions, model: Stepper, domain: Grid, forecasts: Forecasts) -> "_Beside":
        """On the driven model's device. Raises `ValueError` for one that cannot drive it, before a forecast is made."""
        analysis, border = open_analysis(options.store), model.layout.border
        emulator = load_model(options.checkpoint, model.device)
        analysis = with_gaps(with_step(analysis, emulator.metadata), emulator.metadata)
        if emulator.layout.border is not None:
            raise ValueError(
                f"Expected a global emulator at the boundary, {options.checkpoint} is of a limited area itself"
            )
        check_match(emulator.metadata, analysis, options.checkpoint, options.store)
        predicted = (*emulator.layout.prognostic.names, *emulator.layout.diagnostic.names)
        if absent := [name for name in border.names if name not in predicted]:
            raise ValueError(
                f"Expected a global emulator that predicts {', '.join(border.names)} for the boundary, "
                f"{options.checkpoint} does not predict {', '.join(absent)}"
            )
        Boundary(analysis, border, domain, options.store)  # its forecasts have the analysis' cells and levels
        forecaster = Forecaster([emulator], analysis, BATCH_SIZE, length=emulator.layout.lengths[0])
        forecaster.check(forecasts.inits)
        steps = int(np.ceil(forecasts.steps * forecasts.step.seconds / forecaster.forcing.step.seconds - 1e-9))
        return cls(options, emulator, forecaster, tuple(border.names), forecasts.inits, steps)

    @property
    def told(self) -> str:
        """Which emulator, from which analysis: forecasts that another one drives are others."""
        return f"{self.emulator.metadata['sha256']} from {self.forecaster.dataset.attrs.get('fingerprint')}"

    def forecasts(self, output: Path | None) -> xr.Dataset:
        """Its forecasts, beside the output of those that they drive, or in memory without one."""
        analysis, schedule = self.forecaster.dataset, Schedule.every(self.steps)
        thin = ThinOptions(variables=self.names)
        attributes = {
            "title": "driving forecast",
            "time_step_seconds": self.forecaster.forcing.step.seconds,
            "checkpoint": self.emulator.metadata["sha256"],
        }
        attributes |= {
            n: analysis.attrs[n] for n in ("vertical_coordinate", "constants", "source") if n in analysis.attrs
        }
        if output is None:
            return in_memory(self.forecaster, self.inits, schedule, attributes, thin)
        path = driving_store(Path(output))
        log.info("the boundary comes from %s, whose forecasts lie in %s", self.options.checkpoint, path)
        write(Output(path, attributes, [digest_of(self.emulator)], thin), self.forecaster, self.inits, schedule)
        return open_forecast(path)
