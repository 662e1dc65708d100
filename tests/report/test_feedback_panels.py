"""What the page says of a cycle's feedback and of data denial, with the numbers of the scores."""

import re

import numpy as np
import pytest
import xarray as xr

from emulator.assimilation.feedback import write_feedback
from emulator.assimilation.observations import Observations
from emulator.report.panels import consistency, data_denial, departures
from emulator.report.style import figures
from emulator.report.view import View
from emulator.verify.assemble import open_scores
from emulator.verify.feedback import feedback_scores

START = np.datetime64("2001-01-08", "ns")


def write_cycle(folder, analyses=12, members=8, seed=0):
    """Feedback of a cycle whose background is 0.8 of a true error of 1, of which half is assumed for the observations."""
    rng = np.random.default_rng(seed)
    kinds = [("temp", "temperature", level, 1.0) for level in (0.1, 0.5, 0.9)] + [
        ("synop", "surface_pressure", np.nan, 100.0)
    ]
    for number in range(analyses):
        tables, rows = [], []
        for system, variable, level, unit in kinds:
            count, time = 40, START + np.timedelta64(6 * number, "h")
            background = unit * rng.normal(size=count)
            truth = background + 0.8 * unit * rng.normal(size=count)
            value = truth + unit * rng.normal(size=count)
            analysis = background + 0.4 * (value - background)
            ensemble = background + 0.8 * unit * rng.normal(size=(members, count))
            texts = {"operator": "point", "variable": variable, "system": system}
            columns = {name: np.full(count, text) for name, text in texts.items()}
            columns |= {"time": np.full(count, time), "latitude": np.zeros(count), "longitude": np.zeros(count)}
            tables.append(
                Observations(**columns, value=value, error=np.full(count, 0.5 * unit), level=np.full(count, level))
            )
            rejected = np.full(count, "", "U20")
            rejected[0] = "gross error"
            rows.append((rejected, background, analysis, ensemble))
        rejected, background, analysis = (np.concatenate([row[n] for row in rows]) for n in range(3))
        ensemble = np.concatenate([row[3] for row in rows], axis=1)
        path = folder / f"{number:03d}.parquet"
        write_feedback(path, time, Observations.concat(tables), rejected, background, analysis, ensemble)


@pytest.fixture(scope="module")
def cycle(scored, tmp_path_factory):
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("feedback")
    write_cycle(folder)
    return View(xr.merge([open_scores(scored), feedback_scores(folder)], combine_attrs="override"))


def cells(markup, row):
    found = re.search(rf"<tr><th[^>]*>{row}.*?</tr>", markup)
    return re.findall(r"<td[^>]*>(.*?)</td>", found[0])


def test_tables_have_the_scores_in_the_units_of_the_page(cycle):
    text = departures.departures(cycle)
    own = cells(text, "synop: Surface pressure")
    expected = float(cycle.scores["feedback_background_std"][0]) / 100  # hPa
    assert own[0] == str(12 * 39) and float(own[2]) == pytest.approx(expected, rel=0.01)
    assert (
        "temp: Temperature, 500 hPa" in text
        and "temp: Temperature, 0.9" in text
        and cells(text, "synop: Surface pressure")[-1] == "40 %"
    )
    rejected = departures.rejections(cycle)
    assert cells(rejected, "temp") == [str(3 * 12 * 39), str(3 * 12), "2.5 %"]


def test_figures_say_what_they_show(cycle):
    with figures():
        panels = [departures.departures_in_time(cycle), consistency.consistency(cycle), consistency.ranks(cycle)]
    ratio = cycle.scores["feedback_sigma_o"] / cycle.scores["feedback_sigma_o_used"]
    assert f"{float(ratio.min()):.1f} to {float(ratio.max()):.1f}" in panels[1].caption
    assert "among 8 members" in panels[2].caption and "12 analyses" in panels[0].caption
    assert all(panel.markup.startswith("<svg") for panel in panels)
    assert panels[0].markup.figure.axes[0].get_title(loc="left") == "synop: Surface pressure [hPa]"


def test_a_cycle_that_was_denied_a_system_shows_what_that_is_worth(view):
    assert data_denial.data_denial(view) is None
    scores = view.scores
    worse = scores.assign(rmse=scores["rmse"] / 0.75).assign_coords(
        forecast=[f"denied {name}" if name == "emulator" else str(name) for name in scores["forecast"].values]
    )
    both = xr.concat([scores.sel(forecast=["emulator"]), worse], "forecast", data_vars="minimal", join="outer")
    with figures():
        panel = data_denial.data_denial(View(both.assign_attrs(scores.attrs)))
    assert "emulator +25 %" in panel.caption
    line = panel.markup.figure.axes[0].get_lines()[0].get_ydata()
    np.testing.assert_allclose(line[np.isfinite(line)], 25, rtol=1e-5)


@pytest.mark.slow
def test_without_members_and_times_there_is_less_to_show(scored, tmp_path):
    pytest.importorskip("pyarrow")
    write_cycle(tmp_path, analyses=1)
    scores = xr.merge([open_scores(scored), feedback_scores(tmp_path)], combine_attrs="override")
    view = View(scores.drop_vars(["feedback_rank_count"]))
    with figures():
        assert departures.departures_in_time(view) is None
        assert consistency.consistency(view) is not None
    from emulator.report.panel import PANELS

    entry = next(entry for name, entry in PANELS.all().items() if name.endswith("consistency.ranks"))
    assert entry.parts(view) == []
