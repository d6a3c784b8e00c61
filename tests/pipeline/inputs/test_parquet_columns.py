"""The columns of a Parquet file that are read: labels and their names, and of two columns with one name the first."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.inputs.parquet import num_rows, read_parquet
from pipeline.inputs.parquet_columns import choose_columns, class_names
from pipeline.inputs.parquet_file import FREE_ROWS
from pipeline.inputs.record import ReaderOptions, Record
from pipeline.inputs.rules import FIRST_RULES, RULES

OPTIONS = ReaderOptions(takes_image=bool)


def written(columns, names=None, metadata=None, **options):
    names = list(columns) if names is None else names
    values = list(columns.values()) if isinstance(columns, dict) else columns
    table = pa.Table.from_arrays([pa.array(column) for column in values], names)
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer, **options)
    return buffer.getvalue()


def read(data, rules=RULES, **settings):
    options = ReaderOptions(takes_image=bool, rules=rules, **settings)
    *records, _ = read_parquet(io.BytesIO(data), options)
    return records


def hugging_face(**features):
    return {"huggingface": json.dumps({"info": {"features": features}})}


CAT_OR_DOG = {"names": ["cat", "dog"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 0, -1, None, 2], ["dog", "cat", None, None, "2"]),
        ([1.0, float("nan"), 0.5], ["dog", None, "0.5"]),
        (["1", "cat"], ["1", "cat"]),
        (pa.array([1, 0], pa.uint8()), ["dog", "cat"]),
        ([True, False], ["true", "false"]),
    ],
)
def test_a_number_of_a_class_label_becomes_the_name_of_its_class(values, expected):
    data = written({"image": [b""] * len(values), "label": values}, metadata=hugging_face(label=CAT_OR_DOG))
    assert [record.true_label for record in read(data)] == expected


def test_under_the_first_rules_a_number_of_a_class_label_stays_a_number():
    data = written({"image": [b"", b""], "label": [1, -1]}, metadata=hugging_face(label=CAT_OR_DOG))
    assert [record.true_label for record in read(data, FIRST_RULES)] == ["1", "-1"]


def test_a_kept_class_label_stays_a_number():
    data = written({"image": [b""], "label": [1]}, metadata=hugging_face(label=CAT_OR_DOG))
    assert read(data, keep_columns=("label",)) == [Record("0", b"", "dog", ("1",))]


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"huggingface": "no JSON"},
        {"huggingface": "[]"},
        {"huggingface": "[" * 100_000},
        {"huggingface": '{"info": {"features": null}}'},
        hugging_face(other=CAT_OR_DOG),
        hugging_face(label={"dtype": "int64", "_type": "Value"}),
        hugging_face(label={"names": [1, 2], "_type": "ClassLabel"}),
        hugging_face(label={"names": "ab", "_type": "ClassLabel"}),
    ],
)
def test_without_names_in_the_metadata_a_number_stays_a_number(metadata):
    data = written({"image": [b""], "label": [1]}, metadata=metadata)
    assert read(data)[0].true_label == "1"
    assert class_names(pq.read_schema(io.BytesIO(data)), "label") == ()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["label", "cls"], "label"),
        (["class", "cls"], "cls"),
        (["labels", "class"], "class"),
        (["category", "labels"], "labels"),
        (["text", "category"], "category"),
        (["Label", "cls"], "cls"),
        (["Label", "Cls"], "Label"),
        (["Label", "label"], "label"),
        (["LABEL", "Label"], "LABEL"),
        (["Category"], "Category"),
        (["label_id", "target"], None),
    ],
)
def test_the_label_is_the_first_column_by_a_fixed_order_of_names(names, expected):
    data = written({"image": [b""], **{name: [name] for name in names}})
    assert read(data)[0].true_label == expected


def test_under_the_first_rules_fewer_names_are_labels():
    for name in ("labels", "Label", "category"):
        assert read(written({"image": [b""], name: ["x"]}), FIRST_RULES)[0].true_label is None
    assert read(written({"image": [b""], "class": ["x"]}), FIRST_RULES)[0].true_label == "x"


def test_a_nested_column_is_no_label_where_another_one_is():
    data = written({"image": [b""], "label": [[1, 2]], "cls": [5]})
    assert read(data)[0].true_label == "5"
    assert read(data, FIRST_RULES)[0].true_label is None


def test_of_two_columns_with_one_name_the_first_is_read():
    columns = [["first"], [b"image"], [1], ["second"], [b"other"], [2]]
    data = written(columns, ["url", "image", "label", "url", "image", "label"])
    assert read(data, keep_columns=("url",)) == [Record("0", b"image", "1", ("first",))]
    (record,) = read(data, FIRST_RULES, keep_columns=("url",))
    assert record.failure.code == ErrorCode.SOURCE_TRUNCATED


def test_columns_are_found_behind_nested_ones():
    file = {"path": "p", "bytes": b"image", "size": {"w": 1, "h": [2]}}
    columns = [[{"a": 1, "b": [{"c": 2}]}], pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string())), [file], [7]]
    data = written(columns, ["nested", "map", "image", "label"])
    (record,) = read(data, keep_columns=("map", "nested", "image"))
    assert (record.data, record.true_label) == (b"image", "7")
    assert record.kept[0] == '[["k", "v"]]'
    assert [json.loads(text) for text in record.kept[1:]] == [
        {"a": 1, "b": [{"c": 2}]},
        {"path": "p", "bytes": "image", "size": {"w": 1, "h": [2]}},
    ]
    parquet = pq.ParquetFile(io.BytesIO(data))
    chosen = choose_columns(parquet.schema_arrow, None, ())
    assert sorted(parquet.schema.column(leaf).path for leaf in chosen.image.leaves) == ["image.bytes", "image.path"]
    assert [parquet.schema.column(leaf).path for leaf in chosen.label.leaves] == ["label"]


def test_a_broken_column_that_nobody_asked_for_is_not_read():
    images = [b"image %d" % row for row in range(40)]
    data = written({"x": ["x" * 50] * 40, "image": images}, compression="none", use_dictionary=False)
    data = data.replace(b"x" * 50, b"\xff" * 50)
    assert [record.data for record in read(data)] == images


def test_a_name_that_is_no_utf8_costs_nothing():
    data = written({"cafX": [1], "image": [b"x"], "label": ["a"]}, store_schema=False).replace(b"cafX", b"caf\xe9")
    assert read(data) == [Record("0", b"x", "a")]
    assert num_rows(io.BytesIO(data), OPTIONS) == 1


# Footers.


def test_a_file_without_images_is_one_failed_row_that_names_its_columns():
    data = written({"url": ["a"] * 9, "size": [1] * 9})
    (record,) = read(data)
    assert (record.key, record.failure.code) == (None, ErrorCode.SOURCE_UNREADABLE)
    assert record.failure.message.startswith("no column is known to hold images;")
    assert record.failure.message.endswith("the columns are url (string), size (int64)")
    with pytest.raises(ValueError, match="no column is known to hold images"):
        num_rows(io.BytesIO(data), OPTIONS)


def test_more_rows_than_bytes_allow_are_one_failed_row_with_both_numbers():
    images = pa.nulls(FREE_ROWS + 100_000, pa.binary())
    data = written({"image": images})
    most = FREE_ROWS + 8 * len(data)
    (record,) = read(data)
    assert (record.key, record.failure.code) == (None, ErrorCode.SOURCE_UNREADABLE)
    assert record.failure.message == (
        f"the footer claims {len(images)} rows, but a file of {len(data)} bytes may have at most {most}"
    )
    with pytest.raises(ValueError, match="claims"):
        num_rows(io.BytesIO(data), OPTIONS)


def test_as_many_rows_as_bytes_allow_are_rows():
    data = written({"image": [b"x"] * FREE_ROWS}, row_group_size=FREE_ROWS)
    assert len(read(data)) == num_rows(io.BytesIO(data), OPTIONS) == FREE_ROWS


@pytest.mark.parametrize(("claimed", "expected"), [(55, 55), (50, 50), (45, 50)])
def test_rows_that_no_row_group_holds_are_failed_rows_of_their_own(claimed, expected):
    images = [b"%d" % row for row in range(50)]
    data = written({"image": images}, row_group_size=20)
    # The file's number of rows is a thrift field (0x16), a varint of twice the number, then the list of row groups.
    assert data.count(b"\x16\x64\x19") == 1
    data = data.replace(b"\x16\x64\x19", bytes([0x16, 2 * claimed, 0x19]))
    assert pq.read_metadata(io.BytesIO(data)).num_rows == claimed
    records = read(data)
    assert [record.key for record in records] == [str(row) for row in range(expected)]
    assert [record.data for record in records[:50]] == images
    for record in records[50:]:
        message = "the footer promises 55 rows, but its row groups hold 50"
        assert record.failure == Failure(ErrorCode.SOURCE_TRUNCATED, message)
    assert num_rows(io.BytesIO(data), OPTIONS) == expected
