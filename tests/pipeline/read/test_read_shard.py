"""One planned shard becomes chunks that every attempt cuts alike, whatever is done already and whatever goes wrong."""

import io
import json
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.chunks.size_policy import NetSize, SizePolicy
from pipeline.chunks.task import ExtractFeatures
from pipeline.inputs.config import InputConfig
from pipeline.inputs.loose_files import Member
from pipeline.inputs.rules import FIRST_RULES, RULES
from pipeline.output.slice_chain import DoneSlice
from pipeline.plan.planned_shard import PlannedShard
from pipeline.read import cut
from pipeline.read.read_shard import read_shard
from pipeline.store.errors import ChangedError, DeniedError, NotFoundError, TransientError
from pipeline.store.meter import store_use
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri, join_uri
from tests.support import image_matrix
from tests.support.shards import STORE, shard_at, upset, write_shard

FORMATS = ("tar", "tgz", "parquet", "files")


def spans(chunks):
    """(slice, first row, rows, first row of the slice, rows of the slice, end) of each chunk."""
    headers = [chunk.header for chunk in chunks]
    return [(h.slice, h.first_row, h.num_rows, h.slice_first_row, h.slice_rows, h.end) for h in headers]


def rows_of(chunks):
    return [row for chunk in chunks for row in chunk.rows.to_pylist()]


def failures_of(chunks):
    """(row, key, image_id, error_code) of each failed row."""
    failed = [row for row in rows_of(chunks) if row["status"] == "failed"]
    return [(row["row"], row["key"], row["image_id"], row["error_code"]) for row in failed]


def encoded_of(chunk):
    """The bytes of each record, by the columns that point into the payload."""
    starts, lengths = (chunk.rows.column(name).to_pylist() for name in ("payload_offset", "payload_length"))
    return [bytes(chunk.payload[a : a + n]) for a, n in zip(starts, lengths, strict=True)]


def done_slices(chunks):
    """What a plan says of the slices that some chunks make up."""
    last = [chunk.header for chunk in chunks if chunk.header.slice_rows is not None]
    return tuple(DoneSlice(h.slice, h.slice_first_row, h.slice_first_row + h.slice_rows - 1) for h in last)


# What is cut, and where.


@pytest.mark.parametrize("shard_format", FORMATS)
def test_every_format_gives_its_images_with_their_names_labels_and_rows(make_shard, encode, read_config, shard_format):
    images = {f"{i}.png": encode(33 + i, 40, i) for i in range(10)}
    shard = make_shard(shard_format, images)
    chunks = list(read_shard(shard, read_config()))
    assert spans(chunks) == [(0, 0, 4, 0, 4, False), (1, 4, 4, 4, 4, False), (2, 8, 2, 8, 2, True)]
    assert [data for chunk in chunks for data in encoded_of(chunk)] == list(images.values())
    keys = [str(i) for i in range(10)] if shard_format == "parquet" else list(images)
    for row, found in enumerate(rows_of(chunks)):
        if shard_format == "files":
            image_id, etag = shard.members[row].uri, shard.members[row].etag
        else:
            image_id, etag = f"{shard.shard}#{keys[row]}", shard.etag
        assert found == {
            "image_id": image_id, "shard": shard.shard, "key": keys[row], "row": row, "source_etag": etag,
            "status": "ok", "error_code": None, "error_message": None, "encoded_bytes": len(images[f"{row}.png"]),
            "width": None, "height": None, "net_width": None, "net_height": None, "scale": None, "true_label": "cat",
            "payload_offset": found["payload_offset"], "payload_length": len(images[f"{row}.png"]),
        }  # fmt: skip
    header = chunks[1].header
    assert (header.shard, header.name, header.hash16) == (shard.shard, shard.name, shard.hash16)
    assert (header.source_etag, chunks[1].pass_number) == (shard.etag, 1)


