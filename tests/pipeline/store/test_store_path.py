"""`StorePath` on the local disk and on a real S3 server, and on stub servers where a fault is needed."""

import gzip
import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.store.config import StoreConfig
from pipeline.store.errors import ChangedError, ExistsError, NotFoundError, StoreError, TransientError
from pipeline.store.object_info import ObjectInfo
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri, is_local, join_uri

CONFIG = StoreConfig(deadline_s=1, timeout_s=10)
MIB = 2**20
ODD_NAMES = (
    "a b",
    "#1",
    "what?",
    "100%25",
    "1+1=2",
    "ü/日本",
    "é",
    ".hidden/.x",
    "..x",
    "~",
    "d#?%20 +/x",
    "[*]",
    "a'\"&<>;:,@$!|^`{}",
)


def uris(root: str, config: StoreConfig = CONFIG) -> list[str]:
    return [info.uri for info in StorePath(root, config).list()]


def noise(num_bytes: int) -> bytes:
    return hashlib.shake_128(b"noise").digest(num_bytes)


def test_the_config_travels_and_refuses_what_is_no_endpoint() -> None:
    config = StoreConfig(profile="p", endpoint_url="http://localhost:1")
    assert pickle.loads(pickle.dumps(config)) == config
    for url in ("localhost:9000", "http://", "ftp://host", "https://key:secret@host"):
        with pytest.raises(ConfigError, match="https://host:port"):
            StoreConfig(endpoint_url=url)


def test_a_path_travels_and_leads_to_the_names_below_it() -> None:
    path = StorePath("s3://bucket/out", CONFIG)
    assert pickle.loads(pickle.dumps(path)) == path
    assert path.join("data", "a.parquet") == StorePath("s3://bucket/out/data/a.parquet", CONFIG)
    assert path.at("s3://bucket/in") == StorePath("s3://bucket/in", CONFIG)
    assert path.bounded(deadline_s=0, timeout_s=60).config == StoreConfig(deadline_s=0, timeout_s=CONFIG.timeout_s)
    assert (path.name, path.shown, str(path), path.local_path) == ("out", path.uri, path.uri, None)
    local = StorePath("file:///a/b")
    assert (local.name, local.shown, str(local), local.local_path) == ("b", "/a/b", "file:///a/b", Path("/a/b"))


def test_a_listing_is_recursive_and_sorted_by_code_point(root: str) -> None:
    names = ["a/x", "a-b", "a.b", "a/x/y" if not is_local(root) else "a/xx/y", "b", "Z", "a/é", "a/e\u0301"]
    for name in names:
        StorePath(root, CONFIG).join("in", name).put(name.encode())
    StorePath(root, CONFIG).join("inside").put(b"a neighbour")
    found = list(StorePath(root, CONFIG).join("in").list())
    assert [info.uri for info in found] == sorted(join_uri(root, "in", name) for name in names)
    assert all(info == StorePath(info.uri, CONFIG).head() for info in found)
    assert [info.size for info in found] == [len(info.uri.encode()) - len(root.encode()) - 4 for info in found]


def test_a_listing_of_one_object_is_that_object(root: str) -> None:
    path = StorePath(root, CONFIG).join("one.tar")
    etag = path.put(b"body")
    assert list(path.list()) == [ObjectInfo(path.uri, 4, etag)]


def test_where_nothing_is_nothing_is_listed(root: str) -> None:
    assert uris(join_uri(root, "nothing")) == []
    assert StorePath(root, CONFIG).join("nothing").head() is None


def test_odd_names_go_round(root: str) -> None:
    for name in ODD_NAMES:
        StorePath(root, CONFIG).join(name).put(name.encode(), if_absent=True)
    assert uris(root) == sorted(join_uri(root, name) for name in ODD_NAMES)
    assert uris(join_uri(root, "d#?%20 +")) == [join_uri(root, "d#?%20 +/x")]
    for name in ODD_NAMES:
        path = StorePath(root, CONFIG).join(name)
        assert canonical_uri(path.uri) == path.uri
        assert path.read() == name.encode()
        assert uris(path.uri) == [path.uri]


def test_reads_are_of_one_version(root: str) -> None:
    path = StorePath(root, CONFIG).join("object")
    old = path.put(b"old body")
    assert path.read() == path.read(old) == b"old body"
    assert path.read_range(4, 4, old) == b"body"
    assert path.read_range(0, 0, old) == b""
    new = path.put(b"new")
    assert path.read(new) == b"new"
    for stale in (
        lambda: path.read(old),
        lambda: path.read_range(0, 1, old),
        lambda: path.open(size=8, etag=old).read(),
    ):
        with pytest.raises(ChangedError):
            stale()


