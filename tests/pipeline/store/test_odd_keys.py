"""Keys with empty parts are listed and read as they are; keys that no request can name are failed records."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest

from pipeline.chunks.failures import ErrorCode
from pipeline.inputs.config import InputConfig
from pipeline.inputs.listing import Survey
from pipeline.inputs.loose_files import Member, read_files
from pipeline.inputs.names import NameFilter
from pipeline.inputs.rules import FIRST_RULES
from pipeline.store import block_reader
from pipeline.store.config import StoreConfig
from pipeline.store.errors import ChangedError, DeniedError, NotFoundError, StoreError, TransientError
from pipeline.store.odd_keys import has_empty_part
from pipeline.store.store_path import StorePath

EMPTY_PARTS = ["a//b.jpg", "//c.jpg", "/d.jpg", "a///e f+ü%.jpg", "a//b.tar#c.jpg"]
UNREADABLE = ["a/../f.jpg", "a/./g.jpg", "new\nline.jpg"]
ODD = [*EMPTY_PARTS, *UNREADABLE]
SKIPPED = ["a//", "folder/", "caf\udce9.jpg"]
PLAIN = ["a/plain.jpg", "z.jpg"]


class _Bucket:
    """The answers of a store of these keys; the body of an object is its key."""

    def __init__(self, *keys: str) -> None:
        self.objects = {key: key.encode("utf-8", "surrogateescape") for key in keys}
        self.faults: list[Callable[[Any], None]] = []

    def __call__(self, exchange: Any) -> None:
        url = urlsplit(exchange.path)
        path = unquote(exchange.path.partition("?")[0], errors="surrogateescape")
        key = path.removeprefix("/bkt").removeprefix("/")
        if "list-type" in url.query:
            prefix = next((unquote(p[7:]) for p in url.query.split("&") if p.startswith("prefix=")), "")
            exchange.reply(200, self._listing(prefix))
        elif key not in self.objects:
            exchange.error(404, "NoSuchKey") if exchange.command == "GET" else exchange.reply(404)
        elif self.faults:
            self.faults.pop(0)(exchange)
        elif exchange.headers.get("If-Match", '"1"') != '"1"':
            exchange.error(412, "PreconditionFailed")
        else:
            self._send(exchange, self.objects[key])

    def _send(self, exchange: Any, body: bytes) -> None:
        wanted = exchange.headers.get("Range")
        if wanted is None:
            exchange.reply(200, body)
            return
        start, _, last = wanted.removeprefix("bytes=").partition("-")
        part = body[int(start) : int(last) + 1]
        size = len(body)
        if part:
            exchange.reply(206, part, Content_Range=f"bytes {start}-{int(start) + len(part) - 1}/{size}")
        else:
            exchange.error(416, "InvalidRange")

    def _listing(self, prefix: str) -> bytes:
        names = sorted(key for key in self.objects if key.startswith(prefix))
        contents = "".join(
            f"<Contents><Key>{quote(name, errors='surrogateescape')}</Key><Size>{len(self.objects[name])}</Size>"
            "<ETag>&quot;1&quot;</ETag><LastModified>2015-10-21T07:28:00Z</LastModified></Contents>"
            for name in names
        )
        return f"<ListBucketResult><EncodingType>url</EncodingType>{contents}</ListBucketResult>".encode()


@pytest.fixture
def bucket() -> _Bucket:
    """A store of keys of every kind."""
    return _Bucket(*ODD, *SKIPPED, *PLAIN)


@pytest.fixture
def config(stub_store: Callable[..., Any], bucket: _Bucket) -> Iterator[StoreConfig]:
    """The account of the store."""
    with stub_store(bucket) as (config, _):
        yield config


@pytest.mark.parametrize("key", EMPTY_PARTS)
def test_an_object_whose_key_has_an_empty_part_is_read(config: StoreConfig, key: str) -> None:
    path, body = StorePath(f"s3://bkt/{key}", config), key.encode()
    info = path.head()
    assert info is not None and (info.size, info.etag, info.modified_s) == (len(body), '"1"', 1445412480.0)
    assert path.read() == path.read('"1"') == body
    assert path.read_range(2, 3, '"1"') == body[2:5]
    with path.open(size=len(body), etag='"1"') as file:
        assert (file.read(2), file.seek(0), file.read()) == (body[:2], 0, body)


def test_a_large_object_is_read_in_blocks(config: StoreConfig, bucket: _Bucket, monkeypatch: Any) -> None:
    monkeypatch.setattr(block_reader, "BLOCK_BYTES", 1000)
    bucket.objects["x//y"] = bytes(range(256)) * 20
    assert StorePath("s3://bkt/x//y", config).read() == bytes(range(256)) * 20
    bucket.objects["x//empty"] = b""
    assert StorePath("s3://bkt/x//empty", config).read() == b""


def test_errors_are_those_of_every_object(config: StoreConfig, bucket: _Bucket) -> None:
    path = StorePath("s3://bkt/a//b.jpg", config)
    with pytest.raises(ChangedError):
        path.read('"2"')
    with pytest.raises(ChangedError):
        path.read_range(0, 1, '"2"')
    with pytest.raises(StoreError, match="ends before byte 100"):
        path.read_range(0, 100, '"1"')
    for read in (StorePath.read, lambda path: path.read_range(0, 1)):
        with pytest.raises(NotFoundError, match="s3://bkt/no//thing: not found"):
            read(StorePath("s3://bkt/no//thing", config))
    assert StorePath("s3://bkt/no//thing", config).head() is None
    bucket.faults = [lambda exchange: exchange.error(403, "AccessDenied")]
    with pytest.raises(DeniedError, match="it takes s3:GetObject"):
        path.read_range(0, 1)
    bucket.faults = [lambda exchange: exchange.error(503, "SlowDown")] * 1
    assert path.read_range(0, 1) == b"a"
    bucket.faults = [lambda exchange: exchange.error(500, "InternalError")] * 99
    with pytest.raises(TransientError, match="gave up"):
        path.read_range(0, 1)
    with pytest.raises(StoreError, match="cannot be addressed"):
        path.put(b"x")
    with pytest.raises(StoreError, match="cannot be addressed"):
        path.delete()


def test_every_key_is_listed_where_it_is_asked_for(config: StoreConfig) -> None:
    skipped: list[str] = []
    found = list(StorePath("s3://bkt", config).list(on_skipped=skipped.append, every_key=True))
    assert [info.uri for info in found] == [f"s3://bkt/{key}" for key in sorted([*ODD, *PLAIN])]
    assert all(info.size == len(info.uri.removeprefix("s3://bkt/").encode()) for info in found)
    assert {(info.etag, info.modified_s) for info in found} == {('"1"', 1445412480.0)}
    assert sorted(skipped) == sorted(SKIPPED[:1] + SKIPPED[1:])
    skipped.clear()
    assert [info.uri for info in StorePath("s3://bkt", config).list(on_skipped=skipped.append)] == [
        f"s3://bkt/{key}" for key in PLAIN
    ]
    assert sorted(skipped) == sorted([*ODD, *SKIPPED])


def test_a_prefix_with_an_empty_part_is_an_input(config: StoreConfig, bucket: _Bucket) -> None:
    bucket.objects["p//q/r.jpg"] = b"x"
    found = list(Survey(InputConfig(uris=("s3://bkt/p//q",), store=config), "s3://other/out"))
    assert [(entry.info.uri, entry.name) for entry in found] == [("s3://bkt/p//q/r.jpg", "r.jpg")]


def test_every_image_is_a_record_and_those_that_cannot_be_named_say_so(config: StoreConfig) -> None:
    survey = Survey(InputConfig(uris=("s3://bkt",), store=config), "s3://other/out")
    found = list(survey)
    assert [entry.info.uri for entry in found] == [f"s3://bkt/{key}" for key in sorted([*ODD, *PLAIN])]
    assert survey.ignored == len(SKIPPED)
    members = [Member(entry.info.uri, entry.name, entry.info.size, entry.info.etag, None) for entry in found]
    records = list(read_files(members, config, give_up_failed=False))
    for entry, record in zip(found, records, strict=True):
        key = entry.info.uri.removeprefix("s3://bkt/")
        if key in UNREADABLE:
            assert record.failure is not None and record.failure.code is ErrorCode.SOURCE_BAD_URI
        else:
            assert (record.data, record.failure) == (key.encode(), None)


def test_the_first_rules_pass_such_keys_over(config: StoreConfig) -> None:
    names = NameFilter(rules=FIRST_RULES)
    survey = Survey(InputConfig(uris=("s3://bkt",), names=names, store=config), "s3://other/out")
    assert [entry.info.uri for entry in survey] == [f"s3://bkt/{key}" for key in PLAIN]
    assert survey.ignored == len(ODD) + len(SKIPPED)


def test_other_uris_have_no_empty_part(tmp_path: Path) -> None:
    assert [has_empty_part(f"s3://bkt/{key}") for key in EMPTY_PARTS] == [True] * len(EMPTY_PARTS)
    for uri in ("s3://bkt", "s3://bkt/a/b", "s3://bkt/a:/b", f"file://{tmp_path}", "gs://b/a//b"):
        assert not has_empty_part(uri)
