"""Ids that several rows have are found in the files themselves, whatever made them, and no others."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.account.totals import Totals
from pipeline.errors import OutputError
from pipeline.output import ids
from pipeline.output.footer import Footer
from pipeline.output.ids import doubled_ids, find_doubled_ids, state_of_files
from pipeline.output.layout import DATA, INDEX_FILE, SliceName
from pipeline.output.published import PublishedFile, files_with_unique_ids, read_index, write_index
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath


@pytest.fixture
def output(root):
    return StorePath(root, StoreConfig())


def put(output, number, image_ids):
    """Writes one output file of a shard of its own."""
    name = str(SliceName("x", f"{number:016x}", 0, True))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"row": range(len(image_ids)), "image_id": image_ids}), sink)
    etag = output.join(DATA, name).put(sink.getvalue().to_pybytes())
    footer = Footer(
        shard=f"s3://b/{number}.tar", hash16=f"{number:016x}", slice=0, end=True, source_etag="e", first_row=0,
        last_row=len(image_ids) - 1, identity="i", run_id="r", attempt="a", nonce="n",
        totals=Totals(listed=len(image_ids), ok=len(image_ids)),
    )  # fmt: skip
    return PublishedFile.of(name, etag, footer)


def test_ids_that_stand_once_are_fine(output):
    assert find_doubled_ids(output, []) is None
    assert (
        find_doubled_ids(output, [put(output, 1, ["a", "b"]), put(output, 2, ["c", "ä", ""]), put(output, 3, [])])
        is None
    )


def test_an_id_of_two_files_is_named_with_both(output):
    files = [put(output, 1, ["a", "b"]), put(output, 2, ["c"]), put(output, 3, ["d", "b"])]
    found = find_doubled_ids(output, files)
    assert (found.rows, found.image_id) == (1, "b")
    assert found.files == (files[0].file, files[2].file)
    assert found.shards == ("s3://b/1.tar", "s3://b/3.tar")


def test_every_further_row_counts_also_within_one_file(output):
    files = [put(output, 1, ["a", "a", "a"]), put(output, 2, ["b", "c"]), put(output, 3, ["b"])]
    assert find_doubled_ids(output, files).rows == 3
    found = find_doubled_ids(output, files[:1])
    assert (found.rows, found.files) == (2, (files[0].file,) * 2)


def test_all_ids_of_several_rows_are_given(output, monkeypatch):
    files = [
        put(output, 1, ["a", "a", "b"]),
        put(output, 2, ["b", "c"]),
        put(output, 3, ["d", "e"]),
        put(output, 4, []),
    ]
    assert doubled_ids(output, files) == {"a", "b"}
    monkeypatch.setattr(ids, "hash", lambda text: 5, raising=False)
    assert doubled_ids(output, files) == {"a", "b"}


def test_ids_with_equal_hashes_are_compared_themselves(output, monkeypatch):
    files = [put(output, 1, ["a", "b"]), put(output, 2, ["c", "d"])]
    monkeypatch.setattr(ids, "hash", len, raising=False)
    assert find_doubled_ids(output, files) is None
    assert find_doubled_ids(output, [*files, put(output, 3, ["e", "d"])]).image_id == "d"


@pytest.mark.parametrize("range_hashes", [7, 100, 10**6])
def test_one_id_among_many_is_found_whatever_the_number_of_ranges(output, monkeypatch, range_hashes):
    monkeypatch.setattr(ids, "_RANGE_HASHES", range_hashes)
    files = [put(output, number, [f"{number}/{at}" for at in range(100)]) for number in range(40)]
    assert find_doubled_ids(output, files) is None
    files.append(put(output, 99, ["x", "17/55"]))
    assert find_doubled_ids(output, files).image_id == "17/55"


def test_a_file_that_changes_meanwhile_is_no_answer(output):
    file = put(output, 1, ["a", "b"])
    put(output, 1, ["a", "c"])
    with pytest.raises(OutputError, match="changed while its ids were compared"):
        find_doubled_ids(output, [file])


def test_the_index_says_for_which_files_all_ids_were_found_once(output):
    files = [put(output, 1, ["a"]), put(output, 2, ["b"])]
    assert files_with_unique_ids(output) is None
    write_index(output, files)
    assert files_with_unique_ids(output) is None
    write_index(output, files, state_of_files(files))
    assert files_with_unique_ids(output) == state_of_files(reversed(files)) != state_of_files(files[:1])
    assert read_index(output) == files
    changed = put(output, 2, ["c"])
    assert state_of_files([files[0], changed]) != files_with_unique_ids(output)
    output.join(INDEX_FILE).put(b"broken")
    assert files_with_unique_ids(output) is None
