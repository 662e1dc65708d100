"""The conservation scheme of a training or a checkpoint, from its options, a store and statistics."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from emulator.conservation import build as build_scheme
from emulator.conservation.atmosphere import Atmosphere
from emulator.conservation.checks import check_means, check_units
from emulator.conservation.options import ConservationOptions
from emulator.conservation.penalties import Penalty
from emulator.conservation.scheme import LackingVariables, Scheme, make_budgets
from emulator.conservation.sea import Sea
from emulator.data.channels import Layout
from emulator.data.normalisation import open_statistics
from emulator.data.samples import Samples
from emulator.model.residuals import counted, residuals
from emulator.model.sea import at_sea, given_fluxes, sea_budgets, sea_of
from emulator.parallel.space import ALONE, Space
from emulator.planet.constants import Constants
from emulator.planet.grid import Grid
from emulator.planet.vertical import Levels
from emulator.store.analysis import apart, open_analysis
from emulator.store.schema import constants_of, grid_of, levels_of, time_step_seconds

log = logging.getLogger(__name__)


class Conservation(NamedTuple):
    """What closes the budgets of a training: hard corrections, soft penalty, and what a checkpoint keeps of them."""

    scheme: Scheme | None
    penalty: Penalty | None
    saved: dict


def conservation(options: ConservationOptions, samples: Samples, statistics: xr.Dataset) -> Conservation:
    """Scheme and penalty, with constant residuals and tolerances estimated from the training data.

    Residuals are kept beside the statistics, where these are of a file. Raises `ValueError` as `prepared` does.
    """
    ready = prepared(options, samples.dataset, samples.layout, statistics)
    if ready is None:
        return Conservation(None, None, {})
    whole, saved = ready
    atmosphere = whole.cut(samples.space)
    names = _names(samples.layout, options)
    budgets = make_budgets(options.scheme, atmosphere, names)
    measured = residuals(budgets, options.scheme, samples, statistics.encoding.get("source"))
    log.info(
        "Mean residuals of the training data per step: %s",
        ", ".join(f"{n} {measured.mean[n]:+.3g} (std {measured.deviation[n]:.2g})" for n in measured.mean),
    )
    rates = dataclasses.asdict(measured.unaccounted())
    saved |= {f"unaccounted_{name}": rates[name] for name in options.unaccounted}
    penalty = None
    if options.penalty:
        budgets = make_budgets(options.with_rates(saved), atmosphere, names)
        penalty = Penalty.from_truth(budgets, measured, dict.fromkeys(budgets, options.penalty))
    if options.scheme.kind == "none":
        return Conservation(None, penalty, {})
    return Conservation(_make_scheme(options, saved, atmosphere, names), penalty, saved)


def find_residuals(
    stores: Sequence, statistics: Path, start=None, end=None, threads: int = 1, scenarios: Sequence = ()
) -> bool:
    """Finds what `conservation` estimates with its defaults and the stores' own roles, and keeps it beside the statistics.

    `stores`: paths, one after another in time; `scenarios`: of further ones of any times. False where they lack what the
    budgets need.
    """
    options, paths = ConservationOptions.of({}), [*stores, *scenarios]
    opened = [*map(open_analysis, stores), *(apart(open_analysis(path)) for path in scenarios)]
    try:
        channels = Layout.of(opened[0], {}, str(stores[0]))
        if (ready := prepared(options, opened[0], channels, open_statistics(statistics))) is None:
            return False
    except ValueError as error:
        log.debug("no residuals: %s", error)
        return False
    budgets = make_budgets(options.scheme, ready[0], _names(channels, options))
    needed = counted(budgets)
    groups = {group: getattr(channels, group).names for group in ("prognostic", "diagnostic")}
    fewer = {group: [name for name in names if name in needed] for group, names in groups.items()}
    layout = Layout.of(opened[0], fewer | {"forcing": []}, str(stores[0]))
    residuals(budgets, options.scheme, Samples(opened, layout, start, end, 0, paths, threads), statistics)
    return True


def prepared(
    options: ConservationOptions, dataset: xr.Dataset, channels: Layout, statistics: xr.Dataset
) -> tuple[Atmosphere | Sea, dict] | None:
    """What the budgets are formed with, and what a checkpoint keeps before residuals are estimated; None for no budgets.

    Reads no fields but the orography. Raises `ValueError` where channels or levels lack what a budget needs, saying which
    and what would do, and `ValueError` for a flux of the wrong unit or sign.
    """
    if not options.scheme.budgets or (options.scheme.kind == "none" and not options.penalty):
        return None
    names, grid = _names(channels, options), grid_of(dataset)
    without = "train.conservation.kind=none" + (" and train.conservation.penalty=0" if options.penalty else "")
    if at_sea(options):
        return _prepared_sea(options, dataset, channels, statistics, without)
    if found := sea_budgets(dataset):
        without = f"train.conservation.budgets=[{','.join(found)}], {without}"
    if not grid.is_global():
        _check_open(options, grid, channels, without)
    try:
        atmosphere = _atmosphere(dataset, channels)
        make_budgets(options.scheme, atmosphere, names)
    except LackingVariables as error:
        # without surface pressure dry air would be corrected through humidity, which few would choose knowingly
        left = [
            name for name in options.scheme.budgets if name not in error.lacking and atmosphere.has_surface_pressure
        ]
        fewer = f"train.conservation.budgets=[{','.join(left)}] or " if left else ""
        raise ValueError(f"{error}; give them, or train with {fewer}{without}") from None
    except ValueError as error:
        raise ValueError(f"{error}; or train with {without}") from None
    check_units({name: dict(dataset[name].attrs) for name in names})
    means = {name: float(statistics[name].sel(statistic="mean").mean()) for name in names}
    check_means(means, atmosphere.constants, region=not grid.is_global())
    orography = atmosphere.geopotential_at_surface
    orography = None if orography is None else orography.tolist()
    saved = {"variances": _variances(channels, statistics), "orography": orography}
    if options.scheme.kind != "none":
        _make_scheme(options, saved, atmosphere, names)  # refuses options that do not go together
    return atmosphere, saved


def _check_open(options: ConservationOptions, grid: Grid, channels: Layout, without: str) -> None:
    """Raises `ValueError` for a domain of which nobody says what leaves by its sides, and for what does not go with it."""
    if not _is_open(channels):
        raise ValueError(
            f"Expected train.boundary.outflow to close budgets of {grid.describe()}, whose sides let an unknown amount "
            f"through, got none; give it (emulator outflow makes it of the driving data), or train with {without}"
        )
    wrong = {
        "a boundary inside, whose states corrections would change": channels.border.place == "inside",
        "a penalty": options.penalty > 0,
        "bands": bool(options.bands),
        "the anchor given": options.anchor == "given",
        "the budget column_water": "column_water" in options.scheme.budgets,
    }
    if refused := [what for what, is_so in wrong.items() if is_so]:
        raise ValueError(
            f"Expected budgets of {grid.describe()}, whose sides are open, without {' and '.join(refused)}; or train with "
            f"{without}"
        )


def _is_open(channels: Layout) -> bool:
    """Whether a step is told what leaves the domain by its sides."""
    return channels.border is not None and bool(channels.border.outflow)


def meaning_of(scheme: Scheme | None) -> dict | None:
    """What energy means to a scheme, as `EnergyForm` has it; None for none."""
    return scheme and {name: getattr(scheme.options, name) for name in ("heat_capacity", "kinetic")} | {
        "form": scheme.options.energy
    }


def _prepared_sea(
    options: ConservationOptions, dataset: xr.Dataset, channels: Layout, statistics: xr.Dataset, without: str
) -> tuple[Sea, dict]:
    """As `prepared`, of a sea. A penalty is refused where a flux is forcing, which a loss does not see."""
    names = _names(channels, options)
    try:
        sea = sea_of(dataset, options)
        make_budgets(options.scheme, sea, names)
        if options.penalty and (given := given_fluxes(options, channels.forcing, channels.moments)):
            raise ValueError(f"Expected no penalty on budgets with fluxes that are forcing, got {', '.join(given)}")
        check_units({name: dict(dataset[name].attrs) for name in names})
    except ValueError as error:
        raise ValueError(f"{error}; or train with {without}") from None
    saved = {"variances": _variances(channels, statistics), "orography": None, "sea": sea.to_json()}
    if options.scheme.kind != "none":
        _make_scheme(options, saved, sea, names)
    return sea, saved


def _variances(channels: Layout, statistics: xr.Dataset) -> dict[str, list]:
    """Error variances of a step by variable."""
    return {
        name: np.atleast_1d(statistics[name].sel(statistic=kind).values ** 2).tolist()
        for group, kind in ((channels.prognostic, "difference_std"), (channels.diagnostic, "std"))
        for name in group.names
    }


def _atmosphere(dataset: xr.Dataset, channels: Layout) -> Atmosphere:
    levels = levels_of(dataset)
    if levels is None:
        raise ValueError("Expected levels that make up columns, which every budget needs, the store has none")
    return Atmosphere(
        area=_areas(grid_of(dataset)),
        levels=levels,
        constants=constants_of(dataset),
        geopotential_at_surface=_orography(dataset),
        step_seconds=time_step_seconds(dataset),
        has_surface_pressure="surface_pressure" in channels.prognostic.names,
        latitude=_latitude(grid_of(dataset)),
        open_sides=_is_open(channels),
    )


def _names(channels: Layout, options: ConservationOptions) -> tuple[str, ...]:
    """Fields that a step ends with, and fluxes that it is given: what budgets may be formed from."""
    given = given_fluxes(options, channels.forcing, channels.moments)
    return (*channels.prognostic.names, *channels.diagnostic.names, *given)


def restore_scheme(saved: dict, options: ConservationOptions, grid: Grid, space: Space = ALONE) -> Scheme | None:
    """The scheme of a checkpoint, for this process's rows of states that several hold together."""
    if not saved["scheme"]:
        return None
    channels, orography = Layout.from_json(saved["layout"]), saved["scheme"]["orography"]
    names, constants = _names(channels, options), Constants(**saved["constants"])
    if "sea" in saved["scheme"]:
        sea = Sea.from_json(saved["scheme"]["sea"], grid.area, constants, saved["step_seconds"])
        return _make_scheme(options, saved["scheme"], sea.cut(space), names)
    atmosphere = Atmosphere(
        area=_areas(grid),
        levels=saved["levels"] and Levels.from_json(saved["levels"]),
        constants=constants,
        geopotential_at_surface=None if orography is None else torch.tensor(orography, dtype=torch.float32),
        step_seconds=saved["step_seconds"],
        has_surface_pressure="surface_pressure" in channels.prognostic.names,
        latitude=_latitude(grid),
        open_sides=_is_open(channels),
    )
    return _make_scheme(options, saved["scheme"], atmosphere.cut(space), names)


