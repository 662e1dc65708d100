import csv
import io
import json
import re

import numpy as np
import pytest

from emulator.report.display import (
    date_and_hour,
    days,
    lead_label,
    number,
    over_region,
    percent,
    region_name,
    scientific,
    signed_days,
    tail_of,
)
from emulator.report.panels.caveats import caveats
from emulator.report.panels.conservation import budget_table
from emulator.report.panels.extremes import rain_panel
from emulator.report.panels.summary import headline_table, verdict
from emulator.report.style import figures
from emulator.report.tables import to_csv, to_json
from emulator.report.view import View


def test_numbers_are_written_for_people():
    assert [number(v) for v in (0.01234, -4.5678, 123.4, 0, np.nan, 1.2e-7)] == [
        "0.0123", "−4.57", "123", "0", "–", "1.20\u00a0×\u00a010⁻⁷",
    ]  # fmt: skip
    assert percent(-0.3) == "0 %" and percent(-12.6) == "−13 %"
    assert scientific(3.21e-9) == "3.2\u00a0×\u00a010⁻⁹"
    assert lead_label(np.timedelta64(6, "h")) == "6 h" and lead_label(np.timedelta64(60, "h")) == "2.5 days"
    np.testing.assert_allclose(days(np.array([6, 36], "timedelta64[h]")), [0.25, 1.5])


def test_a_tail_is_told_by_its_side_and_level():
    assert tail_of(0.05) == "below the 5 % quantile" and tail_of(0.95) == "above the 95 % quantile"
    assert tail_of(0.995) == "above the 99.5 % quantile"


def with_rmse(view, channel, ours, climatology):
    scores = view.scores.copy(deep=True)
    at = view.position(channel)
    scores["rmse"].loc[{"forecast": "emulator", "region": "global"}][at] = ours
    scores["rmse"].loc[{"forecast": "climatology", "region": "global"}][at] = climatology
    return View(scores)


def test_useful_day_is_the_crossing_between_leads(view):
    channel, count = view.headline[0], len(view.leads)
    line = np.linspace(0, 12, count)  # reaches 10 after ten twelfths of the forecast
    crossing = with_rmse(view, channel, line, 10.0).useful_until("emulator", channel)
    np.testing.assert_allclose(crossing, (view.leads[-1] * 10 / 12, True))
    assert with_rmse(view, channel, line, 20.0).useful_until("emulator", channel) == (view.leads[-1], False)
    assert with_rmse(view, channel, line + 99, 20.0).useful_until("emulator", channel) == (0.0, True)
    line[4:] = np.nan  # a forecast that blew up was useful until it did
    assert with_rmse(view, channel, line, 20.0).useful_until("emulator", channel) == (view.leads[3], True)
    nothing = with_rmse(view, channel, line, np.nan).useful_until("emulator", channel)
    assert np.isnan(nothing[0]) and not nothing[1]


def test_days_gained_are_those_between_equal_errors(view):
    channel, leads = view.headline[0], view.leads
    scores = view.scores.copy(deep=True)
    for name, line in (("emulator", leads / 2), ("persistence", leads), ("climatology", 3 * leads)):
        scores["rmse"].loc[{"forecast": name, "region": "global"}][view.position(channel)] = line
    made = View(scores)
    lead = len(leads) // 2  # half the growth: the error of day d comes at 2 d
    np.testing.assert_allclose(made.days_gained("emulator", "persistence", channel, lead), (leads[lead], True))
    np.testing.assert_allclose(made.days_gained("emulator", "climatology", channel, lead)[0], leads[-1] - leads[lead])
    assert not made.days_gained("emulator", "climatology", channel, lead)[1]
    np.testing.assert_allclose(made.days_gained("climatology", "persistence", channel, lead)[0], -2 / 3 * leads[lead])
    assert signed_days(1.26, True) == "+1.3" and signed_days(-0.5, True) == "−0.5" and signed_days(4.0, False) == "≥ +4"
    assert signed_days(-0.04, True) == "0" and signed_days(np.nan, False) == "–"


def test_headline_has_the_fields_that_forecasters_look_at_first(view):
    variables = [view.variable(channel) for channel in view.headline]
    assert variables[:5] == [
        "temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity", "surface_pressure",
    ]  # fmt: skip
    table = headline_table(view)
    assert table.count("<tr>") == 2 + len(view.headline)
    assert "Temperature, 500 hPa" in table and "g/kg" in table and "hPa" in table


def test_verdict_is_what_the_numbers_say(view):
    first, budgets, *_ = verdict(view)
    assert first.startswith("Over 5 forecasts, errors of emulator 3 days ahead are")
    assert "of the dry air (reference" in budgets
    scores = view.scores.copy(deep=True)
    scores["rmse"].loc[{"forecast": "emulator"}] = 1e-9
    assert "in every headline field to the last lead, day 3" in verdict(View(scores))[0]
    scores["rmse"].loc[{"forecast": "emulator"}] = 1e9
    assert "does not beat climatology at any lead" in verdict(View(scores))[0]
    scores["difference"].loc[{"forecast": "emulator"}] = np.nan
    assert "the forecast has failed" in verdict(View(scores))[0]


