"""Rain and radiation over any intervals become means over the steps of a forecast, however the files are cut."""

import itertools

import numpy as np
import pytest
import xarray as xr
from source_files import truth, write_grib

from emulator.ingestion.assemble import assemble
from emulator.sources.harmonise import pieces
from emulator.sources.open import Source, open_source
from emulator.sources.options import SourceOptions

TRUTH = truth()
RAIN, SUN = "mean_total_precipitation_rate", "mean_surface_net_short_wave_radiation_flux"
SPACE = (7, 12)
HOURLY = np.array([1, 4, 2, 8, 5, 7, 3, 9, 6, 2, 8, 1, 4, 4, 7, 2, 9, 3, 5, 6, 1, 8, 2, 7.0]) * 1e-5  # kg m-2 s-1


def mean(start: int, end: int) -> float:
    return HOURLY[start:end].mean()


def field(value: float, **more) -> xr.DataArray:
    place = {"latitude": TRUTH.latitude, "longitude": TRUTH.longitude, "time": TRUTH.time[:1]}
    return xr.DataArray(np.full((1, *SPACE), value), dims=("time", "latitude", "longitude"), coords=place)


def written(path, spans, short="tp", amount=True, edition=2) -> None:
    """One message for each interval in hours: an amount over it, in m of water, or its mean."""
    for start, end in spans:
        value = mean(start, end) * (3.6 * (end - start) if amount else 1)
        kind = {"stepType": "accum" if amount else "avg"} if start < end else {}
        keys = {"typeOfLevel": "surface", **kind, "startStep": start, "endStep": end}
        write_grib(path, field(value), short, edition, **keys)


def plan_of(*paths, **options):
    found = [p for path in paths for source in open_source(str(path)) for p in pieces(source, SourceOptions(**options))]
    return assemble(found, {})


def series(plan, name=RAIN) -> list[float]:
    leads = np.arange(len(plan.leads))
    whole = plan.fields[name].read(0, 1, SPACE, leads)[0, :, 0, 0]
    single = [plan.fields[name].read(0, 1, SPACE, np.array([lead]))[0, 0, 0, 0] for lead in leads]
    np.testing.assert_array_equal(whole, single)  # a block of leads makes no difference
    return whole.tolist()


CASES = {
    "since the start": [(0, 6), (0, 12), (0, 18), (0, 24)],
    "over each step": [(0, 6), (6, 12), (12, 18), (18, 24)],
    "anew every two steps": [(0, 6), (0, 12), (12, 18), (12, 24)],
    "anew every three steps": [(0, 6), (0, 12), (0, 18), (18, 24)],
    "now so, now so": [(0, 6), (6, 12), (0, 18), (18, 24)],
}


