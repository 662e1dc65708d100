import html.parser
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from emulator.report import budgets, panel
from emulator.report.display import number
from emulator.report.page import render
from emulator.report.panels import conservation as budget_panels
from emulator.report.panels import maps
from emulator.report.panels.spectra import resolution_table
from emulator.report.panels.training import training_panel
from emulator.report.style import Panel, figures
from emulator.report.view import View

VOID = {"meta", "link", "img", "br", "path", "use", "rect", "circle"}


class Page(html.parser.HTMLParser):
    """What a browser would fetch, which ids there are and are pointed at, and whether tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.ids, self.used, self.open, self.images, self.graphics = [], [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        for name in ("src", "href", "xlink:href", "data", "srcset", "poster"):
            if name in attributes:
                self.fetched.append(attributes[name])
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.used += re.findall(r"url\(#([^)]+)\)", " ".join(v or "" for v in attributes.values()))
        self.used += [v[1:] for n, v in attributes.items() if n in ("href", "xlink:href") and v.startswith("#")]
        self.images += [attributes] if tag == "img" else []
        self.graphics += [attributes] if tag == "svg" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text(scored):
    from emulator.verify.assemble import open_scores

    return render(View(open_scores(scored), 1), "A <small> planet & its forecasts", "Written today.")


def test_page_needs_nothing_else(text):
    page = Page(text)
    assert page.open == []
    outside = [link for link in page.fetched if not link.startswith(("#", "data:"))]
    assert outside == []
    assert "@import" not in text and not re.search(r"url\((?!#|data:)", text)
    assert "<script" not in text
    assert len(text) < 15e6


def test_ids_are_unique_and_every_pointer_has_its_target(text):
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.used) <= set(page.ids)


def test_figures_have_words_for_those_who_cannot_see_them(text):
    page = Page(text)
    assert len(page.graphics) >= 6 and len(page.images) == 4
    assert all(len(graphic["aria-label"]) > 20 for graphic in page.graphics)
    assert all(len(image["alt"]) > 20 for image in page.images)
    assert text.count("<figure>") == text.count("How to read this")


def test_sections_stand_in_order_and_titles_are_escaped(text):
    titles = re.findall(r"<h2[^>]*>([^<]+)</h2>", text)
    assert titles == [
        "Summary",
        "Forecast error",
        "Extremes",
        "Maps",
        "Spectra",
        "Conservation",
        "Caveats",
        "Provenance",
    ]
    assert "A &lt;small&gt; planet &amp; its forecasts" in text


def test_numbers_in_figures_are_not_shortened(view):
    with figures():
        drawn = budget_panels.correction_panel(view)
    labels = re.findall(r"<text[^>]*>([^<]+)</text>", drawn.markup)
    assert any(re.fullmatch(r"0\.\d{4,}", label) for label in labels)  # 0.0002 stays 0.0002


def test_a_field_that_no_correction_touched_is_named_and_has_no_empty_axes(view):
    untouched = view.scores["correction_rms_temperature"] * 0
    with figures():
        drawn = budget_panels.correction_panel(View(view.scores.assign(correction_rms_surface_pressure=untouched)))
        nothing = budget_panels.correction_panel(View(view.scores.assign(correction_rms_temperature=untouched)))
    assert "Nothing was added to: Surface pressure." in drawn.caption and "Surface pressure" not in drawn.markup
    assert nothing is None


def test_a_correction_that_is_not_small_beside_the_error_is_named(view):
    channels = [c for c in view.headline if view.variable(c) == "temperature"]
    squares = [view.get("rmse", "emulator", str(c), scaled=False) ** 2 for c in view.scores["channel"].values
               if view.variable(str(c)) == "temperature"]  # fmt: skip
    assert channels and len(squares) > 1
    error = np.sqrt(np.mean(squares, axis=0))
    correction = view.scores["correction_rms_temperature"].copy(deep=True)
    for share, told in ((0.4, ""), (0.8, "at the same lead: Temperature up to 0.8 times."), (1.5, "up to 1.5 times.")):
        correction.loc[{"audit_source": "emulator"}] = share * error[: correction.sizes["audit_lead_time"]]
        with figures():
            drawn = budget_panels.correction_panel(View(view.scores.assign(correction_rms_temperature=correction)))
        assert told in drawn.caption and ("Not small" in drawn.caption) == bool(told)


def test_a_constant_that_the_scheme_lets_stand_is_told_in_sight(text, view):
    assert float(view.scores["unaccounted"].sel(budget="energy").values[0]) == -3
    assert '<p class="note">The mean residuals hold −3.00 W m⁻² of energy, which the training data' in text


def test_corrections_are_told_as_shares_of_a_steps_deviation(view):
    share = view.scores["correction_rms_temperature"] * 0 + 0.0031
    with figures():
        drawn = budget_panels.correction_panel(View(view.scores.assign(correction_share_temperature=share)))
        unknown = budget_panels.correction_panel(view)
    assert "deviation that a step has in the training data: Temperature 0.31 %." in drawn.caption
    assert "deviation" not in unknown.caption


def test_the_first_screen_names_truth_members_and_software(text, view):
    summary = text[text.index('id="summary"') : text.index('id="error"')]
    for fact in ("Initial times", "Leads", "Truth", "Grid", "Climatology", "Verified by"):
        assert f"<dt>{fact}</dt>" in summary, fact
    assert "emulator 0" in summary and "days gained" in summary


def test_effective_resolution_is_that_of_the_scores(view):
    table = resolution_table(view)
    at = view.scores["effective_wavenumber"].sel(source="emulator").isel(channel=view.position(view.headline[0]))
    for wavenumber in at.values:
        assert f">{number(40030 / wavenumber, 2)}<" in table


def test_drawing_twice_gives_the_same(view):
    with figures():
        first, second = (budget_panels.residual_panel(view).markup for _ in range(2))
    assert first == second


def test_drift_and_residual_are_reduced_over_initial_times(view):
    total = view.scores["budget_total"].sel(audit_source="emulator", budget="dry_air").values
    np.testing.assert_allclose(
        budgets.drift(view, "emulator", "dry_air"), (total - total[:, :1]).mean(axis=0), rtol=1e-12
    )
    relative = view.scores["budget_relative"].sel(audit_source="uncorrected", budget="water").values
    held = relative[np.isfinite(relative).any(axis=1)]
    assert len(held) == 3
    np.testing.assert_allclose(
        budgets.step_rms(view, "uncorrected", "water")[1:], np.sqrt((held[:, 1:] ** 2).mean(axis=0)), rtol=1e-12
    )


def test_coast_comes_from_the_mask_and_never_from_the_network(view, monkeypatch):
    import socket

    def refuse(*_, **__):
        raise AssertionError("a map opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("CARTOPY_DATA_DIR", raising=False)
    with figures():
        drawn = maps.case_panel(view)
    assert drawn.markup.startswith("<img")
    assert "median error" in drawn.caption


def test_training_curve(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(json.dumps({"update": u, "loss": 1 / u}) for u in range(1, 50)))
    with figures():
        assert "1 to 0.0204 over 49 updates" in training_panel(path).markup
    path.write_text('{"update": 1}\nnot json')
    with pytest.raises(ValueError, match="line 2"):
        training_panel(path)
    path.write_text('{"update": 1, "speed": 3}')
    with pytest.raises(ValueError, match="with one of loss"):
        training_panel(path)


def test_a_training_curve_breaks_where_the_loss_changes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kinds = ["mse"] * 30 + ["crps"] * 30
    rows = [{"update": u, "loss": 2.0 if kind == "crps" else 0.5, "loss_kind": kind} for u, kind in enumerate(kinds, 1)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    with figures():
        drawn = training_panel(path)
    assert "from 0.5 to 0.5, then from 2 to 2 over 60 updates" in drawn.markup
    assert "squared error up to update 30, CRPS up to update 60" in drawn.caption
    curves = [line for line in drawn.markup.figure.axes[0].lines if len(line.get_xdata()) > 2]
    # one that smoothed or joined both would have other values
    assert [set(line.get_ydata()) for line in curves] == [{0.5}, {0.5}, {2.0}, {2.0}]


def test_verification_and_report_need_no_torch(scored, tmp_path):
    code = f"""
import sys
from emulator.report.page import write_report
from emulator.report.figures import plot
from emulator.verify.verification import score
from emulator.verify.assemble import write_scores
scores = score({str(scored.parent / "forecast.zarr")!r}, {str(scored.parent / "analysis.zarr")!r}, variables=["temperature"])
write_scores(scores, {str(tmp_path / "s.nc")!r})
write_report({str(tmp_path / "s.nc")!r}, {str(tmp_path)!r}, "No torch")
plot(scores, kind="curves")
assert not any(name.split(".")[0] == "torch" for name in sys.modules), "torch was imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "report.html").exists()


def test_a_panel_is_one_function_that_registers_itself(view, monkeypatch):
    monkeypatch.setattr(panel.PANELS, "_entries", panel.PANELS.all())

    @panel.panel("moon", 10, needs=("rmse",))
    def moon(view):
        return Panel("The moon", "It is full.", "Look up.", "<svg></svg>")

    @panel.panel("moon", 5, needs=("no_such_score",))
    def absent(view):
        raise AssertionError("drawn without what it needs")

    text = render(view, "A page")
    assert '<section id="moon"' in text and "The moon.</b> It is full." in text
