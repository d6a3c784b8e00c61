"""The proxy itself: what it leaves alone, when its rules fire, and that it ends."""

import hashlib
import http.client
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.fault_proxy import Cut, Fault, FaultProxy, Flip, Hang, Lose, Refuse, Reset, Slow
from tests.support.waiting import eventually

BODY = hashlib.shake_128(b"body").digest(100_000)


class Echo(BaseHTTPRequestHandler):
    """Answers with the request's own body, or with BODY in chunks."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("X-Host", self.headers["Host"])
        self.end_headers()
        for start in range(0, len(BODY), 30_000):
            part = BODY[start : start + 30_000]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def do_PUT(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # the connection ended within it: a store keeps nothing of such an upload
            self.server.cut_short.append(len(body))  # type: ignore[attr-defined]
            return
        self.server.stored.append(body)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "12345")
        self.end_headers()


class Server(ThreadingHTTPServer):
    """A server to which it is nothing new that clients go away."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = Server(("127.0.0.1", 0), Echo)
    server.daemon_threads, server.stored, server.cut_short = True, [], []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def proxy(server: ThreadingHTTPServer) -> Iterator[FaultProxy]:
    with FaultProxy(f"http://127.0.0.1:{server.server_port}", seed=3) as proxy:
        yield proxy


