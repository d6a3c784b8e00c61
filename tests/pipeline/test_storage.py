"""The store interface, on the local disk and on a real S3 server, and on stub servers where a fault is needed."""

import gzip
import hashlib
import http.server
import io
import logging
import multiprocessing
import pickle
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, OutputError
from pipeline.storage import (
    ChangedError,
    DeniedError,
    ExistsError,
    NotFoundError,
    ObjectInfo,
    StoreConfig,
    StoreError,
    TransientError,
    _s3_address,
    canonical_uri,
    delete,
    forget_clients,
    head,
    is_inside,
    is_local,
    join_uri,
    list_objects,
    name_of,
    open_reader,
    preflight,
    put,
    read,
    read_range,
    sweep_temporaries,
)
from pipeline.store_errors import from_client_error

CONFIG = StoreConfig(retry_s=1, timeout_s=10)
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


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URI below which there is nothing yet."""
    return request.getfixturevalue("s3_root") if request.param == "s3" else canonical_uri(str(tmp_path / "out"))


def uris(root: str, config: StoreConfig = CONFIG) -> list[str]:
    return [info.uri for info in list_objects(root, config)]


def noise(num_bytes: int) -> bytes:
    return hashlib.shake_128(b"noise").digest(num_bytes)


# ---- URIs


def test_local_paths_become_absolute_and_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path.resolve()
    (real / "there").mkdir()
    (real / "link").symlink_to("there")
    monkeypatch.chdir(real)
    monkeypatch.setenv("HOME", str(real))
    assert canonical_uri("link/not yet/#1%20?") == f"file://{real}/there/not yet/#1%20?"
    assert canonical_uri("~/there/") == canonical_uri(f"file://{real}/link") == f"file://{real}/there"
    assert canonical_uri(f"FILE://{real}/a//b/../c") == f"file://{real}/a/c"
    assert canonical_uri("/") == "file:///"


def test_object_uris_keep_their_keys() -> None:
    assert canonical_uri("s3://bucket/a%20b//c d/?#/") == "s3://bucket/a%20b//c d/?#"
    assert canonical_uri("S3://bucket/") == canonical_uri("s3://bucket") == "s3://bucket"
    assert canonical_uri("s3://bucket//a") == "s3://bucket/a"
    assert canonical_uri("gs://bucket/a") == "gs://bucket/a"
    assert canonical_uri("az://container/a/./b") == "az://container/a/./b"


@pytest.mark.parametrize("text", ["s3://bucket/a//b", "/a b/%41", "gs://bucket", "/"])
def test_a_canonical_uri_is_its_own(text: str) -> None:
    assert canonical_uri(canonical_uri(text)) == canonical_uri(text)


@pytest.mark.parametrize(
    "text",
    ["", "ftp://host/a", "s3a://bucket/a", "s3://", "s3:///a", "file://host/a", "a\0b", "a\udcff", "~no-such-user/a"],
)
def test_what_is_no_uri_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        canonical_uri(text)


def test_a_password_in_a_uri_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match="begin with the name of a bucket") as caught:
        canonical_uri("s3://key:secretsecret@bucket/a")
    assert "secretsecret" not in str(caught.value)


def test_uris_are_taken_apart_and_joined() -> None:
    assert join_uri("s3://b", "c/", "d") == "s3://b/c/d"
    assert join_uri("file:///", "d") == "file:///d"
    assert name_of("s3://b/c/d.tar") == "d.tar"
    assert name_of("s3://b") == "b"
    assert is_local("file:///a") and not is_local("s3://b")
    assert (
        is_inside("s3://b/c/d", "s3://b/c") and is_inside("s3://b/c", "s3://b/c") and is_inside("file:///a", "file:///")
    )
    assert not is_inside("s3://b/cd", "s3://b/c") and not is_inside("s3://b", "s3://b/c")


def test_the_config_travels_and_refuses_what_is_no_endpoint() -> None:
    config = StoreConfig(profile="p", endpoint_url="http://localhost:1")
    assert pickle.loads(pickle.dumps(config)) == config
    for url in ("localhost:9000", "http://", "ftp://host", "https://key:secret@host"):
        with pytest.raises(ConfigError, match="https://host:port"):
            StoreConfig(endpoint_url=url)


# ---- List, read, put, delete


def test_a_listing_is_recursive_and_sorted_by_code_point(root: str) -> None:
    names = ["a/x", "a-b", "a.b", "a/x/y" if not is_local(root) else "a/xx/y", "b", "Z", "a/é", "a/e\u0301"]
    for name in names:
        put(join_uri(root, "in", name), name.encode(), CONFIG)
    put(join_uri(root, "inside"), b"a neighbour", CONFIG)
    found = list(list_objects(join_uri(root, "in"), CONFIG))
    assert [info.uri for info in found] == sorted(join_uri(root, "in", name) for name in names)
    assert all(info == head(info.uri, CONFIG) for info in found)
    assert [info.size for info in found] == [len(info.uri.encode()) - len(root.encode()) - 4 for info in found]


def test_a_listing_of_one_object_is_that_object(root: str) -> None:
    uri = join_uri(root, "one.tar")
    etag = put(uri, b"body", CONFIG)
    assert list(list_objects(uri, CONFIG)) == [ObjectInfo(uri, 4, etag)]


def test_where_nothing_is_nothing_is_listed(root: str) -> None:
    assert uris(join_uri(root, "nothing")) == []
    assert head(join_uri(root, "nothing"), CONFIG) is None


def test_odd_names_go_round(root: str) -> None:
    for name in ODD_NAMES:
        put(join_uri(root, name), name.encode(), CONFIG, if_absent=True)
    assert uris(root) == sorted(join_uri(root, name) for name in ODD_NAMES)
    assert uris(join_uri(root, "d#?%20 +")) == [join_uri(root, "d#?%20 +/x")]
    for name in ODD_NAMES:
        uri = join_uri(root, name)
        assert canonical_uri(uri) == uri
        assert read(uri, CONFIG) == name.encode()
        assert uris(uri) == [uri]


def test_reads_are_of_one_version(root: str) -> None:
    uri = join_uri(root, "object")
    old = put(uri, b"old body", CONFIG)
    assert read(uri, CONFIG) == read(uri, CONFIG, old) == b"old body"
    assert read_range(uri, CONFIG, 4, 4, old) == b"body"
    assert read_range(uri, CONFIG, 0, 0, old) == b""
    new = put(uri, b"new", CONFIG)
    assert read(uri, CONFIG, new) == b"new"
    for stale in (
        lambda: read(uri, CONFIG, old),
        lambda: read_range(uri, CONFIG, 0, 1, old),
        lambda: open_reader(uri, CONFIG, size=8, etag=old).read(),
    ):
        with pytest.raises(ChangedError):
            stale()


def test_what_is_gone_is_not_found_with_or_without_an_etag(root: str) -> None:
    uri = join_uri(root, "object")
    etag = put(uri, b"body", CONFIG)
    delete(uri, CONFIG)
    delete(uri, CONFIG)
    for gone in (
        lambda: read(uri, CONFIG),
        lambda: read(uri, CONFIG, etag),
        lambda: read_range(uri, CONFIG, 0, 1, etag),
        lambda: open_reader(uri, CONFIG, size=4, etag=etag).read(),
    ):
        with pytest.raises(NotFoundError, match="not found"):
            gone()


def test_a_range_past_the_end_is_an_error(root: str) -> None:
    uri = join_uri(root, "object")
    put(uri, b"body", CONFIG)
    with pytest.raises(StoreError, match="ends before byte 5"):
        read_range(uri, CONFIG, 2, 3)


def test_create_only_creates_once(root: str) -> None:
    uri = join_uri(root, "data", "object")
    etag = put(uri, b"first", CONFIG, if_absent=True)
    with pytest.raises(ExistsError):
        put(uri, b"second", CONFIG, if_absent=True)
    assert read(uri, CONFIG, etag) == b"first"


def test_a_rewrite_needs_the_current_etag(root: str) -> None:
    uri = join_uri(root, "object")
    with pytest.raises(ChangedError):
        put(uri, b"nothing to rewrite", CONFIG, if_match='"0"')
    first = put(uri, b"first", CONFIG)
    second = put(uri, b"second", CONFIG, if_match=first)
    with pytest.raises(ChangedError):
        put(uri, b"third", CONFIG, if_match=first)
    assert read(uri, CONFIG, second) == b"second"


@pytest.mark.parametrize("condition", ["absent", "match"])
def test_a_race_has_one_winner(root: str, condition: str) -> None:
    uri = join_uri(root, "object")
    options: dict[str, Any] = {"if_absent": True}
    if condition == "match":
        options = {"if_match": put(uri, b"before", CONFIG)}
    barrier = threading.Barrier(12)

    def write(number: int) -> str | None:
        barrier.wait()
        with suppress(ExistsError, ChangedError):
            return put(uri, b"writer %d" % number, CONFIG, **options)
        return None

    with ThreadPoolExecutor(12) as pool:
        etags = list(pool.map(write, range(12)))
    (winner,) = [number for number, etag in enumerate(etags) if etag]
    assert read(uri, CONFIG, etags[winner]) == b"writer %d" % winner


def test_a_large_object_is_put_by_one_request_and_read_in_blocks(root: str) -> None:
    body = noise(21 * MIB + 7)
    uri = join_uri(root, "large")
    etag = put(uri, body, CONFIG, if_absent=True)
    if not is_local(root):
        # A multipart upload's ETag ends with the number of its parts.
        assert etag == f'"{hashlib.md5(body).hexdigest()}"'
    with open_reader(uri, CONFIG, size=len(body), etag=etag) as reader:
        assert reader.read() == body
        for position in (20 * MIB, 3, 8 * MIB - 2, len(body) - 1):
            reader.seek(position)
            assert reader.read(5) == body[position : position + 5]
        assert reader.seek(-3, io.SEEK_END) == len(body) - 3
        assert reader.read() == body[-3:] and reader.read(1) == b""
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
    with open_reader(uri, CONFIG, size=len(body), etag=etag, read_ahead=False) as reader:
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
        put(join_uri(root, name), body.getvalue(), CONFIG)
    info = head(join_uri(root, "a.tar"), CONFIG)
    assert info is not None
    for mode in ("r|*", "r:*"):
        with (
            open_reader(info.uri, CONFIG, size=info.size, etag=info.etag) as file,
            tarfile.open(fileobj=file, mode=mode) as tar,
        ):
            assert [len(tar.extractfile(member).read()) for member in tar] == [3 * MIB] * 4
    info = head(join_uri(root, "a.parquet"), CONFIG)
    assert info is not None
    with open_reader(info.uri, CONFIG, size=info.size, etag=info.etag, read_ahead=False) as file:
        assert pq.read_table(pa.PythonFile(file, mode="r")).equals(table)


def test_a_preflight_leaves_nothing_behind(root: str) -> None:
    preflight(root, CONFIG)
    preflight(root, CONFIG)
    assert uris(root) == []


# ---- Keys that only an object store has


def test_folder_placeholders_are_no_objects(s3_env: Any, s3_root: str) -> None:
    bucket, _, prefix = s3_root.removeprefix("s3://").partition("/")
    with closing(s3_env.client()) as client:
        for key in ("", "train/", "train/cat/", "train/cat/1.jpg", "train/empty.jpg"):
            client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=b"x" if key.endswith("1.jpg") else b"")
    assert uris(s3_root) == [f"{s3_root}/train/cat/1.jpg", f"{s3_root}/train/empty.jpg"]


def test_one_key_with_a_control_character_does_not_hide_the_others(
    s3_env: Any, s3_root: str, caplog: pytest.LogCaptureFixture
) -> None:
    bucket, _, prefix = s3_root.removeprefix("s3://").partition("/")
    with closing(s3_env.client()) as client:
        for key in ("a.jpg", "new\nline.jpg", "b/c.jpg", "b/"):
            client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=b"" if key == "b/" else b"x")
    skipped: list[str] = []
    with caplog.at_level(logging.WARNING):
        found = list(list_objects(s3_root, CONFIG, on_skipped=skipped.append))
    assert [info.uri for info in found] == [f"{s3_root}/a.jpg", f"{s3_root}/b/c.jpg"]
    assert found[0] == head(found[0].uri, CONFIG)
    assert skipped == [f"{prefix}/new\nline.jpg"]
    assert "names=1" in caplog.text
    for uri in (f"{s3_root}/new\nline.jpg", f"{s3_root}/a//b", f"{s3_root}/../a"):
        with pytest.raises(StoreError, match="cannot be addressed"):
            read(uri, CONFIG)


# ---- Credentials and endpoints


def test_wrong_credentials_are_denied_and_not_repeated(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(join_uri(s3_root, "a"), b"x", CONFIG)
    for name, value in (("AWS_SECRET_ACCESS_KEY", "wrongsecretvalue"), ("AWS_ACCESS_KEY_ID", "AKIAWRONGKEYVALUE")):
        monkeypatch.setenv(name, value)
        forget_clients()
        for request in (
            lambda: uris(s3_root),
            lambda: read(join_uri(s3_root, "a"), CONFIG),
            lambda: put(join_uri(s3_root, "b"), b"x", CONFIG),
            lambda: delete(join_uri(s3_root, "a"), CONFIG),
        ):
            with pytest.raises(DeniedError, match="403") as caught:
                request()
            text = "".join([str(caught.value), repr(caught.value.__cause__)])
            assert "wrongsecretvalue" not in text and "AKIAWRONG" not in text and len(text) < 400
        with pytest.raises(OutputError, match="check the credentials"):
            preflight(s3_root, CONFIG)


def test_messages_hold_no_signatures() -> None:
    url = "https://host/b/k?X-Amz-Credential=AKIAXXXXXXXXXXXXXXXX%2F20260101&X-Amz-Signature=0123abcd&x=1"
    headers = (
        "Authorization: AWS4-HMAC-SHA256 Credential=AKIAXXXXXXXXXXXXXXXX/us, SignedHeaders=host, Signature=0123abcd"
    )
    body = (
        "<Error><Code>SignatureDoesNotMatch</Code><Message>No match for AKIAXXXXXXXXXXXXXXXX</Message>"
        "<AWSAccessKeyId>AKIAXXXXXXXXXXXXXXXX</AWSAccessKeyId><SignatureProvided>0123abcd</SignatureProvided></Error>"
    )
    for text in (
        f"Error performing GET {url} in 1ms - Server returned non-2xx status code: 403 Forbidden: {body}",
        f"Unknown: {url}",
        f"Unknown: {headers}",
        "Unknown: aws_session_token = 0123abcd, aws_secret_access_key=0123abcd",
        'Unknown: {"x-amz-security-token": "0123abcd"}',
        "Unknown: http://user:0123abcd@host/b",
    ):
        message = str(from_client_error("s3://b/k", OSError(text)))
        assert "AKIA" not in message and "0123abcd" not in message
        assert message.startswith("s3://b/k: ") and "\n" not in message and len(message) < 300


def test_who_may_only_read_cannot_have_an_output(s3_env: Any, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(join_uri(s3_root, "a"), b"x", CONFIG)
    for name, value in s3_env.reader_env.items():
        monkeypatch.setenv(name, value)
    forget_clients()
    assert uris(s3_root) == [f"{s3_root}/a"] and read(f"{s3_root}/a", CONFIG) == b"x"
    with pytest.raises(DeniedError):
        delete(f"{s3_root}/a", CONFIG)
    with pytest.raises(OutputError, match="may not be written"):
        preflight(s3_root, CONFIG)


def test_missing_credentials_are_told_at_once(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    forget_clients()
    started = time.monotonic()
    with pytest.raises(DeniedError, match="no AWS credentials found"):
        uris(s3_root)
    assert time.monotonic() - started < 2


def test_public_buckets_are_read_without_credentials(s3_env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"s3://{s3_env.public_bucket}/a b/c"
    put(uri, b"body", CONFIG)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    forget_clients()
    anonymous = StoreConfig(anonymous=True, retry_s=1)
    assert uris(f"s3://{s3_env.public_bucket}/a b", anonymous) == [uri]
    assert read(uri, anonymous) == b"body"
    with pytest.raises(DeniedError):
        put(uri, b"other", anonymous)


def test_a_profile_gives_credentials_and_endpoint(
    s3_env: Any, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{s3_root}/a", b"x", CONFIG)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text(
        f"[profile lab]\naws_access_key_id = {s3_env.access_key}\naws_secret_access_key = {s3_env.secret_key}\n"
        f"region = eu-north-1\nservices = lab\n[services lab]\ns3 =\n  endpoint_url = {s3_env.endpoint_url}\n"
    )
    forget_clients()
    assert read(f"{s3_root}/a", StoreConfig(profile="lab", retry_s=1)) == b"x"
    with pytest.raises(ConfigError, match="no-such-profile"):
        read(f"{s3_root}/a", StoreConfig(profile="no-such-profile"))


def test_a_given_endpoint_wins_over_the_environment(s3_env: Any, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    forget_clients()
    assert uris(s3_root, StoreConfig(endpoint_url=s3_env.endpoint_url, retry_s=0)) == []
    with pytest.raises(TransientError, match=r"the connection to http://127\.0\.0\.1:9 failed: Connection refused"):
        uris(s3_root, StoreConfig(retry_s=0))


def test_a_wrong_endpoint_fails_in_bounded_time(s3_root: str) -> None:
    config = StoreConfig(endpoint_url="http://127.0.0.1:9", retry_s=0.5)
    for request in (lambda: uris(s3_root, config), lambda: put(f"{s3_root}/a", b"x", config, if_absent=True)):
        started = time.monotonic()
        with pytest.raises(TransientError, match="gave up after"):
            request()
        assert time.monotonic() - started < 3
    with pytest.raises(OutputError, match="check the endpoint"):
        preflight(s3_root, config)


def test_a_missing_bucket_is_named(s3_env: Any) -> None:
    for request in (
        lambda: uris("s3://no-such-bucket/a"),
        lambda: read("s3://no-such-bucket/a", CONFIG),
        lambda: put("s3://no-such-bucket/a", b"x", CONFIG, if_absent=True),
    ):
        with pytest.raises(NotFoundError, match="the bucket does not exist"):
            request()
    with pytest.raises(OutputError, match="create the bucket"):
        preflight("s3://no-such-bucket/a", CONFIG)


def test_only_aws_itself_has_buckets_in_host_names() -> None:
    def address(bucket: str, endpoint: str) -> tuple[str, bool]:
        options = _s3_address(bucket, endpoint, "eu-west-1")
        return options["endpoint"], options["virtual_hosted_style_request"]

    assert address("b", "https://s3.amazonaws.com") == ("https://b.s3.eu-west-1.amazonaws.com", True)
    assert address("b", "https://s3.eu-west-1.amazonaws.com") == ("https://b.s3.eu-west-1.amazonaws.com", True)
    assert address("b.c", "https://s3.eu-west-1.amazonaws.com") == ("https://s3.eu-west-1.amazonaws.com", False)
    assert address("b", "http://minio:9000/") == ("http://minio:9000", False)


def test_a_forked_process_is_told_instead_of_waiting_for_ever(s3_root: str) -> None:
    put(f"{s3_root}/a", b"x", CONFIG)
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        with suppress(StoreError):
            read(f"{s3_root}/a", CONFIG)
            return
        sender.send("told")

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert receiver.poll(10) and receiver.recv() == "told"
    process.join(10)


# ---- Faults, by stub servers


class Exchange(http.server.BaseHTTPRequestHandler):
    """One request; the test's function answers it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(self.command)  # type: ignore[attr-defined]
        self.server.respond(self)  # type: ignore[attr-defined]

    do_GET = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815

    def reply(
        self, status: int, body: bytes = b"", *, etag: str = '"1"', claimed: int | None = None, **headers: str
    ) -> None:
        """Answers; a body shorter than its `claimed` length is followed by the end of the connection."""
        self.send_response(status)
        sent = {"ETag": etag, "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"} | headers
        for name, value in sent.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if claimed is None else claimed))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = claimed is not None

    def error(self, status: int, code: str, message: str = "told so") -> None:
        self.reply(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode())