@pytest.mark.parametrize("amount", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_means_over_the_steps_do_not_depend_on_how_files_are_cut(tmp_path, case, amount):
    """The true rain of every step, from one file and from one file for each step in any order."""
    spans, short = CASES[case], "tp" if amount else "avg_tprate"
    expected = [mean(a, a + 6) for a in (0, 6, 12, 18)]
    written(tmp_path / "all.grib2", spans, short, amount)
    np.testing.assert_allclose(series(plan_of(tmp_path / "all.grib2", forecast=True)), expected, rtol=1e-5)
    for span in spans:
        written(tmp_path / f"{span[1]:02d}.grib2", [span], short, amount)
    files = [tmp_path / f"{end:02d}.grib2" for _, end in spans]
    for order in itertools.islice(itertools.permutations(files), 0, 24, 7):
        np.testing.assert_allclose(series(plan_of(*order, forecast=True)), expected, rtol=1e-5)


def test_depths_of_the_first_edition_too(tmp_path):
    for end in (6, 12, 18):
        written(tmp_path / f"{end:02d}.grib", [(0, end)], edition=1)
    found = series(plan_of(*(tmp_path / f"{end:02d}.grib" for end in (6, 12, 18)), forecast=True))
    np.testing.assert_allclose(found, [mean(0, 6), mean(6, 12), mean(12, 18)], rtol=1e-4)


def test_steps_that_grow_longer(tmp_path):
    """Three-hourly and then six-hourly, as the centres' open data."""
    for end in (3, 6, 12, 18):
        written(tmp_path / f"{end:02d}.grib2", [(0, end)])
    found = series(plan_of(*(tmp_path / f"{end:02d}.grib2" for end in (3, 6, 12, 18)), forecast=True))
    np.testing.assert_allclose(found, [mean(0, 3), mean(3, 6), mean(6, 12), mean(12, 18)], rtol=1e-5)


def test_energies_since_the_start(tmp_path):
    """Short-wave radiation in J m-2, whose sum falls nowhere and whose mean rises and falls."""
    flux = np.array([0.0, 400, 300, 0])
    for number in range(1, 5):
        energy = field(21600 * flux[:number].sum())
        write_grib(tmp_path / f"{number}.grib", energy, "ssr", 1, typeOfLevel="surface", stepType="accum",
                   startStep=0, endStep=6 * number)  # fmt: skip
    plan = plan_of(*(tmp_path / f"{n}.grib" for n in range(1, 5)), forecast=True)
    np.testing.assert_allclose(series(plan, SUN), flux, rtol=1e-4, atol=1e-3)


def test_a_series_that_begins_late_has_no_value_at_its_first_lead(tmp_path, caplog):
    written(tmp_path / "a.grib2", [(0, 12), (0, 18), (0, 24)])
    found = series(plan_of(tmp_path / "a.grib2", forecast=True))
    np.testing.assert_allclose(found, [np.nan, mean(12, 18), mean(18, 24)], rtol=1e-5)
    assert RAIN in caplog.text and "12 h" in caplog.text


def test_a_daily_sum_alone_is_its_step(tmp_path):
    written(tmp_path / "a.grib2", [(0, 24)])
    np.testing.assert_allclose(series(plan_of(tmp_path / "a.grib2", forecast=True)), [mean(0, 24)], rtol=1e-5)


def test_an_hour_alone_is_not_taken_for_six(tmp_path):
    written(tmp_path / "a.grib2", [(5, 6), (11, 12), (17, 18)])
    with pytest.raises(ValueError, match=r"mean_total_precipitation_rate.* 6 h between leads.* 1 h .*a\.grib2"):
        plan_of(tmp_path / "a.grib2", forecast=True)


def test_two_forecasts_that_count_rain_otherwise(tmp_path):
    written(tmp_path / "a.grib2", [(0, 6), (0, 12)])
    first = field(1.0)
    other = first.assign_coords(time=first.time + np.timedelta64(24, "h"))
    for start, end in ((0, 6), (6, 12)):
        keys = {"typeOfLevel": "surface", "stepType": "accum", "startStep": start, "endStep": end}
        write_grib(tmp_path / "b.grib2", other, "tp", **keys)
    found = plan_of(tmp_path / "a.grib2", tmp_path / "b.grib2", forecast=True).fields[RAIN]
    found = found.read(0, 2, SPACE, np.arange(2))
    np.testing.assert_allclose(found[0, :, 0, 0], [mean(0, 6), mean(6, 12)], rtol=1e-5)
    np.testing.assert_allclose(found[1, :, 0, 0], 1000 / 21600, rtol=1e-5)  # a metre in each six hours


def test_sums_that_another_reader_marked(tmp_path):
    """`from_start` without the intervals of each lead: all run from the initial time."""
    total = np.cumsum(HOURLY[:18].reshape(3, 6).sum(axis=1) * 3600)
    data = xr.Dataset(
        {"tp": (("time", "step", "latitude", "longitude"), total[None, :, None, None] * np.ones((1, 3, *SPACE)))},
        {"time": TRUTH.time[:1], "step": np.array([6, 12, 18], "timedelta64[h]").astype("timedelta64[ns]"),
         "latitude": TRUTH.latitude, "longitude": TRUTH.longitude},
    )  # fmt: skip
    data["tp"].attrs = {"units": "kg m-2", "from_start": 1}
    plan = assemble(pieces(Source("a.nc", data), SourceOptions(forecast=True)), {})
    np.testing.assert_allclose(series(plan), [mean(0, 6), mean(6, 12), mean(12, 18)], rtol=1e-6)
