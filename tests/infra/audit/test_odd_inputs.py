"""Audits of an output over odd inputs: as it is, and with false rows and answers planted in copies."""

import io
import math
import re
import shutil
import struct
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from infra.audit.__main__ import main
from infra.audit.findings import Findings
from infra.audit.ids import define_ids
from infra.audit.inputs import Inputs, list_records
from infra.audit.names import Selection
from infra.audit.places import Store
from infra.audit.refused import refusal
from infra.audit.tables import opened_tables
from infra.audit.tars import tar_images
from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_image import FailedImage, decode_image
from pipeline.inputs.ids import record_id
from pipeline.inputs.rules import FIRST_RULES, RULES
from tests.infra.audit.conftest import HEADS, drawn
from tests.infra.audit.test_audit import rewrite, with_column
from tests.support import image_matrix
from tests.support.tars import tar_of

# A record of each kind that is read under the present rules alone, by the end of its id.
KINDS = (
    "links.tar#b.png", "links.tar#dog/c.png", "links.tar#d.png", "links.tgz#b.png", "links.tar#x.heic", "x.heic",
    "x.jxl", "x.psd", "x.svg", "x.cr3", "a.pjpeg", "b.jif", "t.tar#b.png", "t.tar%23b.png", "50%25%23.png",
    "latin.parquet#0", "pages.parquet#1", "pages.parquet#6", "short.parquet#9", "0_none.parquet", "claims.parquet",
)  # fmt: skip


@pytest.fixture
def output(odd, tmp_path):
    """A copy of the output, to tamper with."""
    return Path(shutil.copytree(odd.output, tmp_path / "out"))


@pytest.fixture
def audited(odd, capsys):
    """Audits an output over the odd inputs; returns (exit code, all of stdout, its part about disagreements)."""

    def run(output):
        code = main(["--input", str(odd.inputs), "--output", str(output)])
        out = capsys.readouterr().out
        return code, out, out.partition("What disagrees:")[2]

    return run


def file_of(output, end_of_id):
    """Returns the output file with the row of an id, the place of the row, and the id."""
    for path in sorted(output.glob("data/*.parquet")):
        for at, image_id in enumerate(pq.read_table(path, columns=["image_id"]).column(0).to_pylist()):
            if re.search(rf"(^|/){re.escape(end_of_id)}$", image_id):
                return path, at, image_id
    raise AssertionError(f"no row of {end_of_id}")


def change(output, end_of_id, **values):
    """Changes values in one row; returns the id that the row had."""
    path, at, image_id = file_of(output, end_of_id)
    for name, value in values.items():
        rewrite(path, with_column(name, lambda old, value=value: [*old[:at], value, *old[at + 1 :]]))
    return image_id


