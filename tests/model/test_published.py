"""Models that are handed on: the same bytes, the same network, from every kind of URL; what is no whole model is refused."""

import functools
import hashlib
import http.server
import io
import json
import shutil
import tarfile
import threading
from pathlib import Path

import pytest
import torch
import yaml

import emulator as em
from emulator.model import adapted, checkpoint
from emulator.model.checkpoint import CheckpointError
from emulator.model.published import FILES, PublishedError, fetch, publish
from emulator.model.saved_model import opened

RELEASED = Path(__file__).parent / "released" / "checkpoint-1"


@pytest.fixture
def packed(tmp_path) -> Path:
    publish(RELEASED, tmp_path / "small.tar", "cc-by-4.0")
    return tmp_path / "small.tar"


def test_the_same_checkpoint_gives_the_same_bytes_wherever_and_whenever(tmp_path, packed):
    shutil.copytree(RELEASED, tmp_path / "elsewhere" / "train" / "checkpoint")
    (tmp_path / "again").mkdir()
    digest = publish(tmp_path / "elsewhere", tmp_path / "again" / "small.tar", "cc-by-4.0")  # a run directory
    assert (tmp_path / "again" / "small.tar").read_bytes() == packed.read_bytes()
    assert digest == hashlib.sha256(packed.read_bytes()).hexdigest()
    with tarfile.open(packed, "r:") as archive:
        assert [m.name for m in archive] == [n for n in FILES if n != "scores.json"]
        assert all((m.mtime, m.uid, m.gid, m.mode) == (0, 0, 0, 0o644) for m in archive)


def test_what_was_fetched_is_the_network_that_was_published(tmp_path, packed):
    expected = em.load_model(RELEASED, "cpu").state_dict()
    publish(RELEASED, tmp_path / "folder")
    for number, url in enumerate((packed, f"file://{packed}", tmp_path / "folder", f"file://{tmp_path}/folder/")):
        found = fetch(url, tmp_path / str(number))
        assert (found / "weights.safetensors").read_bytes() == (RELEASED / "weights.safetensors").read_bytes()
        for name, tensor in em.load_model(found, "cpu").state_dict().items():
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)
    assert not list(tmp_path.glob(".*")), "a scratch folder was left"


def test_adapters_are_published_as_the_network_that_they_make(tmp_path):
    tensors, saved = opened(RELEASED)
    changed = {name: tensor + 0.5 if name.startswith("network.") else tensor for name, tensor in tensors.items()}
    start = {"sha256": saved["sha256"], "checkpoint": str(RELEASED)}
    about = saved | {"adapters": {"scale": 1.0}, "start": start}
    adapted.save(tmp_path / "adapters", changed, {}, (tensors, saved), about)
    publish(tmp_path / "adapters", tmp_path / "whole")
    found, _ = checkpoint.load(tmp_path / "whole")
    assert set(found) == set(changed)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, changed[name], rtol=0, atol=0)


