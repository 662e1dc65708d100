"""A joined store is what one gets by putting the arrays together by hand: other variables, levels and steps."""

import json

import numpy as np
import pytest
import torch
from small_planet import small_planet

from emulator.data.channels import Layout
from emulator.data.samples import Samples
from emulator.ingestion.options import IngestOptions
from emulator.ingestion.run import ingest
from emulator.store.analysis import AnalysisSeries, open_analysis, reader_of
from emulator.store.joined import Part, Recipe, write_joined
from emulator.store.masks import domain_of
from emulator.store.statistics import write_statistics

SEA, RAIN = "sea_surface_temperature", "mean_total_precipitation_rate"


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A six-hourly atmosphere, and a daily ocean: its sea temperature is the day's number, its rain the day's mean."""
    folder = tmp_path_factory.mktemp("joined")
    planet = small_planet(times=41)
    days = planet.isel(time=slice(0, None, 4))[[SEA, RAIN]].copy(deep=True)
    days[SEA][:] = 280 + np.arange(days.sizes["time"])[:, None, None]
    rain = planet[RAIN].values
    days[RAIN][1:] = np.stack([rain[4 * n - 3 : 4 * n + 1].mean(0) for n in range(1, days.sizes["time"])])
    days[RAIN].attrs["cell_methods"] = "time: mean"
    planet.drop_vars(SEA).to_netcdf(folder / "atmosphere.nc")
    days.assign_attrs(constants=planet.attrs["constants"]).to_netcdf(folder / "ocean.nc")
    for name in ("atmosphere", "ocean"):
        ingest(folder / f"{name}.nc", folder / f"{name}.zarr")
    return folder, planet, days


def join(folder, name="both.zarr", **options):
    recipe = Recipe((Part("../atmosphere.zarr"), Part("../ocean.zarr", (SEA,))), **options)
    here = Recipe(tuple(Part(str(folder / part.path[3:]), part.variables) for part in recipe.parts), **options)
    write_joined(recipe, [open_analysis(part.path) for part in here.parts], folder / name)
    return folder / name


def test_six_hourly_times_see_the_latest_day(stores):
    folder, planet, _ = stores
    joined = open_analysis(join(folder))
    np.testing.assert_array_equal(joined["time"], planet["time"])
    np.testing.assert_array_equal(joined[SEA].values[:, 0, 0], 280 + np.arange(41) // 4)
    np.testing.assert_array_equal(joined["temperature"].values, planet["temperature"].values)
    assert joined.attrs["time_step_seconds"] == 21600 and joined[SEA].attrs["units"] == "K"


def test_a_day_is_the_mean_over_its_fluxes_and_its_last_snapshot(stores):
    folder, planet, days = stores
    joined = open_analysis(join(folder, "daily.zarr", step_hours=24))
    np.testing.assert_array_equal(joined["time"], days["time"][1:])  # the first day's fluxes are not all there
    np.testing.assert_allclose(joined[RAIN].values, days[RAIN].values[1:], rtol=1e-6)
    np.testing.assert_array_equal(joined["temperature"].values, planet["temperature"].values[4::4])


def test_means_over_longer_intervals_are_those_that_the_step_lies_in(stores):
    folder, _, days = stores
    recipe = Recipe(
        (Part(str(folder / "atmosphere.zarr"), ("temperature",)), Part(str(folder / "ocean.zarr"), (RAIN,)))
    )
    write_joined(recipe, [open_analysis(part.path) for part in recipe.parts], folder / "means.zarr")
    joined = open_analysis(folder / "means.zarr")
    owner = -(-np.arange(1, 41) // 4)  # the step that ends at six-hourly time n lies in day ceil(n / 4)
    np.testing.assert_array_equal(joined[RAIN].values[1:], days[RAIN].values[owner])


def test_a_state_of_means_is_what_has_been_and_not_what_is_to_come(stores):
    """At six hours of a day its mean is still to come: a network that is given it has been told the answer."""
    folder, _, days = stores
    parts = Part(str(folder / "atmosphere.zarr"), ("temperature",)), Part(str(folder / "ocean.zarr"), (RAIN,))
    recipe = Recipe(parts, roles={RAIN: "prognostic"})
    write_joined(recipe, [open_analysis(part.path) for part in parts], folder / "state.zarr")
    joined = open_analysis(folder / "state.zarr")
    np.testing.assert_array_equal(joined[RAIN].values, days[RAIN].values[np.arange(41) // 4])
    layout = Layout.of(joined, {"prognostic": [RAIN], "diagnostic": [], "forcing": []})
    fast = Samples(joined, layout, cache_bytes=0, stores=[folder / "state.zarr"])
    np.testing.assert_array_equal(fast.batch([6], 1).state[0, :, 0].numpy(), joined[RAIN].values[6:8])


def test_a_field_brings_its_mask(stores, tmp_path):
    folder, planet, days = stores
    masked = days[[SEA]].copy(deep=True)
    masked[SEA] = masked[SEA].where(np.arange(24) < 20)
    masked[SEA].attrs = days[SEA].attrs
    masked.assign_attrs(constants=planet.attrs["constants"]).to_netcdf(tmp_path / "masked.nc")
    ingest(IngestOptions(tmp_path / "masked.nc", define={SEA: {"domain": "valid"}}), tmp_path / "masked.zarr")
    parts = Part(str(folder / "atmosphere.zarr")), Part(str(tmp_path / "masked.zarr"), (SEA,))
    write_joined(Recipe(parts), [open_analysis(part.path) for part in parts], tmp_path / "joined.zarr")
    exists = domain_of(open_analysis(tmp_path / "joined.zarr"), SEA)
    np.testing.assert_array_equal(exists, np.broadcast_to(np.arange(24) < 20, exists.shape))


@pytest.mark.parametrize("cache", [0, 1 << 30])
@pytest.mark.parametrize("step", [None, 24])
def test_windows_read_by_chunks_are_the_datasets_own(stores, cache, step):
    folder, _, _ = stores
    path = join(folder, f"windows-{step}.zarr", step_hours=step)
    joined = open_analysis(path)
    layout = Layout.of(joined, {"prognostic": ["temperature", "surface_pressure"]})
    fast = Samples(joined, layout, cache_bytes=cache, stores=[path], threads=2)
    plain = Samples(joined, layout, cache_bytes=0)
    for a, b in zip(fast.batch([0, 5], 2).split(1), plain.batch([0, 5], 2).split(1), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a._tensors(), b._tensors(), strict=True))
    sea = layout.forcing.slices[SEA]
    expected = joined[SEA].values[[0, 1, 5, 6]].reshape(2, 2, 1, *joined[SEA].shape[1:])
    np.testing.assert_array_equal(fast.batch([0, 5], 2).forcing[:, :, sea].numpy(), expected)
    assert reader_of(path).can_read([SEA]) and reader_of(path).can_read([RAIN]) == (step is None)


def test_statistics_and_series_take_it_for_a_store(stores, tmp_path):
    folder, _, _ = stores
    path = join(folder)
    write_statistics(path, tmp_path / "statistics.nc")
    assert len(AnalysisSeries.of([open_analysis(path)]).times) == 41
    import xarray as xr

    with xr.open_dataset(tmp_path / "statistics.nc") as statistics:
        sea = 280 + np.arange(41) // 4
        np.testing.assert_allclose(statistics[SEA].sel(statistic="mean"), sea.mean())
        assert statistics.attrs["store_fingerprint"] == open_analysis(path).attrs["fingerprint"]


def test_a_joined_store_follows_its_stores(stores):
    """Its fingerprint is theirs and the recipe's, wherever it lies."""
    folder, _, _ = stores
    prints = [open_analysis(join(folder, name, **more)).attrs["fingerprint"] for name, more in MORE]
    assert prints[0] == prints[1] and len(set(prints)) == 3