def test_an_output_over_odd_inputs_agrees(odd, audited):
    code, out, _ = audited(odd.output)
    assert code == 0, out
    assert re.search(r"of them without a row +0\n.*without input +0\n", out)
    assert "Not seen: pixels" in out
    for kind in KINDS:
        file_of(odd.output, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_without_a_row_is_found(output, audited, kind):
    path, at, image_id = file_of(output, kind)
    rewrite(path, lambda rows: pa.concat_tables([rows.slice(0, at), rows.slice(at + 1)]))
    code, _, problems = audited(output)
    assert code == 7
    assert re.search(rf"{re.escape(image_id)} (has no row|the first of them)", problems)


@pytest.mark.parametrize("kind", ["links.tar#b.png", "text.parquet#3", "0_none.parquet"])
def test_a_row_that_no_input_has_is_found(output, audited, kind):
    path, at, image_id = file_of(output, kind)
    shard = pq.read_table(path).column("shard")[at].as_py()

    def plant(rows):
        row = rows.slice(at, 1)
        for name, value in (("key", "99"), ("image_id", f"{shard}#99"), ("row", 99)):
            row = with_column(name, lambda old, value=value: [value])(row)
        return pa.concat_tables([rows, row])

    rewrite(path, plant)
    code, _, problems = audited(output)
    assert code == 7
    assert f"row 99 ({shard}#99) is no record of its shard, which is still there" in problems, image_id


def test_a_doubled_id_over_two_files_is_found(output, audited):
    _, _, member = file_of(output, "t.tar#b.png")
    change(output, "t.tar%23b.png", image_id=member)
    code, _, problems = audited(output)
    assert code == 7
    assert f"{member} has 2 rows" in problems


@pytest.mark.parametrize(
    ("column", "value"),
    [("score", math.nan), ("score", None), ("topk_scores", [0.5, math.nan]), ("topk_scores", [math.inf, -math.inf])],
)
def test_an_answer_that_is_not_finite_is_found(output, audited, column, value):
    image_id = change(output, "links.tar#dog/e.png", **{column: value})
    code, _, problems = audited(output)
    assert code == 7
    assert re.search(rf"\({re.escape(image_id)}\) is ok, but its {column} has numbers that are not finite", problems)


@pytest.mark.parametrize("column", ["embedding", "stage3"])
def test_features_that_are_not_finite_are_found(output, audited, column):
    broken, at, image_id = file_of(output, "links.tar#dog/e.png")
    stage = pa.struct([("shape", pa.list_(pa.int32(), 3)), ("data", pa.large_list(pa.float16()))])
    for path in output.glob("data/*.parquet"):
        num_rows = pq.read_metadata(path).num_rows
        vectors = [[1.0, math.nan if path == broken and row == at else 2.0] for row in range(num_rows)]
        columns = {
            "embedding": pa.array(vectors, pa.list_(pa.float16(), 2)),
            "stage3": pa.array([{"shape": [1, 1, 2], "data": vector} for vector in vectors], stage),
        }
        rewrite(path, lambda rows, added=columns[column]: rows.append_column(column, added))
    code, _, problems = audited(output)
    assert code == 7
    assert f"({image_id}) is ok, but its {column} has" in problems


LABELS = (
    ("links.tar#a.png", "4"), ("links.tar#b.png", "2"), ("links.tar#dog/e.png", "dog"), ("links.tar#dog/f.png", "3"),
    ("links.tgz#dog/c.png", "dog"), ("cat/b.jif", "cat"), ("text.parquet#2", "tea"), ("float.parquet#0", "3"),
    ("float.parquet#1", None), ("classes.parquet#1", "dog"), ("classes.parquet#2", None), ("classes.parquet#3", "7"),
    ("beside.parquet#1", "dog"), ("beside.parquet#2", None), ("beside.parquet#3", "7"),
)  # fmt: skip


@pytest.mark.parametrize(("kind", "label"), LABELS)
def test_a_label_that_the_source_does_not_give_is_found(output, audited, kind, label):
    path, at, _ = file_of(output, kind)
    assert pq.read_table(path).column("true_label")[at].as_py() == label
    image_id = change(output, kind, true_label="wrong")
    code, _, problems = audited(output)
    assert code == 7
    said = "null" if label is None else f'"{label}"'
    assert f'({image_id}) has the label "wrong", but its source says {said}' in problems


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        *(("x.heic", "HEIC"), ("x.jxl", "JPEG XL"), ("x.psd", "PSD"), ("x.svg", "SVG"), ("x.cr3", "CR3")),
        *(("links.tar#x.heic", "HEIC"), ("links.tgz#x.heic", "HEIC"), ("text.parquet#7", "JPEG XL")),
        *(("float.tif", "TIFF of 3 samples of 32 bits"), ("links.tar#d.png", "a link to a file that")),
        *(("0_none.parquet", "it has no column of images"), ("claims.parquet", "its footer claims 165,536 rows")),
    ],
)
def test_ok_for_what_no_job_decodes_is_found(output, audited, kind, reason):
    image_id = change(output, kind, status="ok", error_code=None, net_width=32, net_height=32)
    code, _, problems = audited(output)
    assert code == 7
    assert f"({image_id}) is ok, but its source is one that no job decodes: {reason}" in problems


@pytest.mark.parametrize("rules", [FIRST_RULES, RULES])
@pytest.mark.parametrize(
    "shard", ["s3://b/a.tar", "s3://b/x", "s3://b/a#b", "s3://b/a.tgz#b.tar", "s3://b/5%#.parquet"]
)
@pytest.mark.parametrize("key", ["b.jpg", "a.tar#b.jpg", "#", "a\nb.TAR#c", None])
def test_ids_are_those_of_the_job(shard, key, rules):
    with duckdb.connect() as database:
        define_ids(database, rules)
        assert database.execute("SELECT record_id(?, ?)", [shard, key]).fetchone() == (record_id(shard, key, rules),)


