"""Imports point downwards only: the layers of the library, and what each part must not know."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = {
    1: "constants variables grid vertical spherical spherical_kernels native precision mesh insolation calendar world"
    " interruption whole_file one_writer freed_memory",
    2: "store netcdf zarr_regions sources grib recognise harmonise units normalize channels distributed rates statistics"
    " axes coefficients fields assemble filling appending computed derive regrid relevel chunk_reader chunk_writer"
    " hdf5_chunks climatology"
    " piece zarr_marks record reused rings foreign"
    " background thinning forecast_netcdf forecast_grib random_fields",
    3: "dataset forcing models conservation losses spectral_loss ensemble_loss network_noise scalars",
    4: "step checkpoint",
    5: "rollout train training perturb",
    6: "verify report",
}
LAYER = {name: number for number, names in LAYERS.items() for name in names.split()}
# The adapter of the embedded model stands beside ingest: it makes files, as a source does.
LAYER |= {"reference_model": 2, "reference_output": 2}

FORBIDDEN = {
    "emulator": {"pipelines", "argparse", "yaml", "click", "rich"},
    "emulator/models": {"xarray", "zarr", "dask"},
    "emulator/conservation": {"xarray", "zarr", "dask"},
    "emulator/verify": {"torch"},
    "emulator/report": {"torch"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", files("emulator"), ids=lambda p: str(p.relative_to(ROOT)))
def test_library_imports_lower_layers_only(path):
    parts = path.relative_to(ROOT / "emulator").with_suffix("").parts
    if parts == ("__init__",):
        return
    assert parts[0] in LAYER, f"{path.name} has no layer: name it in {Path(__file__).name}"
    for name in imported(path):
        other = name.split(".")[1:2] if name.startswith("emulator.") else []
        if other and other[0] != parts[0]:
            lower = LAYER[other[0]] < LAYER[parts[0]]
            # Files of one layer may form one idea in two files, but never know each other both ways.
            beside = LAYER[other[0]] == LAYER[parts[0]] and f"emulator.{parts[0]}" not in {
                ".".join(n.split(".")[:2]) for p in files("emulator") if p.stem == other[0] for n in imported(p)
            }
            assert lower or beside, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_parts_do_not_know_what_they_must_not(folder):
    for path in files(folder):
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & FORBIDDEN[folder], f"{path.relative_to(ROOT)} imports {roots & FORBIDDEN[folder]}"


def test_configuration_knows_nothing_of_the_library():
    for path in files("pipelines/config"):
        assert not any(name.startswith("emulator") for name in imported(path)), path.name
