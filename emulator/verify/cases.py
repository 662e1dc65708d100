"""Single forecasts to look at: the typical one, the best and the worst, beside the truth."""

import numpy as np
import xarray as xr

from emulator.planet.calendar import lead_seconds
from emulator.verify.channels import ScoredVariable, channel_name, headline_ranks

CASES = ("typical", "best", "worst")
RANKED_AT_HOURS = 72


def case_maps(scores: xr.Dataset, variables: list[ScoredVariable], shared, names: list[str]) -> xr.Dataset:
    """Fields of the first forecast (or of persistence) and of the truth for three initial times, at the leads of maps.

    The initial times are the median, the best and the worst by the squared error of the headline channels, each relative to
    its mean, at the lead nearest to 72 h, among those of `shared.alignment`. Empty without headline channels.
    """
    headline = [(variable, sorted(headline_ranks(variable))) for variable in variables if headline_ranks(variable)]
    inits = _choose(scores, headline, shared) if headline else []
    if not len(inits):
        return xr.Dataset()
    alignment, grid = shared.alignment, shared.grid
    leads = list(shared.map_leads)
    forecast, truth, channels = [], [], []
    for variable, levels in headline:
        channels += [channel_name(variable, level) for level in levels]
        truth.append(np.stack([variable.truth.analysis(alignment.truth_valid[i, leads])[:, levels] for i in inits]))
        forecast.append(np.stack([_forecast(variable, names, alignment, i, leads)[:, levels] for i in inits]))
    dims = ("case", "map_channel", "map_lead", *grid.dims)
    data = {
        name: (
            dims,
            np.moveaxis(np.concatenate(parts, axis=2), 1, 2).reshape(
                len(inits), len(channels), len(leads), *grid.shape
            ),
        )
        for name, parts in (("case_forecast", forecast), ("case_truth", truth))
    }
    data = {name: (dims, values.astype(np.float32)) for name, (dims, values) in data.items()}
    data["case_init"] = ("case", alignment.init_time[inits])
    return xr.Dataset(data, {"case": list(CASES), "map_channel": channels, "map_lead": alignment.lead_time[leads]})


def _forecast(variable, names, alignment, init, leads):
    if not names:
        return np.stack([variable.truth.analysis(alignment.truth_init[[init]])[0]] * len(leads))
    return variable.forecasts[names[0]].forecast(alignment.init_time[init], alignment.lead_time[leads]).mean(axis=0)


def _choose(scores, headline, shared) -> np.ndarray:
    alignment = shared.alignment
    hours = lead_seconds(alignment.lead_time) / 3600
    lead = min(shared.map_leads, key=lambda index: abs(hours[index] - RANKED_AT_HOURS))
    channels = [channel_name(variable, level) for variable, levels in headline for level in levels]
    errors = scores["squared_error"].isel(forecast=0, region=0, lead_time=lead)
    errors = errors.sel(channel=channels, init_time=alignment.init_time).transpose("init_time", "channel").values
    complete = np.flatnonzero((alignment.truth_valid[:, list(shared.map_leads)] >= 0).all(axis=1))
    known = np.isfinite(errors)
    typical = np.where(known, errors, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    relative = np.where(known, errors / np.where(typical > 0, typical, 1.0), 0.0)
    score = np.where(known.all(axis=1), relative.mean(axis=1), np.nan)[complete]
    if not np.isfinite(score).any():
        return complete[:1].repeat(len(CASES))
    order = np.argsort(np.nan_to_num(score, nan=np.inf))
    order = order[: int(np.isfinite(score).sum())]
    return complete[[order[(len(order) - 1) // 2], order[0], order[-1]]]
