"""Models that are handed on: a checkpoint with its card and checksums, as a folder or one file, and back from any URL.

What is handed on is tensors (safetensors), JSON and text, of which nothing is run when it is opened.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import fsspec
from safetensors import safe_open

from emulator.files.whole_file import whole_file
from emulator.model import adapted, checkpoint
from emulator.model.card import card
from emulator.model.checkpoint import METADATA, TENSORS
from emulator.model.saved_model import opened
from emulator.sources.open import reaching

CARD, SCORES, SUMS = "README.md", "scores.json", "SHA256SUMS"
FILES = (CARD, METADATA, SCORES, SUMS, TENSORS)  # no other is handed on, or taken
NEEDED = (METADATA, TENSORS)
PACKED = ".tar"
LARGEST_SUMS = 1 << 16  # bytes; five lines are not a hundredth of it
PIECE = 1 << 22


class PublishedError(ValueError):
    """A published model that is no whole one, or cannot be made; the message is one sentence."""


def publish(
    path: str | os.PathLike,
    output: str | os.PathLike,
    licence: str | None = None,
    scores: str | os.PathLike | None = None,
    name: str | None = None,
) -> str:
    """Writes a checkpoint with its model card and checksums, and returns the SHA-256 of the file, or of the checksums.

    The same checkpoint, scores and options give the same bytes. A folder is a checkpoint, too.

    Args:
      path: a checkpoint, or the directory of a run or of its training. Adapters are added to the network that they are for.
      output: a file `NAME.tar`, which is replaced, or a new folder. licence: an identifier such as `cc-by-4.0`.
      scores: the report's scores.json; None: that of the run, where the checkpoint lies in one. name: None: the output's.

    Raises `CheckpointError` for what is no whole checkpoint, and `PublishedError`.
    """
    directory, output = _checkpoint_of(Path(path)), Path(output)
    packed = output.suffix == PACKED
    if not packed and output.exists():
        raise PublishedError(f"Expected a new folder, or a file {PACKED}, to publish to, got {output}, which is there")
    if not packed and output.suffix in (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z"):
        raise PublishedError(f"Expected a folder or a file {PACKED} to publish to, got {output}")
    given = Path(scores) if scores is not None else _scores_beside(directory)
    name = name or (output.stem if packed else output.name)
    with _scratch(output) as folder:
        _copy(directory, folder)
        found = None if given is None else _read_scores(given)
        if found is not None:
            (folder / SCORES).write_bytes(given.read_bytes())
        saved = checkpoint.describe(folder)
        text = card(saved, _parameters(folder / TENSORS), name, licence, found)
        (folder / CARD).write_text(text, encoding="utf-8")
        sums = {file: _digest(folder / file) for file in FILES if (folder / file).exists()}
        (folder / SUMS).write_text("".join(f"{digest}  {file}\n" for file, digest in sums.items()))
        if not packed:
            os.replace(folder, output)
            return _digest(output / SUMS)
        with whole_file(output) as partial:
            _pack(folder, partial)
        return _digest(output)


def fetch(url: str | os.PathLike, output: str | os.PathLike | None = None, sha256: str | None = None) -> Path:
    """A published model from a path or URL that fsspec knows, as a folder that is a checkpoint; returns the folder.

    Every file is compared with its checksum before the folder is there; nothing else than the files of a model is taken, and
    of those nothing is run.

    Args:
      url: of a file `.tar` or of a folder. output: the new folder; None: the name in the URL, here.
      sha256: what `publish` returned, where its maker tells it: also guards against a model that is whole, but another.

    Raises `PublishedError` or `CheckpointError` with one sentence for what is no published model, or not whole.
    """
    url = str(url).rstrip("/")
    stem = re.split(r"[/\\]", url.split("?")[0])[-1]
    output = Path(output) if output is not None else Path(stem.removesuffix(PACKED) or "model")
    if output.exists():
        raise PublishedError(f"Expected a new folder to fetch to, got {output}, which is there")
    with _scratch(output) as folder, reaching(url):
        digest = _unpack(url, folder) if stem.endswith(PACKED) else _take(url, folder)
        if sha256 is not None and digest != sha256.lower():
            raise PublishedError(f"Expected {url} with the SHA-256 {sha256}, got {digest}: it is another, or damaged")
        _check(folder, url)
        checkpoint.load(folder)
        os.replace(folder, output)
    return output


@contextlib.contextmanager
def _scratch(output: Path) -> Iterator[Path]:
    """A folder beside the output, which is gone at the end unless it was renamed."""
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    folder = output.absolute().with_name(f".{output.name}.{uuid.uuid4().hex}.partial")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _checkpoint_of(path: Path) -> Path:
    """The checkpoint that a path names. Raises `PublishedError` where there is none."""
    places = path, path / "checkpoint", path / "train" / "checkpoint", path / "downscaling" / "checkpoint"
    for candidate in places:
        if (candidate / METADATA).exists():
            return candidate
    raise PublishedError(f"Expected a checkpoint, or the directory of a run that has been trained, at {path}, got none")


def _scores_beside(directory: Path) -> Path | None:
    found = directory.absolute().parent.parent / "report" / SCORES
    return found if found.exists() else None


def _read_scores(path: Path) -> Mapping:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PublishedError(f"Expected scores at {path}, got: {error.strerror}") from None
    except ValueError as error:
        raise PublishedError(f"Expected JSON at {path}, got: {error}") from None
    if not isinstance(content, dict) or "headline" not in content:
        raise PublishedError(f"Expected scores.json of a report, with 'headline', at {path}; got none there")
    return content


def _copy(directory: Path, folder: Path) -> None:
    """A whole checkpoint into a folder; of adapters the network that they make."""
    tensors, saved = checkpoint.load(directory)
    if saved.get("schema") == adapted.SCHEMA:
        tensors, saved = opened(directory)
        checkpoint.save(folder, tensors, {key: value for key, value in saved.items() if key != "sha256"})
        return
    for name in NEEDED:
        shutil.copyfile(directory / name, folder / name)


def _parameters(path: Path) -> int:
    """Numbers in the network's tensors."""
    with safe_open(path, "pt") as file:
        shapes = [file.get_slice(key).get_shape() for key in file.keys() if key.startswith("network.")]
    return sum(math.prod(shape) for shape in shapes)


