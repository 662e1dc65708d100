"""The page of long runs by years: what the figures say of runs whose climate is known."""

import csv
import io
import json
import re

import numpy as np
import pytest
import xarray as xr

from emulator.planet.grid import Grid
from emulator.report.given_forcing import forcing_caveats
from emulator.report.page import render
from emulator.report.panel import PANELS
from emulator.report.panels.climate_change import response_sentences, responses
from emulator.report.panels.long_climate import by_years
from emulator.report.panels.summary import verdict
from emulator.report.style import Panel, figures
from emulator.report.tables import climate_rows, rows_to_csv, to_json
from emulator.report.view import View
from emulator.verify.assemble import open_scores, write_scores
from emulator.verify.merging import combine
from emulator.verify.verification import score

GRID, YEARS = Grid.gaussian(6), 7
TIME = np.datetime64("1990-01-01", "ns") + np.arange(0, 365 * YEARS + 2, 10) * np.timedelta64(1, "D")
GIVEN = {
    "forcing_offsets": json.dumps({"sea_surface_temperature": 2.0}),
    "restoring": json.dumps({"days": 30.0}),
    "forcing_beyond_training": json.dumps(
        {"sea_surface_temperature": {"trained": [271.4, 302], "given": [273.4, 304]}}
    ),
}


def planet(warmer: float, seed: int) -> xr.Dataset:
    """Noise on a trend of 0.2 K a year, and a tropical sea that comes and goes."""
    since = (np.arange(len(TIME)) / 36.5)[:, None, None]
    noise = np.random.default_rng(seed).standard_normal((len(TIME), *GRID.shape))
    sea = 300 + np.sin(2 * np.pi * since / 2.7) + 0 * noise
    dims, role = ("time", "latitude", "longitude"), {"units": "K", "role": "forcing"}
    fields = {"temperature": (dims, 280 + 0.2 * since + warmer + noise, {"units": "K", "cell_methods": "time: point"})}
    fields["sea_surface_temperature"] = (dims, sea, role)
    place = {"time": TIME, "latitude": GRID.latitude, "longitude": GRID.longitude}
    return xr.Dataset(fields, place, {"time_step_seconds": 864000.0})


def as_run(dataset: xr.Dataset, **attributes) -> xr.Dataset:
    run = dataset.drop_vars("sea_surface_temperature").rename(time="lead_time").expand_dims("init_time")
    return run.assign_coords(init_time=TIME[:1], lead_time=TIME - TIME[0]).assign_attrs(attributes)


@pytest.fixture(scope="module")
def view(tmp_path_factory) -> View:
    runs = {"control": as_run(planet(-0.6, 1)), "warm": as_run(planet(0.9, 2), **GIVEN)}
    first = runs["control"].isel(lead_time=slice(0, 3))
    scores = score(first, planet(0, 0), long_runs=runs, references={"warm": planet(2, 3)}, events=())
    path = tmp_path_factory.mktemp("years") / "scores.nc"
    write_scores(scores, path)
    return View(open_scores(path))


def told(view: View) -> str:
    """Text of the section on long runs."""
    with figures():
        parts = [part for entry in PANELS.all().values() if entry.section == "long-run" for part in entry.parts(view)]
    texts = [
        f"{part.title}. {part.caption}" if isinstance(part, Panel) else re.sub("<[^>]+>", " ", part) for part in parts
    ]
    return " ".join(" ".join(texts).split())


def test_every_panel_stands_on_the_page_and_tells_what_was_put_in(view):
    text = told(view)
    for title in (
        "Global means of the years",
        "Mean bias, in spreads",
        "Variability from year to year",
        "Trends.",
        "Spectra of the",
    ):
        assert title in text, title
    assert "control: 7 years from 1990, beside 7 years from 1990" in text
    found = re.search(
        r"Temperature: control resembles ([\d.]+) ± ([\d.]+), the middle of its own years is 1993.0", text
    )
    assert abs(float(found[1]) - 1990) < 0.5 and float(found[2]) < 0.5  # 0.6 K at 0.2 K a year
    response = re.search(r"Temperature K warm (\d\.\d+) (\d\.\d+) (\d\.\d+)", text)
    np.testing.assert_allclose([float(n) for n in response.groups()], [1.5, 2.0, 0.75], atol=0.03)
    assert "Regression on the tropical sea" in text


def test_without_forecasts_the_page_begins_with_the_response(view):
    [sentence] = response_sentences(view)
    found = re.fullmatch(
        r"Temperature of warm: ([\d.]+) K from control on, ([\d.]+) of the reference; the maps of change correlate with "
        r"(-?[\d.]+), where a perfect emulator would reach ([\d.]+)\.",
        sentence,
    )
    np.testing.assert_allclose([float(n) for n in found.groups()[:2]], [1.5, 2.0], atol=0.03)
    assert verdict(view)[0] != sentence  # forecasts come first
    plain = View(view.scores)
    plain.forecasts = []
    assert verdict(plain)[0] == sentence
    assert verdict(plain)[1].startswith(
        "There was no forecast to judge: the headline scores below are errors of persistence"
    )


def anchors(page: str) -> list[str]:
    return re.findall(r'<section id="([^"]+)"', page)


