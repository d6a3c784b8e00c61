"""Where a Ray listens that a job starts for itself."""

import ipaddress
import socket

import psutil
import pytest


def listening(process):
    """The addresses on which a process and its children wait for connections."""
    found = set()
    for each in [process, *process.children(recursive=True)]:
        try:
            connections = each.net_connections("inet")
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
        found |= {(each.name(), *here.laddr) for here in connections if here.status == psutil.CONN_LISTEN}
    return found


def elsewhere(found):
    """Those of the addresses that other machines reach."""
    return {entry for entry in found if not ipaddress.ip_address(entry[1].removeprefix("::ffff:")).is_loopback}


@pytest.mark.usefixtures("warm_ray")
def test_a_local_ray_listens_on_the_loopback_alone():
    found = listening(psutil.Process())
    # Of them are the cluster's head, the node, its workers and its metrics.
    assert len(found) >= 4
    assert not elsewhere(found)


def test_what_listens_to_other_machines_is_noticed():
    with socket.create_server(("0.0.0.0", 0)):
        assert len(elsewhere(listening(psutil.Process()))) == 1
