"""Spectra of the fields on the sphere, with the range of the reference's own years."""

import numpy as np

from emulator.verify.long_climate import RECORD, WAVE, Pair, climate_score


@climate_score
def spectra(pair: Pair) -> dict[str, tuple]:
    """Mean power by wavenumber `(climate_record, climate_wavenumber)`, and the least and the most of a year of the
    reference.
    """
    if any(record.power is None for record in (*pair.members, pair.whole)):
        return {}
    power = pair.of_members("power").mean(axis=(0, 1))
    return {
        "power": ((RECORD, WAVE), np.stack([power, pair.whole.power.mean(axis=0)])),
        "power_lowest": ((WAVE,), pair.whole.power.min(axis=0)),
        "power_highest": ((WAVE,), pair.whole.power.max(axis=0)),
    }
