"""`python jobs/list_outdated.py` over an output of the first rules: the table, the file of findings, and exit codes."""

import csv
import json

import pyarrow.parquet as pq
import pytest

from jobs.cli.command import run_command
from jobs.list_outdated import list_outdated
from pipeline.inputs.rules import FIRST_RULES
from tests.support.simulated import run_once


@pytest.fixture
def make(capsys):
    """(arguments) -> exit code, text and summary of the command in this process."""

    def run(*arguments):
        code = run_command(list_outdated, [str(argument) for argument in arguments])
        *lines, last = capsys.readouterr().out.splitlines()
        return code, "\n".join(lines), json.loads(last)

    return run


@pytest.fixture
def flags(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", *(f"{at}.heic" for at in range(6)), "b\x1b[2J.heic"):
        (tmp_path / "in" / name).write_bytes(b"x")
    run_once(tmp_path / "in", tmp_path / "out", 1, rules=FIRST_RULES)
    return ("--input", tmp_path / "in", "--output", tmp_path / "out")


def test_it_prints_the_first_findings_and_writes_all_of_them(tmp_path, flags, make):
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    code, text, summary = make(*flags, "--to", tmp_path / "wrong.csv")
    assert (code, summary["wrong"]["no row"], summary["not_compared"]) == (0, 7, 0)
    assert sum(summary["wrong"].values()) == 7
    assert "0.heic" in text and "... and 2 more" in text and "\x1b" not in text
    with (tmp_path / "wrong.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert make(*flags, "--to", tmp_path / "wrong.parquet")[0] == 0
    names = [row["image_id"] for row in rows]
    assert names == pq.read_table(tmp_path / "wrong.parquet").column("image_id").to_pylist()
    assert len(names) == 7
    assert make(*flags)[2]["wrong"] == summary["wrong"]
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before


def test_what_cannot_work_is_refused(tmp_path, flags, make):
    assert make(*flags, "--to", tmp_path / "wrong.txt")[0] == 2
    assert make("--input", tmp_path / "in", "--output", tmp_path / "none")[0] == 3
    assert make("--input", tmp_path / "none", "--output", tmp_path / "out")[0] == 3
    assert make(*flags, "--to", tmp_path / "in" / "a.jpg" / "wrong.csv")[0] == 5
