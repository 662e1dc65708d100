"""Spread and error of an ensemble by wavenumber: at which scales it knows how wrong it may be."""

import numpy as np

from emulator.verify.metric import FIELDS, Sample, Statistics, metric, ratio
from emulator.verify.metrics.spectra import SPECTRA, power_where_it_exists, relative_power


def _of(samples: list[Sample]) -> dict:
    """Power of the members' departures from their mean, and of the mean's error; NaN for single forecasts and the truth."""
    truth = samples[-1].truth
    shape = (len(samples), *truth.shape[:-1], SPECTRA.sizes(samples[0].binning)["wavenumber"])
    result = {name: np.full(shape, np.nan) for name in NAMES}
    for place, sample in enumerate(samples):
        if len(sample.members) > 1:
            fields = np.concatenate([sample.members - sample.mean, (sample.mean - truth)[None]])
            power = power_where_it_exists(fields, sample)
            result["departure_power"][place] = power[:-1].sum(axis=0) / (len(sample.members) - 1)
            result["mean_error_power"][place] = power[-1]
    return result


NAMES = ("departure_power", "mean_error_power")
MEAN_SPECTRA = Statistics(
    NAMES, _of, sampling=FIELDS, back=SPECTRA.back, ensemble=True, vector=NAMES,
    wanted=lambda variable, binning: SPECTRA.wanted(variable, binning) and binning.members > 1,
)  # fmt: skip


@metric("Spectrum of the spread", (MEAN_SPECTRA,), "of the channel, squared")
def spread_power(mean):
    """variance over members (ddof 1) per wavenumber"""
    return mean["departure_power"].transpose(*SPECTRA.dims)


@metric("Spectrum of the error", (MEAN_SPECTRA,), "of the channel, squared")
def error_power(mean):
    """power of the ensemble mean's error per wavenumber"""
    return mean["mean_error_power"].transpose(*SPECTRA.dims)


@metric("Spread over error by wavenumber", (SPECTRA, MEAN_SPECTRA), better="one")
def spectral_spread_skill(mean):
    """sqrt((M + 1) / M) spread / error of the ensemble mean per wavenumber, where the truth has power to measure"""
    members = mean["members"].rename(forecast="source").reindex(source=mean["source"])
    truth = mean["power"].transpose(*SPECTRA.dims).isel(source=slice(-1, None)).values
    square = ratio((members + 1) / members * spread_power(mean), error_power(mean))
    return np.sqrt(square.where(np.isfinite(relative_power(truth, truth)))).transpose(*SPECTRA.dims)
