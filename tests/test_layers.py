"""Imports point one way: the order of the library's folders, no circles inside one, and what each part must not know."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the ground up, as docs/architecture.md lists them: a file imports from its own folder and from those before it.
ORDER = (
    "options registry kernels planet files parallel sphere store sources ingestion data generative networks conservation "
    "model losses training forecasting downscaling exports verify assimilation report embedded bridges"
).split()

FORBIDDEN = {
    "emulator": {"pipelines", "argparse", "yaml", "click", "rich"},
    "emulator/networks": {"xarray", "zarr", "dask"},
    "emulator/conservation": {"xarray", "zarr", "dask"},
    "emulator/planet": {"torch"},
    "emulator/store": {"torch"},
    "emulator/sources": {"torch"},
    "emulator/ingestion": {"torch"},
    "emulator/exports": {"torch"},
    "emulator/verify": {"torch"},
    "emulator/report": {"torch"},
}


def imported(path: Path) -> set[str]:
    return {name for node in ast.walk(ast.parse(path.read_text())) for name in names_imported(node)}


def names_imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"a relative import of {node.module}"
        return {f"{node.module}.{alias.name}" for alias in node.names}
    return set()


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in files("emulator")}


def imported_modules(path: Path) -> set[str]:
    """The files of the library that a file imports, itself and the packages around them left out."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        candidates = [".".join(parts[:n]) for n in range(len(parts), 1, -1)]
        found |= {next((c for c in candidates if c in MODULES), "emulator")}
    return found - {module_of(path), "emulator"}


def test_every_folder_has_its_place_in_the_order():
    found = {path.relative_to(ROOT / "emulator").parts[0].removesuffix(".py") for path in files("emulator")} - {
        "__init__"
    }
    assert found == set(ORDER), "a file beside the folders, or a folder without a place in ORDER"


@pytest.mark.parametrize("folder", ORDER)
def test_a_folder_imports_from_itself_and_those_before_it(folder):
    allowed = ORDER[: ORDER.index(folder) + 1]
    for path in files(f"emulator/{folder}") or [ROOT / "emulator" / f"{folder}.py"]:
        for module in imported_modules(path):
            assert module.split(".")[1] in allowed, f"{path.relative_to(ROOT)} imports {module}"


def test_no_file_imports_itself_by_way_of_others():
    ahead = {name: imported_modules(path) for name, path in MODULES.items()}
    ahead["emulator.conservation.multipliers"].discard("emulator.conservation.projection")  # for type checkers alone
    done: set[str] = set()

    def follow(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "a circle of imports: " + " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for other in sorted(ahead[name]):
                follow(other, (*trail, name))
            done.add(name)

    for name in sorted(MODULES):
        follow(name, ())


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_parts_do_not_know_what_they_must_not(folder):
    for path in files(folder):
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & FORBIDDEN[folder], f"{path.relative_to(ROOT)} imports {roots & FORBIDDEN[folder]}"


def test_configuration_knows_only_options_and_registries_of_the_library():
    """Options need no torch; registries do, and are imported only where a section is validated."""
    for path in files("pipelines/config"):
        outside = {name for node in ast.parse(path.read_text()).body for name in names_imported(node)}
        for name in (name for name in imported(path) if name.startswith("emulator.")):
            kind = "options" if name in outside else "registry"
            assert kind in name.split(".")[1:], f"{path.name} imports {name}"


def test_tests_of_the_library_need_no_pipelines():
    for path in files("tests"):
        if path.parent.name not in ("pipelines", "tests"):
            assert not any(name.split(".")[0] == "pipelines" for name in imported(path)), path.relative_to(ROOT)
