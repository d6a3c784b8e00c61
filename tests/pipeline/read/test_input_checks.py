"""Checks of the inputs before any work: columns, numbers of records, and the permission to read."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.inputs.config import InputConfig
from pipeline.inputs.listing import Found
from pipeline.inputs.loose_files import Member
from pipeline.plan.planned_shard import PlannedShard
from pipeline.read.input_checks import check_input, check_permission, count_records
from pipeline.store.errors import DeniedError, NotFoundError, TransientError
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri
from tests.support.shards import STORE, upset


def found_at(uri, kind):
    info = StorePath(uri, STORE).head()
    return Found(info, uri, uri, kind, None)


@pytest.mark.parametrize("shard_format", ["tar", "tgz", "parquet"])
@pytest.mark.parametrize(("at_most", "expected"), [(3, 3), (7, 7), (100, 7)])
def test_records_are_counted_up_to_what_is_asked_for(make_shard, encode, shard_format, at_most, expected):
    shard = make_shard(shard_format, {f"{i}.png": encode(seed=i) for i in range(7)}, ignored=(2, 2))
    found = found_at(shard.shard, shard.format)
    assert count_records(found, at_most, InputConfig(uris=("/nowhere",))) == expected


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_source_that_will_be_one_failed_row_counts_as_one(tmp_path, kind):
    config = InputConfig(uris=("/nowhere",))
    uri = canonical_uri(str(tmp_path / "x"))
    StorePath(uri, STORE).put(b"neither of the two " * 100)
    found = found_at(uri, kind)
    assert count_records(found, 10, config) == 1
    upset(uri, "changed")
    assert count_records(found, 10, config) == 1
    upset(uri, "missing")
    assert count_records(found, 10, config) == 1


def test_an_input_that_cannot_be_counted_is_named(make_shard, encode, breaks_off):
    shard = make_shard("tar", {"a.png": encode()})
    breaks_off(0, DeniedError("not allowed"))
    with pytest.raises(InputError, match=f"{shard.shard} cannot be read: not allowed"):
        count_records(found_at(shard.shard, "tar"), 10, InputConfig(uris=("/nowhere",)))


def test_a_wrong_column_of_the_first_parquet_file_stops_the_job(tmp_path):
    uri = canonical_uri(str(tmp_path / "x.parquet"))
    pq.write_table(pa.table({"jpg": [b""], "url": [""]}), tmp_path / "x.parquet")
    found = found_at(uri, "parquet")
    assert check_input(found, InputConfig(uris=("/nowhere",), image_column="jpg", keep_columns=("url",)))
    for changes, expected in (
        ({"image_column": "png"}, "no column 'png' for --image-column"),
        ({"keep_columns": ("cls",)}, "no column 'cls' for --keep-columns"),
    ):
        with pytest.raises(InputError, match=f"{uri}: there is {expected}"):
            check_input(found, InputConfig(uris=("/nowhere",), **changes))


def test_a_broken_parquet_file_stops_no_job_but_is_no_proof_either(tmp_path):
    gone, broken, whole = (canonical_uri(str(tmp_path / f"{name}.parquet")) for name in ("gone", "broken", "whole"))
    StorePath(gone, STORE).put(b"")
    StorePath(broken, STORE).put(b"no Parquet")
    pq.write_table(pa.table({"jpg": [b""]}), tmp_path / "whole.parquet")
    found = [found_at(uri, "parquet") for uri in (gone, broken, whole)]
    upset(gone, "missing")
    assert [check_input(entry, InputConfig(uris=("/nowhere",))) for entry in found] == [False, False, True]


def test_a_parquet_file_that_the_store_does_not_let_one_read_stops_the_job(make_shard, encode, breaks_off):
    shard = make_shard("parquet", {"a.png": encode()})
    breaks_off(0, DeniedError("not allowed"))
    with pytest.raises(InputError, match=f"input {shard.shard} cannot be read: not allowed"):
        check_input(found_at(shard.shard, "parquet"), InputConfig(uris=("/nowhere",)))


# Permission to read.


def objects_in_a_store(count):
    return [
        PlannedShard(
            shard=f"s3://b/{number:02d}.tar", name="x", hash16=f"{number:016d}", format="tar", action="new", etag="e",
            size=10, num_records=None,
        )
        for number in range(count)
    ]  # fmt: skip


def group_in_a_store(count):
    members = tuple(Member(f"s3://b/{number:02d}.png", f"{number:02d}.png", 10, "e", None) for number in range(count))
    return PlannedShard(
        shard="files:0", name="x", hash16="0" * 16, format="files", action="new", etag=None, size=10 * count,
        num_records=count, members=members,
    )  # fmt: skip


@pytest.fixture
def refuse(monkeypatch):
    """(what is refused, error) -> the URIs that were asked for a byte."""

    def install(is_refused, error=None):
        asked = []

        def ask(path, start, length, etag):
            asked.append(path.uri)
            if is_refused(path.uri):
                raise error or DeniedError(f"{path}: 403 AccessDenied", is_permission=True)
            return b"x"

        monkeypatch.setattr(StorePath, "read_range", ask)
        return asked

    return install


@pytest.mark.parametrize("shards", [objects_in_a_store(20), objects_in_a_store(1), [group_in_a_store(20)]])
def test_an_input_of_which_nothing_may_be_read_stops_the_job(refuse, shards):
    asked = refuse(lambda uri: True)
    with pytest.raises(InputError, match=r"may be listed, but not read: s3://b/\d\d\.\w+: 403 AccessDenied; check"):
        check_permission(shards, InputConfig(uris=("s3://bucket",)))
    assert len(asked) < 15


@pytest.mark.parametrize("shards", [objects_in_a_store(20), [group_in_a_store(20)]])
def test_objects_that_may_not_be_read_stop_nothing_where_others_may(refuse, shards):
    refuse(lambda uri: uri < "s3://b/10")
    check_permission(shards, InputConfig(uris=("s3://bucket",)))


def test_an_input_that_may_be_read_is_asked_for_one_byte(refuse):
    asked = refuse(lambda uri: False)
    check_permission(objects_in_a_store(20), InputConfig(uris=("s3://bucket",)))
    assert asked == ["s3://b/00.tar"]


@pytest.mark.parametrize("error", [TransientError("503"), NotFoundError("gone"), DeniedError("403 InvalidObjectState")])
def test_other_faults_are_left_to_the_read_step(refuse, error):
    refuse(lambda uri: True, error)
    check_permission(objects_in_a_store(2), InputConfig(uris=("s3://bucket",)))


def test_a_plan_without_work_or_on_a_disk_asks_no_store(refuse):
    asked = refuse(lambda uri: True)
    on_disk = [replace(shard, shard=shard.shard.replace("s3://", "file:///")) for shard in objects_in_a_store(2)]
    for shards, root in (([], "s3://bucket"), (on_disk, "s3://bucket"), (on_disk, "/b")):
        check_permission(shards, InputConfig(uris=(root,)))
    assert asked == []
