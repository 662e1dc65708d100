"""The whole chain, from files to the page and its maps, in calendars and years that datetime64[ns] does not have."""

import re

import cftime
import numpy as np
import pytest
import xarray as xr
import yaml
from small_planet import small_planet

import emulator as em
from emulator.store.analysis import open_analysis
from emulator.store.forecast import open_forecast
from pipelines.cli import main

TIMES = 48  # six-hourly, over the end of a February
CASES = {
    "noleap": ("noleap", 2004),
    "360_day": ("360_day", 2001),
    "before 1678": ("proleptic_gregorian", 1600),
    "after 2262": ("standard", 2300),
}


def experiment(folder, calendar: str, year: int):
    """Sources in a calendar, an experiment over them that ends with a page, and the times."""
    day = 21 if calendar == "360_day" else 23  # so that periods end and start with 29 and 30 February
    first = cftime.datetime(year, 2, day, calendar=calendar)
    times = [cftime.num2date(6 * n, f"hours since {first}", calendar=calendar) for n in range(TIMES)]
    planet = small_planet(times=TIMES).assign_coords(time=times)
    (folder / "source").mkdir(parents=True)
    for number, part in enumerate((slice(0, 20), slice(20, TIMES))):
        planet.isel(time=part).to_netcdf(folder / "source" / f"part{number}.nc")
    middle, after = (times[n].strftime("%Y-%m-%d") for n in (35, 36))
    stages = {
        "directory": str(folder / "run"),
        "ingest": {"sources": [{"path": str(folder / "source" / "*.nc")}]},
        "stats": {"period": {"end": middle}},
        "train": {
            "period": {"end": middle},
            "network": {"embed_dim": 4, "blocks": 1},
            "phases": [{"updates": 3}],
            "optimizer": {"warmup_steps": 1},
        },
        "rollout": {
            "period": {"start": after},
            "every_hours": 24,
            "lead_days": 1,
            "long_run_days": 3,
            "also": ["netcdf"],
        },
        "verify": {"climatology": {"end": middle}, "events": []},
        "report": {},
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(stages, sort_keys=False).replace("'", ""))  # dates as people write them
    return path, times


SLOW = ("noleap", "360_day", "before 1678")  # as the others but for their dates


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in CASES]
)
def test_from_files_to_the_maps_of_the_page(tmp_path, case):
    calendar, year = CASES[case]
    path, times = experiment(tmp_path, calendar, year)
    run = tmp_path / "run"
    assert main(["run", str(path)]) == 0
    analysis, forecast = open_analysis(run / "analysis.zarr"), open_forecast(run / "forecast.zarr")
    assert [str(time)[:13].replace("T", " ") for time in analysis.time.values] == [str(t)[:13] for t in times]
    inits = [str(time)[:10] for time in forecast.init_time.values]
    assert inits and all(text.startswith(f"{year:04d}-0") for text in inits)
    scores = xr.open_dataset(run / "scores.nc", decode_timedelta=True)
    assert np.isfinite(scores["rmse"].isel(lead_time=-1).values).all()
    page = (run / "report" / "report.html").read_text()
    text = " ".join(re.sub(r"<style.*?</style>|<svg.*?</svg>|<[^>]+>", " ", page, flags=re.S).split())
    started = re.findall(r"Initial time (\d{4}-\d\d-\d\d \d\d) UTC, lead", text)
    assert len(started) == 3 and {start[:10] for start in started} <= set(inits)  # the typical, best and worst forecast
    assert "Mean error" in text and len(re.findall(r"<img", page)) >= 4
    maps = tmp_path / "maps.png"
    assert main(["inspect", str(run / "forecast.zarr"), "--plot", str(maps)]) == 0 and maps.stat().st_size > 10_000
    for moment in (None, inits[0], forecast.init_time.values[0]):
        figure = em.plot(forecast, "surface_pressure", init=moment, lead="1D", truth=analysis)
        assert inits[0] in " ".join(axis.get_title(loc="left") for axis in figure.axes)
