"""Every public function and class of the library is used by a stage or a script, directly or through others."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
USERS = ("pipelines", "scripts")  # what runs; findings and tests do not count

# Used by tests alone, with the reason that each is kept.
KEPT: dict[str, str] = {}

Definition = tuple[str, str]  # module and name


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_of(path): ast.parse(path.read_text()) for path in (ROOT / "emulator").rglob("*.py")}
DEFINED = ast.FunctionDef | ast.ClassDef


def definitions(module: str) -> dict[str, ast.AST]:
    return {node.name: node for node in TREES[module].body if isinstance(node, DEFINED)}


def aliases(tree: ast.AST) -> dict[str, Definition]:
    """What the names that a file imports stand for: (module, name), the name empty for a whole module."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "emulator":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found[alias.asname or alias.name] = (whole, "") if whole in TREES else (node.module, alias.name)
        elif isinstance(node, ast.Import):
            found |= {a.asname: (a.name, "") for a in node.names if a.asname and a.name in TREES}
    return found


ALIASES = {module: aliases(tree) for module, tree in TREES.items()}


def origin(module: str, name: str) -> Definition:
    """Where a name is defined that a module may have from another."""
    while module in TREES and name not in definitions(module) and name in ALIASES[module]:
        module, name = ALIASES[module][name]
    return module, name


def used_by(node: ast.AST, known: dict[str, Definition], module: str = "") -> set[Definition]:
    """The definitions of the library that some code names, of its own module or of those that it imports."""
    own = definitions(module) if module else {}
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            if part.id in known:
                found.add(origin(*known[part.id]))
            elif part.id in own:
                found.add((module, part.id))
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id in known:
            of, name = known[part.value.id]
            found |= {origin(of, part.attr)} if not name else set()
        elif isinstance(part, ast.Attribute):  # import emulator.x.y; emulator.x.y.name
            found |= {origin(of, part.attr) for of in [ast.unparse(part.value)] if of in TREES}
        elif isinstance(part, ast.Dict) and module == "emulator":  # the public API: names and where they are
            found |= {origin(*ast.literal_eval(where).split(":")) for where in map(ast.unparse, part.values)}
    return found


def registers(node: ast.AST) -> bool:
    """Whether a decorator of the library or of torch hands a definition on, so that it is called without being named."""
    standard = (
        "dataclass",
        "dataclasses.dataclass",
        "functools.",
        "contextmanager",
        "contextlib.",
        "typing.",
        "staticmethod",
    )
    return any(not ast.unparse(decorator).startswith(standard) for decorator in node.decorator_list)


def reached() -> set[Definition]:
    ahead, start = defaultdict(set), set()
    for module, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, DEFINED):
                ahead[module, node.name] = used_by(node, ALIASES[module], module) - {(module, node.name)}
                start |= {(module, node.name)} if registers(node) else set()
            elif not isinstance(node, ast.Import | ast.ImportFrom):
                start |= used_by(node, ALIASES[module], module)
    for path in (path for folder in USERS for path in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        start |= used_by(tree, aliases(tree))
    done: set[Definition] = set()
    while start:
        done |= start
        start = {other for each in start for other in ahead[each]} - done
    return done


def test_every_public_definition_is_reached_or_kept_for_a_reason():
    public = {(m, name) for m in TREES for name in definitions(m) if not name.startswith("_")}
    unused = {f"{module}.{name}" for module, name in public - reached()}
    assert sorted(unused - set(KEPT)) == [], "used by tests alone: delete it, or give a reason in KEPT"
    assert not set(KEPT) - unused, "used after all, or gone: take it out of KEPT"
    assert all(KEPT.values()), "a reason for each"