class FakeBucket:
    """A client of S3 over some objects, as boto3 answers; a server of files would join empty parts of keys."""

    def __init__(self, objects):
        self._objects = objects

    def head_object(self, **place):
        raise ClientError({"ResponseMetadata": {"HTTPStatusCode": 404}}, "HeadObject")

    def get_paginator(self, name):
        return self

    def paginate(self, **place):
        return [{"Contents": [{"Key": key, "Size": len(body)} for key, body in self._objects.items()]}]

    def get_object(self, **place):
        return {"Body": io.BytesIO(self._objects[place["Key"]])}

    def download_file(self, bucket, key, path):
        Path(path).write_bytes(self._objects[key])


def test_odd_keys_on_s3_are_records_under_the_present_rules_only(tmp_path):
    tar = tar_of([("x.png", drawn(2))])
    store = Store()
    store.__dict__["_s3"] = FakeBucket({
        "in/b.png": drawn(1), "in//b.png": drawn(1), "in/a//c.tar": tar, "in/./d.png": drawn(1), "in/../e.tar": tar,
        "in/x//y.heic": HEADS["heic"], "in/folder/": b"", "in/caf\udce9.png": drawn(1),
    })  # fmt: skip
    found = {}
    for rules in (FIRST_RULES, RULES):
        with opened_tables("1GB", str(tmp_path)) as (database, scratch):
            define_ids(database, rules)
            inputs = Inputs(roots=["s3://b/in"], input_format="auto", selection=Selection(rules=rules))
            list_records(inputs, store, database, scratch, Findings())
            found[rules] = dict(database.execute("SELECT id, refused FROM records").fetchall())
    assert found[FIRST_RULES] == {"s3://b/in/b.png": None}
    unnameable = "its key cannot be named by a request"
    assert found[RULES] == {
        "s3://b/in/b.png": None, "s3://b/in//b.png": None, "s3://b/in/a//c.tar#x.png": None,
        "s3://b/in/./d.png": unnameable, "s3://b/in/../e.tar": unnameable, "s3://b/in/x//y.heic": "HEIC",
    }  # fmt: skip


@pytest.mark.parametrize("offset", [2**32 - 1, 2**48, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("magic", [b"II+\0\x08\0\0\0", b"II*\0"])
def test_an_offset_that_no_file_reaches_is_no_error(tmp_path, magic, offset):
    """In a loose file, and in a tar, where an error would mean that the tar breaks off."""
    width = "<Q" if b"+" in magic else "<I"
    image = magic + struct.pack(width, offset % 2 ** (8 * struct.calcsize(width))) + bytes(64)
    (tmp_path / "x.tif").write_bytes(image)
    with (tmp_path / "x.tif").open("rb") as file:
        assert refusal(lambda at, size: (file.seek(at), file.read(size))[1]) is None
    (tmp_path / "x.tar").write_bytes(tar_of([("x.tif", image), ("y.tif", b"II*\0")]))
    images, broken = tar_images(tmp_path / "x.tar", lambda name: True, RULES)
    assert [found.refused for found in images] == [None, None]
    assert broken is None


def test_no_bytes_behind_a_known_beginning_are_an_error():
    random = np.random.default_rng(0)
    for magic in (b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"\xff\xd8\xff", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"):
        for _ in range(500):
            data = magic + random.integers(0, random.choice([4, 256]), 200).astype(np.uint8).tobytes()
            refusal(lambda at, size, data=data: data[at : at + size])


def test_what_the_job_decodes_has_no_refused_header():
    """Images of many layouts, so that a header alone never calls a decoded image refused."""
    refused = 0
    for group in (image_matrix.pngs, image_matrix.jpeg2000s, image_matrix.pillow_tiffs, image_matrix.lossy):
        for case in group():
            reason = refusal(lambda at, size, data=case.data: data[at : at + size])
            if reason is not None:
                refused += 1
                assert isinstance(decode_image(case.data, SizePolicy()), FailedImage), (case.name, reason)
    assert refused > 10