class Client:
    """One connection to the proxy."""

    def __init__(self, proxy: FaultProxy, timeout_s: float = 10) -> None:
        self.host = urlsplit(proxy.endpoint_url).netloc
        self._connection = http.client.HTTPConnection(self.host, timeout=timeout_s)

    def ask(self, method: str, path: str = "/b/k", body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[Client]:
    client = Client(proxy)
    yield client
    client.close()


def test_what_no_rule_touches_goes_through_on_one_connection(proxy: FaultProxy, client: Client) -> None:
    proxy.add("^POST ", Reset())
    status, headers, body = client.ask("GET", "/b/k?list-type=2&prefix=a%20b")
    assert (status, headers["X-Host"], body) == (200, client.host, BODY)
    assert client.ask("PUT", body=BODY)[2] == BODY
    assert client.ask("PUT", body=b"", Expect="100-continue")[2] == b""
    assert client.ask("HEAD")[1]["Content-Length"] == "12345"
    assert proxy.requests == ["GET /b/k?list-type=2&prefix=a%20b", "PUT /b/k", "PUT /b/k", "HEAD /b/k"]
    assert proxy.injected == []


@pytest.mark.parametrize(
    ("method", "fault", "is_stored"),
    [
        ("PUT", Reset(), False),
        ("PUT", Reset(uploaded=0.5), False),
        ("PUT", Lose(), True),
        ("PUT", Cut(0.5), True),
        ("PUT", Cut(0.5, reset=True), True),
        ("GET", Cut(0.5), False),
        ("PUT", Hang(), False),
        ("PUT", Hang(heard=True), True),
    ],
    ids=str,
)
def test_a_fault_is_what_it_says(
    proxy: FaultProxy, server: ThreadingHTTPServer, method: str, fault: Fault, is_stored: bool
) -> None:
    rule = proxy.add(f"^{method} ", fault)
    client = Client(proxy, timeout_s=0.3)
    with pytest.raises((ConnectionError, TimeoutError, http.client.HTTPException)) as caught:
        client.ask(method, body=BODY if method == "PUT" else None)
    client.close()
    if isinstance(fault, Cut) and not fault.reset:
        assert isinstance(caught.value, http.client.IncompleteRead)
    assert isinstance(caught.value, TimeoutError) == isinstance(fault, Hang)
    heard: list[Any] = server.stored if is_stored else server.cut_short  # type: ignore[attr-defined]
    if is_stored or fault == Reset(uploaded=0.5):
        eventually(lambda: len(heard) == 1)
    assert bool(server.stored) == is_stored  # type: ignore[attr-defined]
    assert rule.num_fired == 1 and proxy.injected == [(f"{method} /b/k", fault)]


def test_answers_can_be_refused_shortened_flipped_and_slow(proxy: FaultProxy, client: Client) -> None:
    proxy.add("^PUT /refused", Refuse(503, "SlowDown", retry_after_s=3))
    status, headers, body = client.ask("PUT", "/refused", BODY)
    assert (status, headers["Retry-After"]) == (503, "3") and b"<Code>SlowDown</Code>" in body
    proxy.add("^HEAD ", Refuse(404, "NoSuchKey"))
    assert client.ask("HEAD")[0] == 404
    proxy.add("^PUT /flipped", Flip())
    flipped = client.ask("PUT", "/flipped", BODY)[2]
    assert [at for at in range(len(BODY)) if flipped[at] != BODY[at]] == [len(BODY) // 2]
    proxy.add("^PUT /slow", Slow(bytes_per_s=100))
    started = time.monotonic()
    assert client.ask("PUT", "/slow", bytes(30))[2] == bytes(30)
    assert time.monotonic() - started >= 0.25
    proxy.add("^PUT /short", Cut(0.25, agreed=True))
    assert client.ask("PUT", "/short", BODY)[2] == BODY[:25_000]


def test_a_flipped_upload_is_what_the_server_gets(
    proxy: FaultProxy, server: ThreadingHTTPServer, client: Client
) -> None:
    proxy.add("", Flip(upload=True))
    client.ask("PUT", body=b"abc")
    assert server.stored == [b"a\x9dc"]  # type: ignore[attr-defined]


def test_rules_count_and_come_and_go_while_it_runs(proxy: FaultProxy, client: Client) -> None:
    rule = proxy.add("^PUT ", Refuse(500, "InternalError"), skip=1, times=2)
    proxy.add("^PUT ", Refuse(503, "SlowDown"), skip=4)
    assert [client.ask("PUT", body=b"x")[0] for _ in range(7)] == [200, 500, 500, 200, 200, 200, 503]
    assert (rule.num_matched, rule.num_fired) == (3, 2)
    proxy.clear()
    rule = proxy.add("^PUT ", Refuse(403, "AccessDenied"))
    assert client.ask("PUT", body=b"x")[0] == 403
    proxy.remove(rule)
    proxy.remove(rule)
    assert client.ask("PUT", body=b"x")[0] == 200


def test_equal_seeds_give_equal_faults(server: ThreadingHTTPServer) -> None:
    def statuses(seed: int) -> list[int]:
        with FaultProxy(f"http://127.0.0.1:{server.server_port}", seed) as proxy:
            proxy.add("", Refuse(500, "InternalError"), probability=0.5)
            client = Client(proxy)
            found = [client.ask("PUT", body=b"x")[0] for _ in range(20)]
            client.close()
            return found

    assert statuses(1) == statuses(1) != statuses(2)
    assert 2 < statuses(1).count(500) < 18


def test_something_can_be_done_in_between(proxy: FaultProxy, server: ThreadingHTTPServer, client: Client) -> None:
    seen: list[int] = []
    stored = server.stored  # type: ignore[attr-defined]
    for fault in (Refuse(500, "InternalError"), Slow(1e9)):
        proxy.add("", fault, times=1, meanwhile=lambda: seen.append(len(stored)))
        client.ask("PUT", body=b"x")
    # Before a refusal nothing has reached the server; else it has answered.
    assert seen == [0, 1]


def test_it_ends_with_connections_open_and_requests_waiting(server: ThreadingHTTPServer) -> None:
    with FaultProxy(f"http://127.0.0.1:{server.server_port}") as proxy:
        proxy.add("/hangs", Hang())
        idle, waiting = Client(proxy), Client(proxy)
        idle.ask("PUT", body=b"x")
        errors: list[Exception] = []

        def ask() -> None:
            try:
                waiting.ask("PUT", "/hangs", b"x")
            except (ConnectionError, http.client.HTTPException) as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        while not proxy.injected:
            time.sleep(0.01)
    thread.join(5)
    assert len(errors) == 1
    for client in (idle, waiting):
        client.close()
