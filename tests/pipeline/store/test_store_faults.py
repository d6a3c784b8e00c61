"""Faults of a store: each is injected between the real client and a real S3 server."""

import gzip
import io
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.network.config import VARIANTS
from pipeline.chunks.chunk import Chunk
from pipeline.chunks.columns import CLASSIFY_COLUMNS, output_schema
from pipeline.errors import OutputError
from pipeline.inputs.config import InputConfig
from pipeline.inputs.loose_files import Member
from pipeline.output.layout import hash16
from pipeline.output.published import published_files
from pipeline.plan.planned_shard import PlannedShard
from pipeline.publish.collector import Collector
from pipeline.publish.config import SinkConfig
from pipeline.read.read_shard import read_shard
from pipeline.store import block_reader, remote
from pipeline.store import errors as store_errors
from pipeline.store import retry as store_requests
from pipeline.store.block_reader import BLOCK_BYTES
from pipeline.store.clients import forget_clients
from pipeline.store.config import StoreConfig
from pipeline.store.errors import ChangedError, DeniedError, ExistsError, TransientError
from pipeline.store.object_info import ObjectInfo
from pipeline.store.preflight import preflight
from pipeline.store.store_path import StorePath
from tests.support.fault_proxy import Cut, Fault, FaultProxy, Flip, Hang, Lose, Refuse, Reset, Slow
from tests.support.s3_server import S3Server

BODY = bytes(range(256)) * 40
MANY = 20
# What a busy machine may add to half a second.
BUSY_S = 10.0


@pytest.fixture(scope="module")
def shared_proxy(s3: S3Server) -> Iterator[FaultProxy]:
    """One proxy for all tests, since a client for a new address takes its time."""
    with pytest.MonkeyPatch.context() as patch, FaultProxy(s3.endpoint_url, seed=7) as proxy:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in s3.env.items():
            patch.setenv(name, value)
        forget_clients()
        yield proxy
    forget_clients()


