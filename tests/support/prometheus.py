"""A real Prometheus for tests, with the scrape configuration and the rules of `infra/monitoring`."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

MONITORING = Path(__file__).resolve().parents[2] / "infra" / "monitoring"
_RAYS_LIST = "/tmp/ray/prom_metrics_service_discovery.json"


def program(name: str) -> str:
    """The path of one of Prometheus' programs; skips where there is none."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} here (Debian: apt-get install prometheus)")
    return path


class Prometheus:
    """One that runs."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its HTTP API."""
        with urllib.request.urlopen(
            f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10
        ) as got:
            answer = json.load(got)
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, query: str, at: float | None = None) -> dict[tuple[tuple[str, str], ...], float]:
        """What a query gives now, or at some `time.time()`, by the labels."""
        found = self.get("query", query=query, **({} if at is None else {"time": str(at)}))["result"]
        return {tuple(sorted(row["metric"].items())): float(row["value"][1]) for row in found}


@contextmanager
def running_prometheus(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """Scrapes some addresses twice a second, until the block ends."""
    binary = program("prometheus")
    config = (MONITORING / "prometheus.yml").read_text()
    assert _RAYS_LIST in config
    rays_list = folder / "targets.json"
    # As Ray writes it.
    rays_list.write_text(json.dumps([{"labels": {"job": "ray"}, "targets": list(targets)}]))
    config = config.replace(_RAYS_LIST, str(rays_list)).replace("interval: 15s", "interval: 500ms")
    (folder / "prometheus.yml").write_text(config)
    shutil.copy(MONITORING / "alerts.yml", folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        binary, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait_until_ready(f"http://127.0.0.1:{port}/-/ready", process, folder / "log")
            yield Prometheus(port)
        finally:
            process.terminate()


def _wait_until_ready(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError(f"Prometheus did not get ready: {log.read_text()}")
