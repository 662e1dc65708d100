import numpy as np
import pytest

from emulator.planet.grid import Grid
from emulator.planet.regions import REGIONS, region_weights, regions_of

FINE = Grid.equiangular(180)


def test_weights_sum_to_one_and_hold_only_the_region():
    mask = (FINE.mesh()[1] // 10 % 2).astype(float)
    weights = region_weights(FINE, list(REGIONS), mask)
    np.testing.assert_allclose(weights.sum(axis=(1, 2)), 1)
    latitude, longitude = FINE.mesh()
    inside = weights[list(REGIONS).index("europe")] > 0
    assert latitude[inside].min() > 35 and latitude[inside].max() < 75
    assert set(np.unique(longitude[inside])) == {*range(43), *range(348, 360)}  # over Greenwich
    pacific = np.unique(longitude[weights[list(REGIONS).index("north-pacific")] > 0])
    assert (pacific.min(), pacific.max()) == (145, 230)  # over the date line
    np.testing.assert_array_equal(weights[list(REGIONS).index("global-land")] > 0, mask > 0)


def test_area_of_the_tropics_is_the_sine_of_their_edge():
    latitude, _ = FINE.mesh()
    share = FINE.area[region_weights(FINE, ["tropics"])[0] > 0].sum()
    np.testing.assert_allclose(share, np.sin(np.radians(20)), rtol=1e-12)
    assert np.abs(latitude[region_weights(FINE, ["extra-tropics"])[0] > 0]).min() > 20


def test_hemispheres_and_tropics_make_the_globe():
    field = np.random.default_rng(0).standard_normal(FINE.shape)
    parts = ["northern-hemisphere", "tropics", "southern-hemisphere"]
    weights = region_weights(FINE, parts)
    shares = [FINE.area[w > 0].sum() for w in weights]
    np.testing.assert_allclose(
        sum(s * (w * field).sum() for s, w in zip(shares, weights, strict=True)), FINE.mean(field)
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [("atlantis", "Expected regions among"), ("europe-land", "land_sea_mask"), ("arctic", "Expected cells")],
)
def test_refusals(name, message):
    band = Grid.from_coordinates(np.arange(10.0, -11, -5), np.arange(0.0, 360, 30))
    with pytest.raises(ValueError, match=message):
        region_weights(band if name == "arctic" else FINE, [name])


def test_regions_of_a_box_are_cut_to_it_and_empty_ones_left_out():
    box = Grid.box(30, 40, (30, 60, -20, 20))
    assert regions_of(box) == (("domain",), ())
    assert regions_of(box, ["global", "europe", "tropics", "domain"]) == (("domain", "europe"), ("tropics",))
    with pytest.raises(ValueError, match="region with cells.*tropics, arctic"):
        regions_of(box, ["tropics", "arctic"])
    with pytest.raises(ValueError, match="regions among.*atlantis"):
        regions_of(box, ["atlantis"])
    assert regions_of(FINE)[0][0] == "global" and regions_of(FINE, ["tropics"]) == (("tropics",), ())
    weights = region_weights(box, ["domain", "europe"])
    np.testing.assert_allclose(weights[0], box.area, rtol=1e-12)
    inside = (box.mesh()[0] >= 35) & (box.mesh()[1] >= -12.5)
    np.testing.assert_array_equal(weights[1] > 0, inside)
    np.testing.assert_allclose(weights[1][inside] / box.area[inside], 1 / box.area[inside].sum(), rtol=1e-12)
