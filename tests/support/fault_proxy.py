"""An HTTP/1.1 proxy that stands in front of a store and injects what goes wrong on the way to a real one.

    with FaultProxy(server.endpoint_url, seed=7) as proxy:
        proxy.add(r"^PUT /bucket/out/data/", Lose(), times=1)
        storm = proxy.add(r"^GET ", Refuse(503, "SlowDown"), probability=0.3)
        ...                                          # requests to proxy.endpoint_url
        proxy.remove(storm)
        print(proxy.injected)

A rule is a pattern over "METHOD /path?query" and a fault; of several rules that match a request, the first that fires
is taken. Rules are added and removed while requests are under way, from any thread. Chances are drawn from the seed in
the order in which requests come, so that equal sequences of requests meet equal faults.

What no rule touches goes through byte by byte. The Host header is what the client wrote, so that a signature stays
valid. A body is taken whole before it is passed on, so this is for bodies that fit into memory many times. There is no
TLS.
"""

import asyncio
import random
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

_SLOW_STEP_S = 0.05
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LENGTH = re.compile(rb"(?im)^content-length: *(\d+)")
_NO_BODY = re.compile(rb"HTTP/1\.[01] (1\d\d|204|304)")
# Socket option: closing resets the connection, instead of ending it in order.
_RESETS = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Refuse:
    """The proxy answers; the server never hears of the request.

    Attributes:
        code: the store's word for the error, as `SlowDown`.
        retry_after_s: seconds in a Retry-After header; None: no such header.
    """

    status: int
    code: str
    retry_after_s: int | None = None


@dataclass(frozen=True)
class Reset:
    """The connection is reset after the server has had a fraction of the request's body; 0: it hears nothing at all."""

    uploaded: float = 0.0


@dataclass(frozen=True)
class Lose:
    """The server does what it was asked, and the connection is reset in place of the answer."""


@dataclass(frozen=True)
class Late:
    """The server hears of the request when `meanwhile` has returned, whatever has become of the client by then."""


@dataclass(frozen=True)
class Hang:
    """The request is taken, and the client waits for ever.

    Attributes:
        heard: the server gets the request, and does what it was asked.
    """

    heard: bool = False


@dataclass(frozen=True)
class Cut:
    """Of the answer's body only a fraction comes, under headers that promise all of it.

    Attributes:
        reset: the connection is reset then, instead of ended in order.
        agreed: the length in the headers is that of the fraction, and nothing looks cut; needs a body that has one.
    """

    fraction: float = 0.5
    reset: bool = False
    agreed: bool = False


@dataclass(frozen=True)
class Slow:
    """The answer's body trickles."""

    bytes_per_s: float


@dataclass(frozen=True)
class Flip:
    """One byte in the middle of a body is another.

    Attributes:
        upload: of the request's body, instead of the answer's.
    """

    upload: bool = False


Fault = Refuse | Reset | Lose | Late | Hang | Cut | Slow | Flip


@dataclass(eq=False)
class Rule:
    """When a fault is injected. Made by `FaultProxy.add`.

    Attributes:
        times: how often it fires; None: always.
        probability: of firing, for each request that matches.
        skip: matching requests that it lets through first.
        meanwhile: called when it fires, on a thread of its own: before anything else, or where the server hears of the
            request, after it has answered.
        num_matched, num_fired, num_answered: requests so far; the last are those that the server has answered.
    """

    pattern: re.Pattern[str]
    fault: Fault
    times: int | None
    probability: float
    skip: int
    meanwhile: Callable[[], object] | None
    num_matched: int = 0
    num_fired: int = 0
    num_answered: int = 0


class Injected(NamedTuple):
    """One fault that was injected into one request, named "METHOD /path?query"."""

    request: str
    fault: Fault


