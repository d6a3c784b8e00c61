"""The pages: every link, file, module and test that a page or a comment names is there."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

from tests.support.named_tests import missing_tests
from tests.test_imports import ROOMS

ROOT = Path(__file__).resolve().parent.parent
TOPS = ("benchmarks", "docs", "examples", "infra", "jobs", "model", "pipeline", "tests", "weights")
PACKAGES = ("benchmarks", "examples", "infra", "jobs", "model", "pipeline", "tests")
AT_THE_ROOT = ("CHANGELOG.md", "Makefile", "README.md", "constraints.txt", "pyproject.toml")
FILES = sorted(
    str(path.relative_to(ROOT))
    for place in (*TOPS, *AT_THE_ROOT)
    for path in ([ROOT / place] if place in AT_THE_ROOT else (ROOT / place).rglob("*"))
    if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
)
PAGES = [name for name in FILES if name.endswith(".md")]
COMMENTED = [name for name in FILES if re.search(r"(\.(py|yml|yaml|sh|toml|css|js|h|c)|Makefile|Dockerfile)$", name)]

# Dotted names that look like modules of this repository: attributes in an example, and a file of a checkpoint.
OTHERS = {"model.backbone.model", "model.requires_grad_", "model.safetensors"}

_FENCED = re.compile(r"^( *)```.*?^\1```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_PATH = re.compile(rf"(?<![\w./:-])(?:{'|'.join(TOPS)})/[\w./-]*\w(?![\w*<{{…])")
_FILE_NAME = re.compile(r"[\w./-]*\w\.(?:py|md|h|c|j2|css|yaml|yml)")
_MODULE = re.compile(rf"(?<![\w./-])(?:{'|'.join(PACKAGES)})(?:\.\w+)+(?![\w/*-])")
_PAGE = re.compile(r"docs/[\w./-]+\.(?:md|svg)(?:#[\w-]+)?")
_TEST_FRAGMENT = re.compile(r"`…?(\w+)…`")


def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


@cache
def anchors(page: str) -> frozenset[str]:
    """Returns the anchors that GitHub gives to the headings of a page."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *$", _FENCED.sub("", text_of(page)), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return frozenset(found)


