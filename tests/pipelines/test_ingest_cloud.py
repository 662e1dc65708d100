"""Sources at URLs: an S3 endpoint on the loopback (moto's server), and URLs that nothing answers at."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from anemoi_stores import mesh, values_of, write_anemoi
from reference_files import references, written
from source_files import truth

from emulator.model.published import fetch, publish
from emulator.store.analysis import open_analysis
from pipelines.cli import main
from pipelines.config import IngestConfig
from pipelines.ingest import ingest

TRUTH = truth()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def endpoint():
    """The address of a server that speaks S3, and nothing else of the cloud."""
    pytest.importorskip("s3fs")
    beside = shutil.which("moto_server", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    beside = beside or shutil.which("moto_server", path=os.path.join(sys.base_prefix, "bin"))
    if beside is None:
        pytest.skip("moto's server is not installed")
    port = free_port()
    server = subprocess.Popen([beside, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    else:
        server.kill()
        pytest.skip("moto's server does not start")
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(20)


@pytest.fixture
def bucket(endpoint, monkeypatch):
    import fsspec

    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_ENDPOINT_URL", endpoint),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.config.conf.pop("s3", None)
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.clear_instance_cache()
    if not system.exists("data"):
        system.mkdir("data")
    return system


def test_a_published_model_from_s3(tmp_path, bucket):
    released = Path(__file__).parents[1] / "model" / "released" / "checkpoint-1"
    digest = publish(released, tmp_path / "m.tar")
    publish(released, tmp_path / "m")
    bucket.put(str(tmp_path / "m.tar"), "data/m.tar")
    bucket.put(str(tmp_path / "m"), "data/m", recursive=True)
    for url, sha256 in (("s3://data/m.tar", digest), ("s3://data/m", None)):
        found = fetch(url, tmp_path / url.replace("/", "-"), sha256)
        assert (found / "weights.safetensors").read_bytes() == (released / "weights.safetensors").read_bytes()
    with pytest.raises(ValueError, match="s3://data/none.tar"):
        fetch("s3://data/none.tar", tmp_path / "none")


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize("version", [2, 3])
def test_zarr_from_s3(tmp_path, bucket, version):
    TRUTH.to_zarr(tmp_path / "in.zarr", zarr_format=version, consolidated=True)
    bucket.put(str(tmp_path / "in.zarr"), f"data/{version}.zarr", recursive=True)
    ingest(IngestConfig(sources=[{"path": f"s3://data/{version}.zarr"}], output=tmp_path / "a.zarr"))
    store = open_analysis(tmp_path / "a.zarr")
    for name in TRUTH.data_vars:
        np.testing.assert_array_equal(store[name].values, TRUTH[name].values)


def test_files_from_s3_and_what_changes_there(tmp_path, bucket):
    for number, part in enumerate((slice(0, 5), slice(5, 8))):
        TRUTH.isel(time=part).to_netcdf(tmp_path / f"{number}.nc")
        bucket.put(str(tmp_path / f"{number}.nc"), f"data/files/{number}.nc")
    config = IngestConfig(sources=[{"path": "s3://data/files/*.nc"}], output=tmp_path / "a.zarr", times_per_region=2)
    ingest(config, part=(1, 2))
    ingest(config)
    np.testing.assert_array_equal(open_analysis(tmp_path / "a.zarr").temperature.values, TRUTH.temperature.values)


def test_stores_and_references_of_other_packages_from_s3(tmp_path, bucket):
    """Without a key: recognised by what lies there, and the chunks that references name are in the bucket too."""
    values = values_of(("2t", "t_500", "t_850"), 84)
    write_anemoi(tmp_path / "in.zarr", values, mesh(), (7, 12))
    bucket.put(str(tmp_path / "in.zarr"), "data/anemoi.zarr", recursive=True)
    ingest(IngestConfig(sources=[{"path": "s3://data/anemoi.zarr"}], output=tmp_path / "a.zarr"))
    found = open_analysis(tmp_path / "a.zarr").temperature.sel(level=850).values
    np.testing.assert_array_equal(found.reshape(8, 1, 84), values["t_850"])
    bucket.put(written(tmp_path), "data/refs/a.nc")
    bucket.pipe("data/refs/a.json", json.dumps(references(str(tmp_path / "a.nc"), "s3://data/refs/a.nc")).encode())
    ingest(IngestConfig(sources=[{"path": "s3://data/refs/a.json"}], output=tmp_path / "b.zarr"))
    np.testing.assert_array_equal(open_analysis(tmp_path / "b.zarr").temperature.values, TRUTH.temperature.values)


def test_icechunk_from_s3(tmp_path, bucket):
    icechunk = pytest.importorskip("icechunk", reason="icechunk is not installed; the extra virtual brings it")
    made = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "in.icechunk")))
    session = made.writable_session("main")
    TRUTH.to_zarr(session.store, mode="w", consolidated=False, zarr_format=3)
    session.commit("all")
    bucket.put(str(tmp_path / "in.icechunk"), "data/a.icechunk", recursive=True)
    ingest(IngestConfig(sources=[{"path": "s3://data/a.icechunk"}], output=tmp_path / "a.zarr"))
    np.testing.assert_array_equal(open_analysis(tmp_path / "a.zarr").temperature.values, TRUTH.temperature.values)


def test_what_is_not_in_the_bucket(tmp_path, bucket, capsys):
    config = tmp_path / "ingest.yaml"
    for url in (
        "s3://data/none.zarr",
        "s3://data/none/*.nc",
        "s3://data/none.nc",
        "s3://nobucket/a.zarr",
        "s3://data/none.json",
    ):
        config.write_text(f"sources: [{{path: '{url}'}}]\noutput: {tmp_path}/a.zarr\n")
        assert main(["ingest", str(config)]) == 1
        said = capsys.readouterr().err
        assert url in said and "Traceback" not in said and len(said.strip().splitlines()) == 1, said
        assert not (tmp_path / "a.zarr").exists() and not (tmp_path / "a.zarr.partial").exists()


@pytest.mark.parametrize("path", ["{}://127.0.0.1:{}/a.zarr", "{}://127.0.0.1:{}/a.nc"])
def test_an_unreachable_url_is_one_sentence(tmp_path, capsys, path):
    pytest.importorskip("aiohttp")
    url = path.format("http", free_port())
    config = tmp_path / "ingest.yaml"
    config.write_text(f"sources: [{{path: '{url}'}}]\noutput: {tmp_path}/a.zarr\n")
    assert main(["ingest", str(config)]) == 1
    said = capsys.readouterr().err
    assert url in said and "Traceback" not in said and len(said.strip().splitlines()) == 1, said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ingest.yaml"]


def test_an_unreachable_endpoint_and_an_unknown_protocol(tmp_path, capsys, monkeypatch):
    pytest.importorskip("s3fs")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    config = tmp_path / "ingest.yaml"
    for url in ("s3://data/a.zarr", "s3://data/*.nc", "nowhere://data/a.nc"):
        config.write_text(f"sources: [{{path: '{url}'}}]\noutput: {tmp_path}/a.zarr\n")
        assert main(["ingest", str(config)]) == 1
        said = capsys.readouterr().err
        assert url in said and len(said.strip().splitlines()) == 1, said
    s3fs.S3FileSystem.clear_instance_cache()
