"""Whatever the first rules got wrong in an output is found, and nothing else, wherever its run was killed."""

import io
import tarfile
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from pipeline.earlier.earlier_output import open_earlier
from pipeline.earlier.find import WrongRows
from pipeline.errors import InputError
from pipeline.inputs.config import InputConfig
from pipeline.inputs.rules import FIRST_RULES
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri
from tests.support.simulated import SimulatedRun


def inverted():
    file = io.BytesIO()
    tifffile.imwrite(file, np.arange(64, dtype="u2").reshape(8, 8) * 999, photometric="miniswhite")
    return file.getvalue()


def add(tar, name, data=b"x", link=None):
    header = tarfile.TarInfo(name)
    header.size = 0 if link else len(data)
    if link:
        header.type, header.linkname = tarfile.LNKTYPE, link
    tar.addfile(header, None if link else io.BytesIO(data))


@pytest.fixture
def source(tmp_path):
    """A tar, a Parquet file and loose files with every kind of fault beside images without one."""
    folder = tmp_path / "in"
    (folder / "loose").mkdir(parents=True)
    with tarfile.open(folder / "a.tar", "w") as tar:
        for at in range(4):
            add(tar, f"{at}.jpg")
        add(tar, "link.jpg", link="0.jpg")
        add(tar, "x.heic")
        add(tar, "cat/4.jpg")
        add(tar, "white.tif", inverted())
        add(tar, "0.jpg")
        add(tar, "0.jpg")
    labels = pa.array([1.0, 2.5, None] + [2.5] * 21)
    pq.write_table(pa.table({"image": [b"x"] * 23 + [inverted()], "label": labels}), folder / "b.parquet")
    texts = pa.array([b"a"] * 20 + [b"\xff"] + [b"a"] * 3).view(pa.string())
    pq.write_table(pa.table({"image": [b"x"] * 24, "label": texts}), folder / "c.parquet")
    for name in (*(f"loose/{at}.jpg" for at in range(4)), "loose/9.heic", "a.tar#0.jpg", "d#e.jpg"):
        (folder / name).write_bytes(b"x")
    (folder / "loose" / "white.tif").write_bytes(inverted())
    return folder


def run(source, output, files=None, number=1, **options):
    """One run, which is killed after some files if a number of files is given."""
    simulated = SimulatedRun(source, output, number, **options)
    simulated.begin()
    if simulated.work_until_killed(files):
        simulated.finish()


def found_in(source, output):
    """The findings, as (kind, the image's id below the input, before, now), and the number of sources not compared."""
    earlier = open_earlier(StorePath(canonical_uri(str(output))), InputConfig(uris=(str(source),)))
    wrong = WrongRows(earlier)
    root = f"{canonical_uri(str(source))}/"

    def short(text):
        return text and text.replace(root, "").replace("escaped:", "!")

    found = [(row.kind, short(row.image_id), short(row.before), short(row.now)) for row in wrong]
    return found, wrong.not_compared


NO_ROW = {
    ("no row", name, None, None)
    for name in ("a.tar#link.jpg", "a.tar#x.heic", "loose/9.heic", *(f"c.parquet#{row}" for row in range(16, 24)))
}
IN_ROWS = {
    ("id", "a.tar#0.jpg", "a.tar#0.jpg", "a.tar#0.jpg"),
    ("id", "a.tar#0.jpg", "a.tar#0.jpg", "!a.tar%230.jpg"),
    ("id", "d#e.jpg", "d#e.jpg", "!d%23e.jpg"),
    ("pixels", "a.tar#white.tif", None, None),
    ("pixels", "b.parquet#23", None, None),
    ("pixels", "loose/white.tif", None, None),
    ("label", "a.tar#cat/4.jpg", None, "cat"),
    ("label", "b.parquet#0", "1.0", "1"),
}


def test_every_kind_of_fault_is_found_and_nothing_else(source, tmp_path):
    run(source, tmp_path / "out", rules=FIRST_RULES)
    found, not_compared = found_in(source, tmp_path / "out")
    assert Counter(found) == Counter(NO_ROW | IN_ROWS)
    assert not_compared == 0


@pytest.mark.parametrize("files", [0, 1, 4, 9])
def test_of_a_run_that_was_killed_the_rows_that_are_there_are_judged(source, tmp_path, files):
    run(source, tmp_path / "out", files=files, rules=FIRST_RULES)
    found, _ = found_in(source, tmp_path / "out")
    assert {row for row in found if row[0] == "no row"} == NO_ROW
    assert {row for row in found if row[0] in ("label", "pixels")} <= IN_ROWS
    if files == 0:
        assert set(found) == NO_ROW


def test_a_name_that_was_misread_is_one_wrong_id_and_no_image_without_a_row(tmp_path):
    header = tarfile.TarInfo("0.jpg")
    header.size = 1
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[345:357] = b"14327431000\0"  # the time of access, where a newer format has the first part of the name
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "g.tar").write_bytes(bytes(block) + b"x".ljust(512, b"\0") + bytes(1024))
    run(tmp_path / "in", tmp_path / "out", rules=FIRST_RULES)
    before = "g.tar#14327431000/0.jpg"
    assert found_in(tmp_path / "in", tmp_path / "out") == ([("id", before, before, "g.tar#0.jpg")], 0)


def test_an_output_of_the_present_rules_has_no_findings(source, tmp_path):
    run(source, tmp_path / "out")
    assert found_in(source, tmp_path / "out") == ([], 0)


@pytest.mark.parametrize("files", [0, 3])
def test_of_an_output_that_is_taken_over_only_the_earlier_rows_are_judged(source, tmp_path, files):
    run(source, tmp_path / "out", rules=FIRST_RULES)
    run(source, tmp_path / "out", files=files, number=2, take_over=True)
    found, _ = found_in(source, tmp_path / "out")
    assert set(found) <= NO_ROW | IN_ROWS


def test_changed_sources_are_counted_and_not_compared(source, tmp_path):
    run(source, tmp_path / "out", rules=FIRST_RULES)
    (source / "a.tar").write_bytes(b"")
    (source / "b.parquet").unlink()
    (source / "loose" / "white.tif").write_bytes(b"other")
    found, not_compared = found_in(source, tmp_path / "out")
    assert not_compared == 3
    assert {row for row in found if row[0] in ("label", "pixels")} == set()
    assert {row for row in found if row[0] == "id"} == {row for row in IN_ROWS if row[0] == "id"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("column", ["score", "topk_scores"])
def test_an_answer_that_is_not_finite_is_found(source, tmp_path, column, value):
    run(source, tmp_path / "out", rules=FIRST_RULES)
    file = next((tmp_path / "out" / "data").glob("b-*-00000.parquet"))
    table = pq.read_table(file)
    at = table.schema.get_field_index(column)
    values = [None, value, 0.5] if column == "score" else [None, [0.5, value], [0.5]]
    footer = pq.read_metadata(file).metadata
    table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    pq.write_table(table.replace_schema_metadata(footer), file)
    found, _ = found_in(source, tmp_path / "out")
    assert [row for row in found if row[0] == "not finite"] == [("not finite", "b.parquet#1", None, None)]


def test_a_folder_without_an_output_is_refused(source, tmp_path):
    with pytest.raises(InputError, match="holds no output of a job"):
        found_in(source, tmp_path / "out")
