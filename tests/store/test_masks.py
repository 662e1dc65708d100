"""Where fields exist: domains by the land-sea mask and by masks of the store, and masks that do not fit."""

import numpy as np
import pytest
import xarray as xr

from emulator.planet.slab import SEA_TEMPERATURE
from emulator.store.masks import counted, domain_of, with_land_sea_mask

LAND = np.array([[0.0, 0.4, 0.5], [1.0, 0.7, np.nan]])
SEABED = np.array([[[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])


def store(domain=None, dims=("time", "depth", "latitude", "longitude"), shape=(4, 2, 2, 3)):
    space = ("latitude", "longitude")
    fields = {
        "field": (dims, np.zeros(shape), {} if domain is None else {"domain": domain}),
        "land_sea_mask": (space, LAND),
        "sea_floor": (("depth", *space), SEABED),
    }
    return xr.Dataset(fields)


@pytest.mark.parametrize("domain", [None, "all"])
def test_no_domain_is_everywhere(domain):
    assert domain_of(store(domain), "field") is None


def test_land_and_ocean_share_the_cells_that_are_known():
    land, ocean = (domain_of(store(domain), "field") for domain in ("land", "ocean"))
    assert land.dtype == bool and land.shape == (2, 2, 3)
    np.testing.assert_array_equal(land[0], [[False, False, True], [True, True, False]])
    np.testing.assert_array_equal(land[0], land[1])
    np.testing.assert_array_equal(land ^ ocean, np.broadcast_to(np.isfinite(LAND), (2, 2, 3)))


def test_a_mask_of_the_store_may_differ_by_level():
    np.testing.assert_array_equal(domain_of(store("sea_floor"), "field"), SEABED > 0)
    turned = store("sea_floor").transpose("longitude", "latitude", "depth", "time")
    np.testing.assert_array_equal(domain_of(turned, "field"), (SEABED > 0).transpose(2, 1, 0))  # along the field's own


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (store("no_such"), "static field no_such for the domain 'no_such' of field"),
        (store("ocean").drop_vars("land_sea_mask"), "land_sea_mask for the domain 'ocean' of field"),
        (store("sea_floor", ("time", "latitude", "longitude"), (4, 2, 3)), r"sea_floor of field .*got depth \(2\)"),
        (store("sea_floor", ("time", "level", "latitude", "longitude"), (4, 5, 2, 3)), r"level \(5\).*got depth \(2\)"),
    ],
)
def test_masks_that_do_not_fit(dataset, message):
    with pytest.raises(ValueError, match=message):
        domain_of(dataset, "field")


def test_a_sea_temperature_that_is_filled_in_over_land_counts_where_there_is_sea():
    sea = xr.Dataset({SEA_TEMPERATURE: (("time", "latitude", "longitude"), np.zeros((4, 2, 3)))})
    known = sea.assign(land_sea_mask=(("latitude", "longitude"), LAND))
    below_half = [[True, True, False], [False, False, False]]
    assert counted(sea, SEA_TEMPERATURE) is None
    np.testing.assert_array_equal(counted(known, SEA_TEMPERATURE), below_half)
    turned = known.assign(land_sea_mask=(("longitude", "latitude"), LAND.T))
    np.testing.assert_array_equal(counted(turned, SEA_TEMPERATURE), below_half)
    moving = known.assign(land_sea_mask=(("time", "latitude", "longitude"), np.stack([LAND] * 4)))
    with pytest.raises(ValueError, match=r"land_sea_mask of sea_surface_temperature on latitude \(2\).*got time \(4\)"):
        counted(moving, SEA_TEMPERATURE)
    named = known.assign(floor=(("latitude", "longitude"), 1 - np.nan_to_num(LAND)))
    named[SEA_TEMPERATURE].attrs["domain"] = "floor"  # what a store says comes first
    np.testing.assert_array_equal(counted(named, SEA_TEMPERATURE), domain_of(named, SEA_TEMPERATURE))
    assert counted(store().assign(other=store()["field"]), "other") is None
    np.testing.assert_array_equal(counted(store("land"), "field"), domain_of(store("land"), "field"))


def test_a_store_without_the_mask_has_that_of_the_one_beside_it():
    masked, other = store(), store().drop_vars("land_sea_mask")
    np.testing.assert_array_equal(with_land_sea_mask(other, masked)["land_sea_mask"], LAND)
    assert with_land_sea_mask(masked, masked) is masked
    assert with_land_sea_mask(other, None) is other and with_land_sea_mask(other, other) is other
