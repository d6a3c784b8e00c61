"""Finds mechanical smells in the sentences of the project: docstrings, notes of attributes and arguments, pages.

Run it on any files or folders: `python -m tests.support.sentences pipeline/store docs`.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# A first sentence, or a note, must stand alone: none of these words is a subject.
_NO_SUBJECT = re.compile(r"(That|Which|What|Whose|Of)\b")
_PRONOUN = re.compile(r"(It|This)\b")
_RIDDLE = re.compile(r"\b(told|tell|tells|telling|lest|in vain|whoever)\b", re.IGNORECASE)
_NOTE = re.compile(r"^\s{4,}(?:\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*|`[^`]+`):\s+(?P<text>\S.*)$")
_SECTION = re.compile(r"^\s*(Attributes|Args|Returns|Raises|Yields|Source):\s*$")
_CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)


def smells_of_python(path: Path) -> Iterator[str]:
    """Yields one line, `path:line: smell`, for each smell in the docstrings and comments of a Python file."""
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node, clean=False)
        if docstring is None:
            continue
        line = node.body[0].lineno
        if _NO_SUBJECT.match(docstring.strip()):
            yield f"{path}:{line}: a first sentence begins with {docstring.split()[0]!r}"
        if _PRONOUN.match(docstring.strip()):
            yield f"{path}:{line}: a docstring opens with {docstring.split()[0]!r}"
        yield from _smells_of_notes(path, line, docstring)
        yield from _riddles(path, line, _CODE.sub("", docstring))
    for number, row in enumerate(text.splitlines(), 1):
        if row.lstrip().startswith("# "):
            yield from _riddles(path, number, _CODE.sub("", row))


def _smells_of_notes(path: Path, line: int, docstring: str) -> Iterator[str]:
    in_section = False
    for offset, row in enumerate(docstring.splitlines()):
        if _SECTION.match(row):
            in_section = True
        elif not row.strip():
            in_section = in_section and not row
        elif in_section and (note := _NOTE.match(row)):
            text = note["text"][:1].upper() + note["text"][1:]
            if _NO_SUBJECT.match(text) or _PRONOUN.match(text):
                yield f"{path}:{line + offset}: a note begins with {note['text'].split()[0]!r}"


def smells_of_page(path: Path) -> Iterator[str]:
    """Yields one line for each riddle in a page of Markdown; code is left out."""
    without_code = re.sub(
        r"```.*?```", lambda block: "\n" * block[0].count("\n"), path.read_text("utf-8"), flags=re.DOTALL
    )
    for number, row in enumerate(without_code.splitlines(), 1):
        yield from _riddles(path, number, _CODE.sub("", row))


def _riddles(path: Path, line: int, text: str) -> Iterator[str]:
    for offset, row in enumerate(text.splitlines()):
        for found in _RIDDLE.finditer(row):
            yield f"{path}:{line + offset}: the word {found[0]!r}"


def smells(place: Path) -> Iterator[str]:
    """Yields the smells of a file, or of every Python file and page below a folder."""
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if path.suffix == ".py":
            yield from smells_of_python(path)
        elif path.suffix == ".md":
            yield from smells_of_page(path)


if __name__ == "__main__":
    found = [smell for place in sys.argv[1:] for smell in smells(Path(place))]
    print("\n".join(found))
    sys.exit(bool(found))
