"""Which initial times of a store hold anything: stores are made for a season, and filled as the forecasts come."""

import numpy as np

from emulator.verify.channels import ScoredVariable
from emulator.verify.fields import values


def empty_inits(variables: list[ScoredVariable], name: str, init_time: np.ndarray) -> np.ndarray:
    """For every initial time `(init,)` whether the forecast `name` has no finite value at any lead.

    Looked up in the smallest variable; one field of each initial time that is there is read, the last lead before the rest,
    since some fields (rain) begin after the initial time.
    """
    array = min((variable.forecasts[name].array for variable in variables), key=lambda a: a[0].size)
    places = array.indexes["init_time"].get_indexer(init_time)
    leads = [array.sizes["lead_time"] - 1, *range(array.sizes["lead_time"] - 1)]
    return np.array([not any(_holds(array, place, lead) for lead in leads) for place in places], bool)


def _holds(array, place: int, lead: int) -> bool:
    return bool(np.isfinite(values(array.isel(init_time=place, lead_time=lead))).any())
