"""Dask's workers as jobs of a real Slurm: the stages' own code on them, and a cluster that is left as it was found."""

import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from slurm_cluster import slurm_cluster
from source_files import truth

from pipelines.config import DaskConfig, IngestConfig, StatsConfig
from pipelines.engine import workers
from pipelines.ingest import ingest
from pipelines.stats import stats

pytest.importorskip("dask_jobqueue")
ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(600)]
TIMES = np.datetime64("2001-01-01", "ns") + np.arange(40) * np.timedelta64(6, "h")


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """Settings for two jobs of one thread on a running Slurm."""
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as variables:
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        logs = tmp_path_factory.mktemp("logs")
        paths = f"{ROOT}:{ROOT / 'tests'}:{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"
        slurm = {
            "partition": "test",
            "walltime": "00:05:00",
            "options": [f"--output={logs}/%j.log"],
            "setup": [f"export PYTHONPATH={paths}", "export OMP_NUM_THREADS=1", f"cd {logs}"],
        }
        yield {"workers": 2, "threads": 1, "memory": "1GB", "slurm": slurm}
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def queued() -> list[str]:
    return subprocess.run(["squeue", "--noheader", "--format=%j"], capture_output=True, text=True).stdout.split()


def empty_before(seconds: float) -> bool:
    end = time.monotonic() + seconds
    while queued() and time.monotonic() < end:
        time.sleep(0.2)
    return not queued()


def where(number: int) -> tuple[int, str | None]:
    time.sleep(0.3)  # so that one worker alone does not do them all
    return os.getpid(), os.environ.get("SLURM_JOB_ID")


def fails(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


def test_tasks_run_in_jobs_that_end_with_them(dask):
    with workers(DaskConfig(**dask)) as over:
        assert len(queued()) == 2
        found = over(where, [(n,) for n in range(40)], lambda count: None)
        with pytest.raises(ValueError, match="three"):
            over(fails, [(n,) for n in range(8)], lambda count: None)
    assert os.getpid() not in {process for process, _ in found}
    jobs = {job for _, job in found}
    assert len(jobs) == 2 and None not in jobs
    assert empty_before(30)


def test_jobs_that_slurm_refuses_are_not_waited_for(dask):
    with pytest.raises(ValueError, match="Expected Slurm to take Dask's jobs, got: .*") as caught:
        with workers(DaskConfig(**dask | {"memory": "900GB"})):
            pass
    assert "\n" not in str(caught.value) and not queued()


def test_jobs_that_end_at_once_are_not_waited_for(dask):
    setup = {"slurm": dask["slurm"] | {"setup": ["exit 3"]}}
    with pytest.raises(ValueError, match=r"Expected Dask's jobs on Slurm to work, got all of them ended \(\d+ FAILED"):
        with workers(DaskConfig(**dask | setup)):
            pass


def test_jobs_that_are_cancelled_under_their_tasks_are_not_waited_for(dask):
    with pytest.raises(ValueError, match=r"got all of them ended \(.*CANCELLED"):
        with workers(DaskConfig(**dask)) as over:
            subprocess.run(["scancel", "--user=root"], check=True)
            over(where, [(n,) for n in range(400)], lambda count: None)


def files_of(store: Path) -> dict[str, bytes]:
    return {str(f.relative_to(store)): f.read_bytes() for f in store.rglob("*") if f.is_file()}


def test_a_store_and_its_statistics_are_those_of_one_process(dask, tmp_path):
    for number, part in enumerate(np.array_split(TIMES, 4)):
        truth(part).to_netcdf(tmp_path / f"{number}.nc")
    sources, stores = [{"path": str(tmp_path / "*.nc")}], {}
    for name, settings in (("here", {}), ("there", dask)):
        (tmp_path / name).mkdir()
        stores[name] = tmp_path / name / "a.zarr"
        ingest(IngestConfig(sources=sources, output=stores[name], times_per_region=5, dask=settings))
        stats(StatsConfig(store=stores[name], output=tmp_path / name / "s.nc", dask=settings))
    assert files_of(stores["here"]) == files_of(stores["there"])
    here, there = (xr.load_dataset(tmp_path / name / "s.nc") for name in ("here", "there"))
    xr.testing.assert_equal(here, there)
    assert empty_before(30)


def test_a_bad_source_is_named_by_its_worker(dask, tmp_path):
    """The error crosses from the job to here as the one sentence that it is, and nothing is left."""
    data = truth(TIMES)
    data.temperature[30, 1, 2, 3] = np.nan
    data.to_netcdf(tmp_path / "a.nc")
    config = IngestConfig(
        sources=[{"path": str(tmp_path / "a.nc")}], output=tmp_path / "a.zarr", times_per_region=5, dask=dask
    )
    with pytest.raises(ValueError, match=r"missing ones at 2001-01-08T12.*a\.nc") as caught:
        ingest(config)
    assert "\n" not in str(caught.value) and sorted(p.name for p in tmp_path.iterdir()) == ["a.nc"]
    assert empty_before(30)