def test_without_a_name_it_lies_here_under_the_name_in_the_url(packed, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert fetch(packed) == Path("small") and (tmp_path / "here" / "small" / "README.md").exists()


def test_over_http_on_the_loopback(packed, tmp_path):
    pytest.importorskip("aiohttp")
    publish(RELEASED, tmp_path / "folder")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        for name in ("small.tar", "folder"):
            found = fetch(f"{base}/{name}", tmp_path / f"got-{name}")
            assert checkpoint.load(found)[1] == checkpoint.load(RELEASED)[1]
        with pytest.raises(ValueError, match=r"http://127.0.0.1:\d+/none.tar"):
            fetch(f"{base}/none.tar", tmp_path / "none")
        with pytest.raises(PublishedError, match=r"a file .tar or a folder with SHA256SUMS, got none"):
            fetch(f"{base}/nothing", tmp_path / "none")
        server.shutdown()
    assert not (tmp_path / "none").exists()


def test_the_card_says_what_the_checkpoint_says(packed, tmp_path):
    text = (fetch(packed, tmp_path / "got") / "README.md").read_text()
    front, _, body = text.removeprefix("---\n").partition("---\n")
    about = yaml.safe_load(front)
    saved = checkpoint.describe(RELEASED)
    assert about["license"] == "cc-by-4.0" and about["library_name"] == "emulator" and about["model_name"] == "small"
    assert saved["sha256"] in body and saved["config"]["network"]["kind"] in about["tags"]
    assert all(f"`{name}`" in body for name in saved["layout"]["prognostic"]["names"])
    tensors, _ = checkpoint.load(RELEASED)
    count = sum(tensor.numel() for name, tensor in tensors.items() if name.startswith("network."))
    assert f"{count:,} parameters" in body and saved["period"][0][:16] in body
    assert "None of a report were at hand" in body and "not stated" not in body
    publish(RELEASED, tmp_path / "bare")
    bare = (tmp_path / "bare" / "README.md").read_text()
    assert "license" not in bare and "not stated" in bare


def test_scores_are_those_of_this_checkpoint_alone(tmp_path):
    digest = checkpoint.describe(RELEASED)["sha256"]
    row = {"channel": "temperature 500 hPa", "units": "K", "lead_days": 3.0, "rmse": 1.234, "acc": 0.9, "bias": None}
    budget = {"budget": "dry_air", "relative_residual_per_step_rms": 2.5e-9}
    content = {
        "initial_times": 7,
        "headline": [row | {"forecast": "ours"}, row | {"forecast": "other", "rmse": 9.876}],
        "provenance": {"ours": {"checkpoint": digest}, "other": {"checkpoint": "f" * 64}, "truth": {}},
        "budgets": [budget | {"source": "ours"}, budget | {"source": "truth", "relative_residual_per_step_rms": 0.77}],
    }
    (tmp_path / "scores.json").write_text(json.dumps(content))
    publish(RELEASED, tmp_path / "model", scores=tmp_path / "scores.json")
    text = (tmp_path / "model" / "README.md").read_text()
    assert "| temperature 500 hPa [K] | 3 days | 1.23 | 0.9 |  |" in text and "dry air 2.5e-09" in text
    assert "9.88" not in text and "0.77" not in text and "Of 7 initial times" in text
    content["provenance"]["ours"]["checkpoint"] = "e" * 64
    (tmp_path / "scores.json").write_text(json.dumps(content))
    publish(RELEASED, tmp_path / "otherwise", scores=tmp_path / "scores.json")
    assert "None of a report" in (tmp_path / "otherwise" / "README.md").read_text()


def rewritten(packed: Path, change) -> Path:
    """The packed model with its list of (name, bytes, type) changed, as one who means harm could write it."""
    with tarfile.open(packed, "r:") as archive:
        entries = [(m.name, archive.extractfile(m).read(), tarfile.REGTYPE) for m in archive]
    target = packed.with_name("changed.tar")
    with tarfile.open(target, "w") as archive:
        for name, content, kind in change(entries):
            about = tarfile.TarInfo(name)
            about.size, about.type, about.linkname = len(content), kind, "/etc/hostname"
            archive.addfile(about, io.BytesIO(content))
    return target


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


HARM = {
    "a path above": (
        lambda e: [*e, ("../above.txt", b"x", tarfile.REGTYPE)],
        r"got '\.\./above\.txt'; nothing was taken",
    ),
    "a full path": (
        lambda e: [("/tmp/emulator-above.txt", b"x", tarfile.REGTYPE), *e],
        "got '/tmp/emulator-above.txt'",
    ),
    "a folder's file": (lambda e: [*e, ("sub/README.md", b"x", tarfile.REGTYPE)], "got 'sub/README.md'"),
    "a link": (lambda e: [("README.md", b"", tarfile.SYMTYPE), *e[1:]], "got 'README.md'; nothing was taken"),
    "a program": (lambda e: [*e, ("run.py", b"x", tarfile.REGTYPE)], "got 'run.py'"),
    "one twice": (lambda e: [*e, e[0]], "README.md once"),
    "one fewer": (
        lambda e: [x for x in e if x[0] != "weights.safetensors"],
        "Expected weights.safetensors in .* not whole",
    ),
    "no checksums": (lambda e: [x for x in e if x[0] != "SHA256SUMS"], "Expected SHA256SUMS in"),
    "other weights": (
        lambda e: [(n, flipped(c) if n.startswith("weights") else c, k) for n, c, k in e],
        "weights.safetensors of .* checksum differs",
    ),
    "another card": (
        lambda e: [(n, c + b"!" if n == "README.md" else c, k) for n, c, k in e],
        "README.md of .* checksum differs",
    ),
    "no checksum of one": (
        lambda e: [(n, c[67:] if n == "SHA256SUMS" else c, k) for n, c, k in e],
        "every line of SHA256SUMS|a checksum of",
    ),
    "one unsummed": (lambda e: [*e, ("scores.json", b"{}", tarfile.REGTYPE)], "a checksum of scores.json"),
}


@pytest.mark.parametrize("harm", HARM)
def test_what_is_no_whole_model_is_refused_and_leaves_nothing(packed, tmp_path, harm):
    change, words = HARM[harm]
    inside = tmp_path / "inside"
    inside.mkdir()
    url = rewritten(packed, change)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PublishedError, match=words):
        fetch(url, inside / "model")
    assert sorted(tmp_path.rglob("*")) == before and not Path("/tmp/emulator-above.txt").exists()


