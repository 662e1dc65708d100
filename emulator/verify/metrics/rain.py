"""Precipitation: categories that matter where it rains (SEEPS), and whether the amount is right nearby (FSS)."""

import numpy as np

from emulator.planet.grid import Grid
from emulator.verify.metric import Sample, Statistics, area_means, metric, ratio
from emulator.verify.metrics import events

PRECIPITATION = "mean_total_precipitation_rate"
VALID = (0.1, 0.85)  # of the climatological probability of a dry step (Rodwell et al. 2010)
WINDOWS = (1, 3, 5, 9)  # cells of the fraction skill score's neighbourhoods


def dry_rate(step_seconds: float) -> float:
    """Rate up to which a step counts as dry, kg m-2 s-1: 0.25 mm in 24 h, 0.1 mm in 6 h and in proportion elsewhere."""
    amount = 0.25 if step_seconds >= 86400 else 0.1 * step_seconds / 21600
    return amount / step_seconds


def seeps_climate(samples: np.ndarray, dry: float) -> np.ndarray:
    """Probability of a dry step and rate from which rain is heavy, from rates `(n, level, cell)` -> `(2, level, cell)`.

    Heavy is the upper third of the wet amounts.
    """
    wet = samples > dry
    count = wet.sum(axis=0)
    probability = np.where(np.isfinite(samples).all(axis=0), 1 - count / len(samples), np.nan)
    ordered = np.sort(np.where(wet, samples, np.inf), axis=0)
    # the 2/3 quantile of the wet samples, linear between order statistics
    at = np.maximum(count - 1, 0) * (2 / 3)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    lower, upper = (np.take_along_axis(ordered, index[None], axis=0)[0] for index in (low, high))
    with np.errstate(invalid="ignore"):
        heavy = np.where(count > 0, lower + (at - low) * (upper - lower), np.inf)
    return np.stack([probability, heavy])


def seeps_errors(forecast, truth, dry_probability, heavy, dry: float) -> np.ndarray:
    """Stable equitable error in probability space, cell by cell; NaN where the climate is too dry or too wet.

    Rates of one shape; `dry_probability` and `heavy` of the cell's climate. Rodwell et al. (2010, QJRMS 136, 1344): half of
    [[0, 1/(1-p), 4/(1-p)], [1/p, 0, 3/(1-p)], [1/p + 3/(2+p), 3/(2+p), 0]], rows forecast and columns truth, each dry,
    light, heavy. A rate of exactly `dry` is dry, one of exactly `heavy` light.
    """
    p = np.where((dry_probability > VALID[0]) & (dry_probability < VALID[1]), dry_probability, np.nan)
    said, was = ((x > dry).astype(np.int8) + ((x > dry) & (x > heavy)) for x in (forecast, truth))
    zero = np.zeros_like(p)
    table = (
        (zero, 1 / (1 - p), 4 / (1 - p)),
        (1 / p, zero, 3 / (1 - p)),
        (1 / p + 3 / (2 + p), 3 / (2 + p), zero),
    )
    result = p * 0.0
    result = np.broadcast_to(result, np.broadcast_shapes(result.shape, np.shape(forecast), np.shape(truth))).copy()
    for row in range(3):
        for column in range(3):
            result += np.where((said == row) & (was == column), table[row][column] / 2, 0.0)
    return np.where(np.isfinite(forecast), result, np.nan)


def seeps_mean(members, truth, climate, dry: float, weights, mask) -> np.ndarray:
    """Area mean of SEEPS over the cells that have one, mean over members: `(lead, level, region)`.

    `members` `(member, lead, level, cell)`, `truth` `(lead, level, cell)`, `climate` `(lead, 2, level, cell)`.
    """
    probability, heavy = climate[:, 0].astype(np.float64), climate[:, 1].astype(np.float64)
    total = sum(seeps_errors(member, truth, probability, heavy, dry) for member in members) / len(members)
    valid = (probability > VALID[0]) & (probability < VALID[1])
    return area_means(total, weights, valid if mask is None else valid & mask)


