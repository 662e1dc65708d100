"""The annual cycle: its amplitude everywhere, and the global mean of every month with the reference's own range."""

import numpy as np

from emulator.verify.long_climate import Pair, climate_score
from emulator.verify.yearly import spread


@climate_score
def annual_cycle(pair: Pair) -> dict[str, tuple]:
    """Amplitude of the first harmonic of the mean year, its difference, and the reference's own spread of both.

    `month_bias` and `month_spread` `(month,)`: of the global mean by calendar month. The size of a cycle's difference
    counts its phase
    too: `cycle_error` is the root mean square of |z - z'|, z the complex amplitude, and `cycle_spread` that of the
    reference's single years.
    """
    ours, theirs = pair.of_members("cycle").mean(axis=(0, 1)), pair.reference.cycle.mean(axis=0)
    monthly = pair.of_members("monthly").mean(axis=(0, 1)) - pair.reference.monthly.mean(axis=0)
    found = {
        "month_bias": (("month",), monthly),
        "month_spread": (("month",), spread(pair.whole.monthly, pair.whole.label)),
    }
    if not np.isfinite(ours).all() or not np.isfinite(theirs).all():
        return found
    parts = [spread(part(pair.whole.cycle), pair.whole.label) for part in (np.real, np.imag)]
    return found | {
        "cycle_map": pair.map(np.abs(ours), np.abs(theirs)),
        "cycle_error": ((), pair.size(np.abs(ours - theirs))),
        "cycle_spread": ((), pair.size(np.hypot(*parts))),
        "cycle_size": ((), pair.size(np.abs(theirs))),
    }