class _Message(NamedTuple):
    """A request or an answer: everything up to the empty line, and the body as it was framed."""

    head: bytes
    body: bytes

    @property
    def start(self) -> str:
        return self.head.partition(b"\r\n")[0].decode("latin-1")

    def cut(self, fraction: float, *, agreed: bool = False) -> bytes:
        body = self.body[: int(len(self.body) * fraction)]
        length = b"Content-Length: %d" % len(body)
        return (_LENGTH.sub(length, self.head) if agreed else self.head) + body

    def flipped(self) -> "_Message":
        middle = len(self.body) // 2
        flipped = bytes([self.body[middle] ^ 0xFF]) if self.body else b""
        return self._replace(body=self.body[:middle] + flipped + self.body[middle + 1 :])


class _GoneError(Exception):
    """One side closed the connection, or the fault did."""


class FaultProxy:
    """The proxy; it runs on a thread of its own inside a `with` block, at whose end every connection is cut."""

    def __init__(self, upstream_url: str, seed: int = 0) -> None:
        """Nothing is opened here.

        Args:
            upstream_url: of the server, `http://host:port`.
            seed: of the draws that `probability` asks for.
        """
        address = urlsplit(upstream_url)
        self._upstream = (address.hostname or "127.0.0.1", address.port or 80)
        self._random = random.Random(seed)
        # Guards the rules and the logs.
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._requests: list[str] = []
        self._injected: list[Injected] = []
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)

    def __enter__(self) -> "FaultProxy":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    @property
    def endpoint_url(self) -> str:
        """Where clients find the proxy."""
        return f"http://127.0.0.1:{self._port}"

    def add(
        self,
        pattern: str,
        fault: Fault,
        *,
        times: int | None = None,
        probability: float = 1.0,
        skip: int = 0,
        meanwhile: Callable[[], object] | None = None,
    ) -> Rule:
        """The rule, which counts from now on. The pattern is searched for in "METHOD /path?query"."""
        rule = Rule(re.compile(pattern), fault, times, probability, skip, meanwhile)
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """Ends a rule; what it has begun with a request goes on."""
        with self._lock, suppress(ValueError):
            self._rules.remove(rule)

    def clear(self) -> None:
        """Ends all rules."""
        with self._lock:
            self._rules.clear()

    @property
    def requests(self) -> list[str]:
        """All requests so far, each as "METHOD /path?query"."""
        with self._lock:
            return list(self._requests)

    @property
    def injected(self) -> list[Injected]:
        """The faults so far."""
        with self._lock:
            return list(self._injected)

    def _fired(self, request: str) -> Rule | None:
        """The rule that a request meets; None if it goes through."""
        with self._lock:
            self._requests.append(request)
            for rule in self._rules:
                if not rule.pattern.search(request) or (rule.times is not None and rule.num_fired >= rule.times):
                    continue
                rule.num_matched += 1
                if rule.num_matched > rule.skip and self._random.random() < rule.probability:
                    rule.num_fired += 1
                    self._injected.append(Injected(request, rule.fault))
                    return rule
        return None

    # ---- On the proxy's thread

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _serve(self) -> None:
        connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._connection(reader, writer))
            connections[task] = writer
            task.add_done_callback(connections.pop)

        server = await asyncio.start_server(begin, "127.0.0.1", 0, limit=2**20)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ended.wait()
        server.close()
        # Some rounds of the loop: for connections that were just accepted to begin, and for those cut to close.
        for _ in range(5):
            for task, writer in list(connections.items()):
                task.cancel()
                writer.transport.abort()
            await asyncio.sleep(0)
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = _Upstream(self._upstream)
        try:
            while True:
                await self._exchange(reader, writer, upstream)
        except (_GoneError, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            await upstream.close()
            await _closed(writer)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: "_Upstream"
    ) -> None:
        """One request and its answer.

        Raises:
            _GoneError: the connection is over.
        """
        head = await _head(reader)
        if b"expect: 100-continue" in head.lower():
            writer.write(_CONTINUE)
        message = _Message(head, await _body(reader, head))
        rule = self._fired(message.start.rpartition(" ")[0])
        fault = None if rule is None else rule.fault
        meanwhile = (rule and rule.meanwhile) or (lambda: None)
        if isinstance(fault, Refuse | Reset | Late) or fault == Hang(heard=False):
            await asyncio.to_thread(meanwhile)
        if isinstance(fault, Refuse):
            writer.write(_refusal(fault, with_body=not message.start.startswith("HEAD ")))
            await writer.drain()
            return
        if isinstance(fault, Reset):
            if fault.uploaded:
                await upstream.send(message.cut(fault.uploaded))
            raise _reset(writer)
        if fault == Hang(heard=False):
            await asyncio.Event().wait()
        answer = await upstream.ask(message.flipped() if fault == Flip(upload=True) else message)
        if rule is not None:
            rule.num_answered += 1
            if not isinstance(fault, Late):
                await asyncio.to_thread(meanwhile)
        await _pass_on(answer, fault, writer)


