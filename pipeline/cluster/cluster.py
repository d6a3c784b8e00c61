"""Starts or joins a Ray cluster, checks its nodes before the work begins, and leaves the cluster at the end."""

import gc
import logging
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from pipeline.cluster.config import ComputeConfig
from pipeline.cluster.nodes import check_nodes, first_line, living_nodes, one_line
from pipeline.cluster.tokens import check_not_open, check_sends_token, is_loopback
from pipeline.errors import ConfigError, IncompleteError

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent.parent
# Ray sets this variable in the driver of a submitted job. Then every node has the working directory of the job.
_SUBMITTED_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_CONNECT_TIMEOUT_S = 5.0
_LOOK_EVERY_S = 0.5
_OBJECT_STORE = "object_store_memory"
_SLOW_START = "timed out during startup"
_LOCAL_OBJECT_STORE_BYTES = 2 * 2**30
_KEEP_IDLE_WORKERS_MS = 600_000

NO_ROOM_ERRORS = (ray.exceptions.OutOfDiskError, ray.exceptions.ObjectStoreFullError)
"""Errors of Ray if neither its object store nor the disk that it spills to has room for an object."""

NO_ROOM = (
    "Ray's object store is full on a node, and so is the disk that it spills to: make room there, end what else fills "
    "the store, or start Ray with a larger --object-store-memory"
)
"""Sentence that explains `NO_ROOM_ERRORS` to the user."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The processors of the joined cluster.

    Attributes:
        num_cpus, num_gpus: Processors of all nodes together.
        idle_nodes: Ids of the nodes without CPUs, such as a head node that must do no work.
    """

    num_cpus: float
    num_gpus: float
    idle_nodes: tuple[str, ...]


@contextmanager
def joined_cluster(config: ComputeConfig, local_paths: Iterable[Path]) -> Iterator[Cluster]:
    """Joins the given cluster, or starts a local Ray, until the block ends; gives the processors of the cluster.

    Args:
        config: Settings of the cluster.
        local_paths: Files and folders on a local disk that the run needs; every node must see them.

    Raises:
        ConfigError: No cluster answers, the cluster is open to others, or a node has other versions, lacks packages or
            does not see a local path.
    """
    address = config.ray_address or os.environ.get("RAY_ADDRESS")
    submitted = _SUBMITTED_JOB in os.environ
    # The variable keeps Ray from overriding the visible devices of tasks that ask for no GPU, and from warning of that
    # in every run.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Without this variable, Ray would retry for ever a task that is killed because of its memory.
    os.environ.setdefault("RAY_task_oom_retries", "2")
    # Starting a process takes seconds of a core. By default Ray ends a process that idles for a second, and soon starts
    # another process.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", str(_KEEP_IDLE_WORKERS_MS))
    # Ray replaces the job's signal handler with its own.
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        _join_patiently(address, submitted, config.allow_no_token)
    except SystemExit:
        # Ray's handler of SIGTERM raises `SystemExit`; the job handles the signal as an interrupt.
        ray.shutdown()
        raise KeyboardInterrupt from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)
    try:
        # A local Ray runs on this machine in this environment, so there is nothing to check.
        if address is not None or submitted:
            asks = check_nodes(living_nodes(), list(local_paths))
            if not config.allow_no_token:
                check_not_open(asks, submitted)
        yield _look()
    finally:
        ray.shutdown()


def look_at_cluster() -> Cluster | None:
    """Returns the processors that the joined cluster has now; None if the cluster does not answer."""
    try:
        return _look()
    except ray.exceptions.RayError as error:
        logger.warning("cluster.unknown error=%s", first_line(error))
        return None


