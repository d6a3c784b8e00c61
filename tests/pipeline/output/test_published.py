"""The published files of an output: real files on a real store, written by a real collector."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.network.config import VARIANTS
from pipeline.chunks.columns import CLASSIFY_COLUMNS, output_schema
from pipeline.errors import OutputError
from pipeline.output import published as output
from pipeline.output.layout import DATA, INDEX_FILE, SliceName
from pipeline.output.published import FOOTER_KEY, list_files, published_files, read_footer, read_index, write_index
from pipeline.publish.collector import Collector
from pipeline.publish.config import SinkConfig
from pipeline.store.config import StoreConfig
from pipeline.store.errors import NotFoundError
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri, join_uri

STORE = StoreConfig()
NAMES = [f"x-0123456789abcdef-0000{i}{'-end' if i == 2 else ''}.parquet" for i in range(3)]


@pytest.fixture
def publish(answered_chunk):
    """(output, slices) -> publishes slices of four rows; the third is the shard's last."""

    def make(uri, *numbers, identity="i"):
        schema = output_schema(CLASSIFY_COLUMNS, ())
        collector = Collector(
            SinkConfig(
                output=StorePath(uri, STORE), schema=schema, identity=identity, run_id="r", network=VARIANTS["b0"]
            )
        )
        collector.start_pass(1)
        for number in numbers:
            chunk = answered_chunk(
                4 * number, 4, slice_number=number, slice_first_row=4 * number, slice_rows=4, end=number == 2,
                failed=(4 * number + 1,),
            )  # fmt: skip
            collector.add(chunk.to_table())
        return [receipt.footer for receipt in collector.state().receipts]

    return make


@pytest.fixture
def footers_read(monkeypatch):
    """The names of the files whose footers are read from now on."""
    names = []
    real = output.read_footer

    def read_footer(file, size, etag):
        names.append(file.name)
        return real(file, size, etag)

    monkeypatch.setattr(output, "read_footer", read_footer)
    return names


@pytest.fixture
def folder(tmp_path):
    """The URI of an output folder on the disk."""
    return canonical_uri(str(tmp_path / "out"))


def data_path(folder, name):
    return Path(join_uri(folder, DATA, name).removeprefix("file://"))


# Listing.


def test_every_file_is_found_with_its_etag_and_what_it_says(root, publish):
    footers = publish(root, 2, 0, 1)
    found = published_files(StorePath(root, STORE), identity="i")
    assert [file.file for file in found] == NAMES
    assert [file.etag for file in found] == [StorePath(root, STORE).join(DATA, name).head().etag for name in NAMES]
    assert [file.footer for file in found] == sorted(footers, key=lambda footer: footer.slice)
    assert [(f.footer.first_row, f.footer.last_row, f.footer.totals.failed) for f in found] == [
        (0, 3, 1), (4, 7, 1), (8, 11, 1),
    ]  # fmt: skip


def test_an_output_that_is_not_there_holds_nothing(folder):
    assert list_files(StorePath(folder, STORE)) == {}
    assert published_files(StorePath(folder, STORE)) == []
    assert read_index(StorePath(folder, STORE)) == []


def test_objects_that_are_not_ours_are_passed_over(folder, publish):
    publish(folder, 0)
    for name in ("notes.txt", "x.parquet", "_SUCCESS", "x-0123-00000.parquet", f"{NAMES[1]}.bak"):
        StorePath(folder, STORE).join(DATA, name).put(b"x")
    assert list(list_files(StorePath(folder, STORE))) == NAMES[:1]


def test_a_file_that_was_moved_to_a_folder_of_its_own_is_no_longer_part_of_the_output(folder, publish):
    """The errors say "move it away"; below `data/` it was still counted as published."""
    publish(folder, 0, 1)
    old = data_path(folder, "old")
    old.mkdir()
    data_path(folder, NAMES[0]).rename(old / NAMES[0])
    shutil.copy(data_path(folder, NAMES[1]), old / NAMES[1])
    assert {name: info.uri for name, info in list_files(StorePath(folder, STORE)).items()} == {
        NAMES[1]: join_uri(folder, DATA, NAMES[1])
    }
    assert [file.file for file in published_files(StorePath(folder, STORE))] == NAMES[1:2]


