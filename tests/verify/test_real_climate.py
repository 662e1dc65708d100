"""Annual means, pattern scaling and noise of 25 years of a CMIP6 control run; its closed-form twins are in
`test_scenarios`.
"""

import numpy as np
import pytest

import emulator as em
from emulator.sources.foreign import open_truth
from emulator.store.schema import grid_of
from emulator.verify.annual import Annual, channels_of
from emulator.verify.nrmse import another_member, noise_floor, nrmse
from emulator.verify.pattern_scaling import PatternScaling
from emulator.verify.yearly import spread

pytestmark = pytest.mark.slow  # an ingest by Dask
NAME = "tas_Amon_ACCESS-ESM1-5_piControl_r1i1p1f1_gn_010101-012512.nc"


@pytest.fixture(scope="module")
def control(shared_data, tmp_path_factory):
    store = tmp_path_factory.mktemp("control") / "analysis.zarr"
    em.ingest(shared_data / "climate" / NAME, store)
    dataset = open_truth(store)
    grid, (channel,) = grid_of(dataset), channels_of(dataset, grid_of(dataset))
    annual = Annual.of(dataset, "the control")
    return annual.label, annual.fields(channel, grid)[0], grid.area.ravel()


def test_it_has_25_whole_years_of_a_plausible_planet(control):
    label, fields, area = control
    assert label.tolist() == list(range(101, 126))
    np.testing.assert_allclose(fields.mean(axis=0) @ area, 287.5, atol=1.5)
    assert 0.05 < spread(fields @ area, label) < 0.2  # the global mean from year to year


def test_local_lines_add_up_to_the_global_mean(control):
    """And lie steeper over land and ice than over the sea, in noise too."""
    label, fields, area = control
    fit = PatternScaling.fit(label.astype(float), fields @ area, fields)
    np.testing.assert_allclose([fit.slope @ area, fit.offset @ area], [1, 0], atol=1e-5)
    assert fit.slope.max() > 2 and fit.slope.min() < 0


def test_noise_of_five_pieces_taken_as_members(control):
    """The floor of all five is near what their mean has against the other years' mean, since nothing is forced."""
    _, fields, area = control
    anomalies = fields - fields.mean(axis=0) + 1  # around a mean of 1 K, so that errors are in kelvin
    pieces = anomalies.reshape(5, 5, -1)
    floor, other = noise_floor(pieces, area), another_member(pieces, area)
    assert 0.05 < floor.spatial < other.spatial / 2 < 0.3
    np.testing.assert_allclose(other.spatial**2, 5 / 4 * 5 * floor.spatial**2, rtol=1e-6)
    alone = nrmse(pieces[0], pieces[1:].mean(axis=0), area)
    np.testing.assert_allclose(alone.spatial, other.spatial, rtol=0.5)