def test_without_forecasts_long_runs_follow_the_summary(view):
    needed = {name for entry in PANELS.all().values() for name in entry.needs} - {"rmse", "bias", "climate_response"}
    plain = View(view.scores.drop_vars(needed, errors="ignore"))  # two panels, for a page that is soon made
    assert anchors(render(plain, "forecasts"))[:3] == ["summary", "error", "long-run"]
    plain.forecasts = []
    assert anchors(render(plain, "runs"))[:3] == ["summary", "long-run", "error"]


@pytest.fixture(scope="module")
def warming(tmp_path_factory) -> View:
    """Three runs over a slab, twice and four times the CO2, with what is asked of a climate and a field besides."""

    def of(warmer, seed):
        one = planet(warmer, seed)
        land = (np.radians(GRID.mesh()[1]) < 2).astype(float)
        sea = (
            (one["sea_surface_temperature"] + warmer)
            .where(land < 0.5, 280.0)
            .assign_attrs(units="K", role="prognostic")
        )
        rain = (1e-5 * (3 + 0.1 * warmer + 0.1 * (one["temperature"] - 280 - warmer))).assign_attrs(units="kg m-2 s-1")
        fields = {"2m_temperature": one["temperature"], "mean_total_precipitation_rate": rain}
        fields |= {"surface_pressure": (1e5 + one["temperature"]).assign_attrs(units="Pa")}
        fields |= {"sea_surface_temperature": sea, "land_sea_mask": (("latitude", "longitude"), land)}
        return one.drop_vars("temperature").assign(fields)

    def run(warmer, seed):
        one = of(warmer, seed).rename(time="lead_time").expand_dims("init_time")
        one["land_sea_mask"] = one["land_sea_mask"].isel(init_time=0)
        return one.assign_coords(init_time=TIME[:1], lead_time=TIME - TIME[0])

    runs = {"1x": run(0.1, 1), "2x": run(1.6, 2), "4x": run(3.1, 3)}
    references = {"2x": of(2, 4), "4x": of(4, 5)}
    first = runs["1x"].isel(lead_time=slice(0, 3))
    path = tmp_path_factory.mktemp("warming") / "scores.nc"
    write_scores(score(first, of(0, 0), long_runs=runs, references=references, events=()), path)
    return View(open_scores(path))


def test_what_is_asked_of_a_climate_is_drawn_for_every_run_with_a_response(warming):
    with figures():
        drawn = [part for part in responses(warming) if isinstance(part, Panel)]
    titles = ["2 m temperature", "Precipitation", "Sea surface temperature"]
    assert [part.caption for part in drawn] == [
        f"{t}: change from 1x to 2x, 4x, and of their references." for t in titles
    ]
    sentences = response_sentences(warming)
    assert [s.split(":")[0] for s in sentences] == [f"{t} of {run}" for run in ("2x", "4x") for t in titles]
    sea = re.search(r"([\d.]+) K from 1x on, ([\d.]+) of the reference", sentences[5])
    np.testing.assert_allclose([float(n) for n in sea.groups()], [3.0, 4.0])
    assert sentences[5].endswith("of the reference.")  # the same everywhere, which no map correlates with


def test_forcing_that_was_changed_or_is_new_is_among_the_caveats(view):
    changed, answered, beyond = forcing_caveats(view)
    assert changed == "Sea surface temperature was given to warm changed by 2 K everywhere."
    assert answered.startswith("The surface fluxes of warm answer its surface") and "in 30 days" in answered
    assert (
        "warm was given sea surface temperature of 273.4 K to 304 K, beyond its training's 271.4 K to 302 K" in beyond
    )


def test_scores_without_long_runs_have_no_such_panels(view):
    plain = View(view.scores.drop_vars([name for name in view.scores if name.startswith("climate_")]))
    assert told(plain) == ""


def test_tables_hold_the_scores_by_years_in_the_stores_units(view):
    """A row for each run and field, in the CSV and in the JSON."""
    rows = list(csv.DictReader(io.StringIO(rows_to_csv(climate_rows(view)))))
    assert [row["run"] for row in rows] == ["control", "warm"]
    at = view.scores.sel(climate_run="warm").squeeze("climate_channel")
    told = json.loads(to_json(view))["climate"][1]
    for row in (told, rows[1]):
        for name in ("year_bias_rmse", "global_spread", "drift", "resembled_year", "response_correlation"):
            np.testing.assert_allclose(float(row[name]), at[f"climate_{name}"], rtol=1e-7, err_msg=name)
        found = [float(row[f"{of}response"]) for of in ("", "reference_")]
        np.testing.assert_allclose(found, at["climate_response"], rtol=1e-7)
    assert rows[0]["response"] == "" and json.loads(to_json(view))["climate"][0]["response"] is None


def test_what_long_runs_were_given_is_told_of_models_side_by_side(view):
    found = combine({"a": view.scores, "b": view.scores})
    assert found["climate_run"].values.tolist() == ["a control", "a warm", "b control", "b warm"]
    changed = [text for text in forcing_caveats(View(found)) if "changed by 2 K" in text]
    assert [text.split(" was given to ")[1] for text in changed] == [
        f"{name} warm changed by 2 K everywhere." for name in "ab"
    ]


def test_a_year_beside_a_year_has_no_table_of_years(view):
    """All that it would hold stands in the table of climates; of several years beside one it says what is lacking."""
    unknown = {"climate_global_spread": view.scores["climate_global_spread"] * np.nan}
    assert "A reference of one year has no spread" in " ".join(by_years(View(view.scores.assign(unknown))))
    unknown["climate_drift"] = view.scores["climate_drift"] * np.nan
    assert by_years(View(view.scores.assign(unknown))) == []