def _pack(folder: Path, target: Path) -> None:
    """The files as a tar whose bytes follow from theirs alone."""
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in FILES:
            path = folder / name
            if path.exists():
                about = tarfile.TarInfo(name)
                about.size, about.mode = path.stat().st_size, 0o644
                with open(path, "rb") as file:
                    archive.addfile(about, file)


def _unpack(url: str, folder: Path) -> str:
    """The files of a tar into a folder; the SHA-256 of the tar. Raises `PublishedError` for what no model holds."""
    with tempfile.NamedTemporaryFile(dir=folder.parent, prefix=folder.name) as local:
        try:
            with fsspec.open(url, "rb") as remote:
                digest = _stream(remote, local)
        except FileNotFoundError:
            raise PublishedError(f"Expected a published model at {url}, got nothing there") from None
        local.flush()
        try:
            with tarfile.open(local.name, "r:") as archive:
                for member in archive:
                    _expect_file(member.name, url, folder, plain=member.isreg())
                    with archive.extractfile(member) as inner, open(folder / member.name, "wb") as own:
                        _stream(inner, own)
        except tarfile.TarError as error:
            raise PublishedError(f"Expected a published model at {url}, got no whole tar file: {error}") from None
    return digest


def _take(url: str, folder: Path) -> str:
    """The files of a folder at a URL that its checksums name; the SHA-256 of those."""
    try:
        with fsspec.open(f"{url}/{SUMS}", "rb") as remote:
            text = remote.read(LARGEST_SUMS)
    except FileNotFoundError:
        raise PublishedError(
            f"Expected a published model at {url}, a file {PACKED} or a folder with {SUMS}, got none"
        ) from None
    (folder / SUMS).write_bytes(text)
    for name in _sums(folder, url):
        _expect_file(name, url, folder)
        with fsspec.open(f"{url}/{name}", "rb") as remote, open(folder / name, "wb") as own:
            _stream(remote, own)
    return _digest(folder / SUMS)


def _expect_file(name: str, url: str, folder: Path, plain: bool = True) -> None:
    """Raises `PublishedError` for what is not one of a model's files, such as a path out of the folder, and for one twice."""
    if name not in FILES or not plain:
        raise PublishedError(
            f"Expected the files of a model in {url}, {', '.join(FILES)}, got {name!r}; nothing was taken"
        )
    if (folder / name).exists():
        raise PublishedError(f"Expected {name} once in {url}, got it twice; nothing was taken")


def _sums(folder: Path, url: str) -> dict[str, str]:
    """File -> SHA-256. Raises `PublishedError`."""
    try:
        lines = (folder / SUMS).read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise PublishedError(f"Expected {SUMS} in {url}, got none: it is no published model") from None
    except UnicodeDecodeError:
        lines = ["?"]
    found = [re.fullmatch(r"([0-9a-f]{64})  (\S+)", line) for line in lines]
    if not all(found):
        raise PublishedError(
            f"Expected a SHA-256 and a name in every line of {SUMS} in {url}, got others: it is damaged"
        )
    return {line[2]: line[1] for line in found}


def _check(folder: Path, url: str) -> None:
    """Raises `PublishedError` unless the folder holds what its checksums say, all of it and no more."""
    sums = _sums(folder, url)
    have = {path.name for path in folder.iterdir()} - {SUMS}
    if absent := sorted({*sums, *NEEDED} - have):
        raise PublishedError(f"Expected {', '.join(absent)} in {url}, got none: it is not whole")
    if more := sorted(have - set(sums)):
        raise PublishedError(f"Expected a checksum of {', '.join(more)} in {url}, got none")
    for name, digest in sums.items():
        if _digest(folder / name) != digest:
            raise PublishedError(f"Expected {name} of {url} as {SUMS} records it, its checksum differs: it is damaged")


def _stream(source: BinaryIO, target: BinaryIO) -> str:
    """Copies piece by piece; the SHA-256 of what was copied."""
    total = hashlib.sha256()
    while piece := source.read(PIECE):
        total.update(piece)
        target.write(piece)
    return total.hexdigest()


def _digest(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