def test_a_file_that_broke_off_or_is_none_is_refused(packed, tmp_path):
    for content in (packed.read_bytes()[: packed.stat().st_size // 2], b"<html>not found</html>", b""):
        (tmp_path / "broken.tar").write_bytes(content)
        with pytest.raises(PublishedError, match=r"broken.tar"):
            fetch(tmp_path / "broken.tar", tmp_path / "model")
        assert not (tmp_path / "model").exists()


def test_another_model_under_a_name_is_told_by_its_sum(packed, tmp_path):
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    with pytest.raises(PublishedError, match=f"SHA-256 {'0' * 64}, got {digest}"):
        fetch(packed, tmp_path / "model", "0" * 64)
    assert not (tmp_path / "model").exists()
    assert fetch(packed, tmp_path / "model", digest.upper()).is_dir()


def test_what_is_there_is_not_overwritten(packed, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(PublishedError, match="a new folder to fetch to"):
        fetch(packed, tmp_path / "mine")
    with pytest.raises(PublishedError, match=r"a new folder, or a file \.tar"):
        publish(RELEASED, tmp_path / "mine")
    with pytest.raises(PublishedError, match=r"Expected a folder or a file \.tar to publish to"):
        publish(RELEASED, tmp_path / "m.zip")


def test_what_cannot_be_published_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(PublishedError, match="directory of a run that has been trained"):
        publish(tmp_path, tmp_path / "a.tar")
    shutil.copytree(RELEASED, tmp_path / "damaged")
    path = tmp_path / "damaged" / "weights.safetensors"
    path.write_bytes(flipped(path.read_bytes()))
    with pytest.raises(CheckpointError, match="checksum differs"):
        publish(tmp_path / "damaged", tmp_path / "a.tar")
    (tmp_path / "no.json").write_text("[1]")
    with pytest.raises(PublishedError, match="with 'headline'"):
        publish(RELEASED, tmp_path / "a.tar", scores=tmp_path / "no.json")
    with pytest.raises(PublishedError, match="Expected scores at"):
        publish(RELEASED, tmp_path / "a.tar", scores=tmp_path / "none.json")
    assert not (tmp_path / "a.tar").exists() and not list(tmp_path.glob(".*"))
