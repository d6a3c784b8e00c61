"""Checks that the nodes of the cluster have the versions of the driver and see the local paths of the run."""

import importlib.metadata
import logging
import platform
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.cluster.tokens import asks_for_token
from pipeline.errors import ConfigError

logger = logging.getLogger(__name__)

# Packages whose versions must agree between driver and workers, since their objects travel between them.
_SHARED_PACKAGES = ("ray", "pyarrow", "numpy")


_NEEDED_PACKAGES = (*_SHARED_PACKAGES, "torch", "pillow", "simplejpeg", "obstore", "boto3", "safetensors")


_PROBE_TIMEOUT_S = 120.0


def living_nodes() -> list[dict[str, Any]]:
    """Returns Ray's description of each node that is alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def check_nodes(nodes: list[dict], local_paths: list[Path]) -> dict[str, bool]:
    """Checks that every node has the needed packages, the versions of the driver, and the local paths.

    Returns:
        For the address of each node, True if the node asks other processes for a token.

    Raises:
        ConfigError: A node fails the check; the message names the node and the reason.
    """
    here = _versions()
    probe = ray.remote(num_cpus=0, max_retries=1)(_probe)
    # Nodes are asked by id, since several nodes may share a host.
    asked = {
        node["NodeID"]: probe.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote([str(path) for path in local_paths])
        for node in nodes
    }
    asks: dict[str, bool] = {}
    for node in nodes:
        name, reference = node["NodeManagerHostname"], asked[node["NodeID"]]
        try:
            versions, unseen, asks_for_token = ray.get(reference, timeout=_PROBE_TIMEOUT_S)
        except ray.exceptions.RuntimeEnvSetupError as error:
            raise ConfigError(f"node {name} cannot set up the job's code: {one_line(error)}") from error
        except ray.exceptions.GetTimeoutError as error:
            raise ConfigError(f"node {name} did not answer within {_PROBE_TIMEOUT_S:.0f} s") from error
        except ray.exceptions.RayError as error:
            if node["NodeID"] not in {living["NodeID"] for living in living_nodes()}:
                logger.warning("node.gone node=%s: the node was lost while it was checked", name)
                continue
            raise ConfigError(f"node {name} cannot run this code: {one_line(error)}") from error
        if missing := [package for package in _NEEDED_PACKAGES if versions.get(package) is None]:
            raise ConfigError(
                f"node {name} lacks {', '.join(missing)}: install the same packages on every node (pip install .)"
            )
        for package in ("python", *_SHARED_PACKAGES):
            if versions[package] != here[package]:
                raise ConfigError(
                    f"node {name} has {package} {versions[package]}, this driver {here[package]}; they must be equal"
                )
        if unseen:
            raise ConfigError(
                f"node {name} does not see {', '.join(unseen)}: on a cluster of several nodes use s3:// URIs, "
                "or a file system that every node mounts at the same path"
            )
        host = node["NodeManagerAddress"]
        asks[host] = asks_for_token and asks.get(host, True)
    return asks


def _probe(paths: list[str]) -> tuple[dict[str, str | None], list[str], bool]:
    """Returns this node's package versions, the paths that do not exist here, and True if the node asks for a token.

    The worker process that runs this function has the environment of its node.
    """
    return _versions(), [path for path in paths if not Path(path).exists()], asks_for_token()


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _NEEDED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text that is not empty; the name of the error's type without such a line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def one_line(error: BaseException) -> str:
    """Returns the text of an error as one line of at most 400 characters."""
    return " ".join(str(error).split())[:400]
