import datetime
import io
from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.inputs import parquet, parquet_cells, parquet_columns
from pipeline.inputs.names import has_image_ending
from pipeline.inputs.parquet import num_rows, read_parquet, read_schema
from pipeline.inputs.parquet_columns import find_image_column, lacking_columns
from pipeline.inputs.record import ReaderOptions, Record, ShardEnd
from pipeline.inputs.rules import FIRST_RULES, RULES
from tests.support.planted_bugs import planted_bug

BYTES = pa.binary()
FILE = pa.struct([("bytes", BYTES), ("path", pa.string())])


def parquet_bytes(columns, **options):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()


OPTIONS = ReaderOptions(takes_image=has_image_ending)


def read(data, image_column=None, keep_columns=(), start_row=0, rules=RULES):
    file = data if hasattr(data, "read") else io.BytesIO(data)
    options = replace(OPTIONS, image_column=image_column, keep_columns=keep_columns, rules=rules)
    *records, end = read_parquet(file, options, start_row)
    assert end == ShardEnd(0)
    assert all(isinstance(record, Record) for record in records)
    return records


def numbered(num):
    return [b"image %d" % n for n in range(num)]


def test_rows_come_in_order_with_their_numbers():
    data = parquet_bytes({"jpg": numbered(50)}, row_group_size=20)
    assert num_rows(io.BytesIO(data), OPTIONS) == 50
    assert read(data) == [Record(str(n), image) for n, image in enumerate(numbered(50))]


def test_an_empty_file_has_no_records():
    assert read(parquet_bytes({"jpg": pa.array([], BYTES)})) == []


@pytest.mark.parametrize("start_row", [0, 1, 16, 19, 20, 21, 49, 50, 60])
def test_reading_may_start_at_any_row(start_row):
    data = parquet_bytes({"jpg": numbered(50), "label": list(range(50))}, row_group_size=20)
    assert read(data, start_row=start_row) == read(data)[start_row:]


def test_row_groups_before_the_start_are_not_read():
    noise = [bytes((n * i * i) % 251 for i in range(4000)) for n in range(40)]
    data = bytearray(parquet_bytes({"jpg": noise}, row_group_size=10, compression="none"))
    data[100:60_000] = bytes(59_900)
    assert [record.key for record in read(bytes(data), start_row=25)] == [str(n) for n in range(25, 40)]


def test_a_hugging_face_image_is_read():
    images = [{"bytes": b"A", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}, None, {"bytes": b"", "path": None}]
    data = parquet_bytes({"label": [1, 2, 3, None], "picture": pa.array(images, FILE)})
    missing = ErrorCode.SOURCE_MISSING
    assert read(data) == [
        Record("0", b"A", true_label="1"),
        Record("1", None, "2", failure=Failure(missing, "the row has a path but no bytes; paths are not followed")),
        Record("2", None, "3", failure=Failure(missing, "the row has no image")),
        Record("3", b""),
    ]


@pytest.mark.parametrize(
    "kind",
    [
        BYTES,
        pa.large_binary(),
        pa.binary_view(),
        pa.dictionary(pa.int32(), BYTES),
        pa.struct([("bytes", BYTES)]),
        pa.struct([("path", pa.string()), ("bytes", pa.large_binary())]),
    ],
)
def test_images_may_be_stored_in_any_type_of_bytes(kind):
    images = [b"\xff\0", None, b"\xff\0"]
    if pa.types.is_struct(kind):
        column = pa.array([None if image is None else {"bytes": image} for image in images], kind)
    elif pa.types.is_dictionary(kind):
        column = pa.array(images, BYTES).dictionary_encode()
    else:
        column = pa.array(images, kind)
    data = parquet_bytes({"image": column})
    assert [record.data for record in read(data)] == images


def test_a_string_column_is_read_where_it_is_asked_for():
    data = parquet_bytes({"image": ["abc", None]})
    assert [record.data for record in read(data, image_column="image")] == [b"abc", None]
    assert read(data)[0].failure.code == ErrorCode.SOURCE_UNREADABLE


def test_a_row_with_too_many_bytes_is_not_passed_on(monkeypatch):
    monkeypatch.setattr(parquet_cells, "MAX_ENCODED_BYTES", 3)
    records = read(parquet_bytes({"image": [b"abcd", b"abc"]}))
    assert [(record.data, record.failure and record.failure.code) for record in records] == [
        (None, ErrorCode.IMAGE_TOO_LARGE),
        (b"abc", None),
    ]


# Columns.


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"x": FILE, "jpg": BYTES}, "x"),
        ({"mask": FILE, "image": FILE}, "image"),
        ({"png": BYTES, "jpg": BYTES}, "jpg"),
        ({"key": pa.string(), "JPG": BYTES}, "JPG"),
        ({"image": pa.string(), "bytes": BYTES}, "bytes"),
        ({"image": BYTES, "img": FILE}, "img"),
        ({"image": pa.dictionary(pa.int32(), BYTES)}, "image"),
    ],
)
def test_the_image_column_is_found(columns, expected):
    assert find_image_column(pa.schema(columns), None) == expected


