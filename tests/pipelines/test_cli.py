"""What a person types: overrides anywhere, the version, pages that are not read to their end, and words without noise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from source_files import truth
from tiny_experiment import tiny_experiment

from pipelines.check import check_experiment
from pipelines.cli import main
from pipelines.commands import parse
from pipelines.config import ConfigError
from pipelines.load import load_experiment
from pipelines.messages import plain

ROOT = Path(__file__).resolve().parents[2]
TAKING = ("run", "submit", "ingest", "stats", "train", "rollout", "verify", "report", "simulate")


@given(st.sampled_from(TAKING), st.data())
def test_overrides_may_stand_anywhere(command, data):
    """Their order is kept, and options are the same wherever they stand among them."""
    options = {"submit": [["--site", "s.yaml"], ["--dry-run"]], "verify": [["--append"], ["--part", "1/2"]]}
    own = options.get(command, [["--check"], ["-v"]])
    words = data.draw(st.lists(st.sampled_from(["a.b=1", "c=x", "directory=D", "e=[1, 2]"]), max_size=4))
    mixed = data.draw(st.permutations([*own, *([word] for word in words)]))
    said = [word for group in mixed for word in group]
    overrides = [word for word in said if "=" in word]
    at = data.draw(st.integers(0, 1))  # the configuration is the first that is no option's
    found = parse([command, *(["x.yaml", *said] if at else [*own[0], "x.yaml", *_without(said, own[0])])])
    assert found.config == Path("x.yaml") and found.overrides == overrides and found.command == command
    assert found.verbose is (["-v"] in own)
    if command == "submit":
        assert found.dry_run and found.site == Path("s.yaml")
    if command == "verify":
        assert found.append and found.part == (1, 2)


def _without(words: list[str], some: list[str]) -> list[str]:
    at = words.index(some[0])
    return words[:at] + words[at + len(some) :]


@pytest.mark.parametrize("arguments", [["run"], ["run", "x.yaml", "--chekc"], ["submit", "x.yaml"], ["status"], []])
def test_what_no_command_takes_is_still_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        parse(arguments)
    assert end.value.code == 2 and "usage" in capsys.readouterr().err


def test_the_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out.startswith("emulator 0.")


def test_a_page_that_is_not_read_to_its_end_ends_quietly():
    command = f"{sys.executable} -m pipelines.cli models unet | head -1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert ended.stderr == "" and ended.stdout.startswith("Networks") and ended.returncode in (0, 141)
    closed = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); from pipelines.cli import main; "
    code = closed + "sys.exit(main(['models', 'unet']))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ended.stderr == "" and ended.returncode == 141


def test_a_fault_that_a_configuration_finds_is_told_without_the_librarys_words(tmp_path):
    with pytest.raises(ConfigError, match=r"^Expected network.noise with loss.kind crps"):
        load_experiment(tiny_experiment(tmp_path), ["train.loss.kind=crps"])


def test_times_are_told_to_the_second():
    assert plain("from 2001-01-01T00:00:00.000000000 to 2001-01-02T06:00:00.000000000.") == (
        "from 2001-01-01T00:00:00 to 2001-01-02T06:00:00."
    )
    assert plain("2001-01-01T00:00:00.500000000 and 1.000000000") == "2001-01-01T00:00:00.500000000 and 1.000000000"


def _ingest(folder: Path, dataset, **more) -> Path:
    dataset.to_netcdf(folder / "source.nc")
    raw = {"sources": [{"path": str(folder / "source.nc")}], "output": str(folder / "a.zarr"), **more}
    (folder / "ingest.yaml").write_text(yaml.safe_dump(raw))
    return folder / "ingest.yaml"


def test_fields_that_are_not_known_are_named_with_what_takes_them(tmp_path, capsys):
    data = truth()
    data["mystery"] = data["mean_sea_level_pressure"].copy()
    data["mystery"].attrs = {"units": "K"}
    path = _ingest(tmp_path, data)
    assert main(["ingest", str(path)]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert "mystery" in line and "source.nc" in line and "rename: {mystery: NAME}" in line
    assert main(["ingest", str(path), "variables=[mean_sea_level_pressure]"]) == 0  # chosen by name: nothing to tell
    assert "left out" not in capsys.readouterr().err


def test_a_gap_names_the_option_that_takes_it(tmp_path, capsys):
    data = truth()
    assert main(["ingest", str(_ingest(tmp_path, data.isel(time=[0, 1, 2, 4, 5, 6])))]) == 1
    said = capsys.readouterr().err
    assert "missing: keep or missing: interpolate" in said and "000000000" not in said


def test_a_file_that_is_no_store_is_named_as_what_it_is(finished, capsys):
    assert main(["inspect", str(finished.parent / "source" / "part0.nc")]) == 1
    assert "Expected an analysis or forecast store" in (said := capsys.readouterr().err) and "NetCDF file" in said


def test_grib_without_its_library_is_refused_before_anything_is_computed(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "eccodes", None)
    with pytest.raises(ImportError, match=r"emulator\[grib\]"):
        list(check_experiment(load_experiment(finished, ["rollout.also=[grib]"])))
    fresh = tiny_experiment(tmp_path)  # also where the checkpoint is still to be made
    with pytest.raises(ImportError, match=r"emulator\[grib\]"):
        list(check_experiment(load_experiment(fresh, ["rollout.also=[grib]"])))
    assert main(["rollout", str(finished), "also=[grib]", f"output={tmp_path / 'f.zarr'}"]) == 1
    assert "emulator[grib]" in capsys.readouterr().err and not list(tmp_path.glob("f*"))


def test_a_stage_that_is_complete_for_other_settings_is_told_with_them(finished, capsys):
    assert main(["run", str(finished), "--only", "rollout", "train.seed=7", "train.network.embed_dim=16"]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "train is complete for another configuration" in said
    assert "train.seed 0, not 7" in said and "train.network.embed_dim 12, not 16" in said


WORKING = """
import sys, time
from pathlib import Path
from pipelines import progress, running
with running.noting(Path(sys.argv[1])):
    with progress.progress("stats", 40) as report:
        for done in (1, 11):
            report(done)
            running._Open.written = 0.0
            time.sleep(0.01)
        print("ready", flush=True)
        time.sleep(600)
"""


def test_status_tells_what_runs_how_far_it_is_and_where_it_was_killed(tmp_path, monkeypatch):
    path = tiny_experiment(tmp_path)
    run = tmp_path / "run"
    from pipelines.run import record
    from pipelines.status import as_text, status

    record(load_experiment(path))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", WORKING, str(run / ".stages" / "stats.running")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout.readline() == "ready\n"
    found = {entry.stage: entry for entry in status(run)}
    assert found["stats"].state == "running" and found["stats"].detail.startswith("stats 11 of 40, about 0 s left")
    assert found["ingest"].state == found["train"].state == "open"
    assert "stats    running" in as_text(status(run))
    child.kill()
    child.wait()
    found = {entry.stage: entry for entry in status(run)}
    assert (found["stats"].state, found["stats"].detail) == ("open", "ended at stats 11 of 40")


def test_a_run_leaves_no_notes_behind(finished):
    assert not list((finished.parent / "run" / ".stages").glob("*.running"))
    mark = json.loads((finished.parent / "run" / ".stages" / "train.json").read_text())
    assert mark["settings"]["network"]["embed_dim"] == 12 and np.isfinite(mark["seconds"])
