"""Finds mechanical smells in the sentences of the project: docstrings, notes, comments, messages, names and pages.

Run it on any files or folders: `python -m tests.support.sentences pipeline/store docs`.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

# A first sentence, or a note, must stand alone: none of these words is a subject.
_NO_SUBJECT = re.compile(r"(That|Which|What|Whose|Of)\b")
_PRONOUN = re.compile(r"(It|This)\b")
_RIDDLE = re.compile(r"\b(told|tell|tells|telling|lest|in vain|whoever)\b", re.IGNORECASE)
_NAME_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_RIDDLE_NAMES = {"told", "tell", "tells", "telling", "teller", "lest", "whoever"}
_NOTE = re.compile(r"^\s{4,}(?:\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*|`[^`]+`):\s+(?P<text>\S.*)$")
_SECTION = re.compile(r"^\s*(Attributes|Args|Returns|Raises|Yields|Source):\s*$")
_CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)
_LOG_METHODS = ("debug", "info", "warning", "error", "exception", "critical", "log")
_PRODUCT = ("model", "pipeline", "jobs")


def smells_of_python(path: Path, *, names: bool = False) -> Iterator[str]:
    """Yields one line, `path:line: smell`, for each smell in the sentences of a Python file.

    Args:
        names: True also searches the names of functions, classes and arguments.
    """
    text = path.read_text(encoding="utf-8")
    for line, smell in sorted(_smells_of_python(text, names=names)):
        yield f"{path}:{line}: {smell}"


def _smells_of_python(text: str, *, names: bool) -> Iterator[tuple[int, str]]:
    tree = ast.parse(text)
    positions = set(_positions_of_files(tree))
    for line, docstring in _docstrings(tree):
        yield from _smells_of_docstring(line, docstring)
    for node in ast.walk(tree):
        for line, message in _messages(node):
            yield from _riddles(line, message)
        if names and node not in positions:
            yield from ((line, f"the name {name!r}") for line, name in _names(node) if _is_riddle_name(name))
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield from _riddles(token.start[0], _CODE.sub("", token.string))


def smells_of_tests(path: Path) -> Iterator[str]:
    """Yields the smells of the docstring at the head of a file of tests."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if docstring := ast.get_docstring(tree, clean=False):
        for line, smell in _smells_of_docstring(1, docstring):
            yield f"{path}:{line}: {smell}"


def smells_of_page(path: Path) -> Iterator[str]:
    """Yields one line for each riddle in a page of Markdown; code is left out."""
    without_code = re.sub(
        r"```.*?```", lambda block: "\n" * block[0].count("\n"), path.read_text("utf-8"), flags=re.DOTALL
    )
    for line, smell in _riddles(1, "\n".join(_CODE.sub("", row) for row in without_code.splitlines())):
        yield f"{path}:{line}: {smell}"


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields line and text of each docstring, and of each string that stands below a constant as its note."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for statement in node.body:
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield statement.lineno, value.value


def _smells_of_docstring(line: int, docstring: str) -> Iterator[tuple[int, str]]:
    if _NO_SUBJECT.match(docstring.strip()):
        yield line, f"a first sentence begins with {docstring.split()[0]!r}"
    if _PRONOUN.match(docstring.strip()):
        yield line, f"a docstring opens with {docstring.split()[0]!r}"
    yield from _riddles(line, _CODE.sub(lambda code: "\n" * code[0].count("\n"), docstring))
    in_section = False
    for offset, row in enumerate(docstring.splitlines()):
        if _SECTION.match(row):
            in_section = True
        elif in_section and (note := _NOTE.match(row)):
            text = note["text"][:1].upper() + note["text"][1:]
            if _NO_SUBJECT.match(text) or _PRONOUN.match(text):
                yield line + offset, f"a note begins with {note['text'].split()[0]!r}"


def _messages(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields line and text of the strings that a statement logs or raises, and of the help of a flag."""
    if isinstance(node, ast.Raise) and node.exc is not None:
        parts = [node.exc]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LOG_METHODS:
        parts = [*node.args]
    elif isinstance(node, ast.Call):
        parts = [keyword.value for keyword in node.keywords if keyword.arg == "help"]
    else:
        return
    for part in parts:
        for inner in ast.walk(part):
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                yield inner.lineno, inner.value


def _positions_of_files(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Yields the methods `tell` of classes that also have `seek`: Python's protocol of files has these names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            methods = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
            if "tell" in methods and "seek" in methods:
                yield methods["tell"]


def _names(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.lineno, node.name
    elif isinstance(node, ast.arg):
        yield node.lineno, node.arg


def _is_riddle_name(name: str) -> bool:
    return any(part.lower() in _RIDDLE_NAMES for part in _NAME_PART.findall(name))


def _riddles(line: int, text: str) -> Iterator[tuple[int, str]]:
    for offset, row in enumerate(text.splitlines()):
        for found in _RIDDLE.finditer(row):
            yield line + offset, f"the word {found[0]!r}"


def smells(place: Path) -> Iterator[str]:
    """Yields the smells of a file, or of every Python file and page below a folder."""
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        parts = path.resolve().parts
        if path.suffix == ".md":
            yield from smells_of_page(path)
        elif path.suffix == ".py" and "tests" in parts:
            yield from smells_of_tests(path)
        elif path.suffix == ".py":
            yield from smells_of_python(path, names=any(top in parts for top in _PRODUCT))


if __name__ == "__main__":
    found = [smell for place in sys.argv[1:] for smell in smells(Path(place))]
    print("\n".join(found))
    sys.exit(bool(found))
