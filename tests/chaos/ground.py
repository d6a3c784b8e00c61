"""The ground that drills are held on: one server, one cluster, drivers, a tiny model, and an undisturbed run."""

import json
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.checkpoints.load import save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.network.config import PVTv2Config
from pipeline.output.layout import SliceName
from tests.chaos.comparing import write_reference
from tests.chaos.drivers import Drivers, running_drivers
from tests.chaos.ray_cluster import RayCluster, running_cluster
from tests.chaos.world import NAMES, VERSIONS, State, num_records, upload
from tests.jobs.conftest import LABELS
from tests.support.fault_proxy import FaultProxy
from tests.support.s3_server import S3Server, running_s3

_OUTPUT_NAME = re.compile(
    r"_lease\.json|_job\.json|_index\.parquet|runs/[^/]+/(plan\.parquet|timeline\.parquet|report\.(json|html))"
)
# A run that dies in its first second leaves the object that it tried the store with.
_TRIAL_NAME = re.compile(r"\.preflight-[0-9a-f]{16}")
_ROWS_PER_FILE = 8
_DEADLINE_S = 20.0


class Output:
    """One drill's input and output below a prefix of its own."""

    def __init__(self, ground: "Ground", name: str) -> None:
        self._ground, self._name = ground, name
        self._client = ground.client
        self._bucket = ground.server.bucket
        self.state: State = {}
        self._gone: dict[str, int] = {}

    @property
    def paths(self) -> tuple[str, str]:
        """Of input and output, as they stand in requests."""
        return f"/{self._bucket}/{self._name}/in", f"/{self._bucket}/{self._name}/out"

    @property
    def input_prefix(self) -> str:
        """What the ids begin with."""
        return f"s3://{self._bucket}/{self._name}/in/"

    def take(self, state: State) -> set[str]:
        """Makes the inputs those of a state; returns the objects that are other ones now, or gone."""
        before = self.state
        upload(self._client, self._bucket, f"{self._name}/in", state, before)
        self._gone = {name: version for name, version in {**self._gone, **before}.items() if name not in state}
        self.state = dict(state)
        return {name for name in {*before, *state} if before.get(name) != state.get(name)}

    def expected(self, prune: bool) -> State:
        """Objects whose rows must be there; forgets those that are gone if they are pruned."""
        if prune:
            self._gone = {}
        return {**self._gone, **self.state}

    def rows_of(self, names: Iterable[str]) -> int:
        """Records in the present versions of some objects."""
        return sum(num_records(name, self.state[name]) for name in names if name in self.state)

    def arguments(self, endpoint_url: str, deadline_s: float = _DEADLINE_S) -> list[object]:
        """The command's."""
        ground = self._ground
        return [
            "--input", self.input_prefix.rstrip("/"), "--output", f"s3:/{self.paths[1]}", "--weights", ground.weights,
            *("--input-endpoint-url", endpoint_url, "--output-endpoint-url", endpoint_url),
            *("--ray-address", ground.cluster.address, "--allow-no-token"),
            *("--num-actors", 1, "--rows-per-file", _ROWS_PER_FILE),
            *("--max-failed-fraction", 1, "--store-deadline-s", deadline_s, "--precision", "fp32"),
        ]  # fmt: skip

    def files(self) -> dict[str, str]:
        """Name below `data/` -> ETag."""
        return {name.removeprefix("data/"): etag for name, etag in self._listed().items() if name.startswith("data/")}

    def download(self) -> Path:
        """A folder with the files of `data/`."""
        folder = self._ground.folder / f"{self._name}-{secrets.token_hex(2)}"
        folder.mkdir()
        for name in self.files():
            (folder / name).write_bytes(self._get(f"data/{name}"))
        return folder

    def strange_names(self) -> list[str]:
        """A sentence for each object that has no place in an output; trials of the store are counted, not refused."""
        found = []
        for name in self._listed():
            is_file = name.startswith("data/") and SliceName.parse(name.removeprefix("data/")) is not None
            if not is_file and not _OUTPUT_NAME.fullmatch(name) and not _TRIAL_NAME.fullmatch(name):
                found.append(f"{name} has no place in an output")
        return found

    def open_reports(self) -> list[str]:
        """A sentence for each report that does not close."""
        found = []
        for name in (name for name in self._listed() if name.endswith("/report.json")):
            report = json.loads(self._get(name))
            for part in ("run", "output"):
                counts = report[part]
                if counts["listed"] != counts["ok"] + counts["failed"] or report["problems"]:
                    found.append(f"{name} does not close: {counts} {report['problems']}")
        return found

    def belongs_to(self, file: str, names: set[str]) -> bool:
        """True if an output file holds rows of one of these objects; loose files share theirs."""
        slice_name = SliceName.parse(file)
        assert slice_name is not None
        stems = {"in" if name.startswith("loose/") else name.partition(".")[0] for name in names}
        return slice_name.name in stems or (slice_name.name == "loose" and "in" in stems)

    def rows_fetched(self, requests: Iterable[str]) -> float:
        """Rows of the objects that were fetched, where what an undisturbed run asks of an object counts as once."""
        fetched = Counter(_fetched(requests, self.paths[0]))
        usual = self._ground.usual_requests
        return sum(
            num_records(name, self.state[name]) * times / usual[name]
            for name, times in fetched.items()
            if name in self.state
        )

    def free_lease(self) -> None:
        """Makes the lease look given back, as it is after it ran out and another run had it."""
        lease = json.loads(self._get("_lease.json")) | {"state": "released", "nonce": secrets.token_hex(8)}
        self._client.put_object(
            Bucket=self._bucket, Key=f"{self._name}/out/_lease.json", Body=json.dumps(lease).encode()
        )

    def _listed(self) -> dict[str, str]:
        prefix = f"{self._name}/out/"
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return {
            found["Key"].removeprefix(prefix): found["ETag"] for page in pages for found in page.get("Contents", [])
        }

    def _get(self, name: str) -> bytes:
        return self._client.get_object(Bucket=self._bucket, Key=f"{self._name}/out/{name}")["Body"].read()


