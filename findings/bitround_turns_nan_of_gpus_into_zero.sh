#!/usr/bin/env bash
# The codec BitRound of numcodecs 0.16.6 (0.17.1 has the same lines), in a Zarr store too, turns a missing value into -0.0 if its
# NaN is the one that NVIDIA's GPUs make, and keeps the NaN that a CPU makes, with which everybody tries it.
#
# What one would expect: NaN stays NaN when mantissas are rounded, as a trial with numpy.nan shows and as netCDF-C's own BitRound
# has it for every NaN. What happens: half a step is added to the bits as to an integer. numpy.nan is 0x7fc00000 and has room for
# it; 0x7fffffff, all bits of the mantissa set, overflows into the sign, whatever `keepbits`. That is the only NaN that float32 arithmetic of
# NVIDIA's GPUs gives (CUDART_NAN_F of CUDA's math_constants.h; documented, not run on one here), whichever NaN went in: land that is
# NaN in a normalised field is it after `x * std + mean`, and stays it in NumPy afterwards. Seas of an emulator that was run on a
# GPU thus get 0 K for land in the compressed store, while the same run on a CPU keeps its mask. In float64, the NA of R (payload 1954 in
# the low bits, as R hands it to Arrow or NumPy) is rounded to infinity if few bits are kept. Make NaN the usual one before rounding:
# `numpy.where(numpy.isnan(x), numpy.nan, x)`.
#
# Output seen (271.3 and a missing value, 10 bits kept):
#   NumPy's NaN,    0x7fc00000          numcodecs 271.25 nan   Zarr 271.25 nan   netCDF-C 271.25 nan
#   CUDA's NaN,     0x7fffffff          numcodecs 271.25 -0.0  Zarr 271.25 -0.0  netCDF-C 271.25 nan
#   its negative,   0xffffffff          numcodecs 271.25 0.0   Zarr 271.25 0.0   netCDF-C 271.25 nan
#   NumPy's NaN,    0x7ff8000000000000  numcodecs 271.25 nan   Zarr 271.25 nan   netCDF-C 271.25 nan
#   R's NA,         0x7ff00000000007a2  numcodecs 271.25 inf   Zarr 271.25 inf   netCDF-C 271.25 nan
#   CUDA's NaN made the usual one first: numcodecs 271.25 nan
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 numcodecs==0.16.6 zarr==3.1.6 netCDF4==1.7.5.1.post1
cd "$folder"
env/bin/python -W ignore - <<'PYTHON'
import netCDF4
import numpy as np
import zarr
from numcodecs import BitRound
from zarr.codecs.numcodecs import BitRound as ZarrBitRound

keep = 10


def numcodecs(x):
    return np.frombuffer(BitRound(keepbits=keep).encode(x), x.dtype)


def through_zarr(x):
    return zarr.create_array({}, data=x, filters=[ZarrBitRound(keepbits=keep)])[:]


def through_netcdf(x):
    with netCDF4.Dataset("a.nc", "w") as file:
        file.createDimension("x", x.size)
        options = {"significant_digits": keep, "quantize_mode": "BitRound"}  # bits, in this mode
        file.createVariable("v", x.dtype, ("x",), zlib=True, **options)[:] = x
    with netCDF4.Dataset("a.nc") as file:
        file.set_auto_mask(False)
        return file["v"][:]


def field(bits):
    """A value and the NaN of these bits."""
    size = 4 if bits < 2**32 else 8
    x = np.array([271.3, 0], f"f{size}")
    x.view(f"u{size}")[1] = bits
    assert np.isnan(x[1])
    return x


ways = {"numcodecs": numcodecs, "Zarr": through_zarr, "netCDF-C": through_netcdf}
cases = {0x7FC00000: "NumPy's NaN", 0x7FFFFFFF: "CUDA's NaN", 0xFFFFFFFF: "its negative"}
cases |= {0x7FF8000000000000: "NumPy's NaN", 0x7FF00000000007A2: "R's NA"}
kept = {}
for bits, title in cases.items():
    found = {way: function(field(bits)) for way, function in ways.items()}
    kept[bits] = [bool(np.isnan(y[1])) for y in found.values()]
    shown = "  ".join(f"{way} {y[0]} {str(y[1]):4}" for way, y in found.items())
    print(f"{title + ',':15} {f'{bits:#x}':18}  {shown}".rstrip())
    assert all(y[0] == 271.25 for y in found.values()), "values are rounded otherwise"
x = field(0x7FFFFFFF)
mended = numcodecs(np.where(np.isnan(x), np.float32(np.nan), x))
print("CUDA's NaN made the usual one first: numcodecs", *mended)
assert kept[0x7FC00000] == kept[0x7FF8000000000000] == [True, True, True] and np.isnan(mended[1])
for bits in (0x7FFFFFFF, 0xFFFFFFFF, 0x7FF00000000007A2):
    assert kept[bits] == [False, False, True], "these NaN are kept now"
PYTHON
