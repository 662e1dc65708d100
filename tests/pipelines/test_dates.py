"""Dates of periods as people and YAML write them, those of other calendars too, from the file to the times they select."""

from datetime import date, datetime

import numpy as np
import pytest
import xarray as xr

from emulator.planet.calendar import within
from pipelines.config import ConfigError
from pipelines.load import load_experiment, to_yaml


def read(path, text, overrides=()):
    path.write_text(f"directory: r\nstats: {{period: {{end: {text}}}}}\n")
    return load_experiment(path, overrides)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2001-02-30", "2001-02-30"), ("'2001-02-30'", "2001-02-30"), ("2001-02-29", "2001-02-29"),
        ("20010230", "2001-02-30"), ("2001-02-30T06:00", "2001-02-30T06:00"), ("'2001-02-30T12'", "2001-02-30T12:00"),
        ("2001-02-30T06:00:00", "2001-02-30T06:00"), ("2004-02-29", date(2004, 2, 29)), ("2001-02-28", date(2001, 2, 28)),
        ("20010228", date(2001, 2, 28)), ("'20010228'", date(2001, 2, 28)), ("2001", "2001"), ("2001-02", "2001-02"),
        ("2001-02-28T06:00", datetime(2001, 2, 28, 6)), ("2001-02-28 06:00:00", datetime(2001, 2, 28, 6)),
        ("2001-02-28T06", datetime(2001, 2, 28, 6)), ("null", None),
    ],
)  # fmt: skip
def test_a_date_is_what_it_says_in_yaml_in_an_override_and_when_written_again(tmp_path, text, expected):
    first = read(tmp_path / "a.yaml", text)
    assert first.stats.period.end == expected and type(first.stats.period.end) is type(expected)
    (tmp_path / "b.yaml").write_text(to_yaml(first))
    assert load_experiment(tmp_path / "b.yaml").stats.period.end == expected
    assert read(tmp_path / "c.yaml", "1999", [f"stats.period.end={text}"]).stats.period.end == expected


@pytest.mark.parametrize("text", ["2001-02-31", "2001-06-31", "2001-13-01", "2001-00-10", "2001-02-28T25:00"])
def test_a_date_of_no_calendar_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"Expected a date that some calendar has .* at stats.period.end in .*a.yaml"):
        read(tmp_path / "a.yaml", text)


@pytest.mark.parametrize("text", ["end", "1e9", "983404800", "12345", "2001-2-30", "true", "[2001]", "0000"])
def test_what_is_no_date_is_refused_with_how_one_is_written(tmp_path, text):
    """Numbers count as no seconds since 1970."""
    with pytest.raises(ConfigError, match=r"Expected a date such as 2001, 2001-12, .* at stats.period.end"):
        read(tmp_path / "a.yaml", text)


def test_days_of_360_day_years_bound_a_period(tmp_path):
    times = xr.date_range("2001-02-25", periods=60, freq="6h", calendar="360_day", use_cftime=True).values
    for text, count in (("2001-02-30", 24), ("2001-02-29", 20), ("2001-02-30T06:00", 22), ("2001-02-28", 16)):
        end = read(tmp_path / "a.yaml", text).stats.period.end
        assert within(times, None, end).sum() == count
        assert within(times, end).sum() == 60 - count + {10: 4, 16: 1}[len(text)]
    noleap = xr.date_range("2001-02-25", periods=60, freq="6h", calendar="noleap", use_cftime=True).values
    assert within(noleap, None, "2001-02-30").sum() == within(noleap, None, "2001-02").sum() == 16
    standard = np.datetime64("2001-02-25", "ns") + np.arange(60) * np.timedelta64(6, "h")
    with pytest.raises(ValueError, match="date of the calendar of the times, got 2001-02-30"):
        within(standard, None, "2001-02-30")
    with pytest.raises(ValueError, match="Expected a date such as .* got 'end'"):
        within(standard, None, "end")
