"""What a stretched grid brings: a fine box within a coarse globe against a globe that is fine everywhere.

    python scripts/trials/stretched_grid.py RUN OUTPUT [--updates 150]

RUN: a finished quickstart (48 x 96 cells). Makes a globe of half as many rows from its analysis, a box of its own cells, and
the store of points of both. Trains a graph network on the coarse globe, on the stretched grid from those weights and from
none, and on the whole fine globe, each as many updates: what carries on from the coarse globe has had twice as many in all.
Prints the processor time of a forward and backward pass of a step of four forecasts, in turn, and, from times after the
training's end, root-mean-square errors over the box's cells after 24 and 72 hours, by variable and of all together, in units
of a typical change over a step on the fine globe. OUTPUT takes stores and trainings.
"""

import argparse
import statistics
import time
from pathlib import Path

import held_out
import numpy as np
import xarray as xr

import emulator as em
from emulator.data.normalisation import open_statistics
from emulator.data.samples import Samples
from emulator.ingestion.options import GridOptions, IngestOptions
from emulator.store.schema import grid_of

SOUTH, NORTH, WEST, EAST = 20.0, 75.0, -80.0, 40.0  # Europe and the North Atlantic
STATE = ["temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity", "surface_pressure"]
FORCING = ["sea_surface_temperature", "sea_ice_cover", "soil_temperature_level_1"]
FIELDS = (*STATE, *FORCING, "mean_top_downward_short_wave_radiation_flux", "geopotential_at_surface", "land_sea_mask")
LEADS = (4, 12)  # steps of six hours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="directory with analysis.zarr and statistics.nc")
    parser.add_argument("output", type=Path)
    parser.add_argument("--end", default="2002-03-02", help="of the training's period")
    parser.add_argument("--unseen", default="2002-03-12", help="first initial time of the verification")
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--share", type=float, default=0.3, help="of the loss that is the box's")
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    stores = made(options)
    mesh = {"refinement": 3}
    inside = {"network": mesh | {"inside": 4}}
    inside["region_weight"] = {"box": [SOUTH, NORTH, WEST, EAST], "share": options.share}
    steps = {"coarse": trained(options, "coarse", stores["globe"], network=mesh)}
    start = {"checkpoint": str(options.output / "coarse" / "checkpoint"), "statistics": "new"}
    steps["stretched, carried on"] = trained(options, "carried_on", stores["points"], start=start, **inside)
    steps["stretched, alone"] = trained(options, "alone", stores["points"], **inside)
    steps["fine"] = trained(options, "fine", stores["fine"], network={"refinement": 4})
    stores |= {name: stores["points"] for name in steps if name.startswith("stretched")} | {"coarse": stores["globe"]}
    seconds = measured({name: (step, stores[name]) for name, step in steps.items()}, options.end)
    for name, taken in seconds.items():
        print(
            f"{name}: {taken:.3f} s forward and backward, {taken / seconds['fine']:.2f} of the fine globe's", flush=True
        )
    unit = open_statistics(stores["fine"][1])
    how = {"period": (options.unseen, None), "leads": LEADS, "windows": options.windows}
    cells = {name: inside_the_box(stores[name][0]) for name in steps if name != "coarse"}
    for name, where in cells.items():
        found = held_out.errors(steps[name].eval(), stores[name][0], unit, cells=where, **how)
        print(held_out.line(name, found), flush=True)
    how |= {"cells": cells["fine"], "persistence": True}
    print(held_out.line("persistence", held_out.errors(steps["fine"], stores["fine"][0], unit, **how)))


