"""Checks whether others can reach a Ray cluster without a token.

Anyone who reaches a Ray cluster can run code on the cluster with the credentials of its nodes. A cluster of Ray 2.60
asks for a token if the cluster was started with RAY_AUTH_MODE=token; else the cluster lets everybody in. Only users of
the same machine reach a cluster on the loopback.
"""

import ipaddress
import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ConfigError

logger = logging.getLogger(__name__)

REMEDY = (
    "start all of its nodes with RAY_AUTH_MODE=token, and set RAY_AUTH_MODE=token here, with the same token in "
    "RAY_AUTH_TOKEN_PATH, RAY_AUTH_TOKEN or ~/.ray/auth_token (ray get-auth-token --generate makes one); or give "
    "--allow-no-token where the network lets nobody else reach it"
)
"""Advice to the user about a cluster that is open."""


def is_loopback(host: str) -> bool:
    """Returns True if all addresses of a host, given by name or address, lie on the loopback of this machine.

    An unknown name may belong to another machine, so the result for an unknown name is False.
    """
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)}
        return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)
    except (OSError, ValueError):
        return False


def asks_for_token(environ: Mapping[str, str] | None = None) -> bool:
    """Returns True if Ray processes in this environment ask other processes for a token and send a token themselves."""
    environ = os.environ if environ is None else environ
    return environ.get("RAY_AUTH_MODE", "").lower() == "token"


def sends_token(environ: Mapping[str, str] | None = None) -> bool:
    """Returns True if a process with this environment sends a token to a cluster that it joins by address.

    `RAY_AUTH_MODE` must be set: without the mode, Ray sends no token to an address, even if Ray finds a token.
    """
    environ = os.environ if environ is None else environ
    if not asks_for_token(environ):
        return False
    if environ.get("RAY_AUTH_TOKEN"):
        return True
    path = environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        return bool((Path(path) if path else Path.home() / ".ray" / "auth_token").read_text().strip())
    except (OSError, ValueError, RuntimeError):
        return False


def check_sends_token(address: str, host: str) -> None:
    """Refuses a cluster on another machine if this process would send no token to the cluster.

    The check itself sends nothing to the cluster.

    Raises:
        ConfigError: The cluster is on another machine, and this process would send it no token.
    """
    if not is_loopback(host) and not sends_token():
        raise ConfigError(
            f"{address} is no loopback address, and no token is shown to it: anyone who reaches a Ray cluster without "
            f"tokens runs code there, with the credentials of its nodes; {REMEDY}"
        )


def open_node(asks: Mapping[str, bool]) -> str | None:
    """Returns the address of the first node that is open to others; None if no node is open.

    A node is open if the node asks for no token and is not on the loopback.

    Args:
        asks: For the address of each node, True if the node asks for a token.
    """
    return next((host for host, is_asked in asks.items() if not is_asked and not is_loopback(host)), None)


def check_not_open(asks: Mapping[str, bool], submitted: bool) -> None:
    """Refuses a cluster that lets everybody in, even if this process has sent a token.

    In a submitted job the check only logs a warning: the job runs on the cluster already, and ending the job would not
    make the nodes safer.

    Args:
        asks: For the address of each node, True if the node asks for a token.
        submitted: True if Ray runs this process as a submitted job.

    Raises:
        ConfigError: A node asks for no token and is not on the loopback.
    """
    host = open_node(asks)
    if host is None:
        return
    if submitted:
        logger.warning("cluster.open node=%s: it asks for no token; %s", host, REMEDY)
        return
    raise ConfigError(f"the cluster's node {host} asks for no token, and lets in anyone who reaches it: {REMEDY}")