def neighbourhood(field: np.ndarray, window: int, wraps: bool = True) -> np.ndarray:
    """Mean over `window` x `window` cells around each, `(..., row, column)`; columns wrap unless told otherwise.

    `window` is odd. Near a pole or a side of a limited area the mean is over the rows and columns that there are.
    """
    half = window // 2
    if half == 0:
        return field
    if wraps:
        east = np.concatenate([field[..., -half:], field, field[..., :half]], axis=-1)
        total = np.cumsum(np.concatenate([np.zeros_like(east[..., :1]), east], axis=-1), axis=-1)
        rows = (total[..., window:] - total[..., :-window]) / window
    else:
        rows = _along_rows(field.swapaxes(-1, -2), half).swapaxes(-1, -2)
    return _along_rows(rows, half)


def _along_rows(field: np.ndarray, half: int) -> np.ndarray:
    """Means over the rows up to `half` before and behind, as far as there are any."""
    sums = np.cumsum(np.concatenate([np.zeros_like(field[..., :1, :]), field], axis=-2), axis=-2)
    count = field.shape[-2]
    top, bottom = np.maximum(np.arange(count) - half, 0), np.minimum(np.arange(count) + half + 1, count)
    return (sums[..., bottom, :] - sums[..., top, :]) / (bottom - top)[:, None]


def fss_statistics(
    probability: np.ndarray, happened: np.ndarray, grid: Grid, weights, exists: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """`<(Pf - Po)^2>` and `<Pf^2> + <Po^2>` of event fractions in neighbourhoods: `(..., region, window)`.

    `probability` and `happened` `(..., cell)`: of the event in the forecast and in the truth. The fraction skill score is
    1 minus the ratio of their means over initial times (Roberts and Lean 2008). A region takes in its neighbours' cells.
    Cells where nothing `exists`, of a shape that fits `happened`, are in no neighbourhood.
    """
    difference, power = [], []
    shape = (*happened.shape[:-1], *grid.shape)
    mask = None if exists is None else np.broadcast_to(exists, happened.shape)
    wraps = grid.goes_round
    for window in WINDOWS:
        said, was = (
            neighbourhood(x.reshape(shape), window, wraps).reshape(happened.shape) for x in (probability, happened)
        )
        if mask is not None:
            share = neighbourhood(mask.astype(np.float64).reshape(shape), window, wraps).reshape(happened.shape)
            said, was = (np.where(mask, x / np.where(mask, share, 1.0), 0.0) for x in (said, was))
        difference.append(area_means((said - was) ** 2, weights, mask))
        power.append(area_means(said**2 + was**2, weights, mask))
    return {"fss_difference": np.stack(difference, axis=-1), "fss_power": np.stack(power, axis=-1)}


def _rainy(variable: str, binning) -> bool:
    return variable == PRECIPITATION and binning.step_seconds > 0


def _seeps(sample: Sample) -> dict:
    dry = dry_rate(sample.binning.step_seconds)
    climate = sample.normals["rain"]
    return {"seeps": seeps_mean(sample.members, sample.truth, climate, dry, sample.weights, sample.mask)}


def _fss(sample: Sample) -> dict:
    """Of the upper events alone: the lack of rain is no event that has a place."""
    mask, upper = sample.mask, sample.binning.upper
    both = (x if mask is None else np.where(mask[:, None], x, 0.0) for x in sample.once(events.fields_of))
    result = {}
    fields = (x[:, upper] for x in both)
    for name, values in fss_statistics(*fields, sample.binning.grid, sample.weights, sample.exists).items():
        result[name] = np.full((len(values), len(upper), *values.shape[2:]), np.nan)
        result[name][:, upper] = values
    return result


RAIN = Statistics(
    ("seeps",),
    _seeps,
    headline=True,
    wanted=_rainy,
    normals={
        "rain": lambda binning: lambda samples: seeps_climate(samples, dry_rate(binning.step_seconds)),
    },
)
FRACTIONS = Statistics(
    ("fss_difference", "fss_power"),
    _fss,
    front=events.AXIS,
    back={"window": lambda binning: WINDOWS},
    headline=True,
    wanted=lambda variable, binning: _rainy(variable, binning) and bool(binning.events) and not binning.grid.is_points,
    normals=events.THRESHOLDS,
)


@metric("SEEPS", (RAIN,), better="lower")
def seeps(mean):
    """SEEPS (Rodwell et al. 2010), 0 is perfect"""
    return mean["seeps"]


@metric("FSS", (FRACTIONS,), better="higher")
def fss(mean):
    """fraction skill score (Roberts and Lean 2008)"""
    return 1 - ratio(mean["fss_difference"], mean["fss_power"])
