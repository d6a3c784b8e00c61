"""A stand-in for the API of Kubernetes: RayJobs of one namespace over TLS, for every client with the token."""

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PATH = "/apis/ray.io/v1/namespaces/pvtv2/rayjobs"


class KubernetesApi:
    """What is in the namespace, and what becomes of it.

    Attributes:
        rayjobs: by name.
        asked: methods and names of all requests that were let in.
        instead: called with method and name of each request; a status and a body that it is answered with instead.
        looked_at: called with an object before it is given, to let it go on.
        refuses: what is wrong with an object that is to be created.
    """

    def __init__(self, service_account: Path) -> None:
        self.service_account = service_account
        self.rayjobs: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.instead: Callable[[str, str], tuple[int, dict[str, Any]] | None] = lambda method, name: None
        self.looked_at: Callable[[dict[str, Any]], None] = lambda rayjob: None
        self.refuses: Callable[[dict[str, Any]], list[str]] = lambda rayjob: []
        self.lock = threading.Lock()

    def token(self) -> str:
        """The one that is good at the moment."""
        return (self.service_account / "token").read_text()

    def answer(self, method: str, path: str, token: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Status and body, as the API server has them for a service account that may get and create RayJobs."""
        if token != f"Bearer {self.token()}":
            return 401, {"message": "Unauthorized"}
        place, _, query = path.partition("?")
        name = place.removeprefix(PATH).removeprefix("/")
        if not place.startswith(PATH) or (method == "POST") == bool(name):
            return 403, {"message": f"may not {method} {path}"}
        name = name or body["metadata"]["name"]
        self.asked.append((method, name))
        if (answer := self.instead(method, name)) is not None:
            return answer
        if method == "GET":
            rayjob = self.rayjobs.get(name)
            if rayjob is None:
                return 404, {"message": f'rayjobs.ray.io "{name}" not found'}
            self.looked_at(rayjob)
            return 200, rayjob
        if query != "fieldValidation=Strict":
            return 400, {"message": "a typing error would go unnoticed"}
        if name in self.rayjobs:
            return 409, {"message": f'rayjobs.ray.io "{name}" already exists'}
        if wrong := self.refuses(body):
            return 422, {"message": "; ".join(wrong)}
        self.rayjobs[name] = body
        return 201, body


@contextmanager
def running_api(folder: Path) -> Iterator[tuple[KubernetesApi, int]]:
    """The stand-in and its port; the folder becomes what Kubernetes mounts for a service account."""
    _write_certificate(folder)
    (folder / "namespace").write_text("pvtv2")
    (folder / "token").write_text("first")
    api = KubernetesApi(folder)

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            with api.lock:
                status, answer = api.answer(self.command, self.path, self.headers.get("Authorization", ""), body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = handle_one  # noqa: N815 - the names are the library's

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", folder / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield api, server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _write_certificate(folder: Path) -> None:
    """A certificate of its own authority for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