def _make_scheme(options: ConservationOptions, saved: dict, atmosphere: Atmosphere | Sea, names) -> Scheme:
    variances = {name: torch.tensor(values, dtype=torch.float64) for name, values in saved["variances"].items()}
    scheme = build_scheme(options.with_rates(saved), atmosphere, names, variances)

    def of_length(length: float) -> Scheme:
        longer = dataclasses.replace(atmosphere, step_seconds=length * atmosphere.step_seconds)
        return _make_scheme(options, saved, longer, names)

    scheme.of_length = of_length
    return scheme


def _areas(grid: Grid) -> torch.Tensor:
    """Shares of the globe, or of the domain."""
    area = torch.as_tensor(grid.area)
    return area if grid.is_global() else area / area.sum()


def _latitude(grid: Grid) -> torch.Tensor:
    return torch.as_tensor(np.broadcast_to(grid.mesh()[0], grid.shape).copy())


def _orography(dataset: xr.Dataset) -> torch.Tensor | None:
    if "geopotential_at_surface" not in dataset:
        return None
    values = np.asarray(dataset["geopotential_at_surface"].values, np.float32)
    if (lacking := int((~np.isfinite(values)).sum())) > 0:
        raise ValueError(
            f"Expected geopotential_at_surface everywhere, which the energy budget needs, got {lacking} cells without a value"
        )
    return torch.from_numpy(values)
