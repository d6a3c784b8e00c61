"""A server that speaks as much of the Hugging Face Hub's protocol as fetching a model needs; it counts its requests."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

# (revision name or commit, path) -> content
Files = dict[str, bytes]


class Hub:
    """Models by name, each with commits and the names that point at them."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, Files]] = {}
        self.names: dict[str, dict[str, str]] = {}
        self.requests: list[str] = []
        self.tokens: dict[str, str] = {}
        self.is_down = False
        self.breaks_off = False
        self.url = ""

    def push(self, model: str, files: Files, revision: str = "main") -> str:
        """Makes a commit, which a revision then points at; returns its hash."""
        digest = hashlib.sha1(repr((model, len(self.commits.get(model, {})))).encode()).hexdigest()
        self.commits.setdefault(model, {})[digest] = files
        self.names.setdefault(model, {})[revision] = digest
        return digest

    def answer(self, path: str, token: str | None) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) for one request."""
        self.requests.append(path)
        if self.is_down:
            return 503, {}, b""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        is_info = parts[:2] == ["api", "models"]
        model = "/".join(parts[2:4] if is_info else parts[:2])
        if model not in self.commits or (model in self.tokens and token != f"Bearer {self.tokens[model]}"):
            return 401, {"X-Error-Code": "RepoNotFound"}, b'{"error": "Repository not found"}'
        rest = parts[4:] if is_info else parts[2:]
        revision = rest[1] if len(rest) > 1 else "main"
        commit = self.names[model].get(revision, revision)
        files = self.commits[model].get(commit)
        if files is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b'{"error": "Invalid rev id"}'
        if is_info:
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": _oid(data)} for name, data in files.items()
            ]
            siblings = [{"rfilename": name} for name in files]
            body = entries if rest[:1] == ["tree"] else {"id": model, "sha": commit, "siblings": siblings}
            return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()
        name = "/".join(rest[2:])
        if name not in files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        return 200, {"ETag": f'"{_oid(files[name])}"', "X-Repo-Commit": commit}, files[name]


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a port of its own; `HF_ENDPOINT` must be its `url` before huggingface_hub is imported."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = hub.answer(self.path.partition("?")[0], self.headers.get("Authorization"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if hub.breaks_off else body)
            self.close_connection |= hub.breaks_off

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *arguments: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