def test_a_chunk_ends_at_its_most_records_and_begins_anew_with_each_slice(make_shard, encode, read_config, monkeypatch):
    monkeypatch.setattr(cut, "CHUNK_MAX_RECORDS", 3)
    shard = make_shard("tar", {f"{i}.png": encode(seed=i) for i in range(10)})
    assert spans(read_shard(shard, read_config(rows_per_file=8))) == [
        (0, 0, 3, 0, None, False), (0, 3, 3, 0, None, False), (0, 6, 2, 0, 8, False), (1, 8, 2, 8, 2, True),
    ]  # fmt: skip


@pytest.mark.parametrize(("side", "expected"), [(100, [3, 3, 2]), (200, [1] * 8)])
def test_a_chunk_ends_before_its_pixels_are_too_many(make_shard, encode, read_config, monkeypatch, side, expected):
    monkeypatch.setattr(cut, "CHUNK_MAX_BYTES", 3 * 3 * 100 * 100 + 2000)
    shard = make_shard("tar", {f"{i}.jpg": encode(side, side, i, "JPEG") for i in range(8)})
    chunks = read_shard(shard, read_config(rows_per_file=8))
    assert [chunk.header.num_rows for chunk in chunks] == expected


def test_the_pixels_of_a_chunk_are_counted_at_the_size_that_the_network_sees(make_shard, read_config, monkeypatch):
    body = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(body, "PNG")
    monkeypatch.setattr(cut, "CHUNK_MAX_BYTES", 4 * 3 * 32 * 32)
    shard = make_shard("tar", {f"{i}.png": body.getvalue() for i in range(8)})
    small = read_config(rows_per_file=8, sizes=SizePolicy(max_image_pixels=1024))
    assert [chunk.header.num_rows for chunk in read_shard(shard, small)] == [4, 4]
    assert [chunk.header.num_rows for chunk in read_shard(shard, read_config(rows_per_file=8))] == [1] * 8


@pytest.mark.parametrize("name", ["huge.png", "refused.png", "garbage.png"])
def test_no_chunk_carries_more_encoded_bytes_than_it_may_decoded(make_shard, encode, read_config, monkeypatch, name):
    """Images whose pixels are few, or never decoded, still weigh what their files weigh."""
    data = {"huge.png": encode(32, 32) + bytes(60_000), "refused.png": encode(150, 150), "garbage.png": bytes(60_000)}
    monkeypatch.setattr(cut, "CHUNK_MAX_BYTES", 150_000)
    shard = make_shard("tar", {f"{i}{name}": data[name] for i in range(6)})
    sizes = SizePolicy(max_image_pixels=1024, large_images="reject")
    chunks = list(read_shard(shard, read_config(rows_per_file=6, sizes=sizes)))
    assert [chunk.header.num_rows for chunk in chunks] == [2, 2, 2]


def test_a_slice_ends_before_its_file_is_predicted_too_large(make_shard, encode, read_config):
    shard = make_shard("tar", {f"{i:02d}.png": encode(seed=i) for i in range(7)})
    row_bytes = 256 + 12 * 5 + len("00.png") + len("cat")
    config = read_config(rows_per_file=100, max_file_bytes=3 * row_bytes)
    assert [(h[0], h[2], h[5]) for h in spans(read_shard(shard, config))] == [
        (0, 3, False),
        (1, 3, False),
        (2, 1, True),
    ]
    config = read_config(rows_per_file=100, max_file_bytes=3 * row_bytes - 1)
    assert [h[2] for h in spans(read_shard(shard, config))] == [2, 2, 2, 1]
    config = read_config(rows_per_file=100, max_file_bytes=1)
    assert [h[2] for h in spans(read_shard(shard, config))] == [1] * 7


