"""The threat model: each thing that it says is stopped has a test."""

import re
from pathlib import Path

from tests.support.named_tests import missing_tests, named_tests

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "design" / "threat-model.md").read_text()


def rows(page):
    """The cells of each row of its tables."""
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return [cells for cells in lines if cells[0] not in ("tries to", "---")]


def test_every_test_that_the_page_names_exists():
    assert len(named_tests(PAGE)) > 25
    assert missing_tests(PAGE) == []


def test_every_claim_has_a_test():
    assert len(rows(PAGE)) > 20
    assert [cells[0] for cells in rows(PAGE) if len(cells) != 3 or not named_tests(cells[2])] == []


def test_every_section_says_what_is_not_stopped():
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    without = [text.splitlines()[0] for text in sections if "**Not stopped.**" not in text]
    assert without == ["People who provide weights", "Another run on the same output"]


def test_a_claim_without_a_test_and_a_test_that_there_is_not_are_noticed():
    assert missing_tests("| a | b | `tests/test_threat_model.py::test_no_such` |") != []
    assert missing_tests("`tests/test_no_such_file.py::test_a`") != []
    assert not named_tests(rows("| fly | wings | none |")[0][2])
