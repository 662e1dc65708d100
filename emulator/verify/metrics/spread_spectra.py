"""Spread and error of an ensemble by wavenumber: at which scales it knows how wrong it may be.

The spectrum of the variance over members is that of the members' mean power beyond the power of their mean, since
`1/(M-1) sum |a_m - a|^2 = M/(M-1) (mean |a_m|^2 - |a|^2)` for every coefficient.
"""

import numpy as np

from emulator.verify.metric import FIELDS, Sample, Statistics, metric, ratio
from emulator.verify.metrics.spectra import SPECTRA, power_where_it_exists, relative_power


def _of(samples: list[Sample]) -> dict:
    """Power of the ensembles' mean and of its error; NaN for single forecasts and the truth."""
    truth = samples[-1].truth
    many = [len(sample.members) > 1 for sample in samples]
    fields = [
        field for sample, one in zip(samples, many, strict=True) if one for field in (sample.mean, sample.mean - truth)
    ]
    power = power_where_it_exists(np.stack(fields), samples[0]) if fields else None
    result = {}
    for index, name in enumerate(NAMES):
        result[name] = np.full(
            (len(samples), *truth.shape[:-1], SPECTRA.sizes(samples[0].binning)["wavenumber"]), np.nan
        )
        if power is not None:
            result[name][many] = power[index::2]
    return result


NAMES = ("mean_power", "mean_error_power")
MEAN_SPECTRA = Statistics(
    NAMES, _of, sampling=FIELDS, back=SPECTRA.back, ensemble=True, vector=NAMES,
    wanted=lambda variable, binning: SPECTRA.wanted(variable, binning) and binning.members > 1,
)  # fmt: skip


@metric("Spectrum of the spread", (SPECTRA, MEAN_SPECTRA), "of the channel, squared")
def spread_power(mean):
    """variance over members (ddof 1) per wavenumber"""
    members = _members(mean)
    variance = (mean["power"] - mean["mean_power"]).clip(0) * members / (members - 1)
    return variance.transpose(*SPECTRA.dims)


@metric("Spectrum of the error", (SPECTRA, MEAN_SPECTRA), "of the channel, squared")
def error_power(mean):
    """power of the ensemble mean's error per wavenumber"""
    return mean["mean_error_power"].transpose(*SPECTRA.dims)


@metric("Spread over error by wavenumber", (SPECTRA, MEAN_SPECTRA), better="one")
def spectral_spread_skill(mean):
    """sqrt((M + 1) / M) spread / error of the ensemble mean per wavenumber, where the truth has power to measure"""
    members, truth = _members(mean), mean["power"].transpose(*SPECTRA.dims).isel(source=slice(-1, None)).values
    square = ratio((members + 1) / members * spread_power(mean), error_power(mean))
    return np.sqrt(square.where(np.isfinite(relative_power(truth, truth)))).transpose(*SPECTRA.dims)


def _members(mean):
    """Of every source; NaN for the truth and for single forecasts."""
    members = mean["members"].rename(forecast="source").reindex(source=mean["source"])
    return members.where(members > 1)