def broken_links(page: str, text: str) -> Iterator[str]:
    """Yields the links of a page that lead to no file, or to no heading."""
    for target in _LINK.findall(_INLINE.sub("", _FENCED.sub("", text))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        if not path.exists():
            yield f"{page}: the link {target} leads to no file"
        elif anchor and anchor not in anchors(str(path.resolve().relative_to(ROOT))):
            yield f"{page}: the link {target} leads to no heading"


def missing_files(page: str, text: str) -> Iterator[str]:
    """Yields the paths and file names in a page's code that no file of the repository has."""
    code = "\n".join(match[0] for match in _FENCED.finditer(text))
    inline = _INLINE.findall(_FENCED.sub("", text))
    for path in _PATH.findall("\n".join([code, *inline])):
        if not (ROOT / path).exists():
            yield f"{page}: there is no {path}"
    for name in inline:
        if _FILE_NAME.fullmatch(name) and not name.startswith(("/", "~", *(f"{top}/" for top in TOPS))):
            parts = PurePosixPath(name).parts
            if not any(PurePosixPath(file).parts[-len(parts) :] == parts for file in FILES):
                yield f"{page}: no file of the repository is named {name}"


def missing_modules(page: str, text: str) -> Iterator[str]:
    """Yields the dotted names in a page's code that are neither a module of ours nor defined in one."""
    code = "\n".join([*(match[0] for match in _FENCED.finditer(text)), *_INLINE.findall(_FENCED.sub("", text))])
    for name in set(_MODULE.findall(code)) - OTHERS:
        if PurePosixPath(name).suffix not in (".py", ".md") and not _resolves(name):
            yield f"{page}: there is no module or name {name}"


def _resolves(dotted: str) -> bool:
    place = ROOT
    parts = dotted.split(".")
    for index, part in enumerate(parts):
        if (place / part).is_dir():
            place /= part
            continue
        rest = parts[index:]
        module = place / f"{part}.py"
        if module.is_file():
            rest = parts[index + 1 :]
        else:
            module = place / "__init__.py"
        return len(rest) == 0 or (len(rest) <= 2 and module.is_file() and rest[0] in _defined(module))
    return True


def _defined(module: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)  # `__all__`, and names that a lazy `__getattr__` looks up
    return names


def missing_test_fragments(page: str, text: str) -> Iterator[str]:
    """Yields the shortened names of tests (`a_fault_that…`) that no test's name contains."""
    fragments = _TEST_FRAGMENT.findall(text)
    code = "\n".join((ROOT / name).read_text("utf-8") for name in FILES if "/test_" in name) if fragments else ""
    for fragment in fragments:
        if not re.search(rf"def test_\w*{fragment}", code):
            yield f"{page}: no test has {fragment} in its name"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    assert not (found := list(broken_links(page, text_of(page)))), "\n".join(found)


@pytest.mark.parametrize("page", PAGES)
def test_every_code_block_of_a_page_is_closed(page: str) -> None:
    assert len(re.findall(r"^ *```", text_of(page), re.MULTILINE)) % 2 == 0


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    assert not (found := list(missing_files(page, text_of(page)))), "\n".join(found)


@pytest.mark.parametrize("page", PAGES)
def test_every_module_that_a_page_names_exists(page: str) -> None:
    assert not (found := list(missing_modules(page, text_of(page)))), "\n".join(found)


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    found = [f"{page}: there is no test {name}" for name in missing_tests(text_of(page))]
    found += missing_test_fragments(page, text_of(page))
    assert not found, "\n".join(found)


def test_every_page_that_a_comment_or_a_docstring_names_exists() -> None:
    broken = []
    for name in COMMENTED:
        if name == "tests/test_docs.py":
            continue
        for target in _PAGE.findall(text_of(name)):
            page, _, anchor = target.partition("#")
            if not (ROOT / page).is_file():
                broken.append(f"{name}: there is no {page}")
            elif anchor and anchor not in anchors(page):
                broken.append(f"{name}: {page} has no heading #{anchor}")
    assert not broken, "\n".join(broken)


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for target in _LINK.findall(_INLINE.sub("", _FENCED.sub("", text_of(page)))):
            path = ((ROOT / page).parent / target.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.is_file() and (name := str(path.relative_to(ROOT))) not in reached:
                waiting.append(name)
    assert set(PAGES) - reached == set()


def test_the_rooms_of_the_page_are_those_of_the_table_of_imports() -> None:
    rows = re.findall(r"^\| `pipeline/(\w+)/` \|[^|]*\| ([\w, ]*)\|$", text_of("docs/ARCHITECTURE.md"), re.MULTILINE)
    stated = {room: set(allowed.replace(",", " ").split()) for room, allowed in rows}
    enforced = {
        room.removeprefix("pipeline/"): {
            "model" if lower.startswith("model") else lower.removeprefix("pipeline/")
            for lower in allowed
            if not lower.endswith("errors.py")
        }
        for room, allowed in ROOMS.items()
        if room.startswith("pipeline/") and not room.endswith("errors.py")
    }
    assert stated == enforced


def unexplained_names(text: str) -> Iterator[str]:
    """Yields the identifiers of a paragraph that none of the files it names contains."""
    for paragraph in _FENCED.sub("", text).split("\n\n"):
        code = _INLINE.findall(paragraph)
        files = [name for name in code if name in FILES]
        contents = "\n".join(text_of(name) for name in files)
        for name in code:
            if files and re.fullmatch(r"[A-Za-z]\w*_\w+|[A-Z]\w+", name) and name not in contents:
                yield f"none of {', '.join(files)} has {name}"


def test_every_name_that_the_page_of_changes_gives_is_in_a_file_beside_it() -> None:
    found = list(unexplained_names(text_of("docs/extending.md")))
    assert not found, "\n".join(found)
    assert list(unexplained_names("**A.** `NO_SUCH_NAME` in `pipeline/errors.py`.")) != []


@pytest.mark.parametrize(
    ("text", "find"),
    [
        ("[a](no-such-page.md)", broken_links),
        ("[a](docs/ARCHITECTURE.md#no-such-heading)", broken_links),
        ("see `pipeline/no_such_file.py`", missing_files),
        ("see `no_such_file.py`", missing_files),
        ("```\npython jobs/no_such_job.py\n```", missing_files),
        ("see `pipeline.no_such_room.read`", missing_modules),
        ("see `pipeline.errors.NoSuchError`", missing_modules),
        ("```\npython -m infra.no_such_module\n```", missing_modules),
        ("tested by `no_such_test_is_there…`", missing_test_fragments),
    ],
)
def test_what_is_not_there_is_noticed(text: str, find) -> None:
    assert len(list(find("README.md", text))) == 1
