"""A run's own experiment.yaml means the same from every folder, also after the run directory was moved."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_experiment import tiny_experiment

from pipelines.chain import chain
from pipelines.cli import main
from pipelines.config.declared import AS_WRITTEN
from pipelines.load import load_experiment, load_stage
from pipelines.run import record
from pipelines.status import status


@pytest.fixture
def started(tmp_path, monkeypatch) -> Path:
    """The folder that a run of two stages was started in, with relative paths alone; its run lies in `runs/one`."""
    home = tmp_path / "home"
    path = tiny_experiment(home)
    raw = yaml.safe_load(path.read_text())
    raw |= {"directory": "runs/one"}
    raw["ingest"]["sources"] = [{"path": "source/*.nc"}]
    path.write_text(yaml.safe_dump({name: raw[name] for name in ("directory", "ingest", "stats")}))
    monkeypatch.chdir(home)
    assert main(["run", "experiment.yaml"]) == 0
    return home


def _states(run: Path) -> list[str]:
    return [entry.state for entry in status(run)]


@pytest.mark.parametrize("where", [".", "runs", "runs/one", "/"])
def test_a_run_is_complete_from_everywhere(started, monkeypatch, where, capsys):
    monkeypatch.chdir(started / where)
    run = started / "runs" / "one"
    assert _states(run) == ["complete", "complete"]
    before = sorted(started.rglob("*"))
    capsys.readouterr()
    assert main(["run", str(run / "experiment.yaml")]) == 0
    assert "starting" not in capsys.readouterr().err
    assert sorted(started.rglob("*")) == before
    assert main(["stats", str(run / "experiment.yaml"), "--check"]) == 0
    monkeypatch.chdir(started)  # also after it was started elsewhere
    assert _states(Path("runs/one")) == ["complete", "complete"]


@pytest.mark.parametrize("how", [shutil.copytree, shutil.move])
def test_a_moved_run_is_complete_and_keeps_its_sources(started, tmp_path, monkeypatch, how):
    there = tmp_path / "there"
    how(started / "runs" / "one", there)
    if how is shutil.copytree:
        shutil.rmtree(started / "runs" / "one" / "analysis.zarr")  # the copy does not look there
    for where in (started, tmp_path, there):
        monkeypatch.chdir(where)
        assert _states(there) == ["complete", "complete"]
    found = load_experiment(there / "experiment.yaml")
    assert (
        found.ingest.sources[0].path == str(started / "source" / "*.nc")
        and found.stats.store == there / "analysis.zarr"
    )
    (there / "statistics.nc").unlink()
    assert main(["run", "experiment.yaml"]) == 0  # goes on where it lies now
    assert (there / "statistics.nc").exists()
    assert (started / "runs" / "one").exists() == (how is shutil.copytree)


def test_from_where_it_was_started_nothing_changes_and_overrides_are_those_of_the_working_directory(
    started, monkeypatch
):
    path = started / "runs" / "one" / "experiment.yaml"
    assert load_experiment(path).ingest.sources[0].path == "source/*.nc"
    assert load_stage("stats", path).store == Path("runs/one/analysis.zarr")
    monkeypatch.chdir("/")
    assert load_stage("stats", path, ["output=here.nc"]).output == Path("here.nc")
    assert load_experiment(path, ["stats.output=here.nc"]).stats.store == started / "runs/one/analysis.zarr"


def test_a_store_that_was_half_made_is_gone_on_with_from_another_folder(started, monkeypatch, capsys):
    run = started / "runs" / "one"
    shutil.rmtree(run / "analysis.zarr")
    assert main(["ingest", "experiment.yaml", "--part", "1/2"]) == 0
    monkeypatch.chdir("/")
    assert main(["run", str(run / "experiment.yaml")]) == 0
    assert "going on with the unfinished store" in capsys.readouterr().err
    assert _states(run) == ["complete", "complete"]


def test_an_experiment_beside_a_run_is_read_as_it_is(started, monkeypatch):
    """A person's own file is relative to the working directory, as every path on a command line."""
    monkeypatch.chdir("/")
    assert load_experiment(started / "experiment.yaml").directory == Path("runs/one")
    links = chain(load_experiment(started / "experiment.yaml"))
    assert not any(link.complete for link in links)


def test_a_runs_state_is_read_without_torch_and_with_the_same_fingerprints(tmp_path):
    """To know the kinds of networks takes torch; the record has the network's options with all defaults."""
    experiment = load_experiment(tiny_experiment(tmp_path))
    record(experiment)
    path = Path(experiment.directory) / "experiment.yaml"
    assert experiment.train is not None
    written = chain(load_experiment(path, context=AS_WRITTEN))
    assert [link.fingerprint for link in written] == [link.fingerprint for link in chain(experiment)]
    code = "import sys; from pipelines.status import status; status(sys.argv[1]); assert 'torch' not in sys.modules"
    moved = tmp_path / "moved"
    shutil.copytree(path.parent, moved)
    for run in (path.parent, moved):
        subprocess.run([sys.executable, "-c", code, str(run)], check=True)