def wait_until_free(fits: Callable[[float, float], bool], timeout_s: float) -> bool:
    """Waits until the processors of an ended pass are free; returns False if the time is over.

    Ray ends an actor when the last reference to the actor is gone. Ray Data drops its references when a pass ends, and
    Python's garbage collector, which runs here, removes the last references.

    Args:
        fits: Function that gets the free CPUs and the free GPUs, and returns True if both suffice.
        timeout_s: Seconds to wait.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        gc.collect()
        try:
            free = ray.available_resources()
            if fits(free.get("CPU", 0.0), free.get("GPU", 0.0)):
                return True
        except ray.exceptions.RayError as error:
            logger.warning("cluster.unknown error=%s", first_line(error))
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY_S)


def _look() -> Cluster:
    nodes = living_nodes()
    resources = [node["Resources"] for node in nodes]
    return Cluster(
        num_cpus=sum(each.get("CPU", 0.0) for each in resources),
        num_gpus=sum(each.get("GPU", 0.0) for each in resources),
        idle_nodes=tuple(node["NodeID"] for node in nodes if not node["Resources"].get("CPU")),
    )


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Makes a Ray that starts in the block listen only on the loopback.

    By default Ray uses the machine's address in the network and listens on all addresses; on Linux Ray has no setting
    for the loopback. On macOS and Windows Ray supports no clusters, and so listens on the loopback. The block sets
    Ray's constant that says whether clusters are supported to False.
    """
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def put_object(data: bytes) -> Any:
    """Puts some bytes into Ray's object store, which copies them to each node once; returns a reference to them.

    Raises:
        IncompleteError: The object store has no room for the bytes.
    """
    try:
        return ray.put(np.frombuffer(data, np.uint8))
    except NO_ROOM_ERRORS as error:
        raise IncompleteError(f"{NO_ROOM} ({first_line(error)})") from error


def object_store_use() -> float:
    """Returns the share of the cluster's object stores that is in use."""
    total = ray.cluster_resources().get(_OBJECT_STORE, 0.0)
    # Ray leaves the entry out if nothing is available.
    return 1 - ray.available_resources().get(_OBJECT_STORE, 0.0) / total if total else 0.0


def _check_address(address: str, allow_no_token: bool) -> None:
    """Checks that a Ray cluster listens at an address; Ray itself would keep trying for minutes.

    Raises:
        ConfigError: The address has an unsupported form, no cluster listens there, or the address belongs to another
            machine and this process would send no token.
    """
    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"{address} is a dashboard, which takes jobs: RAY_ADDRESS={address} ray job submit --working-dir . "
            "-- python jobs/classify.py ...; or give --ray-address HOST:6379"
        )
    if address.startswith("ray://"):
        raise ConfigError(f"{address}: Ray Client is not supported; give --ray-address HOST:6379, or submit a job")
    host, separator, port = address.rpartition(":")
    if not separator:
        return  # The address is a word such as "auto".
    if not allow_no_token:
        check_sends_token(address, host)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S):
            pass
    except (OSError, ValueError) as error:
        raise ConfigError(f"no Ray cluster answers at {address}: {error}") from error


def _join_patiently(address: str | None, submitted: bool, allow_no_token: bool) -> None:
    """Joins a cluster, or starts a local Ray. A start that times out on a busy machine is tried once more."""
    try:
        _join(address, submitted, allow_no_token)
    except ConfigError as error:
        if address is not None or submitted or _SLOW_START not in str(error):
            raise
        logger.warning("ray.slow_start error=%s; trying once more", error)
        ray.shutdown()
        _join(address, submitted, allow_no_token)


def _join(address: str | None, submitted: bool, allow_no_token: bool) -> None:
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING, "configure_logging": False}
    try:
        if submitted:
            ray.init(**common)
        elif address is None:
            with _on_loopback():
                ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
                    **common,
                )
        else:
            _check_address(address, allow_no_token)
            excludes = [".git", ".venv", "tests", "benchmarks"]
            # Ray must not treat a cluster on the loopback as a cluster in the network.
            with _on_loopback() if is_loopback(address.rpartition(":")[0]) else nullcontext():
                ray.init(address=address, runtime_env={"working_dir": str(ROOT), "excludes": excludes}, **common)
    except (ConnectionError, TimeoutError) as error:
        # Ray raises the same error for a wrong token.
        raise ConfigError(
            f"no Ray cluster answers at {address}: {first_line(error)}; is it up, and is its token the one here?"
        ) from error
    except ConfigError:
        raise
    except Exception as error:  # Ray raises plain exceptions, too.
        if "ersion mismatch" in str(error):
            raise ConfigError(
                f"the cluster at {address} runs other versions than this driver: {one_line(error)}; "
                f"here are Ray {ray.__version__} and Python {platform.python_version()}"
            ) from error
        raise ConfigError(f"Ray could not be {'joined' if address else 'started'}: {one_line(error)}") from error
