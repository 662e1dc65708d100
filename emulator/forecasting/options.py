"""How members of an ensemble differ, what of forecasts is written on which levels, which ocean: options. Needs no torch."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from emulator.options import Options, option
from emulator.planet.slab import SEA_TEMPERATURE


@dataclasses.dataclass(frozen=True)
class EnsembleOptions(Options):
    """How the members of an ensemble differ. Amplitudes are in units of the standard deviation of a step's change."""

    members: int = option(minimum=2)
    kind: Literal["none", "noise", "bred", "lagged"] = option(
        "noise", "none: members differ by checkpoint or by the network's own noise alone"
    )
    control: bool = option(False, "the first member starts from the analysis itself (noise, bred)")
    amplitude: float = option(0.3, above=0)
    slope: float = option(3.0, "power of the noise falls as wavenumber to this power")
    lowest_wavenumber: int = option(1, minimum=0)
    spectrum: tuple[float, ...] | None = option(None, "power per total wavenumber from 0, in place of the slope")
    vertical_correlation: float = option(0.8, "of the noise on neighbouring levels", minimum=0, maximum=1)
    seed: int = option(0, minimum=0)
    lag_hours: float = option(6.0, "between the starts of lagged members", above=0)
    cycles: int = option(6, "of breeding", minimum=1)
    cycle_hours: float = option(12.0, above=0)
    noise_amplitude: float = option(
        1.0, "factor of the noise that a stochastic network is given; 0: it is given none", minimum=0, new=True
    )
    weights: Path | None = option(
        None, "a training's posterior, from which every member draws the network's weights", new=True
    )
    weights_scale: float = option(1.0, "factor of what members' weights depart by from their mean", minimum=0, new=True)
    variances: Literal["step", "ensemble"] = option(
        "step",
        "that a projection of the budgets weighs its changes by; ensemble: of the members, at every step",
        new=True,
    )


@dataclasses.dataclass(frozen=True)
class DiffusionOptions(Options):
    """Damping of small scales at every step of a rollout (`emulator.model.diffusion`)."""

    hours: float = option(about="in which a degree falls to 1/e", above=0)
    degree: int | None = option(None, "that degree; None: the highest that the grid holds", minimum=1)
    order: int = option(4, "2: as heat diffuses; 4, 8: the smallest scales alone", minimum=2)


@dataclasses.dataclass(frozen=True)
class RestoringOptions(Options):
    """Surface fluxes of an ocean that answer the surface of its forecast (`emulator.model.restoring`)."""

    days: float = option(about="in which the flux that answers would take a departure off the uppermost layer", above=0)
    fluxes: tuple[str, ...] | None = option(None, "which; None: those of heat and salt that the network is given")


@dataclasses.dataclass(frozen=True)
class ThinOptions(Options):
    """What of the forecasts is written."""

    variables: tuple[str, ...] | None = option(None)
    levels: tuple[float, ...] | None = option(None, "the nearest, in the store's own unit")
    region: str | None = option(None, "a region of the verification, as its smallest box")
    every_hours: float | None = option(None, "None: every step", above=0)
    mean: Literal["none", "every", "monthly"] = option(
        "none", "means over every_hours or calendar months in place of snapshots"
    )


@dataclasses.dataclass(frozen=True)
class PressureOptions(Options):
    """Forecasts on pressure levels too, in a store beside that of the model's levels."""

    pressure: tuple[float, ...] = option(about="hPa, from hybrid or sigma levels, by log pressure", above=0, shortest=1)


@dataclasses.dataclass(frozen=True)
class SlabOptions(Options):
    """A mixed layer whose temperature follows from the fluxes that the network predicts."""

    depth: float | str | None = option(
        None, "of the layer, m: a number, or a file with slab_ocean_depth; None: the store's"
    )
    convergence: float | str | None = option(
        None, "heat that currents bring, W m-2: a number, or a file with ocean_heat_flux_convergence; None: the store's"
    )
    under_ice: bool = option(False, "step the layer where sea ice covers half of a cell or more, too")


@dataclasses.dataclass(frozen=True)
class OceanNetworkOptions(Options):
    """Another network, with a step of its own, that takes the fluxes and gives the sea's temperature."""

    checkpoint: Path = option()
    store: Path = option(about="the ocean's analysis, on the same grid")
    bounds: Literal["trained", "inputs", "none"] = option(
        "trained", "of its states, as rollout.bounds is of the atmosphere's", new=True
    )


@dataclasses.dataclass(frozen=True)
class NudgingOptions(Options):
    """Spectral nudging: large scales inside a limited area are drawn to the driving ones (`emulator.model.nudging`)."""

    length_km: float = option(about="of the shortest wave that is drawn; waves below it are the domain's own", above=0)
    hours: float = option(about="in which a departure falls to 1/e; 0: it is taken off whole at every step", minimum=0)
    variables: tuple[str, ...] | None = option(
        None, "which; None: those of the boundary that the state has on the same levels (with winds on a map: refused)"
    )


@dataclasses.dataclass(frozen=True)
class DrivingOptions(Options):
    """Driving data at the boundary of a limited area (docs/limited_area.md)."""

    store: Path = option(
        about="an analysis (perfect boundaries) or forecasts; with a checkpoint the analysis it starts from"
    )
    checkpoint: Path | None = option(None, "a global emulator that runs beside, from the same initial times")
    delay_hours: float = option(
        0.0, "of stored forecasts: how long before the forecasts that they drive they start", minimum=0
    )
    outflow: Path | None = option(
        None, "what leaves the domain by its sides as these driving data have it, where budgets are closed", new=True
    )
    nudging: NudgingOptions | None = option(
        None, "large scales inside the domain are drawn to the driving data too", new=True
    )


OCEANS = {"slab": SlabOptions, "emulator": OceanNetworkOptions}
OceanOptions = SlabOptions | OceanNetworkOptions


def ocean_options(given: Mapping) -> OceanOptions:
    """Options of an ocean from a mapping with its `kind`. Raises `ValueError` for a kind that there is not."""
    kind = given.get("kind", "slab")
    if kind not in OCEANS:
        raise ValueError(f"Expected a kind of ocean among {', '.join(OCEANS)}, got {kind!r}")
    return OCEANS[kind].of({name: value for name, value in given.items() if name != "kind"})


def check_sea(ocean: object | None, offsets: Mapping[str, float], restoring: object | None = None) -> None:
    """Raises `ValueError` for an offset of the sea's temperature, or fluxes that answer a surface, beside an ocean."""
    if ocean is not None and SEA_TEMPERATURE in offsets:
        raise ValueError(f"Expected no offset of {SEA_TEMPERATURE} with an ocean, which steps it itself")
    if ocean is not None and restoring is not None:
        raise ValueError(
            "Expected either an ocean beside the atmosphere or restoring of an ocean's own fluxes, got both"
        )


def ocean_store(output: Path) -> Path:
    """Where an ocean's network writes beside the forecasts that it is coupled with."""
    return output.with_name(f"{output.stem}-ocean.zarr")


def driving_store(output: Path) -> Path:
    """Where a global emulator at the boundary writes beside the forecasts that it drives."""
    return output.with_name(f"{output.stem}-driving.zarr")


def pressure_store(output: Path) -> Path:
    """Where the forecasts of a store lie on pressure levels, beside it."""
    return output.with_name(f"{output.stem}-pressure.zarr")
