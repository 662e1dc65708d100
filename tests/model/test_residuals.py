"""Residuals of the truth are found once for some data and budgets, and are those that the data give."""

import pytest
from small_planet import numpy_statistics
from small_training import CONFIG, samples_of

import emulator.model.residuals as module
from emulator.data.normalisation import open_statistics
from emulator.model.conserving import ConservationOptions, conservation, find_residuals
from emulator.model.residuals import beside
from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of


@pytest.fixture
def statistics(planet, tmp_path):
    return _from_file(numpy_statistics(planet), tmp_path / "s.nc")


def _from_file(dataset, path):
    dataset.encoding["source"] = str(path)
    return dataset


def saved(planet, statistics, config=CONFIG, **options):
    return conservation(ConservationOptions.of(options), samples_of(planet, config), statistics).saved


def test_they_are_read_once(planet, statistics, monkeypatch):
    planet = planet.assign_attrs(fingerprint="one")
    path = beside(statistics.encoding["source"])
    expected = saved(planet, numpy_statistics(planet))  # of no file: from the data
    assert not path.exists()
    first = saved(planet, statistics)
    assert first == expected and path.exists()
    drawn = []
    pairs = module.true_pairs
    monkeypatch.setattr(module, "true_pairs", lambda samples: (drawn.append(1), pairs(samples))[1])
    assert saved(planet, statistics) == expected and not drawn
    # whatever else they depend on is not taken for the same
    for other in (
        {"budgets": ["dry_air", "water"]},
        {"energy": "total", "kind": "projection"},
        {"heat_capacity": "moist", "kind": "projection"},
    ):
        drawn.clear()
        assert saved(planet, statistics, **other) == saved(planet, numpy_statistics(planet), **other)
        assert len(drawn) == 2, other
    for data in (planet.assign_attrs(fingerprint="two"), planet.isel(time=slice(0, 40))):
        drawn.clear()
        assert saved(data, statistics) == saved(data, numpy_statistics(planet)) and len(drawn) == 2
    drawn.clear()
    without = planet.copy()
    del without.attrs["fingerprint"]
    before = path.read_bytes()
    saved(without, statistics)
    assert len(drawn) == 1 and path.read_bytes() == before


def test_another_formula_of_a_quantity_has_other_residuals(planet, statistics, tmp_path, monkeypatch):
    """A user's own quantity may change from one training to the next."""
    planet = planet.assign_attrs(fingerprint="one")
    saved(planet, statistics)
    drawn, pairs = [], module.true_pairs
    monkeypatch.setattr(module, "true_pairs", lambda samples: (drawn.append(1), pairs(samples))[1])
    (tmp_path / "other.py").write_text("another formula")
    monkeypatch.setattr(module.inspect, "getfile", lambda function: str(tmp_path / "other.py"))
    saved(planet, statistics)
    assert len(drawn) == 1


def test_a_damaged_file_is_made_anew(planet, statistics):
    planet = planet.assign_attrs(fingerprint="one")
    expected = saved(planet, statistics)
    path = beside(statistics.encoding["source"])
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    assert saved(planet, statistics) == expected and path.read_bytes() == whole


def test_the_stage_of_the_statistics_finds_those_of_the_usual_budgets(planet, tmp_path, monkeypatch):
    """Read from the store by the roles of its fields, and found again by a training that names them."""
    area = (("latitude", "longitude"), grid_of(planet).area)
    about = {"emulator_schema": "analysis-1", "complete": True, "time_step_seconds": 21600.0, "fingerprint": "one"}
    data = planet.assign(cell_area=area).assign_attrs(about)
    data.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    numpy_statistics(planet).to_netcdf(tmp_path / "s.nc")
    assert find_residuals([tmp_path / "a.zarr"], tmp_path / "s.nc")
    expected = saved(planet, numpy_statistics(planet))
    monkeypatch.setattr(module, "true_pairs", lambda samples: pytest.fail("read again"))
    found = saved(open_analysis(tmp_path / "a.zarr"), open_statistics(tmp_path / "s.nc"))
    for name, value in expected.items():
        if name.startswith("unaccounted"):
            assert found[name] == pytest.approx(value, rel=1e-6), name
    dry = data.drop_vars("mean_evaporation_rate")
    dry.to_zarr(tmp_path / "b.zarr", zarr_format=3, consolidated=False)
    assert not find_residuals([tmp_path / "b.zarr"], tmp_path / "s.nc")
