"""What a reader of scores is told at once: forecasts that are not finite, leads without a truth, units that cannot be."""

import numpy as np
import xarray as xr

from emulator.verify.sample import BASELINES

SHOWN = 4
FAR = 5.0  # standard deviations of the climatology: degrees Celsius taken as kelvins are 13, hPa as Pa 10


def lacking(scores: xr.Dataset) -> list[str]:
    """A sentence for every forecast with scores that are missing although there is a truth, and one for leads without any."""
    found = []
    judged = scores["count"] > 0  # (channel, region, lead_time)
    for name in (str(n) for n in scores["forecast"].values if n not in BASELINES):
        failed = (scores["rmse"].sel(forecast=name).isnull() & judged).any(["region", "lead_time"])
        channels = [str(c) for c in scores["channel"].values[failed.transpose("channel").values]]
        if not channels:
            continue
        values = int(scores["gap_count"].sel(gap_source=name)) if "gap_count" in scores else 0
        found.append(
            f"{name} is not finite at {values} places where there is a truth: scores of {_listed(channels)} are missing"
        )
    found += far_off(scores)
    beyond = scores["lead_time"].values[~judged.any(["channel", "region"]).values]
    if len(beyond):
        hours = [f"{lead / np.timedelta64(1, 'h'):g} h" for lead in beyond]
        found.append(f"no initial time has a truth at the leads {_listed(hours)}: they are not scored")
    return found


def far_off(scores: xr.Dataset) -> list[str]:
    """A sentence for every forecast that at its first lead is as far from the truth as only wrong units can be."""
    found = []
    if "climatology_std" not in scores:
        return found
    std = scores["climatology_std"].transpose("channel").values
    for name in (str(n) for n in scores["forecast"].values if n not in BASELINES):
        bias = scores["bias"].sel(forecast=name).isel(region=0, lead_time=0).transpose("channel").values
        with np.errstate(invalid="ignore", divide="ignore"):
            far = np.flatnonzero((std > 0) & (np.abs(bias) > FAR * std))
        if len(far):
            first, channels = far[0], [str(c) for c in scores["channel"].values[far]]
            found.append(
                f"{name} is far from the truth in {_listed(channels)} (the mean error of the first is "
                f"{bias[first]:.3g} at the first lead, {abs(bias[first]) / std[first]:.0f} times its variability): are the "
                "units right?"
            )
    return found


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
