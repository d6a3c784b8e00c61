"""Reads from the syntax trees of the product code which file imports which, lazy imports included."""

import ast
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOPS = ("jobs", "pipeline", "model")


def sources() -> list[str]:
    """Returns the paths of all Python files of the product, below the root of the checkout."""
    return sorted(str(path.relative_to(ROOT)) for top in TOPS for path in (ROOT / top).rglob("*.py"))


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Yields the dotted name of everything that a file imports, at its head, inside functions or for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (part.value for part in node.args if isinstance(part, ast.Constant))


def file_of(name: str) -> str | None:
    """Returns the product's file that a dotted name lies in, or None for the name of a library."""
    parts = name.split(".")
    if parts[0] not in TOPS:
        return None
    for length in range(len(parts), 0, -1):
        place = Path(*parts[:length])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if (ROOT / path).is_file():
                return str(path)
    raise AssertionError(f"no file of the checkout defines {name}")


def imports_by_file(trees: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Returns for each file of the product the product's files that it imports."""
    found = {}
    for source, tree in trees.items():
        files = {file_of(name) for name in imported_names(tree)}
        found[source] = {file for file in files if file is not None and file != source}
    return found


def circles(arrows: Mapping[str, Set[str]]) -> list[list[str]]:
    """Returns the groups of names that reach each other along the arrows, each group sorted."""
    reached = {name: _reachable(name, arrows) for name in arrows}
    groups = {
        frozenset(other for other in reached[name] if name in reached.get(other, ()))
        for name in arrows
        if name in reached[name]
    }
    return sorted(sorted(group) for group in groups)


def _reachable(start: str, arrows: Mapping[str, Set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = arrows.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found
