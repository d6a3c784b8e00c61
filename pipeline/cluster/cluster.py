"""The Ray cluster: started or joined, looked over before the work begins, and left again."""

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
# Set by Ray in the driver of a submitted job; the job's working directory is on every node then.
_SUBMITTED_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_CONNECT_TIMEOUT_S = 5.0
_LOOK_EVERY_S = 0.5
_OBJECT_STORE = "object_store_memory"
_SLOW_START = "timed out during startup"
_LOCAL_OBJECT_STORE_BYTES = 2 * 2**30
_KEEP_IDLE_WORKERS_MS = 600_000

NO_ROOM_ERRORS = (ray.exceptions.OutOfDiskError, ray.exceptions.ObjectStoreFullError)
"""What Ray raises where it can put an object neither into its object store nor on the disk that it spills to."""

NO_ROOM = (
    "Ray's object store is full on a node, and so is the disk that it spills to: make room there, end what else fills "
    "the store, or start Ray with a larger --object-store-memory"
)
"""What is said then."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the joined cluster has.

    Attributes:
        num_cpus, num_gpus: of all nodes together.
        idle_nodes: ids of the nodes without processors, where others have some: heads that are to do nothing else.
    """

    num_cpus: float
    num_gpus: float
    idle_nodes: tuple[str, ...]


@contextmanager
def joined_cluster(config: ComputeConfig, local_paths: Iterable[Path]) -> Iterator[Cluster]:
    """A cluster that is ready for work: the given one, or a local Ray that ends with the block.

    Args:
        local_paths: files and folders on a local disk that the run needs; every node must see them.

    Raises:
        ConfigError: no cluster there, one that is open to others, other versions, missing packages, or a node that
            does not see a local path.
    """
    address = config.ray_address or os.environ.get("RAY_ADDRESS")
    submitted = _SUBMITTED_JOB in os.environ
    # Of no use on a worker that has no accelerator, and a warning in every run: the variable keeps Ray from
    # overriding the visible devices of tasks that ask for no GPU.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A task that is killed for its memory would be tried again for ever.
    os.environ.setdefault("RAY_task_oom_retries", "2")
    # A process takes seconds of a core to start. Ray would end those that idle for a second, and start others soon.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", str(_KEEP_IDLE_WORKERS_MS))
    # Ray puts a handler of its own in place of the job's.
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        _join_patiently(address, submitted, config.allow_no_token)
    except SystemExit:
        # What that handler does; to the job it is a signal like any other.
        ray.shutdown()
        raise KeyboardInterrupt from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)
    try:
        # A local Ray is this machine with this very environment: there is nothing to ask.
        if address is not None or submitted:
            asks = check_nodes(living_nodes(), list(local_paths))
            if not config.allow_no_token:
                check_not_open(asks, submitted)
        yield _look()
    finally:
        ray.shutdown()


def look_at_cluster() -> Cluster | None:
    """What the joined cluster has at the moment; None if it does not say."""
    try:
        return _look()
    except ray.exceptions.RayError as error:
        logger.warning("cluster.unknown error=%s", first_line(error))
        return None


def wait_until_free(fits: Callable[[float, float], bool], timeout_s: float) -> bool:
    """Waits for what a pass that was given up had: Ray Data lets go of its actors, and the last reference ends them.

    Args:
        fits: asked with the CPUs and GPUs that nobody has.

    Returns:
        False if the time is over.
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
    """A Ray that starts here listens on the loopback alone.

    Else it takes the machine's address in its network, and listens on all. Ray has no setting for it on Linux; it does
    so where clusters are not supported, on macOS and Windows, and this is what it goes by.
    """
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def put_object(data: bytes) -> Any:
    """A reference to some bytes in Ray's object store, which brings them to each node once.

    Raises:
        IncompleteError: there is no room for them.
    """
    try:
        return ray.put(np.frombuffer(data, np.uint8))
    except NO_ROOM_ERRORS as error:
        raise IncompleteError(f"{NO_ROOM} ({first_line(error)})") from error


def object_store_use() -> float:
    """Which part of the cluster's object stores is in use."""
    total = ray.cluster_resources().get(_OBJECT_STORE, 0.0)
    # Where nothing is available, it is not named at all.
    return 1 - ray.available_resources().get(_OBJECT_STORE, 0.0) / total if total else 0.0


def _check_address(address: str, allow_no_token: bool) -> None:
    """Ray itself would keep trying for minutes where nobody listens.

    Raises:
        ConfigError: the address is of another kind, nobody listens there, or it is another machine's and would be shown
            no token.
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
        return  # "auto" and the like
    if not allow_no_token:
        check_sends_token(address, host)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S):
            pass
    except (OSError, ValueError) as error:
        raise ConfigError(f"no Ray cluster answers at {address}: {error}") from error


def _join_patiently(address: str | None, submitted: bool, allow_no_token: bool) -> None:
    """Joins, or starts a local Ray; on a machine that is very busy its processes may need a second attempt."""
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
            # An address on the loopback is no other one.
            with _on_loopback() if is_loopback(address.rpartition(":")[0]) else nullcontext():
                ray.init(address=address, runtime_env={"working_dir": str(ROOT), "excludes": excludes}, **common)
    except (ConnectionError, TimeoutError) as error:
        # Who shows a token that is not the cluster's hears nothing of that, either.
        raise ConfigError(
            f"no Ray cluster answers at {address}: {first_line(error)}; is it up, and is its token the one here?"
        ) from error
    except ConfigError:
        raise
    except Exception as error:  # Ray raises bare ones, too
        if "ersion mismatch" in str(error):
            raise ConfigError(
                f"the cluster at {address} runs other versions than this driver: {one_line(error)}; "
                f"here are Ray {ray.__version__} and Python {platform.python_version()}"
            ) from error
        raise ConfigError(f"Ray could not be {'joined' if address else 'started'}: {one_line(error)}") from error