# The index.


def test_an_index_that_is_current_spares_every_footer(root, publish, footers_read):
    publish(root, 0, 1, 2)
    expected = published_files(StorePath(root, STORE))
    assert sorted(footers_read) == NAMES
    write_index(StorePath(root, STORE), expected)
    footers_read.clear()
    assert published_files(StorePath(root, STORE)) == expected
    assert footers_read == []


def test_the_index_can_be_read_by_itself(folder, publish):
    publish(folder, 0, 1, 2)
    files = published_files(StorePath(folder, STORE))
    write_index(StorePath(folder, STORE), files)
    table = pq.read_table(io.BytesIO(StorePath(folder, STORE).join(INDEX_FILE).read()))
    columns = ["file", "shard", "slice", "last", "source_etag", "rows", "ok", "failed"]
    assert [tuple(row.values()) for row in table.select(columns).to_pylist()] == [
        (NAMES[i], "s3://b/x.tar", i, i == 2, "e", 4, 3, 1) for i in range(3)
    ]
    assert read_index(StorePath(folder, STORE)) == files


def test_only_files_that_are_newer_than_the_index_are_asked(folder, publish, footers_read):
    publish(folder, 0, 1)
    write_index(StorePath(folder, STORE), published_files(StorePath(folder, STORE)))
    StorePath(folder, STORE).join(DATA, NAMES[0]).delete()
    publish(folder, 2, 0)  # the first under another ETag
    footers_read.clear()
    found = published_files(StorePath(folder, STORE))
    assert [file.file for file in found] == NAMES
    assert sorted(footers_read) == [NAMES[0], NAMES[2]]


def test_a_file_that_is_gone_is_gone_whatever_the_index_says(folder, publish):
    publish(folder, 0, 1)
    write_index(StorePath(folder, STORE), published_files(StorePath(folder, STORE)))
    StorePath(folder, STORE).join(DATA, NAMES[0]).delete()
    assert [file.file for file in published_files(StorePath(folder, STORE))] == NAMES[1:2]


def test_what_a_run_knows_takes_the_place_of_the_index(folder, publish, footers_read):
    publish(folder, 0, 1)
    known = published_files(StorePath(folder, STORE))
    StorePath(folder, STORE).join(INDEX_FILE).put(b"not asked")
    footers_read.clear()
    assert published_files(StorePath(folder, STORE), known=known[:1]) == known
    assert footers_read == NAMES[1:2]


def broken_indexes():
    def table(**columns):
        body = io.BytesIO()
        pq.write_table(pa.table(columns), body)
        return body.getvalue()

    return {
        "empty": b"",
        "garbage": b"PAR1 no index PAR1",
        "other columns": table(name=["x"]),
        "no footers": table(file=NAMES[:1], file_etag=["e"]),
        "footers of another kind": table(file=NAMES[:1], file_etag=["e"], footer=['{"shard": "x"}']),
        "footers that are no JSON": table(file=NAMES[:1], file_etag=["e"], footer=["{"]),
    }


@pytest.mark.parametrize("kind", broken_indexes())
def test_an_index_that_cannot_be_read_is_rebuilt_from_the_files(folder, publish, kind, caplog):
    publish(folder, 0, 1)
    expected = published_files(StorePath(folder, STORE))
    StorePath(folder, STORE).join(INDEX_FILE).put(broken_indexes()[kind])
    assert published_files(StorePath(folder, STORE)) == expected
    assert "index.unreadable" in caplog.text
    write_index(StorePath(folder, STORE), expected)
    assert read_index(StorePath(folder, STORE)) == expected


# Files that are not what their name says.


@pytest.mark.parametrize(
    "name",
    [
        NAMES[1],
        "x-0123456789abcdef-00000-end.parquet",
        "x-fedcba9876543210-00000.parquet",
    ],
)
def test_a_renamed_or_copied_file_is_refused(folder, publish, name):
    publish(folder, 0)
    shutil.copy(data_path(folder, NAMES[0]), data_path(folder, name))
    with pytest.raises(OutputError, match=f"{name} says it holds slice 0 of s3://b/x.tar, which is not what its name"):
        published_files(StorePath(folder, STORE))