@contextmanager
def stub_store(respond: Callable[[Exchange], None], **options: Any) -> Iterator[tuple[StoreConfig, list[str]]]:
    """A config for a server whose every answer `respond` gives, and the methods that it was asked."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exchange)
    server.daemon_threads = True
    server.respond, server.requests = respond, []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        options = {"retry_s": 1.0, "timeout_s": 5.0} | options
        config = StoreConfig(endpoint_url=f"http://127.0.0.1:{server.server_port}", anonymous=True, **options)
        yield config, server.requests  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def in_turn(*answers: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    """Gives each answer once, then the last for ever."""
    waiting = list(answers)
    return lambda exchange: (waiting.pop(0) if len(waiting) > 1 else waiting[0])(exchange)


def test_a_body_that_breaks_off_is_never_taken_for_whole() -> None:
    def short(exchange: Exchange) -> None:
        exchange.reply(200, b"abc", claimed=10)

    def whole(exchange: Exchange) -> None:
        exchange.reply(200, b"0123456789")

    with stub_store(in_turn(short, whole)) as (config, requests):
        assert read("s3://bucket/a", config) == b"0123456789"
        assert requests == ["GET", "GET"]
    with stub_store(short, retry_s=0.3) as (config, _), pytest.raises(TransientError, match="IncompleteBody"):
        read("s3://bucket/a", config)


def test_a_range_that_comes_back_short_is_never_taken_for_whole() -> None:
    def broken(exchange: Exchange) -> None:
        exchange.reply(206, b"01", claimed=5, Content_Range="bytes 0-4/5")

    def lying(exchange: Exchange) -> None:
        exchange.reply(206, b"01", Content_Range="bytes 0-4/5")

    def whole(exchange: Exchange) -> None:
        exchange.reply(206, b"01234", Content_Range="bytes 0-4/5")

    for short in (broken, lying):
        with stub_store(in_turn(short, whole)) as (config, _):
            assert open_reader("s3://bucket/a", config, size=5, etag='"1"').read() == b"01234"
        with stub_store(short, retry_s=0.3) as (config, _), pytest.raises(TransientError):
            read_range("s3://bucket/a", config, 0, 5)


def test_transient_answers_are_retried_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    busy = in_turn(
        lambda exchange: exchange.error(503, "SlowDown"),
        lambda exchange: exchange.error(400, "RequestTimeout"),
        lambda exchange: exchange.reply(200, b"body"),
    )
    with stub_store(busy, retry_s=5) as (config, requests), caplog.at_level(logging.INFO):
        assert read("s3://bucket/a", config) == b"body"
    assert requests == ["GET"] * 3
    assert "store.retried attempt=2" in caplog.text and "503 SlowDown: told so" in caplog.text


def test_an_answer_that_does_not_come_is_transient() -> None:
    waiting = threading.Event()

    def never(exchange: Exchange) -> None:
        waiting.wait(5)
        exchange.close_connection = True

    with stub_store(never, retry_s=0, timeout_s=0.3) as (config, _):
        with pytest.raises(TransientError, match="TimedOut"):
            read("s3://bucket/a", config)
        waiting.set()


def test_permanent_answers_are_not_retried() -> None:
    for status, code, kind in (
        (403, "AccessDenied", DeniedError),
        (400, "InvalidArgument", StoreError),
        (501, "NotImplemented", StoreError),
    ):
        with stub_store(lambda exchange, status=status, code=code: exchange.error(status, code)) as (config, requests):
            with pytest.raises(kind, match=f"{status} {code}: told so") as caught:
                put("s3://bucket/a", b"x", config, if_absent=True)
            assert type(caught.value) is kind and requests == ["PUT"]
    redirected = stub_store(lambda exchange: exchange.error(301, "PermanentRedirect"))
    with redirected as (config, _), pytest.raises(StoreError, match="set AWS_REGION"):
        read("s3://bucket/a", config)


class Keeper:
    """A store of one object in memory, with conditions that can be switched off, and answers that can be lost."""

    def __init__(self, *, ignored: tuple[str, ...] = (), lost: int = 0):
        self.body: bytes | None = None
        self.ignored, self.lost = ignored, lost

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.body or b"").hexdigest()}"'

    def __call__(self, exchange: Exchange) -> None:
        asked = {name: exchange.headers.get(name) for name in ("If-Match", "If-None-Match") if name not in self.ignored}
        if exchange.command == "GET" and "reads" in self.ignored:
            asked = {}
        wanted, refused = asked.get("If-Match"), asked.get("If-None-Match")
        if (refused and self.body is not None) or (wanted and wanted != self.etag):
            exchange.error(412, "PreconditionFailed")
        elif exchange.command == "PUT":
            self.body = exchange.body
            self.lost -= 1
            if self.lost < 0:
                exchange.reply(200, etag=self.etag)
            exchange.close_connection = True
        elif exchange.command == "DELETE":
            self.body = None
            exchange.reply(204)
        elif self.body is None:
            exchange.error(404, "NoSuchKey")
        else:
            exchange.reply(200, self.body, etag=self.etag)


def test_a_conditional_write_whose_answer_was_lost_knows_itself_again() -> None:
    with stub_store(keeper := Keeper(lost=1)) as (config, _):
        assert put("s3://bucket/a", b"body", config, if_absent=True) == keeper.etag
        before, keeper.lost = keeper.etag, 1
        assert put("s3://bucket/a", b"newer", config, if_match=before) == keeper.etag
        with pytest.raises(ExistsError):
            put("s3://bucket/a", b"newer", config, if_absent=True)


def test_a_conflict_of_two_conditional_writes_is_asked_again() -> None:
    with stub_store(
        in_turn(lambda exchange: exchange.error(409, "ConditionalRequestConflict"), keeper := Keeper())
    ) as (config, requests):
        assert put("s3://bucket/a", b"body", config, if_absent=True) == keeper.etag
        assert requests == ["PUT", "PUT"]


@pytest.mark.parametrize(
    ("ignored", "reason"),
    [
        (("If-None-Match",), "ignores If-None-Match, so that two writers"),
        (("If-Match",), "ignores If-Match, so that a rewrite"),
        (("reads",), "ignores If-Match of reads"),
    ],
)
def test_a_store_that_ignores_conditions_is_refused_as_output(ignored: tuple[str, ...], reason: str) -> None:
    with stub_store(keeper := Keeper(ignored=ignored)) as (config, _):
        with pytest.raises(OutputError, match=reason):
            preflight("s3://bucket/out", config)
        assert keeper.body is None


def test_a_store_error_passes_through_the_readers_above() -> None:
    body = gzip.compress(noise(9 * MIB), compresslevel=0)

    def respond(exchange: Exchange) -> None:
        first = int(exchange.headers["Range"].removeprefix("bytes=").partition("-")[0])
        if first > 0:
            exchange.error(503, "SlowDown")
        else:
            exchange.reply(206, body[: 8 * MIB], Content_Range=f"bytes 0-{8 * MIB - 1}/{len(body)}")

    with stub_store(respond, retry_s=0.1) as (config, _):

        def reader() -> Any:
            return closing(open_reader("s3://bucket/a", config, size=len(body), etag='"1"'))

        with reader() as file, pytest.raises(TransientError), gzip.open(file) as unpacked:
            unpacked.read()
        with reader() as file, pytest.raises(TransientError):
            pq.read_metadata(pa.PythonFile(file, mode="r"))
        with reader() as file:
            file.seek(8 * MIB)
            with pytest.raises(TransientError), tarfile.open(fileobj=file, mode="r:*"):
                pass


def test_sweeping_a_bucket_does_nothing() -> None:
    assert sweep_temporaries("s3://bucket/out") == 0
