"""The highest value of a year in every cell: with daily or six-hourly fields a quantile far in the tail."""

from emulator.verify.long_climate import Pair, climate_score
from emulator.verify.yearly import spread


@climate_score
def annual_maxima(pair: Pair) -> dict[str, tuple]:
    """Bias of the mean annual maximum, and the reference's own spread of annual maxima from year to year.

    Of run and reference at the same hours of day: a maximum grows with the number of samples.
    """
    ours, theirs = pair.of_members("highest").mean(axis=(0, 1)), pair.reference.highest.mean(axis=0)
    own = spread(pair.whole.highest, pair.whole.label)
    return {
        "maximum_bias_map": pair.map(ours - theirs),
        "maximum_bias_rmse": ((), pair.size(ours - theirs)),
        "maximum_bias": ((), float((ours - theirs) @ pair.area)),
        "maximum_spread_rmse": ((), pair.size(own)),
    }