def test_what_is_gone_is_not_found_with_or_without_an_etag(root: str) -> None:
    path = StorePath(root, CONFIG).join("object")
    etag = path.put(b"body")
    path.delete()
    path.delete()
    for gone in (
        lambda: path.read(),
        lambda: path.read(etag),
        lambda: path.read_range(0, 1, etag),
        lambda: path.open(size=4, etag=etag).read(),
    ):
        with pytest.raises(NotFoundError, match="not found"):
            gone()


def test_a_range_past_the_end_is_an_error(root: str) -> None:
    path = StorePath(root, CONFIG).join("object")
    path.put(b"body")
    with pytest.raises(StoreError, match="ends before byte 5"):
        path.read_range(2, 3)


def test_create_only_creates_once(root: str) -> None:
    path = StorePath(root, CONFIG).join("data", "object")
    etag = path.put(b"first", if_absent=True)
    with pytest.raises(ExistsError):
        path.put(b"second", if_absent=True)
    assert path.read(etag) == b"first"


def test_a_rewrite_needs_the_current_etag(root: str) -> None:
    path = StorePath(root, CONFIG).join("object")
    with pytest.raises(ChangedError):
        path.put(b"nothing to rewrite", if_match='"0"')
    first = path.put(b"first")
    second = path.put(b"second", if_match=first)
    with pytest.raises(ChangedError):
        path.put(b"third", if_match=first)
    assert path.read(second) == b"second"


@pytest.mark.parametrize("condition", ["absent", "match"])
def test_a_race_has_one_winner(root: str, condition: str) -> None:
    path = StorePath(root, CONFIG).join("object")
    options: dict[str, Any] = {"if_absent": True}
    if condition == "match":
        options = {"if_match": path.put(b"before")}
    barrier = threading.Barrier(12)

    def write(number: int) -> str | None:
        barrier.wait()
        with suppress(ExistsError, ChangedError):
            return path.put(b"writer %d" % number, **options)
        return None

    with ThreadPoolExecutor(12) as pool:
        etags = list(pool.map(write, range(12)))
    (winner,) = [number for number, etag in enumerate(etags) if etag]
    assert path.read(etags[winner]) == b"writer %d" % winner


def test_a_large_object_is_put_by_one_request_and_read_in_blocks(root: str) -> None:
    body = noise(21 * MIB + 7)
    path = StorePath(root, CONFIG).join("large")
    etag = path.put(body, if_absent=True)
    if not is_local(root):
        # A multipart upload's ETag ends with the number of its parts.
        assert etag == f'"{hashlib.md5(body).hexdigest()}"'
    with path.open(size=len(body), etag=etag) as reader:
        assert reader.read() == body
        for position in (20 * MIB, 3, 8 * MIB - 2, len(body) - 1):
            reader.seek(position)
            assert reader.read(5) == body[position : position + 5]
        assert reader.seek(-3, io.SEEK_END) == len(body) - 3
        assert reader.read() == body[-3:] and reader.read(1) == b""
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
    with path.open(size=len(body), etag=etag, read_ahead=False) as reader:
        assert hashlib.md5(reader.read()).digest() == hashlib.md5(body).digest()


def test_tar_gzip_and_parquet_readers_read_through_it(root: str) -> None:
    packed, table = io.BytesIO(), pa.table({"x": list(range(1000))})
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for number in range(20):
            tar.addfile(member := tarfile.TarInfo(f"{number}.bin"), io.BytesIO(noise(3000)))
            member.size = 3000
    with tarfile.open(fileobj=(plain := io.BytesIO()), mode="w") as tar:
        for number in range(4):
            member = tarfile.TarInfo(f"{number}.bin")
            member.size = 3 * MIB
            tar.addfile(member, io.BytesIO(noise(member.size)))
    rows = io.BytesIO()
    pq.write_table(table, rows, row_group_size=100)
    for name, body in (("a.tar", plain), ("a.parquet", rows)):
        StorePath(root, CONFIG).join(name).put(body.getvalue())
    info = StorePath(root, CONFIG).join("a.tar").head()
    assert info is not None
    for mode in ("r|*", "r:*"):
        with (
            StorePath(info.uri, CONFIG).open(size=info.size, etag=info.etag) as file,
            tarfile.open(fileobj=file, mode=mode) as tar,
        ):
            assert [len(tar.extractfile(member).read()) for member in tar] == [3 * MIB] * 4
    info = StorePath(root, CONFIG).join("a.parquet").head()
    assert info is not None
    with StorePath(info.uri, CONFIG).open(size=info.size, etag=info.etag, read_ahead=False) as file:
        assert pq.read_table(pa.PythonFile(file, mode="r")).equals(table)


