"""How a climate changes from one long run to another, beside the same change of their references."""

import numpy as np
import xarray as xr

from emulator.planet.grid import Grid

MAPS = "climate_year_mean_map"


def responses(climate: xr.Dataset, grid: Grid) -> dict[str, tuple]:
    """`climate_response_*` of every run whose reference is another than the first run's, NaN of the others.

    The response is the run's time mean less the first run's, of which the references' is the truth: `response_map`,
    its area mean `response` `(..., climate_record)`, the root mean square of the difference of both, and their
    correlation about the area mean. Nothing without such a run.

    Both maps hold weather that no emulator can have alike. With the variance V of the references' map, of which N is chance
    and S = V - N is not, and the chance n in the run's map, `response_correlation_ceiling` is what a perfect emulator would
    reach on average, `S / sqrt(V (S + n))`: the attenuation of Spearman (1904). 0 where V is no larger than N.
    """
    if MAPS not in climate or climate.sizes["climate_run"] < 2:
        return {}
    other = climate["climate_reference"].values != climate["climate_reference"].values[0]
    if not other.any():
        return {}
    dims = ("climate_run", "climate_channel", "climate_record")
    means = climate[MAPS].transpose(*dims, *grid.dims).values
    change = np.where(other.reshape(-1, *[1] * (means.ndim - 1)), means - means[:1], np.nan)
    flat = change.reshape(*change.shape[:3], -1)
    area = np.where(np.isfinite(flat).all(axis=2), grid.area.ravel(), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = area / area.sum(axis=-1, keepdims=True)
        flat = np.nan_to_num(flat)
        mean = (flat * area[:, :, None]).sum(axis=-1)
        error = np.sqrt((area * (flat[:, :, 0] - flat[:, :, 1]) ** 2).sum(axis=-1))
        departure = flat - mean[..., None]
        products = [(area * departure[:, :, a] * departure[:, :, b]).sum(axis=-1) for a, b in ((0, 1), (0, 0), (1, 1))]
        correlation = products[0] / np.sqrt(products[1] * products[2])
        noise = climate["climate_pattern_noise"].transpose(*dims).values
        noise = noise + noise[:1]  # of the map of a difference
        signal = np.maximum(products[2] - noise[..., 1], 0.0)
        ceiling = signal / np.sqrt(products[2] * (signal + noise[..., 0]))
    return {
        "climate_response_map": ((*dims, *grid.dims), change),
        "climate_response": (dims, mean),
        "climate_response_rmse": (dims[:2], error),
        "climate_response_correlation": (dims[:2], correlation),
        "climate_response_correlation_ceiling": (dims[:2], np.where(other[:, None], ceiling, np.nan)),
    }