def test_slices_and_chunks_of_feature_maps_end_by_the_size_that_their_images_headers_foretell(
    make_shard, encode, read_config, monkeypatch
):
    sides = [40, 40, 80, 40, 160, 40]
    shard = make_shard("tar", {f"{i}.png": encode(side, side, i) for i, side in enumerate(sides)})
    task = ExtractFeatures(stages=(1,))
    rows = [256 + 2 * (256 + 32 * (side // 4) ** 2) + len("0.png") + len("cat") for side in sides]
    config = read_config(rows_per_file=100, max_file_bytes=sum(rows[:3]), task=task)
    assert [(h[0], h[2], h[5]) for h in spans(read_shard(shard, config))] == [
        (0, 3, False),
        (1, 1, False),
        (2, 1, False),
        (3, 1, True),
    ]
    monkeypatch.setattr(cut, "CHUNK_MAX_OUTPUT_BYTES", sum(rows[2:4]))
    config = read_config(rows_per_file=100, task=task)
    assert [(h[0], h[2]) for h in spans(read_shard(shard, config))] == [(0, 2), (0, 2), (0, 1), (0, 1)]


def test_kept_columns_stand_behind_the_base_columns_and_count_for_the_file(make_shard, encode, read_config, tmp_path):
    texts = ["a" * 100, None, "c"]
    table = pa.table({"image": [encode(seed=i) for i in range(3)], "caption": texts, "length": [7, 8, 9]})
    pq.write_table(table, tmp_path / "x.parquet")
    shard = shard_at(canonical_uri(str(tmp_path / "x.parquet")), "parquet")
    config = read_config(input=InputConfig(uris=("/nowhere",), keep_columns=("caption", "length")))
    (chunk,) = read_shard(shard, config)
    assert chunk.rows.column("caption").to_pylist() == texts
    assert chunk.rows.column("length").to_pylist() == ["7", "8", "9"]
    assert chunk.rows.schema.names[15:] == ["caption", "length", "payload_offset", "payload_length"]
    by_size = read_config(input=config.input, max_file_bytes=2 * (256 + 60) + 100)
    assert [h[2] for h in spans(read_shard(shard, by_size))] == [1, 2]


@pytest.mark.parametrize("shard_format", FORMATS)
def test_an_empty_shard_is_one_empty_chunk_that_ends_it(make_shard, read_config, shard_format):
    shard = make_shard(shard_format, {}, ignored=(3,))
    (chunk,) = read_shard(shard, read_config())
    assert spans([chunk]) == [(0, 0, 0, 0, 0, True)]
    assert chunk.rows.num_rows == 0
    assert chunk.header.ignored == (3 if shard_format in ("tar", "tgz") else 0)


def test_what_is_passed_over_is_counted_once_where_it_stands(make_shard, encode, read_config, no_window):
    images = {f"{i}.png": encode(seed=i) for i in range(6)}
    shard = make_shard("tar", images, ignored=(1, 0, 2, 0, 0, 4, 5))
    chunks = list(read_shard(shard, read_config()))
    assert [chunk.header.ignored for chunk in chunks] == [3, 9]


@pytest.mark.parametrize("num_records", [1, 4, 5, 9])
@pytest.mark.parametrize("shard_format", ["tar", "parquet"])
def test_a_plan_of_fewer_records_ends_the_shard_there(make_shard, encode, read_config, shard_format, num_records):
    shard = make_shard(shard_format, {f"{i}.png": encode(seed=i) for i in range(9)}, num_records=num_records)
    chunks = list(read_shard(shard, read_config()))
    assert [row["row"] for row in rows_of(chunks)] == list(range(num_records))
    assert [chunk.header.end for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


# Every attempt yields the same.


@pytest.mark.parametrize("shard_format", FORMATS)
def test_two_attempts_yield_the_same_bytes_but_for_what_they_measured(make_shard, encode, read_config, shard_format):
    images = {f"{i}.png": encode(40 + i, 40, i) if i % 4 else b"no image" for i in range(10)}
    shard = make_shard(shard_format, images, ignored=(1, 2))
    first, second = ([chunk.to_table() for chunk in read_shard(shard, read_config())] for _ in range(2))
    measured = ["attempt", "measured"]
    for one, other in zip(first, second, strict=True):
        assert one.drop_columns(measured).equals(other.drop_columns(measured))
        assert one.nbytes == other.nbytes
    (attempt,), (other_attempt,) = ({table["attempt"][0].as_py() for table in tables} for tables in (first, second))
    assert attempt != other_attempt
    assert len(attempt) == 8


@contextmanager
def chunks_of(max_records, max_bytes, window):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.inputs.tar_sidecars.WINDOW_MEMBERS", window)
        patch.setattr(cut, "CHUNK_MAX_RECORDS", max_records)
        patch.setattr(cut, "CHUNK_MAX_BYTES", max_bytes)
        yield


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shard_format=st.sampled_from(FORMATS),
    sizes=st.lists(st.integers(1, 40), max_size=14),
    ignored=st.lists(st.integers(0, 2), max_size=15),
    rows_per_file=st.integers(1, 6),
    max_file_bytes=st.integers(1, 3000),
    chunk_records=st.integers(1, 4),
    chunk_bytes=st.sampled_from([1, 50, 10_000]),
    window=st.sampled_from([1, 3, 256]),
    done=st.lists(st.booleans(), min_size=14, max_size=14),
)
# The end is done, but not the middle.
@example("tar", [1] * 6, [0] * 6 + [2], 2, 3000, 4, 100, 1, [True, False, True] + [False] * 11)
# Everything is done, but no slice says that it is the last.
@example("tar", [1] * 6, [0] * 6 + [2], 3, 3000, 4, 100, 1, [True] * 14)
# The two that are not done would fit into one file.
@example("tar", [10, 40, 10], [], 6, 767, 4, 10_000, 1, [False, True] + [False] * 12)
def test_with_any_slices_done_exactly_the_chunks_of_the_others_are_yielded(
    tmp_path, make_tar, read_config, shard_format, sizes, ignored, rows_per_file, max_file_bytes, chunk_records,
    chunk_bytes, window, done,
):  # fmt: skip
    # Names of many lengths, so that rows, and the files they go to, are of many sizes.
    images = {f"{i:02d}-{size * 5 * 'x'}.png": bytes(size) for i, size in enumerate(sizes)}
    shard = write_shard(tmp_path, make_tar, shard_format, images, ignored)
    config = read_config(rows_per_file=rows_per_file, max_file_bytes=max_file_bytes)
    with chunks_of(chunk_records, chunk_bytes, window):
        whole = list(read_shard(shard, config))
        assert [row["row"] for row in rows_of(whole)] == list(range(len(sizes)))
        assert [chunk.header.end for chunk in whole] == [False] * (len(whole) - 1) + [True]
        slices = [chunk.header.slice for chunk in whole]
        assert slices == sorted(slices)
        assert set(slices) == set(range(slices[-1] + 1))

        every = done_slices(whole)
        are_done = tuple(one for one in every if done[one.slice])
        resumed = list(read_shard(replace(shard, done=are_done), config))
    if len(are_done) == len(every):
        # The plan has it although every slice is there: none of them says that it is the last.
        assert spans(resumed) == [(len(every), len(sizes), 0, len(sizes), 0, True)]
        return
    numbers = {one.slice for one in are_done}
    wanted = [chunk for chunk in whole if chunk.header.slice not in numbers]
    measured = ["attempt", "measured"]
    for expected, found in zip(wanted, resumed, strict=True):
        assert found.header == expected.header
        assert found.to_table().drop_columns(measured).equals(expected.to_table().drop_columns(measured))


# What goes wrong with a source.


@pytest.mark.parametrize("cut", [3 * 1024 + 100, 3 * 1024 + 612, 3 * 1024])
def test_a_truncated_tar_gives_its_whole_images_and_one_row_that_says_so(tmp_path, make_tar, read_config, cut):
    data = make_tar({f"{i}.png": bytes(100) for i in range(8)})
    uri = canonical_uri(str(tmp_path / "x.tar"))
    StorePath(uri, STORE).put(data[:cut])
    chunks = list(read_shard(shard_at(uri), read_config(rows_per_file=2)))
    found = [(row["row"], row["key"], row["status"]) for row in rows_of(chunks)]
    read_whole = 4 if cut == 3 * 1024 + 612 else 3
    readable = [(i, f"{i}.png", "ok") for i in range(read_whole)]
    assert found == [*readable, (read_whole, None, "failed")]
    assert failures_of(chunks) == [(read_whole, None, uri, "source.truncated")]
    assert spans(chunks)[-1][-1] is True


def test_a_truncated_tar_is_resumed_without_another_row_that_says_so(tmp_path, make_tar, read_config):
    uri = canonical_uri(str(tmp_path / "x.tar"))
    StorePath(uri, STORE).put(make_tar({f"{i}.png": bytes(100) for i in range(8)})[: 3 * 1024])
    whole = list(read_shard(shard_at(uri), read_config(rows_per_file=2)))
    first, last = done_slices(whole)
    assert failures_of(read_shard(shard_at(uri, done=(last,)), read_config(rows_per_file=2))) == []
    (end,) = read_shard(shard_at(uri, done=(first,)), read_config(rows_per_file=2))
    assert end.header == whole[-1].header


@pytest.mark.parametrize("shard_format", ["tar", "parquet"])
def test_a_file_that_is_none_is_one_unreadable_row(tmp_path, read_config, shard_format):
    uri = canonical_uri(str(tmp_path / "x"))
    StorePath(uri, STORE).put(b"neither of the two " * 100)
    chunks = list(read_shard(shard_at(uri, shard_format), read_config()))
    assert failures_of(chunks) == [(0, None, uri, "source.unreadable")]
    assert spans(chunks) == [(0, 0, 1, 0, 1, True)]


@pytest.mark.parametrize("how", ["missing", "changed"])
@pytest.mark.parametrize("shard_format", ["tar", "parquet"])
def test_an_object_that_is_gone_or_changed_is_one_row_that_says_so(
    root, encode, make_tar, read_config, tmp_path, how, shard_format
):
    shard = write_shard(tmp_path, make_tar, shard_format, {"a.png": encode(), "b.png": encode()})
    uri = join_uri(root, "x")
    StorePath(uri, STORE).put(Path(shard.shard.removeprefix("file://")).read_bytes())
    planned = shard_at(uri, shard_format)
    upset(uri, how)
    chunks = list(read_shard(planned, read_config()))
    assert failures_of(chunks) == [(0, None, uri, f"source.{how}")]
    assert spans(chunks) == [(0, 0, 1, 0, 1, True)]
    (row,) = rows_of(chunks)
    assert (row["encoded_bytes"], row["source_etag"]) == (None, planned.etag)


def test_an_image_that_pillow_alone_refuses_is_cut_by_its_size_under_the_present_rules_only(
    make_shard, encode, read_config
):
    plain = encode(64, 64)
    odd = plain[:33] + image_matrix.chunk(b"pHYs", b"") + plain[33:]
    task = ExtractFeatures(stages=(1,))
    row = task.row_bytes(read_config().network, NetSize(width=64, height=64))
    config = read_config(rows_per_file=100, max_file_bytes=2 * row + row // 2, task=task)
    first = replace(config, input=config.input.under_rules(FIRST_RULES))
    shard = make_shard("tar", {f"{i}.png": odd for i in range(6)})
    assert [span[4] for span in spans(read_shard(shard, config))] == [2, 2, 2]
    assert [span[4] for span in spans(read_shard(shard, first))] == [6]


@pytest.mark.parametrize("how", ["missing", "changed"])
def test_a_loose_file_that_is_gone_or_changed_keeps_its_place_among_the_others(root, encode, read_config, how):
    images = [encode(seed=i) for i in range(6)]
    for i, data in enumerate(images):
        StorePath(join_uri(root, f"{i}.png"), STORE).put(data)
    infos = [StorePath(join_uri(root, f"{i}.png"), STORE).head() for i in range(6)]
    members = tuple(Member(info.uri, info.uri[-5:], info.size, info.etag, None) for info in infos)
    shard = PlannedShard(
        action="new",
        shard="files:ab",
        name="x",
        hash16="ab",
        format="files",
        etag=None,
        size=0,
        num_records=6,
        members=members,
    )
    upset(infos[2].uri, how)
    chunks = list(read_shard(shard, read_config()))
    assert failures_of(chunks) == [(2, "2.png", infos[2].uri, f"source.{how}")]
    assert [data for chunk in chunks for data in encoded_of(chunk)] == [*images[:2], b"", *images[3:]]
    assert rows_of(chunks)[2]["source_etag"] == infos[2].etag


@pytest.mark.parametrize("shard_format", ["tar", "parquet"])
def test_an_object_that_is_gone_after_some_of_its_slices_were_published_still_says_so(
    make_shard, encode, read_config, shard_format
):
    """It used to end as a complete shard of the rows published so far, with nothing failed."""
    shard = make_shard(shard_format, {f"{i}.png": encode(seed=i) for i in range(10)})
    whole = list(read_shard(shard, read_config()))
    upset(shard.shard, "missing")
    (chunk,) = read_shard(replace(shard, done=done_slices(whole)[:2]), read_config())
    assert failures_of([chunk]) == [(8, None, shard.shard, "source.missing")]
    assert spans([chunk]) == [(2, 8, 1, 8, 1, True)]


@pytest.mark.parametrize("shard_format", ["tar", "parquet"])
def test_an_object_that_is_gone_fails_each_record_that_is_known_to_be_missing_between_published_slices(
    make_shard, encode, read_config, shard_format
):
    shard = make_shard(shard_format, {f"{i}.png": encode(seed=i) for i in range(10)})
    done = tuple(done_slices(read_shard(shard, read_config()))[i] for i in (0, 2))
    upset(shard.shard, "changed")
    (chunk,) = read_shard(replace(shard, done=done), read_config())
    keys = [str(row) if shard_format == "parquet" else f"@{row}" for row in range(4, 8)]
    expected = [(4 + i, key, f"{shard.shard}#{key}", "source.changed") for i, key in enumerate(keys)]
    assert failures_of([chunk]) == expected
    assert spans([chunk]) == [(1, 4, 4, 4, 4, False)]


def test_an_object_that_is_gone_fails_as_many_records_as_were_planned(make_shard, encode, read_config):
    shard = make_shard("tar", {f"{i}.png": encode(seed=i) for i in range(10)}, num_records=6)
    upset(shard.shard, "missing")
    chunks = list(read_shard(shard, read_config()))
    assert [(row, key) for row, key, *_ in failures_of(chunks)] == [(row, f"@{row}") for row in range(6)]
    assert spans(chunks) == [(0, 0, 4, 0, 4, False), (1, 4, 2, 4, 2, True)]
    (end,) = read_shard(replace(shard, done=(DoneSlice(0, 0, 3), DoneSlice(1, 4, 5))), read_config())
    assert spans([end]) == [(2, 6, 0, 6, 0, True)]


@pytest.mark.parametrize("error", [TransientError("no answer"), DeniedError("not allowed")])
def test_a_store_that_fails_before_the_last_pass_leaves_the_rest_for_the_next(
    make_shard, read_config, breaks_off, no_window, error, caplog
):
    shard = make_shard("tar", {f"{i}.png": bytes(100) for i in range(10)})
    breaks_off(2048 * 6, error)
    chunks = list(read_shard(shard, read_config(rows_per_file=4)))
    # The record behind a slice tells whether that was the last one: only one slice is followed by one that was read.
    assert spans(chunks) == [(0, 0, 4, 0, 4, False)]
    assert failures_of(chunks) == []
    assert "shard.postponed" in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TransientError("no answer"), "source.unreadable"),
        (DeniedError("not allowed"), "source.unreadable"),
        (ChangedError("another"), "source.changed"),
        (NotFoundError("not there"), "source.missing"),
    ],
)
def test_a_store_that_fails_in_the_last_pass_ends_the_shard_with_one_row(
    make_shard, read_config, breaks_off, no_window, error, code
):
    shard = make_shard("tar", {f"{i}.png": bytes(100) for i in range(10)})
    breaks_off(2048 * 6, error)
    chunks = list(read_shard(shard, read_config(rows_per_file=4, last_pass=True)))
    assert failures_of(chunks) == [(6, None, shard.shard, code)]
    assert spans(chunks) == [(0, 0, 4, 0, 4, False), (1, 4, 3, 4, 3, True)]


def test_a_loose_file_that_cannot_be_read_is_left_to_the_next_pass_and_fails_in_the_last(
    make_shard, encode, read_config, monkeypatch
):
    shard = make_shard("files", {f"{i}.png": encode(seed=i) for i in range(6)})
    real_read = StorePath.read

    def refuse_one(path, *args):
        if path.uri.endswith("5.png"):
            raise TransientError("no answer from 10.0.0.1, request 17")
        return real_read(path, *args)

    monkeypatch.setattr(StorePath, "read", refuse_one)
    monkeypatch.setattr(StorePath, "read_at_once", lambda path, etag: None)  # none is in memory
    assert spans(read_shard(shard, read_config())) == [(0, 0, 4, 0, 4, False)]
    chunks = list(read_shard(shard, read_config(last_pass=True)))
    assert spans(chunks) == [(0, 0, 4, 0, 4, False), (1, 4, 2, 4, 2, True)]
    assert failures_of(chunks) == [(5, "5.png", shard.members[5].uri, "source.unreadable")]
    assert "17" not in rows_of(chunks)[-1]["error_message"]


@pytest.mark.parametrize("shard_format", FORMATS)
def test_every_byte_that_came_is_counted_by_some_chunk_though_nobody_asks_for_the_next(
    make_shard, encode, read_config, monkeypatch, shard_format
):
    monkeypatch.setattr(cut, "CHUNK_MAX_RECORDS", 2)
    images = {f"{i}.png": encode(40 + i, 40, i) for i in range(9)}
    before = store_use()
    chunks = []
    for chunk in read_shard(make_shard(shard_format, images), read_config()):
        time.sleep(0.05)  # meanwhile files are fetched on threads
        chunks.append(chunk)
    assert len(chunks) == 5
    came = store_use().since(before)
    assert sum(chunk.measured["bytes_in"] for chunk in chunks) == came["bytes_in"] >= sum(map(len, images.values()))
    assert sum(chunk.measured["requests"] for chunk in chunks) == came["requests"]
    assert sum(chunk.measured["read_s"] for chunk in chunks) < 0.05 * 5


def test_numbers_of_classes_are_named_by_the_file_beside_the_shard(tmp_path, read_config):
    table = pa.table({"image": [b"a", b"b", b"c"], "label": [1, 0, -1]})
    pq.write_table(table, tmp_path / "0.parquet")
    feature = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"features": {"label": feature}}))

    def labels(rules):
        shard = shard_at(f"file://{tmp_path}/0.parquet", "parquet")
        config = read_config()
        config = replace(config, input=config.input.under_rules(rules))
        return [row["true_label"] for row in rows_of(read_shard(shard, config))]

    assert labels(RULES) == ["dog", "cat", None]
    assert labels(FIRST_RULES) == ["1", "0", "-1"]
