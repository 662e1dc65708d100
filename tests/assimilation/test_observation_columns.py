"""Observations are columns that a Parquet file gives back as they were, and windows that share no row."""

import numpy as np
import pytest

from emulator.assimilation.observations import Observations

START = np.datetime64("2001-01-01", "ns")


def some(count=10):
    rng = np.random.default_rng(0)
    hours = (np.arange(count) * 3).astype("timedelta64[h]")
    return Observations(
        operator=np.full(count, "point"),
        variable=np.where(np.arange(count) % 2, "temperature", "surface_pressure"),
        time=START + hours,
        latitude=rng.uniform(-90, 90, count),
        longitude=rng.uniform(-180, 180, count),
        value=rng.normal(size=count),
        error=1.0,
        station=[f"S{n}" for n in range(count)],
        level=np.where(np.arange(count) % 2, 0.5, np.nan),
    )


def test_a_file_gives_back_what_was_written(tmp_path):
    pytest.importorskip("pyarrow")
    before = some()
    after = Observations.read(before.write(tmp_path / "observations.parquet"))
    for name, column in before.columns().items():
        np.testing.assert_array_equal(getattr(after, name), column, err_msg=name)
        assert getattr(after, name).dtype.kind == column.dtype.kind
    assert (after.longitude >= 0).all() and (after.confidence == 1).all() and np.isnan(after.width).all()
    window = START + np.array([3, 12], "timedelta64[h]")
    part = Observations.read(tmp_path / "observations.parquet", tuple(window))
    assert part.station.tolist() == before.within(tuple(window)).station.tolist() == ["S2", "S3", "S4"]
    none = before.where(before.value > 1e9)
    assert len(Observations.read(none.write(tmp_path / "none.parquet"))) == 0


def test_windows_share_no_row_and_leave_none_out():
    whole = some(41)
    edges = START + np.arange(-6, 126, 6).astype("timedelta64[h]")
    parts = [whole.within(pair) for pair in zip(edges[:-1], edges[1:], strict=True)]
    joined = Observations.concat(parts)
    assert joined.station.tolist() == whole.station.tolist()
    assert len(Observations.concat([])) == 0


def test_rows_go_to_the_nearest_time():
    times = START + np.array([0, 6, 12], "timedelta64[h]")
    assert some(6).slots(times).tolist() == [0, 0, 1, 1, 2, 2]  # 0 3 6 9 12 15 h
    assert some(3).slots(times[:1]).tolist() == [0, 0, 0]


def test_what_is_no_table_of_observations_is_refused_in_a_sentence(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=r"Expected 10 rows in each column, got \(3,\) of error"):
        some().replace(error=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="Expected value of observations as float64"):
        some().replace(value=["warm"] * 10)
    with pytest.raises(ValueError, match="got nothing there"):
        Observations.read(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(ValueError, match="Expected a Parquet table at .*text.parquet"):
        Observations.read(tmp_path / "text.parquet")
    import pandas

    pandas.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="emulator_schema 'observations-1' .*, got 'none'"):
        Observations.read(tmp_path / "other.parquet")