@pytest.mark.parametrize(
    "columns", [{}, {"embedding": BYTES}, {"image": pa.string()}, {"a": FILE, "b": FILE}, {"image": pa.list_(FILE)}]
)
def test_a_column_that_is_not_known_must_be_named(columns):
    with pytest.raises(ValueError, match="--image-column") as raised:
        find_image_column(pa.schema(columns), None)
    assert all(name in str(raised.value) for name in columns)


def test_the_named_column_is_taken_or_refused():
    schema = pa.schema({"image": FILE, "embedding": BYTES, "label": pa.int64()})
    assert find_image_column(schema, "embedding") == "embedding"
    with pytest.raises(ValueError, match=r"no column 'picture'.*image .*embedding .*label"):
        find_image_column(schema, "picture")
    with pytest.raises(ValueError, match="'label' of --image-column does not hold bytes"):
        find_image_column(schema, "label")


def test_columns_are_checked_before_any_work():
    schema = read_schema(io.BytesIO(parquet_bytes({"jpg": [b"x"], "url": ["u"]})))
    assert lacking_columns(schema, None, ("url",)) == {}
    assert lacking_columns(schema, None, ("url", "txt")) == {
        "txt": "there is no column 'txt' for --keep-columns: the columns are jpg, url"
    }
    with pytest.raises(ValueError, match="--image-column"):
        lacking_columns(schema, "png", ())


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array([3, None, -1]), ["3", None, "-1"]),
        (pa.array(["cat", "", None]), ["cat", "", None]),
        (pa.array(["cat", "dog"]).dictionary_encode(), ["cat", "dog"]),
        (pa.array([[1], [2]]), [None, None]),
    ],
)
def test_labels_become_text(labels, expected):
    data = parquet_bytes({"image": [b"x"] * len(labels), "label": labels})
    assert [record.true_label for record in read(data)] == expected


def test_the_first_known_label_column_is_the_label():
    data = parquet_bytes({"class": ["a"], "cls": [5], "image": [b"x"]})
    assert read(data)[0].true_label == "5"


def test_kept_columns_become_text():
    data = parquet_bytes(
        {
            "image": [b"x", b"y"],
            "url": ["http://a", None],
            "size": pa.array([{"w": 1, "h": None}, None]),
            "tags": [["ü"], []],
            "score": [0.5, float("nan")],
            "when": [datetime.datetime(2020, 1, 2), None],
            "raw": [b"\xff", b"r"],
            "ok": [True, False],
        }
    )
    first, second = read(data, keep_columns=("ok", "url", "absent", "size", "tags", "score", "when", "raw"))
    assert first.kept == (
        "true",
        "http://a",
        None,
        '{"w": 1, "h": null}',
        '["ü"]',
        "0.5",
        "2020-01-02 00:00:00",
        "\\xff",
    )
    assert second.kept == ("false", None, None, None, "[]", "NaN", None, "r")


# Broken files.

IMAGES = [bytes((n * i * i) % 251 for i in range(1000)) for n in range(60)]
GROUPS = parquet_bytes({"jpg": IMAGES}, row_group_size=20, write_page_checksum=True, use_dictionary=False)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" * 40, b"junk" * 100, GROUPS[:-1], GROUPS[: len(GROUPS) // 2]])
def test_what_has_no_footer_is_one_unreadable_record(data):
    (record,) = read(data)
    assert (record.key, record.data, record.failure.code) == (None, None, ErrorCode.SOURCE_UNREADABLE)
    assert len(record.failure.message) <= 200
    assert read(data) == [record]
    for look in (lambda file: num_rows(file, OPTIONS), read_schema):
        with pytest.raises(ValueError, match="Parquet"):
            look(io.BytesIO(data))