def made(options: argparse.Namespace) -> dict[str, tuple[Path, Path]]:
    """Stores and their statistics: of the coarse globe, the points and the fine globe."""
    whole, folder = options.run / "analysis.zarr", options.output
    coarse = GridOptions(kind="gaussian", rows=em.open_analysis(whole).sizes["latitude"] // 2)
    em.ingest(IngestOptions([str(whole)], variables=FIELDS, grid=coarse), folder / "globe.zarr")
    if not (folder / "box.zarr").exists():
        cut(em.open_analysis(whole)).to_zarr(folder / "box.zarr", zarr_format=3, consolidated=False)
    both = [str(folder / name) for name in ("box.zarr", "globe.zarr")]
    em.ingest(IngestOptions(both, kind="cutout"), folder / "points.zarr")
    stores = {"fine": (whole, options.run / "statistics.nc")}
    for name in ("globe", "points"):
        stores[name] = folder / f"{name}.zarr", folder / f"{name}.nc"
        if not stores[name][1].exists():
            em.statistics(*stores[name], end=options.end)
    return stores


def cut(globe: xr.Dataset) -> xr.Dataset:
    """The box's cells of an analysis store, as one of its own."""
    rows, columns = map(np.flatnonzero, within(globe["latitude"].values, globe["longitude"].values))
    columns = columns[np.argsort((globe["longitude"].values[columns] - WEST) % 360)]
    box = globe[list(FIELDS)].isel(latitude=rows, longitude=columns)
    box = box.assign_coords(longitude=WEST + (box["longitude"].values - WEST) % 360)
    grid = grid_of(box.drop_vars("cell_area", errors="ignore"))
    box = box.assign({name: globe[name] for name in ("half_level_a", "half_level_b")})
    box["cell_area"] = grid.dims, grid.area
    return box.drop_encoding().assign_attrs(fingerprint=f"box of {globe.attrs['fingerprint']}").chunk(time=64)


def within(latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which latitudes and which longitudes, in degrees, are the box's, boolean."""
    return (latitude > SOUTH) & (latitude < NORTH), (longitude - WEST) % 360 < EAST - WEST


def trained(options: argparse.Namespace, name: str, store: tuple[Path, Path], network: dict, **more) -> em.Step:
    size = {"kind": "graph", "width": options.width, "rounds": options.rounds, "zero_output": True}
    return em.train(
        *store,
        options.output / name,
        prognostic=STATE,
        diagnostic=[],
        forcing=FORCING,
        network=size | network,
        conservation={"kind": "none"},
        period={"end": options.end},
        optimizer={"lr": options.rate, "weight_decay": 0.1, "warmup_steps": 40},
        phases=[{"updates": options.updates, "batch_size": 4}],
        seed=options.seed,
        **more,
    )


def measured(cases: dict, end: str, repeats: int = 7) -> dict[str, float]:
    """Median processor time of a forward and backward pass of a step of four forecasts, called in turn, seconds."""
    given = {}
    for name, (step, (store, _)) in cases.items():
        samples = Samples(em.open_analysis(store), step.layout, end=end, cache_bytes=0)
        given[name] = step, samples.batch(np.arange(0, 16, 4), 1)
    taken = {name: [] for name in cases}
    for _ in range(repeats + 1):
        for name, (step, batch) in given.items():
            inputs, began = next(batch.inputs()), time.process_time()
            step(batch.start(), inputs.forcing, inputs.clock).state.square().mean().backward()
            taken[name].append(time.process_time() - began)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def inside_the_box(store: Path) -> np.ndarray:
    """The box's cells among those of a store, flattened, in the order of the box: from the north, eastwards from its west."""
    latitude, longitude = (np.ravel(angle) for angle in grid_of(em.open_analysis(store)).mesh())
    rows, columns = within(latitude, longitude)
    cells = np.flatnonzero(rows & columns)
    if "points" in store.name:  # coarse cells whose centres lie at the edge come after the fine ones
        cells = cells[
            : np.prod([em.open_analysis(store.parent / "box.zarr").sizes[n] for n in ("latitude", "longitude")])
        ]
    east = (longitude[cells] - WEST) % 360
    return cells[np.lexsort((east, -latitude[cells]))]


if __name__ == "__main__":
    main()
