"""A NetCDF4 file of the known state, and references to its chunks as kerchunk writes them: JSON, and tables in Parquet."""

import json

import h5py
import numpy as np
from source_files import truth

TRUTH = truth()
FILTERS = {"gzip": {"id": "zlib", "level": 4}}


def written(folder, **encoding) -> str:
    """A NetCDF4 file in compressed chunks of one time."""
    chunks = {n: {"chunksizes": (1, *a.shape[1:]), "zlib": True} | encoding for n, a in TRUTH.data_vars.items()}
    TRUTH.to_netcdf(folder / "a.nc", encoding=chunks)
    return str(folder / "a.nc")


def references(path: str, target: str | None = None) -> dict:
    """What kerchunk writes of a NetCDF4 file: metadata of a Zarr 2 store, and where each chunk lies in the file."""
    refs = {".zgroup": json.dumps({"zarr_format": 2}), ".zattrs": "{}"}
    with h5py.File(path) as file:
        for name, dataset in file.items():
            dims = [dim[0].name.strip("/") for dim in dataset.dims] if dataset.dims[0] else [name]
            fill = float(dataset.fillvalue) if dataset.dtype.kind == "f" else None
            filters = [{"id": "shuffle", "elementsize": dataset.dtype.itemsize}] if dataset.shuffle else []
            filters += [FILTERS[dataset.compression]] if dataset.compression else []
            refs[f"{name}/.zarray"] = json.dumps({
                "shape": dataset.shape, "chunks": dataset.chunks or dataset.shape, "dtype": dataset.dtype.str,
                "fill_value": "NaN" if fill is not None and np.isnan(fill) else fill, "order": "C",
                "filters": filters or None, "compressor": None, "zarr_format": 2,
            })  # fmt: skip
            text = {k: dataset.attrs[k] for k in ("units", "calendar", "standard_name") if k in dataset.attrs}
            text = {k: v.decode() if isinstance(v, bytes) else str(v) for k, v in text.items()}
            refs[f"{name}/.zattrs"] = json.dumps(text | {"_ARRAY_DIMENSIONS": dims})
            if dataset.chunks is None:
                key = ".".join("0" * dataset.ndim)
                refs[f"{name}/{key}"] = [target or path, dataset.id.get_offset(), dataset.id.get_storage_size()]
            for n in range(dataset.id.get_num_chunks() if dataset.chunks else 0):
                info = dataset.id.get_chunk_info(n)
                key = ".".join(str(a // b) for a, b in zip(info.chunk_offset, dataset.chunks, strict=True))
                refs[f"{name}/{key}"] = [target or path, info.byte_offset, info.size]
    return {"version": 1, "refs": refs}


def write_parquet(refs: dict, folder, rows: int = 3) -> None:
    """The same as kerchunk's tables: metadata in one file, and a row for each chunk, `rows` in a file."""
    import pandas as pd

    metadata = {key: json.loads(value) for key, value in refs.items() if "/.z" in key or key.startswith(".z")}
    folder.mkdir()
    (folder / ".zmetadata").write_text(json.dumps({"metadata": metadata, "record_size": rows}))
    for name in {key.split("/")[0] for key in metadata if "/" in key}:
        array = metadata[f"{name}/.zarray"]
        count = [-(-n // size) for n, size in zip(array["shape"], array["chunks"], strict=True)]
        every = [refs.get(f"{name}/" + ".".join(map(str, at)), [None, 0, 0]) for at in np.ndindex(*count)]
        (folder / name).mkdir()
        for first in range(0, len(every), rows):
            some = every[first : first + rows] + [[None, 0, 0]] * (rows - len(every[first : first + rows]))
            table = pd.DataFrame(some, columns=["path", "offset", "size"]).assign(raw=None)
            table.to_parquet(folder / name / f"refs.{first // rows}.parq", engine="pyarrow")
