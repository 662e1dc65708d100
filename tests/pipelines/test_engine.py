"""Where Dask works: the same results from threads and from a scheduler at an address, and job scripts that ask for enough."""

import time

import pytest

from pipelines.config import DaskConfig
from pipelines.dask_on_slurm import _slurm_cluster
from pipelines.engine import workers


def square(number):
    return number * number


def fails_at_five(number, folder):
    if number == 5:
        raise ValueError("five")
    time.sleep(0.2)
    (folder / str(number)).touch()


def test_threads():
    done = []
    with workers(DaskConfig(threads=2)) as over:
        assert over(square, [(n,) for n in range(20)], done.append) == [n * n for n in range(20)]
    assert done[-1] == 20


def test_a_failing_task_ends_after_its_neighbours(tmp_path):
    """Nothing still runs, and writes, when the error is raised."""
    with workers(DaskConfig(threads=4)) as over, pytest.raises(ValueError, match="five"):
        over(fails_at_five, [(n, tmp_path) for n in range(16)], lambda count: None)
    before = sorted(p.name for p in tmp_path.iterdir())
    time.sleep(0.5)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_scheduler_at_an_address(tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        with workers(DaskConfig(address=cluster.scheduler_address)) as over:
            assert over(square, [(n,) for n in range(30)], lambda count: None) == [n * n for n in range(30)]
            with pytest.raises(ValueError, match="five"):
                over(fails_at_five, [(n, tmp_path) for n in range(8)], lambda count: None)


def test_an_address_that_nothing_answers_at(monkeypatch):
    monkeypatch.setattr("pipelines.engine.CONNECT_SECONDS", 0.5)
    with pytest.raises(ValueError, match=r"scheduler that answers at tcp://127\.0\.0\.1:9, got: ") as caught:
        with workers(DaskConfig(address="tcp://127.0.0.1:9")):
            pass
    assert "\n" not in str(caught.value)


def test_slurm_jobs_ask_for_what_the_configuration_says():
    pytest.importorskip("dask_jobqueue")
    asked = {
        "partition": "gpu",
        "account": "climate",
        "walltime": "00:20:00",
        "options": ["--qos=low"],
        "setup": ["module load x"],
    }
    config = DaskConfig(workers=2, threads=3, memory="5GB", slurm=asked)
    cluster = _slurm_cluster(config)
    try:
        script = cluster.job_script()
    finally:
        cluster.close()
    for line in ("-p gpu", "-A climate", "--cpus-per-task=3", "--mem=5G", "-t 00:20:00", "--qos=low", "module load x"):
        assert line in script, script
    assert "--nthreads 3" in script
    with pytest.raises(ValueError, match="at least one of dask.workers"):
        _slurm_cluster(DaskConfig(slurm={}))
