"""The comparison sees what it is there to see. Each test spoils one thing in an output that is right."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.chaos.comparing import compare, write_reference
from tests.chaos.schedule import drill_of

REFERENCE, OUTPUT = "s3://b/ref/in/v1/", "s3://b/d1/in/"
STATE = {"t.tar": 1, "loose/a.png": 1}


def row(name, **changes):
    right = {
        "image_id": OUTPUT + name, "status": "ok", "error_code": None, "encoded_bytes": 10, "width": 40, "height": 41,
        "net_width": 40, "net_height": 41, "true_label": "3", "label_id": 7, "label": "class 7", "score": 0.5,
        "topk_scores": [0.5, 0.25],
    }  # fmt: skip
    return {**right, **changes}


RIGHT = [row("t.tar#0"), row("t.tar#1"), row("loose/a.png")]
FAILED = {"status": "failed", "error_code": "decode.corrupt", "label_id": None, "label": None, "score": None}
SCHEMA = pa.Table.from_pylist([RIGHT[0], row("x", **FAILED)]).schema


@pytest.fixture
def compared(tmp_path):
    """What the comparison says of some rows, spread over two files."""

    def write(folder, rows):
        folder.mkdir()
        for number, part in enumerate((rows[:1], rows[1:])):
            pq.write_table(pa.Table.from_pylist(part, SCHEMA), folder / f"{number}.parquet")
        return folder

    undisturbed = [{**row, "image_id": row["image_id"].replace(OUTPUT, REFERENCE)} for row in RIGHT]
    write_reference(write(tmp_path / "ref", undisturbed), {REFERENCE: 1}, tmp_path / "reference.parquet")

    def run(rows):
        found = compare(write(tmp_path / "out", rows), OUTPUT, STATE, tmp_path / "reference.parquet")
        return found.lost, found.doubled, found.wrong

    return run


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param(RIGHT, (0, 0, 0), id="equal"),
        pytest.param(RIGHT[1:], (1, 0, 0), id="a row is lost"),
        pytest.param([*RIGHT, RIGHT[2]], (0, 1, 0), id="a row is there twice"),
        pytest.param([RIGHT[0], RIGHT[0], RIGHT[2]], (1, 1, 0), id="as many rows, but not the same"),
        pytest.param([*RIGHT, row("gone.png")], (0, 1, 0), id="a row of no record"),
        pytest.param([*RIGHT[:2], row("loose/a.png", label="class 6")], (0, 0, 1), id="another label"),
        pytest.param([*RIGHT[:2], row("loose/a.png", width=39)], (0, 0, 1), id="another size"),
        pytest.param([*RIGHT[:2], row("loose/a.png", **FAILED)], (0, 0, 1), id="a failure"),
        pytest.param([*RIGHT[:2], row("loose/a.png", score=0.5001)], (0, 0, 1), id="another score"),
        pytest.param([*RIGHT[:2], row("loose/a.png", score=0.500001)], (0, 0, 0), id="a score's last bits"),
        pytest.param([*RIGHT[:2], row("loose/a.png", topk_scores=[0.5, 0.2])], (0, 0, 1), id="another second score"),
    ],
)
def test_what_is_not_equal_is_counted(compared, rows, expected):
    assert compared(rows) == expected


def test_a_seed_stands_for_one_drill_and_seeds_for_all_kinds():
    drills = [drill_of(seed) for seed in range(200)]
    assert drills == [drill_of(seed) for seed in range(200)]
    assert {drill.name.partition(": ")[2] for drill in drills} == {
        "one night",
        "two nights",
        "late writer",
        "lost node",
    }