def test_the_readable_part_of_a_name_may_be_another(folder, publish):
    publish(folder, 0)
    name = str(replace(SliceName.parse(NAMES[0]), name="renamed"))
    data_path(folder, NAMES[0]).rename(data_path(folder, name))
    assert [file.file for file in published_files(StorePath(folder, STORE))] == [name]


def test_a_file_of_another_identity_is_refused_where_that_is_asked_for(folder, publish):
    publish(folder, 0)
    publish(folder, 1, identity="another")
    assert len(published_files(StorePath(folder, STORE))) == 2
    with pytest.raises(OutputError, match=f"{NAMES[1]} was written under another identity than {folder}/_job.json"):
        published_files(StorePath(folder, STORE), identity="i")


def parquet(metadata):
    body = io.BytesIO()
    table = pa.table({"x": [1]}).replace_schema_metadata(metadata)
    pq.write_table(table, body, store_schema=metadata is not None)
    return body.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        b"garbage that is longer than eight bytes",
        b"\xff\xff\xff\x7fPAR1",
        parquet(None),
        parquet({"other": "key"}),
        parquet({FOOTER_KEY: "no JSON"}),
        parquet({FOOTER_KEY: '["no object"]'}),
        parquet({FOOTER_KEY: '{"shard": "x"}'}),
    ],
)
def test_a_foreign_file_under_our_name_is_refused_and_named(folder, data):
    StorePath(folder, STORE).join(DATA, NAMES[0]).put(data)
    with pytest.raises(OutputError, match=f"{NAMES[0]} has the name of an output file but is none .*; move it away"):
        published_files(StorePath(folder, STORE))


# How footers are read.


@pytest.fixture
def ranges_read(monkeypatch):
    """(start, length) of each ranged read from now on."""
    ranges = []
    real = StorePath.read_range

    def read_range(path, start, length, etag=None):
        ranges.append((start, length))
        return real(path, start, length, etag)

    monkeypatch.setattr(StorePath, "read_range", read_range)
    return ranges


def test_a_small_file_is_asked_once_for_all_of_it(root, publish, ranges_read):
    publish(root, 0)
    info = StorePath(root, STORE).join(DATA, NAMES[0]).head()
    assert read_footer(StorePath(info.uri, STORE), info.size, info.etag).slice == 0
    assert ranges_read == [(0, info.size)]


def test_of_a_large_file_only_the_tail_is_read_and_a_long_footer_by_a_second_request(
    folder, publish, ranges_read, monkeypatch
):
    publish(folder, 0)
    info = StorePath(folder, STORE).join(DATA, NAMES[0]).head()
    body = StorePath(info.uri, STORE).read()
    footer_bytes = int.from_bytes(body[-8:-4], "little") + 8
    for tail, expected in (
        (footer_bytes + 10, [footer_bytes + 10]),
        (footer_bytes, [footer_bytes]),
        (footer_bytes - 1, [footer_bytes - 1, footer_bytes]),
        (8, [8, footer_bytes]),
    ):
        monkeypatch.setattr(output, "_TAIL_BYTES", tail)
        ranges_read.clear()
        assert read_footer(StorePath(info.uri, STORE), info.size, info.etag).shard == "s3://b/x.tar"
        assert ranges_read == [(info.size - length, length) for length in expected]


def test_a_foreign_file_is_not_read_whole_to_find_that_out(folder, ranges_read, monkeypatch):
    """Where a footer's length should stand, it may have any number."""
    monkeypatch.setattr(output, "_TAIL_BYTES", 16)
    file = StorePath(folder, STORE).join(DATA, NAMES[0])
    etag = file.put(bytes(1000) + (900).to_bytes(4, "little") + b"JUNK")
    with pytest.raises(OutputError):
        read_footer(file, 1008, etag)
    assert ranges_read == [(1008 - 16, 16)]


def test_a_file_that_is_gone_between_listing_and_reading_is_an_error_of_the_store(folder, publish):
    publish(folder, 0)
    info = StorePath(folder, STORE).join(DATA, NAMES[0]).head()
    StorePath(info.uri, STORE).delete()
    with pytest.raises(NotFoundError):
        read_footer(StorePath(info.uri, STORE), info.size, info.etag)
