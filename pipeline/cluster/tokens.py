"""Whether a Ray cluster may be reached by others, and asks them for a token.

Whoever reaches a Ray cluster runs code on it, with the credentials of its nodes. Ray 2.60 asks for a token where it was
started with RAY_AUTH_MODE=token; else everybody is let in. On the loopback only this machine's users get that far.
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
"""What to do about a cluster that is open."""


def is_loopback(host: str) -> bool:
    """True if a host's name or address leads to this machine's loopback, whichever of its addresses is taken.

    A name that is not known may be another machine's.
    """
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)}
        return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)
    except (OSError, ValueError):
        return False


def asks_for_token(environ: Mapping[str, str] | None = None) -> bool:
    """True if the processes of a Ray node with this environment ask for a token, and show theirs."""
    environ = os.environ if environ is None else environ
    return environ.get("RAY_AUTH_MODE", "").lower() == "token"


def sends_token(environ: Mapping[str, str] | None = None) -> bool:
    """True if Ray, in a process of this environment, shows a token to the cluster whose address it is given.

    With an address it never does so by itself: the mode must be set, whatever token there is.
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
    """Refuses a cluster on another machine to which no token would be shown, before anything is sent there.

    Raises:
        ConfigError: that is so.
    """
    if not is_loopback(host) and not sends_token():
        raise ConfigError(
            f"{address} is no loopback address, and no token is shown to it: whoever reaches a Ray cluster without "
            f"tokens runs code there, with the credentials of its nodes; {REMEDY}"
        )


def open_node(asks: Mapping[str, bool]) -> str | None:
    """The first of some nodes, as address -> whether it asks for a token, that is open to others; None if none is."""
    return next((host for host, is_asked in asks.items() if not is_asked and not is_loopback(host)), None)


def check_not_open(asks: Mapping[str, bool], submitted: bool) -> None:
    """Refuses a cluster that lets everybody in, whatever was shown to it.

    A submitted job is told so, and goes on: it is on the cluster already, whose nodes are no safer without it.

    Args:
        asks: address of each node -> whether it asks for a token.

    Raises:
        ConfigError: such a node is not on the loopback.
    """
    host = open_node(asks)
    if host is None:
        return
    if submitted:
        logger.warning("cluster.open node=%s: it asks for no token; %s", host, REMEDY)
        return
    raise ConfigError(f"the cluster's node {host} asks for no token, and lets in whoever reaches it: {REMEDY}")
