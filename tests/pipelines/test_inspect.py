import pytest

from pipelines.cli import main


@pytest.mark.parametrize(
    "store, words",
    [
        ("analysis.zarr", ["12 x 24 gaussian", "4 sigma", "72 times, every 6 h", "temperature", "m s-1", "diagnostic"]),
        ("forecast.zarr", ["9 initial times, every 6 h to 1.5 days", "checkpoint", "correction_rms_temperature"]),
    ],
)
def test_one_screen_tells_what_a_store_holds(finished, capsys, store, words):
    assert main(["inspect", str(finished.parent / "run" / store)]) == 0
    said = capsys.readouterr().out
    for word in words:
        assert word in said, said
    assert len(said.splitlines()) < 50


def test_an_absent_store_is_named(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "none.zarr")]) == 1
    assert "none.zarr" in capsys.readouterr().err
