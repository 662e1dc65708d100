"""Whether a Zarr store's consolidated metadata are those of its arrays: who appends to one may leave them as they were."""

import json
import logging

import fsspec

FILES = {"v3": ("zarr.json", "zarr.json"), "v2": (".zmetadata", ".zarray")}  # of the group, of an array

log = logging.getLogger(__name__)


def consolidated(path) -> bool | None:
    """What xarray is to be told of the consolidated metadata of the Zarr 2 or 3 store at a path or URL.

    None, which takes them where they are; False where the shape of an array is another by its own metadata, or where a local
    store has arrays that they have not. At a URL only dimensions are looked at, a request each.
    """
    try:
        system, inner = fsspec.core.url_to_fs(str(path))
        shapes, own = _consolidated_shapes(system, inner.rstrip("/"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # whoever opens it says what is wrong
    local = "://" not in str(path)
    for name, (shape, dims) in shapes.items():
        if not local and dims != [name]:
            continue
        try:
            found = json.loads(system.cat_file(f"{inner.rstrip('/')}/{name}/{own}"))["shape"]
        except (OSError, ValueError, KeyError, TypeError):
            found = None
        if found != shape:
            what = f"{name} has the shape {found}, not {shape}"
            log.warning(
                "The consolidated metadata of %s are out of date (%s); those of its arrays are read", path, what
            )
            return False
    if local:
        here = {entry.rstrip("/").rsplit("/", 1)[-1]: entry for entry in system.ls(inner, detail=False)}
        if more := [
            name for name, at in here.items() if name not in shapes and system.exists(f"{at.rstrip('/')}/{own}")
        ]:
            log.warning(
                "The consolidated metadata of %s are out of date (no %s); those of its arrays are read", path, more[0]
            )
            return False
    return None


def _consolidated_shapes(system, folder: str) -> tuple[dict[str, tuple[list, list]], str]:
    """Shape and dimensions of the arrays in consolidated metadata, and the file in which an array has its own.

    Raises what reading raises, and `KeyError` where there are none.
    """
    if system.exists(f"{folder}/{FILES['v3'][0]}"):
        group = json.loads(system.cat_file(f"{folder}/{FILES['v3'][0]}"))
        arrays = group["consolidated_metadata"]["metadata"]
        found = {
            name: (entry["shape"], list(entry.get("dimension_names") or ()))
            for name, entry in arrays.items()
            if entry["node_type"] == "array"
        }
        return found, FILES["v3"][1]
    entries = json.loads(system.cat_file(f"{folder}/{FILES['v2'][0]}"))["metadata"]
    found = {}
    for key, entry in entries.items():
        name, _, file = key.rpartition("/")
        if file == FILES["v2"][1]:
            dims = entries.get(f"{name}/.zattrs", {}).get("_ARRAY_DIMENSIONS", [])
            found[name] = (entry["shape"], list(dims))
    return found, FILES["v2"][1]