MORE = [("a.zarr", {}), ("b.zarr", {}), ("c.zarr", {"step_hours": 12}), ("d.zarr", {"roles": {SEA: "diagnostic"}})]


@pytest.mark.parametrize(
    ("parts", "more", "facts"),
    [
        (((None), (RAIN,)), {}, (RAIN, "ocean.zarr")),
        ((("temperature",), ("salinity",)), {}, ("salinity", "ocean.zarr")),
        ((("temperature", RAIN), (RAIN,)), {}, (RAIN, "atmosphere.zarr", "ocean.zarr")),
        ((None, (SEA,)), {"step_hours": 9}, ("step_hours", "6", "9")),
        ((None, (SEA,)), {"roles": {"salinity": "forcing"}}, ("salinity",)),
        ((None, (SEA,)), {"roles": {SEA: "static"}}, (SEA, "static")),
    ],
)
def test_what_does_not_go_together_is_refused_and_nothing_written(stores, parts, more, facts):
    folder, _, _ = stores
    names = [str(folder / f"{n}.zarr") for n in ("atmosphere", "ocean")]
    recipe = Recipe(tuple(Part(path, own) for path, own in zip(names, parts, strict=True)), **more)
    with pytest.raises(ValueError) as error:
        write_joined(recipe, [open_analysis(path) for path in names], folder / "bad.zarr")
    assert all(fact in str(error.value) for fact in facts) and not (folder / "bad.zarr").exists()


def test_other_grids_and_other_times_are_refused(stores, tmp_path):
    folder, planet, days = stores
    days.isel(latitude=slice(None, None, 2)).assign_attrs(constants=planet.attrs["constants"]).to_netcdf(
        tmp_path / "g.nc"
    )
    later = days.assign_coords(time=days["time"] + np.timedelta64(400, "D"))
    later.assign_attrs(constants=planet.attrs["constants"]).to_netcdf(tmp_path / "t.nc")
    for name, fact in (("g", "grid"), ("t", "times")):
        ingest(tmp_path / f"{name}.nc", tmp_path / f"{name}.zarr")
        paths = [str(folder / "atmosphere.zarr"), str(tmp_path / f"{name}.zarr")]
        with pytest.raises(ValueError, match=fact):
            recipe = Recipe((Part(paths[0]), Part(paths[1], (SEA,))))
            write_joined(recipe, [open_analysis(path) for path in paths], tmp_path / "joined.zarr")


def test_a_damaged_description_is_one_sentence(stores, tmp_path):
    (tmp_path / "broken.zarr").mkdir()
    for text in ("{", json.dumps({"emulator_schema": "joined-1", "stores": [{}]}), "[]"):
        (tmp_path / "broken.zarr" / "joined.json").write_text(text)
        with pytest.raises(ValueError, match="joined.json"):
            open_analysis(tmp_path / "broken.zarr")
