"""Checks of the inputs before any work: columns, numbers of records, and the permission to read."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.inputs import parquet_file
from pipeline.inputs.config import InputConfig
from pipeline.inputs.listing import Found
from pipeline.inputs.loose_files import Member
from pipeline.inputs.rules import FIRST_RULES
from pipeline.plan.planned_shard import PlannedShard
from pipeline.read import input_checks
from pipeline.read.input_checks import check_permission, checked_inputs, count_records
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


@pytest.fixture
def put(tmp_path):
    """(name, columns of a Parquet file or bytes) -> the listed object; the format follows from the ending."""

    def write(name, content):
        path = tmp_path / name
        if isinstance(content, dict):
            pq.write_table(pa.table(content), path)
        else:
            path.write_bytes(content)
        ending = path.suffix.removeprefix(".")
        return found_at(canonical_uri(str(path)), ending if ending in ("parquet", "tar") else "files")

    return write


IMAGES, NO_IMAGES = {"jpg": [b""], "url": [""]}, {"x": [1]}


def checked(found, **settings):
    return list(checked_inputs(iter(found), InputConfig(uris=("/nowhere",), **settings)))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"image_column": "png"}, "no column 'png' for --image-column: the columns are jpg"),
        ({"keep_columns": ("url", "cls")}, "no column 'cls' for --keep-columns: the columns are jpg, url"),
    ],
)
def test_a_column_that_no_input_has_stops_the_job_before_any_work(put, settings, expected):
    found = [put(f"{number}.parquet", IMAGES) for number in range(3)]
    assert checked(found, image_column="jpg", keep_columns=("url",)) == found
    with pytest.raises(InputError, match=f"{found[0].info.uri}: there is {expected}"):
        next(checked_inputs(iter(found), InputConfig(uris=("/nowhere",), **settings)))


@pytest.mark.parametrize("names", ["0.parquet", "0.parquet 1.parquet", "0.parquet 1.jpg", "0.parquet 1.tar"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_file_without_images_stops_nothing_wherever_it_sorts(put, caplog, names, place):
    good = [put(name, IMAGES if name.endswith("parquet") else b"") for name in names.split()]
    found = [*good[:place], put("without.parquet", NO_IMAGES), *good[place:]]
    assert checked(found) == found
    said = [record.getMessage() for record in caplog.records]
    assert said == [] if place else "shards.without_images files=1 opened=2: each is one failed row" in said[0]


def test_images_that_no_input_has_stop_the_job(put):
    without = [put(f"{number}.parquet", NO_IMAGES) for number in range(5)]
    with pytest.raises(InputError, match="no column is known to hold images"):
        checked(without)
    with pytest.raises(InputError, match="no column is known to hold images"):
        checked([put("broken.parquet", b"no Parquet"), *without])


def test_files_without_a_column_to_keep_are_counted_in_one_warning(put, caplog):
    has, lacks = put("has.parquet", IMAGES), [put(f"{number}.parquet", {"jpg": [b""]}) for number in range(3)]
    for found in ([has, *lacks], [*lacks, has], [lacks[0], has, *lacks[1:]]):
        caplog.clear()
        assert checked(found, keep_columns=("url",)) == found
        (said,) = [record.getMessage() for record in caplog.records]
        assert said.startswith("columns.lacking files=3 opened=4 columns={'url': 3}")


def test_the_search_for_columns_opens_no_more_files_than_it_has_to(put, monkeypatch):
    opened, real = [], StorePath.open
    monkeypatch.setattr(StorePath, "open", lambda self, **sizes: opened.append(self.uri) or real(self, **sizes))
    good, without = put("good.parquet", IMAGES), put("without.parquet", NO_IMAGES)
    checked([without, good] * 50)
    assert len(opened) == 2
    checked([good] * 150, keep_columns=("url",))
    assert len(opened) == 2 + 100
    monkeypatch.setattr(input_checks, "_MOST_SEARCHED", 30)
    assert len(checked([without] * 50)) == 50
    assert len(opened) == 2 + 100 + 30


def test_a_broken_parquet_file_stops_no_job_but_is_no_proof_either(put):
    gone, broken, whole = put("gone.parquet", b""), put("broken.parquet", b"no Parquet"), put("whole.parquet", IMAGES)
    upset(gone.info.uri, "missing")
    assert checked([gone, broken]) == [gone, broken]
    assert checked([gone, broken, whole]) == [gone, broken, whole]
    with pytest.raises(InputError, match="no column 'png'"):
        checked([gone, broken, whole], image_column="png")


def test_a_parquet_file_that_the_store_does_not_let_one_read_stops_the_job(make_shard, encode, breaks_off):
    shard = make_shard("parquet", {"a.png": encode()})
    breaks_off(0, DeniedError("not allowed"))
    with pytest.raises(InputError, match=f"input {shard.shard} cannot be read: not allowed"):
        checked([found_at(shard.shard, "parquet")])


@pytest.mark.parametrize(
    "content", [NO_IMAGES, pytest.param({"image": pa.nulls(70_000, pa.binary())}, id="more rows than bytes allow")]
)
def test_a_parquet_file_that_is_one_failed_row_counts_as_one_record(put, monkeypatch, content):
    monkeypatch.setattr(parquet_file, "FREE_ROWS", 1)
    found, config = put("x.parquet", content), InputConfig(uris=("/nowhere",))
    assert count_records(found, 100_000, config) == 1
    num_rows = pq.read_metadata(found.info.uri.removeprefix("file://")).num_rows
    assert count_records(found, 100_000, config.under_rules(FIRST_RULES)) == num_rows


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
