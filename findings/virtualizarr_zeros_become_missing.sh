#!/usr/bin/env bash
# Read through the references that VirtualiZarr 2.5.1 writes (`to_kerchunk`), zeros of a NetCDF4 file that h5netcdf wrote become
# missing values, without a word: a mask of 0 and 1 loses its zeros, rain its dry places, a time axis its first time.
#
# What one would expect: xarray gives through references what it gives of the file itself. What happens: HDF5 has a fill value
# for every dataset, 0 where nobody set one, and it goes into `fill_value` of Zarr 2, where a `_FillValue` that the file does
# declare would go too. xarray takes `fill_value` of Zarr 2 for the mark of missing values. The library of NetCDF-C always sets
# another one (9.97e36), so that a trial with one of its files shows nothing. kerchunk 0.2.10 knows NetCDF4's variables and leaves
# their fill out, but does the same with HDF5 that has none of NetCDF4's attributes (h5py, Julia, MATLAB).
# Means of such a mask, rain or cloud cover are wrong. Drop `_FillValue` where it is 0 and .zattrs has none, as
# emulator/sources/formats/kerchunk.py does, or open with mask_and_scale=False.
#
# Output seen:
#   the file itself:       mask 0 1 0 1  rain 0.0 2.0 0.0 1.0  hours 0.0 6.0
#   VirtualiZarr's:        mask nan 1.0 nan 1.0  rain nan 2.0 nan 1.0  hours nan 6.0
#   kerchunk's:            mask 0 1 0 1  rain 0.0 2.0 0.0 1.0  hours 0.0 6.0
#   kerchunk's, bare HDF5: rain nan 2.0 nan 1.0
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 xarray==2026.9.0 zarr==3.1.6 h5py==3.16.0 \
  h5netcdf==1.8.2 fsspec==2026.9.0 kerchunk==0.2.10 virtualizarr==2.5.1 obstore==0.12.1 obspec_utils==0.9.0
cd "$folder"
env/bin/python -W ignore - <<'PYTHON'
import h5py
import numpy as np
import xarray as xr
from kerchunk.hdf import SingleHdf5ToZarr
from obspec_utils.registry import ObjectStoreRegistry
from obstore.store import LocalStore
from virtualizarr import open_virtual_dataset
from virtualizarr.parsers import HDFParser
from pathlib import Path

rain = [0.0, 2.0, 0.0, 1.0]
fields = {"mask": ("place", np.array([0, 1, 0, 1], np.int32)), "rain": ("place", rain), "hours": ("step", [0.0, 6.0])}
declares_none = {"rain": {"_FillValue": None}, "hours": {"_FillValue": None}}
xr.Dataset(fields).to_netcdf("a.nc", engine="h5netcdf", encoding=declares_none)
with h5py.File("bare.h5", "w") as bare:
    bare.create_dataset("rain", data=rain, chunks=(2,))


def through(references):
    options = {"consolidated": False, "storage_options": {"fo": references, "remote_protocol": "file"}}
    return xr.open_dataset("reference://", engine="zarr", backend_kwargs=options)


registry = ObjectStoreRegistry({"file://": LocalStore()})
virtual = open_virtual_dataset(f"file://{Path('a.nc').resolve()}", registry=registry, parser=HDFParser(), loadable_variables=[])
found = {
    "the file itself:      ": xr.open_dataset("a.nc", engine="h5netcdf"),
    "VirtualiZarr's:       ": through(virtual.vz.to_kerchunk(format="dict")),
    "kerchunk's:           ": through(SingleHdf5ToZarr("a.nc").translate()),
    "kerchunk's, bare HDF5:": through(SingleHdf5ToZarr("bare.h5").translate()),
}
lost = []
for title, dataset in found.items():
    names = [name for name in fields if name in dataset]
    print(title, "  ".join(f"{name} {' '.join(str(v) for v in dataset[name].values.tolist())}" for name in names))
    lost.append([int(np.isnan(dataset[name].values).sum()) for name in names])
assert lost[0] == lost[2] == [0, 0, 0], "the file, or kerchunk's references to NetCDF4, lost zeros"
assert lost[1] == [2, 2, 1], "VirtualiZarr's references keep zeros now"
assert lost[3] == [2], "kerchunk's references to bare HDF5 keep zeros now"
PYTHON
