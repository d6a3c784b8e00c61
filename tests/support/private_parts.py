"""Finds where a file uses private parts of libraries or of other files: names that begin with one underscore."""

import ast
import re
from collections.abc import Iterator

# Names that documentation gives to everybody, although they begin with an underscore.
_PUBLIC = frozenset({"_fields", "_replace", "_asdict", "_exit"})
_DOTTED = re.compile(r"[A-Za-z]\w*(?:\.\w+)*\._[A-Za-z]\w*(?:\.\w+)*")


def private_parts(tree: ast.Module) -> list[str]:
    """Returns each private part that a Python file uses, in the order of the lines.

    An attribute's private name is the file's own if a class of the file defines it: in its body, or as an attribute of
    `self` or `cls`. A class that is looked up by its name counts as a private part, since it could not be imported.
    """
    own = set(_own_names(tree))
    found = [(node.lineno, part) for node in ast.walk(tree) for part in _parts(node, own)]
    return list(dict.fromkeys(part for _, part in sorted(found)))


def _own_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield statement.name
                elif isinstance(statement, ast.AnnAssign | ast.Assign):
                    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else statement.targets
                    yield from (target.id for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            yield node.attr


def _parts(node: ast.AST, own: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr not in own and not _is_self(node.value):
        yield ast.unparse(node)
    elif isinstance(node, ast.Import | ast.ImportFrom):
        module = getattr(node, "module", None)
        names = [f"{module}.{alias.name}" if module else alias.name for alias in node.names]
        yield from (name for name in names if any(map(_is_private, name.split("."))))
    elif isinstance(node, ast.Compare) and (name := _class_name(node)) is not None:
        yield name
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
        name = node.args[1]
        if isinstance(name, ast.Constant) and _is_private(name.value) and name.value not in own:
            yield f"{ast.unparse(node.args[0])}.{name.value}"
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _DOTTED.fullmatch(node.value):
        yield node.value


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in _PUBLIC


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _class_name(comparison: ast.Compare) -> str | None:
    """Returns the text with which the comparison compares the name of a class."""
    sides = [comparison.left, *comparison.comparators]
    if any(isinstance(side, ast.Attribute) and side.attr in ("__name__", "__qualname__") for side in sides):
        return next((side.value for side in sides if isinstance(side, ast.Constant)), None)
    return None
