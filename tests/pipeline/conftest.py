"""Makers of small real things: encoded images, chunks, planned shards, and stores that answer as a test says."""

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from model.network.config import VARIANTS
from pipeline.chunks.chunk import Chunk, Header
from pipeline.chunks.columns import CLASSIFY_COLUMNS, record_schema
from pipeline.chunks.measures import MEASURES
from pipeline.chunks.size_policy import SizePolicy
from pipeline.chunks.task import Classify
from pipeline.inputs.config import InputConfig
from pipeline.read.read_shard import ReadConfig
from pipeline.store.config import StoreConfig
from pipeline.store.uris import canonical_uri


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """(width, height, seed, format) -> an encoded image of noise."""

    def make(width: int = 40, height: int = 36, seed: int = 0, image_format: str = "PNG") -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        body = io.BytesIO()
        Image.fromarray(pixels).save(body, image_format)
        return body.getvalue()

    return make


@pytest.fixture
def make_tar() -> Callable[[dict[str, bytes]], bytes]:
    """{member name: content} -> a tar."""

    def make(members: dict[str, bytes]) -> bytes:
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return body.getvalue()

    return make


@pytest.fixture
def read_config() -> Callable[..., ReadConfig]:
    """(changes) -> what the read step needs, with small slices."""

    def make(**changes) -> ReadConfig:
        config = ReadConfig(
            input=InputConfig(uris=("/nowhere",)), rows_per_file=4, max_file_bytes=2**30, task=Classify(),
            network=VARIANTS["b0"],
            sizes=SizePolicy(), pass_number=1, last_pass=False,
        )  # fmt: skip
        return replace(config, **changes)

    return make


@pytest.fixture
def answered_chunk() -> Callable[..., Chunk]:
    """(first row, rows, ...) -> a chunk as it leaves the infer step."""

    def make(
        first_row: int, num_rows: int, *, slice_rows: int | None = None, end: bool = False, slice_number: int = 0,
        slice_first_row: int = 0, failed: tuple[int, ...] = (), attempt: str = "aaaaaaaa", pass_number: int = 1,
        **header_changes: Any,
    ) -> Chunk:  # fmt: skip
        rows = []
        for row in range(first_row, first_row + num_rows):
            bad = row in failed
            rows.append(
                {
                    "image_id": f"s3://b/x.tar#{row}", "shard": "s3://b/x.tar", "key": str(row), "row": row,
                    "source_etag": "e", "status": "failed" if bad else "ok", "encoded_bytes": 100,
                    "error_code": "decode.corrupt" if bad else None, "error_message": "broken" if bad else None,
                    "width": 40, "height": 30, "net_width": None if bad else 40, "net_height": None if bad else 30,
                    "scale": None if bad else 1.0, "label_id": None if bad else 3, "label": None,
                    "score": None if bad else 0.5, "topk_ids": None if bad else [3, 1],
                    "topk_scores": None if bad else [0.5, 0.25], "macs": 0 if bad else 1000,
                }
            )  # fmt: skip
        schema = pa.schema([*record_schema(()), *CLASSIFY_COLUMNS, pa.field("macs", pa.int64())])
        header = Header(
            **{
                "shard": "s3://b/x.tar", "name": "x", "hash16": "0123456789abcdef", "source_etag": "e",
                "slice": slice_number, "first_row": first_row, "num_rows": num_rows, "end": end, "ignored": 0,
                "slice_first_row": slice_first_row, "slice_rows": slice_rows,
                "slice_last_row": None if slice_rows is None else slice_first_row + slice_rows - 1, **header_changes,
            }
        )  # fmt: skip
        return Chunk(
            header=header, attempt=attempt, pass_number=pass_number, measured=dict.fromkeys(MEASURES, 0.5),
            rows=pa.Table.from_pylist(rows, schema=schema), payload=pa.py_buffer(b""),
        )  # fmt: skip

    return make


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URI below which there is nothing yet."""
    return request.getfixturevalue("s3_root") if request.param == "s3" else canonical_uri(str(tmp_path / "out"))


@pytest.fixture
def stub_store() -> Callable[..., Any]:
    """(answers, ...) -> a context: a config for a server that gives each answer once, then the last for ever."""
    return _stub_store


@contextmanager
def _stub_store(*answers: Callable[[Any], None], **options: Any) -> Iterator[tuple[StoreConfig, list[str]]]:
    """Also gives the methods that the server was asked; an answer is a function of the request's `_Exchange`."""
    waiting = list(answers)

    def respond(exchange: _Exchange) -> None:
        (waiting.pop(0) if len(waiting) > 1 else waiting[0])(exchange)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Exchange)
    server.daemon_threads = True
    server.respond, server.requests = respond, []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        options = {"deadline_s": 1.0, "timeout_s": 5.0} | options
        config = StoreConfig(endpoint_url=f"http://127.0.0.1:{server.server_port}", anonymous=True, **options)
        yield config, server.requests  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Exchange(http.server.BaseHTTPRequestHandler):
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


@pytest.fixture
def keeper() -> Callable[..., Any]:
    """(ignored conditions, lost answers) -> an answer for `stub_store`: a store of one object."""
    return _Keeper


class _Keeper:
    """A store of one object in memory, with conditions that can be switched off, and answers that can be lost."""

    def __init__(self, *, ignored: tuple[str, ...] = (), lost: int = 0):
        self.body: bytes | None = None
        self.ignored, self.lost = ignored, lost

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.body or b"").hexdigest()}"'

    def __call__(self, exchange: _Exchange) -> None:
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
