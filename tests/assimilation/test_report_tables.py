"""Real reports as observations: METAR and CSV tables, and BUFR messages of every layout that ecCodes writes."""

from pathlib import Path

import numpy as np
import pytest

from emulator.assimilation import quality
from emulator.assimilation.geometry import Geometry
from emulator.assimilation.options import TableOptions
from emulator.assimilation.tables import read_reports
from emulator.data.channels import Channels
from emulator.planet.grid import Grid

METAR = Path(__file__).resolve().parents[3] / "shared" / "data" / "observations" / "metar_2020-01.parquet"
ERRORS = {"2m_temperature": 1.5, "10m_u_component_of_wind": 2.0}
PLACE = {
    "blockNumber": 10, "stationNumber": 384, "year": 2020, "month": 1, "day": 2, "hour": 6, "minute": 20, "latitude": 52.5,
    "longitude": -13.4, "heightOfStationGroundAboveMeanSeaLevel": 50.0,
}  # fmt: skip
DESCRIPTORS = [1001, 1002, 4001, 4002, 4003, 4004, 4005, 5001, 6001, 7030]
GROUND = {"nonCoordinatePressure": 100100.0, "airTemperature": 280.5, "windDirection": 270, "windSpeed": 5.0}
SOUNDING = {"pressure": [1e5, 8.5e4, 5e4], "airTemperature": [280.0, 270.0, 250.0]}


def bufr(path: Path, subsets: int = 1, compressed: int = 0, sounding: bool = False, **ground) -> Path:
    """Adds a message to a file; subset n has the station number and the temperature n larger."""
    eccodes = pytest.importorskip("eccodes")
    message = eccodes.codes_bufr_new_from_samples("BUFR4")
    eccodes.codes_set(message, "numberOfSubsets", subsets)
    eccodes.codes_set(message, "compressedData", compressed)
    body = [102003, 7004, 12101] if sounding else [10004, 12101, 11001, 11002]
    eccodes.codes_set_array(message, "unexpandedDescriptors", DESCRIPTORS + body)
    for key, value in (PLACE | ({} if sounding else GROUND | ground)).items():
        values = [value + n * (key in ("stationNumber", "airTemperature")) for n in range(subsets)]
        if compressed and subsets > 1:
            eccodes.codes_set_array(message, key, values)
        else:
            for n, each in enumerate(values):
                eccodes.codes_set(message, f"#{n + 1}#{key}", each)
    for key, values in SOUNDING.items() if sounding else ():
        for n, each in enumerate(values):
            for subset in range(subsets):
                at = n + 1 if compressed else subset * len(values) + n + 1
                eccodes.codes_set(message, f"#{at}#{key}", each)
    eccodes.codes_set(message, "pack", 1)
    with open(path, "ab") as stream:
        eccodes.codes_write(message, stream)
    eccodes.codes_release(message)
    return path


@pytest.mark.parametrize(("subsets", "compressed"), ((1, 0), (3, 0), (1, 1), (3, 1)))
def test_surface_reports_of_every_layout_are_read(tmp_path, subsets, compressed):
    path = bufr(tmp_path / "synop.bufr", subsets, compressed)
    found = read_reports(TableOptions(path, ERRORS | {"surface_pressure": 100.0}))
    warm = found.where(found.variable == "2m_temperature")
    np.testing.assert_allclose(warm.value, 280.5 + np.arange(subsets), atol=0.006)
    assert warm.station.tolist() == [f"10{384 + n}" for n in range(subsets)]
    assert set(warm.time) == {np.datetime64("2020-01-02T06:20")} and set(warm.error) == {1.5}
    np.testing.assert_allclose([warm.latitude[0], warm.longitude[0], warm.elevation[0]], [52.5, 346.6, 50.0], atol=1e-5)
    np.testing.assert_allclose(found.value[found.variable == "10m_u_component_of_wind"], 5.0)  # from the west
    assert (found.variable == "surface_pressure").sum() == subsets and set(found.system) == {"synop"}


@pytest.mark.parametrize(("subsets", "compressed"), ((1, 0), (2, 0), (2, 1)))
def test_soundings_lie_at_their_pressures(tmp_path, subsets, compressed):
    path = bufr(tmp_path / "temp.bufr", subsets, compressed, sounding=True)
    found = read_reports(TableOptions(path, {"temperature": 1.0}, "temp"))
    assert found.level.tolist() == [1000.0, 850.0, 500.0] * subsets
    np.testing.assert_allclose(found.value, SOUNDING["airTemperature"] * subsets)
    sigma = read_reports(TableOptions(path, {"temperature": 1.0}, vertical="sigma"))
    assert sigma.level.tolist() == [1.0, 0.85, 0.5] * subsets


def test_missing_values_make_no_row_and_messages_add_up(tmp_path):
    eccodes = pytest.importorskip("eccodes")
    path = bufr(tmp_path / "a.bufr")
    bufr(path, airTemperature=eccodes.CODES_MISSING_DOUBLE)
    bufr(path, windSpeed=0.0, windDirection=eccodes.CODES_MISSING_LONG)
    found = read_reports(TableOptions(path, ERRORS))
    assert (found.variable == "2m_temperature").sum() == 2
    np.testing.assert_allclose(found.value[found.variable == "10m_u_component_of_wind"], [5.0, 5.0, 0.0])


def test_csv_is_read_in_its_units(tmp_path):
    path = tmp_path / "stations.csv"
    path.write_text(
        "time,station,latitude,longitude,elevation,2m_temperature [degC]\n"
        "2020-01-01T00:00Z,A,50,10,100,1.5\n2020-01-01T00:00Z,B,51,-11,,\n2020-01-01T06:00Z,A,50,10,100,2.5\n"
    )
    found = read_reports(TableOptions(path, {"2m_temperature": 1.0}))
    np.testing.assert_allclose(found.value, [274.65, 275.65])
    assert found.station.tolist() == ["A", "A"] and found.elevation.tolist() == [100.0, 100.0]


def test_real_metar_reports_are_read_and_pass_quality_control():
    if not METAR.exists():
        pytest.skip("no real observations here")
    pytest.importorskip("pyarrow")
    found = read_reports(TableOptions(METAR, ERRORS | {"surface_pressure": 100.0}, "metar"))
    assert len(found) > 10000 and len(set(found.station.tolist())) == 12
    assert 1e4 < np.median(found.value[found.variable == "surface_pressure"]) < 1.05e5
    channels = Channels((*ERRORS, "surface_pressure"), (0, 0, 0))
    count = quality.counts(quality.screen(found, Geometry(Grid.gaussian(12), channels, {})))
    assert set(count) <= {quality.DUPLICATE} and count.get(quality.DUPLICATE, 0) < len(found) / 10


def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path):
    pytest.importorskip("eccodes")
    (tmp_path / "text.bufr").write_text("no message at all")
    cases = {
        "got nothing there": tmp_path / "absent.bufr",
        "reports of 2m_temperature, 10m_u_component_of_wind in .*text.bufr, it has none of them": tmp_path
        / "text.bufr",
    }
    for message, path in cases.items():
        with pytest.raises(ValueError, match=message):
            read_reports(TableOptions(path, ERRORS))
    whole = bufr(tmp_path / "whole.bufr").read_bytes()
    (tmp_path / "torn.bufr").write_bytes(whole + whole[:-20])
    with pytest.raises(ValueError, match="Expected BUFR messages in .*torn.bufr"):
        read_reports(TableOptions(tmp_path / "torn.bufr", ERRORS))
    with pytest.raises(ValueError, match="errors above 0"):
        TableOptions(tmp_path / "whole.bufr", {"2m_temperature": -1.0})
