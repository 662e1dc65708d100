"""The audit of forecasts with a slab ocean: atmosphere and slab together, in float64 from the fields as written."""

import numpy as np
import xarray as xr

from emulator.planet import slab
from emulator.planet.quantities import energy
from emulator.store.schema import constants_of, grid_of
from emulator.verify.channels import values

SHARE, TEMPERATURE = "slab_share", "sea_surface_temperature"
NEEDED = (SHARE, TEMPERATURE, slab.DEPTH, slab.CONVERGENCE, *energy.SURFACE_FLUXES)
BLOCK_BYTES = 2**26


def with_slab(dataset: xr.Dataset, init: int, total: dict, source: dict) -> tuple[dict, dict]:
    """Totals and sources of a forecast, `(lead,)` each, with those of the energy of atmosphere and slab where it has one.

    The slab's heat counts from `<s rho c h T>` at the first lead on by what each step stores, `<s rho c h (T1 - T0)>`, with
    share s and depth h of that step: a layer that gets deeper, or a cell that freezes, brings and takes nothing by itself.
    """
    if not set(NEEDED) <= set(dataset.data_vars) or "energy" not in total or "energy" not in source:
        return total, source
    names = [*NEEDED, *(n for n in (energy.SNOWFALL,) if n in dataset)]
    fields = dataset[names].isel({"init_time": init, "member": 0}, missing_dims="ignore")
    grid, constants = grid_of(dataset), constants_of(dataset)
    block = max(1, BLOCK_BYTES // (8 * len(names) * int(np.prod(grid.shape))))
    heat, entered, last = [], [], None
    for start in range(0, fields.sizes["lead_time"], block):
        piece = fields.isel(lead_time=slice(start, start + block))
        read = {n: values(field.transpose("lead_time", *grid.dims)).astype(np.float64) for n, field in piece.items()}
        share, temperature = read[SHARE], np.nan_to_num(read[TEMPERATURE])
        before = np.concatenate([temperature[:1] if last is None else last, temperature[:-1]])
        capacity = share * slab.heat_capacity(np.where(share > 0, read[slab.DEPTH], 0.0))
        stored = capacity * (temperature - before)
        if last is None:
            stored[0] = capacity[0] * temperature[0]
        heat.append(grid.mean(stored))
        flux = net_surface(read, constants) + read[slab.CONVERGENCE]
        entered.append(grid.mean(np.where(share > 0, share * flux, 0.0)))
        last = temperature[-1:]
    name = "coupled_energy"
    total = total | {name: total["energy"] + np.cumsum(np.concatenate(heat))}
    return total, source | {name: source["energy"] + np.concatenate(entered)}


def net_surface(fields: dict[str, np.ndarray], constants) -> np.ndarray:
    """Net heat flux into the surface, W m-2, as the budget of the atmosphere's energy has it."""
    net = sum(fields[name] for name in energy.SURFACE_FLUXES)
    return net - constants.latent_heat_fusion * fields[energy.SNOWFALL] if energy.SNOWFALL in fields else net
