"""What a file is that is none of the formats: an archive, a compressed file, a server's page. And what to do about it."""

import contextlib
import re
import zipfile

PACKED = {
    b"\x1f\x8b": ("a gzip file", "gunzip"),
    b"BZh": ("a bzip2 file", "bunzip2"),
    b"\xfd7zXZ": ("an xz file", "unxz"),
    b"\x28\xb5\x2f\xfd": ("a zstd file", "unzstd"),
    b"\x1f\x9d": ("a compressed file", "uncompress"),
    b"7z\xbc\xaf": ("a 7-Zip archive", "7z x"),
    b"Rar!": ("a RAR archive", "unrar x"),
}


ZIP = b"PK\x03\x04"


def is_packed(start: bytes) -> bool:
    """Whether a file that begins so is compressed as a whole or an archive."""
    return start.startswith((ZIP, *PACKED))


def is_page(start: bytes) -> bool:
    """Whether a file that begins so is HTML or XML."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<error"))


def what(path: str, start: bytes) -> str:
    """What a file is that is no format of ours, and what to do about it."""
    if not start:
        return "an empty file; download it again"
    if start.startswith(ZIP):
        with contextlib.suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            return f"a zip archive of {', '.join(names[:3])}{more}; unpack it (unzip) and give the files in it"
        return "a zip archive that is cut off; download it again"
    for begin, (what, command) in PACKED.items():
        if start.startswith(begin):
            return f"{what}; unpack it first ({command})"
    if _is_tar(path):
        return "a tar archive; unpack it (tar -xf) and give the files in it"
    if is_page(start):
        return f"a page of HTML or XML{_title(path)}: a server's answer in place of the data; download it again"
    if start.lstrip()[:1] in (b"{", b"["):
        return f"JSON that begins with {_line(start)!r}; a server's message in place of the data?"
    if start[:4] == b"\x0e\x03\x13\x01":
        return "an HDF4 file; convert it to NetCDF first (h4tonccf or ncks)"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        return f"text that begins with {_line(start)!r}"
    return f"a file that begins with {start[:8]!r}"


def _line(start: bytes) -> str:
    return start.decode("latin-1").strip().splitlines()[0][:60] if start.strip() else ""


def _is_tar(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(262)[257:] == b"ustar"


def _title(path: str) -> str:
    """The title of a page, in brackets."""
    with open(path, "rb") as file:
        found = re.search(rb"<title[^>]*>\s*(.*?)\s*</title>", file.read(1 << 14), re.IGNORECASE | re.DOTALL)
    return f" ({' '.join(found[1].decode('utf-8', 'replace').split())[:80]})" if found else ""