def test_caveats_are_filled_in_by_what_happened(view):
    text = " ".join(caveats(view))
    assert "Only 5 initial times" in text
    assert "no annual cycle" in text and "too short a record" in text
    assert "8 x 16 gaussian" in text
    assert "different numbers of initial times: 5 of emulator, 3 of uncorrected, 5 of truth" in text
    scores = view.scores.copy(deep=True)
    scores.attrs |= {"dropped_inits": json.dumps({"emulator": 7}), "missing_truth": 3, "climatology_overlap": 1}
    scores["rmse"].loc[{"forecast": "emulator"}][:, :, 5] = np.nan
    text = " ".join(caveats(View(scores)))
    for part in ("7 initial times of emulator were left out", "lacks 3 valid times", "which favours it", "not finite"):
        assert part in text


def test_budget_table_lists_every_source_and_budget(view):
    table = budget_table(view)
    for text in ("Dry air", "Water", "Energy", "emulator", "uncorrected", "reference (truth)", "W/m²"):
        assert text in table


def test_csv_holds_every_score(view):
    rows = list(csv.DictReader(io.StringIO(to_csv(view))))
    scores = view.scores
    assert len(rows) == scores["rmse"].size
    row = next(
        r
        for r in rows
        if (r["forecast"], r["variable"], r["region"], r["lead_hours"])
        == ("emulator", "surface_pressure", "tropics", "24")
    )
    at = {
        "forecast": "emulator",
        "channel": "surface_pressure",
        "region": "tropics",
        "lead_time": np.timedelta64(24, "h"),
    }
    np.testing.assert_allclose(float(row["rmse"]), scores["rmse"].sel(**at), rtol=1e-7)
    np.testing.assert_allclose(
        float(row["difference_vs_persistence"]), scores["difference"].sel(**at, baseline="persistence"), rtol=1e-7
    )
    assert row["units"] == "Pa" and row["initial_times"] == "5"


def test_json_is_strict_and_repeats_the_verdict(view):
    content = json.loads(to_json(view), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["verdict"] == " ".join(verdict(view))
    assert {entry["source"] for entry in content["budgets"]} == {"emulator", "uncorrected", "truth"}
    assert content["headline"][0]["lead_days"] == 1.0
    assert content["provenance"]["emulator"]["checkpoint"] == "abc"


def test_a_field_worse_than_persistence_at_every_lead_is_named(view):
    scores = view.scores.copy(deep=True)
    channel = view.headline[-1]
    assert "Worse than persistence" not in verdict(View(scores))[0]
    place = {"forecast": "emulator", "baseline": "persistence", "region": "global", "channel": channel}
    scores["difference"].loc[place] = np.where(view.leads > 0, 5.0, np.nan)
    assert f"Worse than persistence at every lead: {view.title(channel)}." in verdict(View(scores))[0]
    scores["difference"].loc[place | {"lead_time": scores["lead_time"].values[-1]}] = -1.0
    assert "Worse than persistence" not in verdict(View(scores))[0]


def test_fields_told_of_valid_times_are_among_the_caveats(view):
    scores = view.scores.copy(deep=True)
    scores.attrs["provenance"] = json.dumps(
        {"emulator": {"prescribed": "mean_top_downward_short_wave_radiation_flux, sea_surface_temperature"}}
    )
    told = [text for text in caveats(View(scores)) if "valid times from the analysis" in text]
    assert len(told) == 1 and "was given sea surface temperature" in told[0]
    scores.attrs["provenance"] = json.dumps({"emulator": {"prescribed": "mean_top_downward_short_wave_radiation_flux"}})
    assert not [text for text in caveats(View(scores)) if "valid times from the analysis" in text]


def test_leads_of_the_tables_reach_the_end_of_short_forecasts(view):
    def leads(hours):
        short = view.scores.sel(lead_time=np.array(hours).astype("timedelta64[h]").astype("timedelta64[ns]"))
        made = View(short)
        return [made.leads[i] for i in made.table_leads()]

    assert leads([0, 6, 24, 48]) == [1, 2] and leads([6, 12]) == [0.5] and leads([0, 24, 48, 72]) == [1, 3]
    assert leads([0, 24, 30]) == [1, 1.25]


def test_regions_and_moments_are_written_for_people():
    assert region_name("EBCI") == "EBCI" and region_name("east-asia") == "East Asia"
    assert over_region("stations") == "over all stations" and over_region("global") == "over the globe"
    assert date_and_hour(np.datetime64("2002-04-25T12", "ns")) == "2002-04-25 12:00"
    assert date_and_hour("2002-04-25T00:00:00.000000000") == "2002-04-25"
    assert date_and_hour("2002-04-25T12:00:00.000000") == "2002-04-25 12:00"


def test_rain_is_told_by_the_scores_that_there_are(view):
    """Without events there is no fraction skill score, nor a quantile to speak of."""
    with figures():
        shares = rain_panel(view)
        categories = view.scores["seeps"].fillna(0.5)  # of so short a record there is none
        plain = rain_panel(View(view.scores.drop_dims("event").assign(seeps=categories)))
        both = rain_panel(View(view.scores.assign(seeps=categories)))
    assert "95 % quantile right" in shares.caption and "95 % quantile right" in both.caption
    for panel, has in ((shares, {"fraction"}), (plain, {"seeps"}), (both, {"fraction", "seeps"})):
        alt = re.search(r'aria-label="([^"]*)"|alt="([^"]*)"|<title>([^<]*)', str(panel.markup))[0]
        for text in (panel.help, alt):
            assert {word for word in ("fraction", "seeps") if word in text.lower()} == has
        assert ("FSS" in panel.caption, "SEEPS" in panel.caption) == ("fraction" in has, "seeps" in has)