def with_a_broken_page(data, group, column):
    found = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(group).column(column)
    data = bytearray(data)
    data[found.data_page_offset + found.total_compressed_size // 2] ^= 0xFF
    return bytes(data)


def test_a_broken_page_costs_its_rows_and_no_others():
    data = with_a_broken_page(GROUPS, group=1, column=0)
    records = read(data)
    assert [record.key for record in records] == [str(n) for n in range(60)]
    assert [record.data for record in records] == [*IMAGES[:20], *[None] * 20, *IMAGES[40:]]
    (failure,) = {record.failure for record in records[20:40]}
    assert failure.code == ErrorCode.SOURCE_TRUNCATED
    assert failure.message.startswith("rows 20 to 39 cannot be read: OSError: ")
    assert len(failure.message) <= 200
    for start_row in (7, 20, 27, 40, 60):
        assert read(data, start_row=start_row) == records[start_row:]


def test_rows_before_a_broken_page_that_share_its_batch_are_read():
    """A batch has 16 rows, and a page has ten here."""
    sizes = {"data_page_size": 1, "write_batch_size": 10, "use_dictionary": False, "write_page_checksum": True}
    data = bytearray(parquet_bytes({"jpg": IMAGES}, compression="none", **sizes))
    data[data.index(IMAGES[37])] ^= 0xFF
    records = read(bytes(data))
    assert [record.data for record in records] == [*IMAGES[:30], *[None] * 30]
    assert records[30].failure.message.startswith("rows 30 to 59 cannot be read: ")
    for start_row in (1, 29, 30, 31):
        assert read(bytes(data), start_row=start_row) == records[start_row:]


def test_a_broken_page_of_texts_costs_no_image():
    labels = [f"{n:02d}" for n in range(60)]
    pages = {"row_group_size": 20, "write_page_checksum": True, "use_dictionary": False}
    data = parquet_bytes({"jpg": IMAGES, "label": labels}, **pages)
    records = read(with_a_broken_page(data, group=1, column=1))
    assert [record.data for record in records] == IMAGES
    assert [record.true_label for record in records] == [*labels[:20], *[None] * 20, *labels[40:]]


def test_under_the_first_rules_a_broken_page_ends_the_file():
    data = with_a_broken_page(GROUPS, group=1, column=0)
    *whole, last = read(data, rules=FIRST_RULES)
    assert [record.data for record in whole] == IMAGES[:20]
    assert (last.key, last.data, last.failure.code) == (None, None, ErrorCode.SOURCE_TRUNCATED)
    assert last.failure.message.startswith("the file breaks off before row 20: ")
    assert len(last.failure.message) <= 200
    assert read(data, start_row=7, rules=FIRST_RULES) == [*whole[7:], last]
    later = read(data, start_row=40, rules=FIRST_RULES)
    assert [record.key for record in later] == [str(n) for n in range(40, 60)]


def test_no_flipped_byte_makes_it_raise():
    data = parquet_bytes({"jpg": [b"abc", None, b"d"], "label": [1, 2, 3]}, write_page_checksum=True)
    for position in range(len(data)):
        for bit in (1, 0x80):
            flipped = bytearray(data)
            flipped[position] ^= bit
            records = read(bytes(flipped))
            assert read(bytes(flipped)) == records, position


class StoreError(Exception):
    pass


@pytest.mark.parametrize("error", [StoreError("gone"), OSError("disk"), ValueError("odd")])
def test_a_storage_that_fails_is_not_taken_for_a_broken_file(error):
    for good_reads in range(8):

        class Failing(io.BytesIO):
            left = good_reads

            def read(self, size=-1):
                if not self.left:
                    raise error
                self.left -= 1
                return super().read(size)

        file = Failing(GROUPS)
        try:
            records = read(file)
        except Exception as raised:
            assert raised is error
        else:
            assert file.left > 0 or len(records) == 60
            assert all(record.failure is None for record in records)


def test_the_file_stays_open():
    file = io.BytesIO(GROUPS)
    read(file)
    assert not file.closed
    assert len(read(file)) == 60


def test_a_bug_in_the_reader_is_a_failed_record_whose_message_names_it(monkeypatch):
    monkeypatch.setattr(parquet, "label_text", planted_bug("pipeline/inputs/record.py"))
    records = read(parquet_bytes({"jpg": numbered(3), "label": [1, 2, 3]}))
    assert [(record.key, record.failure) for record in records] == [
        (
            str(n),
            Failure(
                ErrorCode.SOURCE_TRUNCATED,
                f"bug at pipeline/inputs/record.py:41: AttributeError: planted bug 4711 (row {n} cannot be read)",
            ),
        )
        for n in range(3)
    ]


def test_a_bug_below_arrow_while_the_footer_is_read_is_named():
    """Arrow calls the file's methods, and hands their exceptions on."""
    file = io.BytesIO(parquet_bytes({"jpg": numbered(3)}))
    bug = planted_bug("pipeline/store/block_reader.py")
    (record,) = read(SimpleNamespace(read=file.read, tell=file.tell, seek=bug))
    assert record.failure == Failure(
        ErrorCode.SOURCE_UNREADABLE,
        "bug at pipeline/store/block_reader.py:41: AttributeError: planted bug 4711 "
        "(this is no Parquet file, or a broken one)",
    )


def test_a_bug_in_the_choice_of_the_column_is_told_from_a_file_without_images(monkeypatch):
    (record,) = read(parquet_bytes({"x": [1, 2]}))
    assert record.failure.message.startswith("no column is known to hold images")
    bug = planted_bug("pipeline/inputs/parquet_columns.py", error="ValueError")
    monkeypatch.setattr(parquet_columns, "plain_type", bug)
    (record,) = read(parquet_bytes({"jpg": numbered(3)}))
    assert record.failure == Failure(
        ErrorCode.SOURCE_UNREADABLE, "bug at pipeline/inputs/parquet_columns.py:41: ValueError: planted bug 4711"
    )