def test_folder_placeholders_are_no_objects(s3_env: Any, s3_root: str) -> None:
    bucket, _, prefix = s3_root.removeprefix("s3://").partition("/")
    with closing(s3_env.client()) as client:
        for key in ("", "train/", "train/cat/", "train/cat/1.jpg", "train/empty.jpg"):
            client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=b"x" if key.endswith("1.jpg") else b"")
    assert uris(s3_root) == [f"{s3_root}/train/cat/1.jpg", f"{s3_root}/train/empty.jpg"]


def test_a_body_that_breaks_off_is_never_taken_for_whole(stub_store: Callable[..., Any]) -> None:
    def short(exchange: Any) -> None:
        exchange.reply(200, b"abc", claimed=10)

    def whole(exchange: Any) -> None:
        exchange.reply(200, b"0123456789")

    with stub_store(short, whole) as (config, requests):
        assert StorePath("s3://bucket/a", config).read() == b"0123456789"
        assert requests == ["GET", "GET"]
    with stub_store(short, deadline_s=0.3) as (config, _), pytest.raises(TransientError, match="IncompleteBody"):
        StorePath("s3://bucket/a", config).read()


def test_a_range_that_comes_back_short_is_never_taken_for_whole(stub_store: Callable[..., Any]) -> None:
    def broken(exchange: Any) -> None:
        exchange.reply(206, b"01", claimed=5, Content_Range="bytes 0-4/5")

    def lying(exchange: Any) -> None:
        exchange.reply(206, b"01", Content_Range="bytes 0-4/5")

    def whole(exchange: Any) -> None:
        exchange.reply(206, b"01234", Content_Range="bytes 0-4/5")

    for short in (broken, lying):
        with stub_store(short, whole) as (config, _):
            assert StorePath("s3://bucket/a", config).open(size=5, etag='"1"').read() == b"01234"
        with stub_store(short, deadline_s=0.3) as (config, _), pytest.raises(TransientError):
            StorePath("s3://bucket/a", config).read_range(0, 5)


def test_a_conditional_write_whose_answer_was_lost_knows_itself_again(
    stub_store: Callable[..., Any], keeper: Callable[..., Any]
) -> None:
    store = keeper(lost=1)
    with stub_store(store) as (config, _):
        assert StorePath("s3://bucket/a", config).put(b"body", if_absent=True) == store.etag
        before, store.lost = store.etag, 1
        assert StorePath("s3://bucket/a", config).put(b"newer", if_match=before) == store.etag
        with pytest.raises(ExistsError):
            StorePath("s3://bucket/a", config).put(b"newer", if_absent=True)


def test_a_conflict_of_two_conditional_writes_is_asked_again(
    stub_store: Callable[..., Any], keeper: Callable[..., Any]
) -> None:
    store = keeper()
    with stub_store(lambda exchange: exchange.error(409, "ConditionalRequestConflict"), store) as (config, requests):
        assert StorePath("s3://bucket/a", config).put(b"body", if_absent=True) == store.etag
        assert requests == ["PUT", "PUT"]


def test_a_store_error_passes_through_the_readers_above(stub_store: Callable[..., Any]) -> None:
    body = gzip.compress(noise(9 * MIB), compresslevel=0)

    def respond(exchange: Any) -> None:
        first = int(exchange.headers["Range"].removeprefix("bytes=").partition("-")[0])
        if first > 0:
            exchange.error(503, "SlowDown")
        else:
            exchange.reply(206, body[: 8 * MIB], Content_Range=f"bytes 0-{8 * MIB - 1}/{len(body)}")

    with stub_store(respond, deadline_s=0.1) as (config, _):

        def reader() -> Any:
            return closing(StorePath("s3://bucket/a", config).open(size=len(body), etag='"1"'))

        with reader() as file, pytest.raises(TransientError), gzip.open(file) as unpacked:
            unpacked.read()
        with reader() as file, pytest.raises(TransientError):
            pq.read_metadata(pa.PythonFile(file, mode="r"))
        with reader() as file:
            file.seek(8 * MIB)
            with pytest.raises(TransientError), tarfile.open(fileobj=file, mode="r:*"):
                pass


def test_sweeping_a_bucket_does_nothing() -> None:
    assert StorePath("s3://bucket/out").sweep_temporaries() == 0