@pytest.fixture
def proxy(shared_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The proxy without rules; and pauses so short that a fault costs a test no time."""
    monkeypatch.setattr(store_requests, "_FIRST_PAUSE_S", 0.004)
    monkeypatch.setattr(store_errors, "_THROTTLED_S", 0.02)
    yield shared_proxy
    shared_proxy.clear()


@pytest.fixture
def faulty(proxy: FaultProxy) -> StoreConfig:
    """The store behind the proxy, with enough patience for any number of faults that ends."""
    return StoreConfig(endpoint_url=proxy.endpoint_url, deadline_s=20, timeout_s=5)


@pytest.fixture
def sound(s3: S3Server, proxy: FaultProxy) -> StoreConfig:
    """The same store, without the proxy."""
    return StoreConfig(endpoint_url=s3.endpoint_url)


@pytest.fixture
def s3_root(s3: S3Server) -> str:
    """A URI below which there is nothing yet."""
    return f"s3://{s3.bucket}/{secrets.token_hex(6)}"


def num_asked(proxy: FaultProxy, method: str, root: str) -> int:
    """Requests below a root so far."""
    return sum(asked.startswith(f"{method} /{root.removeprefix('s3://')}") for asked in proxy.requests)


# What passes by itself.


@pytest.mark.parametrize(
    "fault",
    [
        Refuse(503, "SlowDown", retry_after_s=1),
        Refuse(500, "InternalError"),
        Reset(),
        Lose(),
        Hang(),
        Hang(heard=True),
        Cut(),
        Cut(reset=True),
        Slow(bytes_per_s=100),
    ],
    ids=str,
)
def test_a_fault_that_passes_costs_time_and_nothing_else(
    s3_root: str, proxy: FaultProxy, faulty: StoreConfig, sound: StoreConfig, fault: Fault
) -> None:
    uri, new = f"{s3_root}/a", f"{s3_root}/new"
    etag = StorePath(uri, sound).put(BODY)
    if isinstance(fault, Hang | Slow):
        faulty = replace(faulty, timeout_s=0.25)
    for pattern, request, expected in (
        ("^GET .*/a", lambda: StorePath(uri, faulty).read(etag), BODY),
        ("^GET .*/a", lambda: StorePath(uri, faulty).read_range(5, 7000, etag), BODY[5:7005]),
        ("^HEAD .*/a", lambda: StorePath(uri, faulty).head(), ObjectInfo(uri, len(BODY), etag)),
        (r"^GET .*/\?", lambda: [info.uri for info in StorePath(s3_root, faulty).list()], [uri]),
        ("^PUT ", lambda: bool(StorePath(new, faulty).put(BODY, if_absent=True)), True),
        ("^PUT ", lambda: bool(StorePath(new, faulty).put(b"newer", if_match=etag)), True),
        ("^DELETE ", lambda: StorePath(new, faulty).delete(), None),
    ):
        proxy.clear()
        rule = proxy.add(pattern.replace(r"/\?", r"/?\?"), fault, times=1)
        assert request() == expected  # type: ignore[no-untyped-call]
        assert rule.num_fired == 1, pattern
    assert StorePath(new, sound).head() is None and StorePath(uri, sound).read(etag) == BODY


def test_a_storm_of_faults_of_every_kind_passes(s3_root: str, proxy: FaultProxy, faulty: StoreConfig) -> None:
    hasty = replace(faulty, timeout_s=0.25)
    faults = (Refuse(503, "SlowDown"), Reset(), Lose(), Cut(), Hang(heard=True))
    rules = [proxy.add("", fault, probability=0.06) for fault in faults]
    bodies = {f"{s3_root}/{number:02d}": b"%d" % number * 1000 for number in range(MANY)}
    etags = {uri: StorePath(uri, hasty).put(body, if_absent=True) for uri, body in bodies.items()}
    assert [info.uri for info in StorePath(s3_root, hasty).list()] == list(bodies)
    assert {uri: StorePath(uri, hasty).read(etag) for uri, etag in etags.items()} == bodies
    assert all(rule.num_fired for rule in rules)


def test_a_store_that_asks_to_be_left_alone_is_left_alone_for_so_long(
    s3_root: str, proxy: FaultProxy, faulty: StoreConfig
) -> None:
    proxy.add("^GET ", Refuse(503, "SlowDown", retry_after_s=1), times=1)
    started = time.monotonic()
    assert list(StorePath(s3_root, faulty).list()) == []
    assert time.monotonic() - started >= 1


# What does not pass.


@pytest.mark.parametrize("fault", [Refuse(503, "SlowDown"), Hang(), Cut(0.9), Slow(bytes_per_s=100)], ids=str)
def test_a_fault_that_lasts_ends_at_the_deadline_and_is_told(
    s3_root: str, proxy: FaultProxy, faulty: StoreConfig, sound: StoreConfig, fault: Fault
) -> None:
    uri = f"{s3_root}/a"
    etag = StorePath(uri, sound).put(BODY)
    hasty = replace(faulty, deadline_s=0.5, timeout_s=0.2)
    proxy.add("^GET ", fault)
    for request in (lambda: StorePath(uri, hasty).read(etag), lambda: list(StorePath(s3_root, hasty).list())):
        started = time.monotonic()
        with pytest.raises(TransientError, match=r"gave up after \d+ attempts"):
            request()
        assert 0.5 <= time.monotonic() - started < BUSY_S


def test_a_read_back_has_no_patience_of_its_own(s3_root: str, proxy: FaultProxy, faulty: StoreConfig) -> None:
    proxy.add("^PUT ", Lose(), times=1)
    proxy.add("^HEAD ", Refuse(503, "SlowDown"))
    with pytest.raises(TransientError, match="503"):
        StorePath(f"{s3_root}/a", replace(faulty, deadline_s=1)).put(b"body", if_absent=True)
    # Every attempt begins with the write, and looks once.
    assert num_asked(proxy, "PUT", s3_root) == num_asked(proxy, "HEAD", s3_root) + 1 > 1


def test_a_permission_that_is_lost_is_told_at_once(
    s3_root: str, proxy: FaultProxy, faulty: StoreConfig, sound: StoreConfig
) -> None:
    uri = f"{s3_root}/a"
    StorePath(uri, sound).put(BODY)
    proxy.add("", Refuse(403, "AccessDenied"))
    for request, permission in (
        (lambda: StorePath(uri, faulty).read(), "GetObject, or s3:ListBucket if there is no such object"),
        (lambda: StorePath(uri, faulty).head(), "GetObject, or s3:ListBucket if there is no such object"),
        (lambda: StorePath(uri, faulty).read_range(0, 5), "GetObject, or s3:ListBucket if there is no such object"),
        (lambda: list(StorePath(s3_root, faulty).list()), "ListBucket"),
        (lambda: StorePath(uri, faulty).put(b"x"), "PutObject"),
        (lambda: StorePath(uri, faulty).delete(), "DeleteObject"),
    ):
        with pytest.raises(DeniedError, match=rf"403.*\(it takes s3:{permission}\)$"):
            request()
    assert num_asked(proxy, "PUT", s3_root) == 1
    assert StorePath(uri, sound).read() == BODY


def test_a_store_that_is_down_is_no_output(s3_root: str, proxy: FaultProxy, faulty: StoreConfig) -> None:
    proxy.add("", Refuse(503, "SlowDown"))
    with pytest.raises(OutputError, match=r"does not answer: .* 503 SlowDown"):
        preflight(StorePath(s3_root, replace(faulty, deadline_s=0.3)))


def test_no_read_is_so_large_that_its_time_does_not_suffice(
    s3_root: str, proxy: FaultProxy, faulty: StoreConfig, sound: StoreConfig
) -> None:
    body = bytes(2 * BLOCK_BYTES + 1)
    StorePath(f"{s3_root}/a", sound).put(body)
    assert StorePath(f"{s3_root}/a", faulty).read() == body
    # One that tells its size, and three blocks.
    assert num_asked(proxy, "GET", s3_root) == 4


# Bodies that break off.


@pytest.mark.parametrize("cut", [Cut(0.0), Cut(0.6), Cut(0.6, reset=True), Cut(0.6, agreed=True)], ids=str)
def test_no_part_of_a_body_is_taken_for_the_whole_of_a_range(
    s3_root: str, proxy: FaultProxy, faulty: StoreConfig, sound: StoreConfig, cut: Cut
) -> None:
    uri = f"{s3_root}/a"
    etag = StorePath(uri, sound).put(BODY)
    rule = proxy.add("^GET ", cut, times=2)
    assert StorePath(uri, faulty).read_range(100, 5000, etag) == BODY[100:5100]
    assert rule.num_fired == 2
    proxy.add("^GET ", cut, times=2)
    with StorePath(uri, faulty).open(size=len(BODY), etag=etag) as reader:
        assert reader.read() == BODY
    proxy.add("^GET ", cut)
    with pytest.raises(TransientError):
        StorePath(uri, replace(faulty, deadline_s=0.2)).read_range(100, 5000, etag)


@pytest.mark.parametrize("cut", [Cut(0.5), Cut(0.5, reset=True), Cut(0.5, agreed=True)], ids=str)
@pytest.mark.parametrize("shard_format", ["tar", "tgz", "parquet", "files"])
def test_a_shard_whose_bodies_break_off_loses_no_record(
    make_shard: Callable[..., PlannedShard],
    read_config: Callable[..., Any],
    proxy: FaultProxy,
    faulty: StoreConfig,
    shard_format: str,
    cut: Cut,
    small_blocks: None,
) -> None:
    if shard_format == "files" and cut.agreed:
        cut = Cut(0.99)  # a whole object has no other length than its headers say
    shard = make_shard(shard_format)
    # The first request, which asks for a Parquet object's tail, and some behind it.
    rules = [proxy.add("^GET ", cut, times=2), proxy.add("^GET ", cut, times=2, skip=2)]
    chunks = list(read_shard(shard, read_config(input=inputs(faulty), last_pass=True)))
    assert [rule.num_fired for rule in rules] == [2, 2]
    assert statuses(chunks) == ["ok"] * MANY
    assert chunks[-1].header.end


# Answers that are lost.


@pytest.mark.parametrize("lost", [Lose(), Hang(heard=True)], ids=str)
@pytest.mark.parametrize("condition", ["absent", "match"])
def test_a_write_whose_answers_are_lost_is_written_once_and_known(
    s3_root: str, proxy: FaultProxy, faulty: StoreConfig, sound: StoreConfig, condition: str, lost: Fault
) -> None:
    uri = f"{s3_root}/a"
    options: dict[str, Any] = {"if_absent": True}
    if condition == "match":
        options = {"if_match": StorePath(uri, sound).put(b"before")}
    rule = proxy.add("^PUT ", lost, times=2)
    etag = StorePath(uri, replace(faulty, timeout_s=0.25)).put(b"body", **options)
    assert rule.num_fired == 2
    assert StorePath(uri, sound).head() == ObjectInfo(uri, 4, etag) and StorePath(uri, sound).read() == b"body"


@pytest.mark.parametrize("condition", ["absent", "match"])
def test_a_write_that_another_overtook_does_not_take_it_for_its_own(
    s3_root: str, proxy: FaultProxy, faulty: StoreConfig, sound: StoreConfig, condition: str
) -> None:
    """Of the same length, too: it is the bytes that tell."""
    uri = f"{s3_root}/a"
    options: dict[str, Any] = {"if_absent": True}
    if condition == "match":
        options = {"if_match": StorePath(uri, sound).put(b"before")}
    # The first attempt does not reach the store, or its answer is lost and another writes over it.
    for fault in (Reset(), Lose()):
        rule = proxy.add("^PUT ", fault, times=1, meanwhile=lambda: StorePath(uri, sound).put(b"their"))
        with pytest.raises(ExistsError if condition == "absent" else ChangedError):
            StorePath(uri, faulty).put(b"ours.", **options)
        assert rule.num_fired == 1
        assert StorePath(uri, sound).read() == b"their"
        if condition == "absent":
            StorePath(uri, sound).delete()
        else:
            options = {"if_match": StorePath(uri, sound).put(b"before")}


def test_a_write_that_another_overtakes_during_the_read_back_is_overtaken(
    s3_root: str, proxy: FaultProxy, faulty: StoreConfig, sound: StoreConfig
) -> None:
    uri = f"{s3_root}/a"
    proxy.add("^PUT ", Lose(), times=1)
    # The HEAD of the read-back tells of our object; before its GET another is there.
    proxy.add("^HEAD ", Slow(bytes_per_s=1e9), times=1, meanwhile=lambda: StorePath(uri, sound).put(b"their"))
    with pytest.raises(ExistsError):
        StorePath(uri, faulty).put(b"ours.", if_absent=True)
    assert StorePath(uri, sound).read() == b"their"


# What the pipeline makes of it.


def inputs(store: StoreConfig) -> InputConfig:
    return InputConfig(uris=("/nowhere",), store=store)


def statuses(chunks: list[Chunk]) -> list[str]:
    return [row["error_code"] or row["status"] for chunk in chunks for row in chunk.rows.to_pylist()]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard of these tests takes some ten requests, and the images of a tar leave their window at once."""
    monkeypatch.setattr(block_reader, "BLOCK_BYTES", 2**14)
    monkeypatch.setattr(remote, "_BUFFER_BYTES", 2**12)
    monkeypatch.setattr("pipeline.inputs.tar._FETCH_BYTES", 2**12)
    monkeypatch.setattr("pipeline.inputs.tar_sidecars.WINDOW_MEMBERS", 1)


@pytest.fixture
def make_shard(
    s3_root: str, sound: StoreConfig, encode: Callable[..., bytes], make_tar: Callable[..., bytes]
) -> Callable[..., PlannedShard]:
    """(format) -> a planned shard of twenty images in the store."""
    images = {f"{number:02d}.png": encode(seed=number) for number in range(MANY)}

    def put_object(name: str, data: bytes) -> ObjectInfo:
        StorePath(f"{s3_root}/{name}", sound).put(data)
        info = StorePath(f"{s3_root}/{name}", sound).head()
        assert info is not None
        return info

    def make(shard_format: str) -> PlannedShard:
        plan: dict[str, Any] = {"name": "x", "num_records": None, "action": "new"}
        if shard_format == "files":
            infos = {name: put_object(name, data) for name, data in images.items()}
            members = tuple(Member(info.uri, name, info.size, info.etag, None) for name, info in infos.items())
            plan |= {"num_records": MANY, "members": members, "format": "files", "etag": None, "size": 0}
            return PlannedShard(shard="files:ab", hash16="ab", **plan)
        if shard_format == "parquet":
            table = pa.table({"jpg": pa.array(images.values(), pa.binary())})
            pq.write_table(table, body := io.BytesIO(), row_group_size=5)
            data = body.getvalue()
        else:
            data = make_tar(images)
            data = gzip.compress(data, mtime=0) if shard_format == "tgz" else data
        info = put_object(f"x.{shard_format}", data)
        plan |= {"format": "parquet" if shard_format == "parquet" else "tar", "etag": info.etag, "size": info.size}
        return PlannedShard(shard=info.uri, hash16=hash16(info.uri), **plan)

    return make


@pytest.mark.parametrize("fault", [Refuse(500, "InternalError"), Refuse(403, "AccessDenied"), Cut()], ids=str)
def test_a_tar_that_cannot_be_read_to_its_end_is_postponed_and_a_failed_row_in_the_last_pass(
    make_shard: Callable[..., PlannedShard],
    read_config: Callable[..., Any],
    proxy: FaultProxy,
    faulty: StoreConfig,
    fault: Fault,
    small_blocks: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shard = make_shard("tar")
    config = read_config(input=inputs(replace(faulty, deadline_s=0.2)))
    # The first blocks come, the others do not.
    proxy.add("^GET ", fault, skip=5)
    with caplog.at_level(logging.WARNING):
        postponed = list(read_shard(shard, config))
    proxy.clear()
    proxy.add("^GET ", fault, skip=5)
    last = list(read_shard(shard, replace(config, last_pass=True)))
    assert "shard.postponed" in caplog.text
    assert not any(chunk.header.end for chunk in postponed)
    num_ok = statuses(last).count("ok")
    assert 0 < num_ok < MANY and statuses(last) == ["ok"] * num_ok + ["source.unreadable"]
    assert last[-1].header.end


def test_a_loose_image_that_cannot_be_read_is_a_failed_row_in_the_last_pass_only(
    make_shard: Callable[..., PlannedShard],
    read_config: Callable[..., Any],
    proxy: FaultProxy,
    faulty: StoreConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shard = make_shard("files")
    config = read_config(input=inputs(replace(faulty, deadline_s=0.2)))
    proxy.add("^GET .*/13.png", Cut())
    postponed = list(read_shard(shard, config))
    assert "shard.postponed" in caplog.text and statuses(postponed) == ["ok"] * 12
    last = list(read_shard(shard, replace(config, last_pass=True)))
    assert statuses(last) == ["ok"] * 13 + ["source.unreadable"] + ["ok"] * 6


def test_a_parquet_shard_that_cannot_be_read_is_no_empty_shard(
    make_shard: Callable[..., PlannedShard],
    read_config: Callable[..., Any],
    proxy: FaultProxy,
    faulty: StoreConfig,
    small_blocks: None,
) -> None:
    shard = make_shard("parquet")
    config = read_config(input=inputs(replace(faulty, deadline_s=0.2)))
    # Its tail is what is read first.
    proxy.add("^GET ", Cut(0.9, agreed=True))
    assert list(read_shard(shard, config)) == []
    assert statuses(list(read_shard(shard, replace(config, last_pass=True)))) == ["source.unreadable"]


def collector_into(root: str, store: StoreConfig) -> Collector:
    config = SinkConfig(
        output=StorePath(root, store), schema=output_schema(CLASSIFY_COLUMNS, ()), identity="i", run_id="r",
        network=VARIANTS["b0"],
    )  # fmt: skip
    collector = Collector(config)
    collector.start_pass(1)
    return collector


def test_a_slice_whose_answer_is_lost_is_published_once_with_a_receipt(
    s3_root: str, proxy: FaultProxy, faulty: StoreConfig, sound: StoreConfig, answered_chunk: Callable[..., Chunk]
) -> None:
    collector = collector_into(s3_root, faulty)
    proxy.add("^PUT ", Lose(), times=2)
    collector.add(answered_chunk(0, 4, slice_rows=4, end=True).to_table())
    (receipt,) = collector.state().receipts
    (file,) = published_files(StorePath(s3_root, sound))
    assert (file.file, file.footer.nonce, file.etag) == (receipt.file, receipt.footer.nonce, receipt.etag)


def test_a_permission_that_is_lost_in_the_middle_stops_publication_and_harms_nothing(
    s3_root: str,
    proxy: FaultProxy,
    faulty: StoreConfig,
    sound: StoreConfig,
    answered_chunk: Callable[..., Chunk],
) -> None:
    collector = collector_into(s3_root, faulty)
    proxy.add("^PUT ", Refuse(403, "AccessDenied"), skip=1)
    slices = [answered_chunk(4 * n, 4, slice_rows=4, slice_number=n, slice_first_row=4 * n) for n in range(3)]
    for chunk in slices:
        collector.add(chunk.to_table())
    state = collector.state()
    assert state.fatal is not None and "00001.parquet: 403 AccessDenied" in state.fatal
    (file,) = published_files(StorePath(s3_root, sound))
    assert file.footer.totals.listed == 4
    # Nothing is tried after the first refusal.
    assert num_asked(proxy, "PUT", s3_root) == 2


def test_a_byte_that_is_flipped_on_its_way_down_is_not_noticed(
    s3_root: str, proxy: FaultProxy, faulty: StoreConfig, sound: StoreConfig
) -> None:
    """The limit of what is promised; TLS is what protects from it."""
    uri = f"{s3_root}/a"
    StorePath(uri, sound).put(BODY)
    proxy.add("^GET ", Flip(), times=1)
    assert sum(a != b for a, b in zip(StorePath(uri, faulty).read(), BODY, strict=True)) == 1