class _Upstream:
    """The connection to the server, opened when it is needed."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, data: bytes) -> asyncio.StreamReader:
        """Sends, and tells where the answer comes from."""
        if self._streams is None or self._streams[0].at_eof():
            await self.close()
            self._streams = await asyncio.open_connection(*self._address, limit=2**20)
        reader, writer = self._streams
        writer.write(data)
        await writer.drain()
        return reader

    async def ask(self, request: _Message) -> _Message:
        """The server's answer."""
        reader = await self.send(request.head + request.body)
        while (head := await _head(reader)).split(b" ", 2)[1] == b"100":
            pass
        without_body = request.start.startswith("HEAD ") or _NO_BODY.match(head) is not None
        return _Message(head, b"" if without_body else await _body(reader, head))

    async def close(self) -> None:
        """Ends the connection, if there is one."""
        if self._streams is not None:
            await _closed(self._streams[1])


async def _pass_on(answer: _Message, fault: Fault | None, writer: asyncio.StreamWriter) -> None:
    if fault == Hang(heard=True):
        await asyncio.Event().wait()
    elif isinstance(fault, Lose):
        raise _reset(writer)
    elif isinstance(fault, Cut):
        writer.write(answer.cut(fault.fraction, agreed=fault.agreed))
        await writer.drain()
        raise _reset(writer) if fault.reset else _GoneError
    elif isinstance(fault, Slow):
        writer.write(answer.head)
        for part in _parts(answer.body, max(1, int(fault.bytes_per_s * _SLOW_STEP_S))):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(max(_SLOW_STEP_S, 1 / fault.bytes_per_s))
    else:
        writer.writelines(answer.flipped() if fault == Flip() else answer)
    await writer.drain()


async def _head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body that a head announces, with the marks between its chunks if it comes in chunks."""
    if re.search(rb"(?im)^transfer-encoding: *chunked", head):
        parts = []
        while True:
            parts.append(size := await reader.readuntil(b"\r\n"))
            length = int(size.split(b";")[0], 16)
            if length == 0:
                return b"".join([*parts, await _trailers(reader)])
            parts.append(await reader.readexactly(length + 2))
    length = _LENGTH.search(head)
    return await reader.readexactly(int(length[1])) if length else b""


async def _trailers(reader: asyncio.StreamReader) -> bytes:
    lines = [await reader.readuntil(b"\r\n")]
    while lines[-1] != b"\r\n":
        lines.append(await reader.readuntil(b"\r\n"))
    return b"".join(lines)


def _refusal(fault: Refuse, *, with_body: bool) -> bytes:
    body = f"<Error><Code>{fault.code}</Code><Message>injected</Message></Error>".encode()
    lines = [f"HTTP/1.1 {fault.status} Injected", "Content-Type: application/xml", f"Content-Length: {len(body)}"]
    if fault.retry_after_s is not None:
        lines.append(f"Retry-After: {fault.retry_after_s}")
    return "\r\n".join([*lines, "", ""]).encode() + (body if with_body else b"")


def _reset(writer: asyncio.StreamWriter) -> _GoneError:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETS)
    writer.transport.abort()
    return _GoneError()


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Ends a connection in order, after what was written; or at once, if this is cancelled."""
    try:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    finally:
        writer.transport.abort()


def _parts(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))
