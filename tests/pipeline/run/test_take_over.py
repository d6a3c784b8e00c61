"""An output of older rules goes on under them, or is taken over: then whatever they read is read again, and once."""

import io
import tarfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.identity import rules_of
from pipeline.errors import OutputError
from pipeline.inputs.rules import FIRST_RULES, RULES
from tests.support.simulated import SimulatedRun

# Rules 1 pass over the HEIC and the link, which stand in the middle.
IMAGES = [*(f"{at:02d}.jpg" for at in range(7)), "x.heic", "link.jpg", *(f"{at:02d}.jpg" for at in range(7, 12))]
EXPECTED = len(IMAGES) + 8 + 10


@pytest.fixture
def source(tmp_path):
    """A tar, a Parquet file and loose files, one of which has the name that a member of the tar has as an id."""
    folder = tmp_path / "in"
    (folder / "loose").mkdir(parents=True)
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name in IMAGES:
            header = tarfile.TarInfo(name)
            if name == "link.jpg":
                header.type, header.linkname = tarfile.LNKTYPE, "00.jpg"
                tar.addfile(header)
                continue
            header.size = 1
            tar.addfile(header, io.BytesIO(b"x"))
    pq.write_table(pa.table({"image": [b"x"] * 8, "label": [float(at) for at in range(8)]}), folder / "b.parquet")
    for name in (*(f"loose/{at}.jpg" for at in range(8)), "loose/9.heic", "a.tar#00.jpg"):
        (folder / name).write_bytes(b"x")
    return folder


def rows_of(output):
    tables = [pq.read_table(file) for file in (output / "data").iterdir()]
    return [row for table in tables for row in table.to_pylist()]


def run(source, output, number, *, files=None, **options):
    """One run, which is killed after some files if a number of files is given."""
    simulated = SimulatedRun(source, output, number, **options)
    if simulated.run.plan.is_empty:
        return None
    simulated.begin()
    return simulated.finish() if simulated.work_until_killed(files) else None


@pytest.mark.parametrize("files", [None, 1, 3])
@pytest.mark.parametrize("files_then", [None, 0, 3])
def test_it_has_a_row_for_every_image_wherever_either_run_was_killed(source, tmp_path, files, files_then):
    output = tmp_path / "out"
    run(source, output, 1, files=files, rules=FIRST_RULES)
    run(source, output, 2, files=files_then, take_over=True)
    # The flag is not needed twice.
    report = run(source, output, 3)
    rows = rows_of(output)
    assert report is None or report.problems == ()
    assert len(rows) == EXPECTED
    assert max(Counter(row["image_id"] for row in rows).values()) == 1
    assert {row["key"] for row in rows} >= {"x.heic", "link.jpg", "loose/9.heic"}
    assert run(source, output, 4) is None
    assert rules_of(SimulatedRun(source, output, 5).config.output.folder) == RULES


def test_it_goes_on_under_its_own_rules_until_then(source, tmp_path):
    output = tmp_path / "out"
    run(source, output, 1, files=3, rules=FIRST_RULES)
    before = {file.name: file.read_bytes() for file in (output / "data").iterdir()}
    assert len(before) == 3
    with pytest.raises(OutputError, match=r"records.rules \(null there, 2 now\)"):
        SimulatedRun(source, output, 2)
    (problem,) = run(source, output, 3, rules=FIRST_RULES).problems
    # Under the first rules two images of this input have one id.
    assert problem.startswith("1 rows have the image_id of another row")
    rows = rows_of(output)
    assert len(rows) == EXPECTED - 3
    assert {file.name: file.read_bytes() for file in (output / "data").iterdir()}.items() >= before.items()


def test_a_dry_run_shows_what_would_be_read_again_and_changes_nothing(source, tmp_path):
    output = tmp_path / "out"
    run(source, output, 1, rules=FIRST_RULES)
    before = {file: file.read_bytes() for file in output.rglob("*") if file.is_file()}
    plan = SimulatedRun(source, output, 2, take_over=True).run.plan
    assert {shard.action for shard in plan.shards} == {"replace", "rewrite", "new"}
    assert {file: file.read_bytes() for file in output.rglob("*") if file.is_file()} == before