@dataclass
class Ground:
    """What all drills share.

    Attributes:
        reference: Parquet with the rows that an undisturbed run gives each object in each version.
        usual_requests: GETs of each object in an undisturbed run.
    """

    folder: Path
    server: S3Server
    client: Any
    cluster: RayCluster
    drivers: Drivers
    weights: Path
    reference: Path
    usual_requests: dict[str, int]
    undisturbed_s: float = 0.0

    def new_output(self) -> Output:
        """A place that nothing is in."""
        return Output(self, f"d{secrets.token_hex(4)}")


@contextmanager
def prepared_ground(folder: Path) -> Iterator[Ground]:
    """Starts everything, runs once undisturbed, and ends everything with the block."""
    with running_s3(folder / "s3") as server:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
        env = {**kept, **server.env, "HOME": str(folder), "RAY_AUTH_MODE": "disabled"}
        with (
            running_cluster(env, folder) as cluster,
            running_drivers(env, folder) as drivers,
            closing(server.client()) as client,
        ):
            weights = folder / "weights"
            weights.mkdir()
            _write_weights(weights)
            ground = Ground(folder, server, client, cluster, drivers, weights, folder / "reference.parquet", {})
            _run_undisturbed(ground)
            yield ground


def _run_undisturbed(ground: Ground) -> None:
    """One run over all objects in all versions, and the reference from it."""
    output = ground.new_output()
    prefixes = {}
    for version in VERSIONS:
        upload(ground.client, ground.server.bucket, output.paths[0].split("/", 2)[2] + f"/v{version}",
               dict.fromkeys(NAMES, version))  # fmt: skip
        prefixes[f"{output.input_prefix}v{version}/"] = version
    with FaultProxy(ground.server.endpoint_url) as proxy:
        driver = ground.drivers.take()
        driver.start(output.arguments(proxy.endpoint_url))
        ended = driver.wait()
        assert ended.code == 0, ended.log.read_text()
        requests = proxy.requests
    ground.drivers.give_back(driver)
    ground.undisturbed_s = ended.summary["seconds"]
    ground.usual_requests = dict(Counter(_fetched(requests, output.paths[0] + "/v1")))
    write_reference(output.download(), prefixes, ground.reference)


def _fetched(requests: Iterable[str], prefix: str) -> Iterator[str]:
    """The objects of which a body was asked for, once for each request."""
    begins = f"GET {prefix}/"
    return (request.removeprefix(begins) for request in requests if request.startswith(begins))


def _write_weights(folder: Path) -> None:
    config = PVTv2Config(
        embed_dims=(8, 16, 40, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 5, 8), mlp_ratios=(2, 2, 2, 2),
        sr_ratios=(8, 4, 2, 1), num_classes=10,
    )  # fmt: skip
    save_checkpoint(random_weights(config, 0), config, LABELS, folder)
